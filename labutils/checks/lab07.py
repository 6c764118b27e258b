"""Lab 07: ranges by percentile, squared error and KL divergence, and the moving average."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, wraps

import numpy as np

from labutils import answers, calibration, data
from labutils.affine import fake_quantize, qparams_of_range
from labutils.checks.engine import Case, Exercise, Misconception, Wrong, as_number, parts
from labutils.scheme import Scheme

LAB = "07_calibration"
HAND = np.array([0.5, -8.0, 1.5, -0.25, 3.0], dtype=np.float32)  # of the lesson: the 75th percentile of |x| is 3


@cache
def _activations() -> np.ndarray:
    """What leaves a layer of the digits network for one image, after its ReLU6: (1, 32, 8, 8)."""
    images, _ = data.digits("train")
    return np.ascontiguousarray(data.digits_network().activations(images[:1])["block1.depthwise"])


def _gelu(x: np.ndarray) -> np.ndarray:
    """Lopsided: a short side below zero, a long one above."""
    return (x / (1 + np.exp(-1.702 * x))).astype(np.float32)


def read_range(value: object) -> dict:
    """The answer of a calibration function: two numbers."""
    low, high = parts(value, ("low", "high"))
    return {"low": as_number(low, "low"), "high": as_number(high, "high")}


def _require_range(answer: dict, symmetric: bool) -> tuple[float, float]:
    low, high = answer["low"], answer["high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Wrong(f"the range should have finite ends, but it is ({low:g}, {high:g})")
    if low > high:
        raise Wrong(f"the range should reach from low up to high, but it is ({low:.6g}, {high:.6g})")
    if symmetric and not math.isclose(low, -high, rel_tol=1e-5):
        raise Wrong(f"a symmetric range reaches equally far both ways, but yours is ({low:.6g}, {high:.6g})")
    return low, high


# --- percentile_range -------------------------------------------------------------------------------------------------


def _percentile_cases() -> list[Case]:
    rng = np.random.default_rng(7)
    gaussian = rng.normal(size=20_000).astype(np.float32)
    lopsided = _gelu(2 * gaussian)
    spiked = np.append(gaussian[:3000], np.full(30, -25.0)).astype(np.float32)
    apart = {"symmetric": False}
    return [
        Case("the worked example", (HAND, 75)),
        Case("the worked example, asymmetric", (HAND, 75), apart),
        Case("a Gaussian; symmetric at 99.9 is the default", (gaussian,)),
        Case("activations of the digits network, 99 percent", (_activations(), 99)),
        Case("a long side below zero", (-lopsided, 99.9)),
        Case("a long side below zero, asymmetric", (-lopsided, 99), apart),
        Case("a long side above zero, asymmetric", (lopsided, 99.9), apart),
        Case("30 outliers in 3030 values", (spiked, 98)),
        Case("all but the last of them", (spiked, 99.9), apart),
        Case("the 100th percentile", (gaussian[:500], 100)),
        Case("the 100th percentile, asymmetric", (lopsided[:500], 100), apart),
        Case("a strided view, 3 axes", (gaussian.reshape(20, 25, 40)[:, :, ::2], 99.5)),
        Case("all zero", (np.zeros(12, dtype=np.float32), 99)),
        Case("one element", (np.array([-0.7], dtype=np.float32), 99)),
        Case("float64 input", (gaussian[:1000].astype(np.float64), 95), apart),
    ]


def _judge_percentile(answer: dict, case: Case) -> None:
    x, percentile = case.args[0], case.args[1] if len(case.args) > 1 else 99.9
    symmetric = case.kwargs.get("symmetric", True)
    low, high = _require_range(answer, symmetric)
    if symmetric:
        _judge_rank(high, np.abs(x), percentile, f"the threshold should be the {percentile:g}th percentile of |x|")
        return
    rest = (100 - percentile) / 2
    _judge_rank(low, x, rest, f"{rest:g}% of the values should lie below low")
    _judge_rank(high, x, 100 - rest, f"{rest:g}% of the values should lie above high")


def _judge_rank(value: float, x: np.ndarray, percentile: float, demand: str) -> None:
    """However it is interpolated, a percentile lies between the neighbours of its rank."""
    ordered = np.sort(x, axis=None).astype(np.float64)
    rank = math.floor(percentile / 100 * (ordered.size - 1))
    least, most = ordered[max(rank - 1, 0)], ordered[min(rank + 2, ordered.size - 1)]
    slack = 1e-5 * abs(value)
    if not least - slack <= value <= most + slack:
        raise Wrong(f"{demand}: that is {np.percentile(x, percentile):.5g}, but it is {value:.5g}")


def _both_ways(threshold: Callable) -> Callable:
    """Wrong in the symmetric half, right in the other."""

    def percentile_range(x, percentile=99.9, symmetric=True):
        if not symmetric:
            return answers.percentile_range(x, percentile, False)
        t = threshold(x, percentile)
        return -t, t

    return percentile_range


def _apart(ends: Callable) -> Callable:
    """Right in the symmetric half, wrong in the other."""

    def percentile_range(x, percentile=99.9, symmetric=True):
        return answers.percentile_range(x, percentile) if symmetric else ends(x, percentile)

    return percentile_range


def _returning(reference: Callable, what: Callable) -> Callable:
    """The right range, of which `what(low, high)` is returned."""

    @wraps(reference)
    def returning(*args, **kwargs):
        return what(*reference(*args, **kwargs))

    return returning


def _at_any(x: np.ndarray, percentile: float, symmetric: bool) -> tuple:
    """As the reference, for a percentile that it would refuse."""
    if symmetric:
        t = np.percentile(np.abs(x), percentile)
        return -t, t
    return tuple(np.percentile(x, [(100 - percentile) / 2, (100 + percentile) / 2]))


PERCENTILE_RANGE = (
    Misconception(
        "the percentile of x instead of |x|",
        _both_ways(lambda x, p: np.percentile(x, p)),
        "A symmetric range cuts at both ends. The percentile of x counts only what is cut above, and where the long "
        "side is below zero it sees nothing of it.",
    ),
    Misconception(
        "only the upper end is cut",
        lambda x, p=99.9, symmetric=True: (x.min(), np.percentile(x, p)),
        "Outliers may lie below zero as well: low is the minimum here, whatever it is.",
    ),
    Misconception(
        "a range from zero",
        lambda x, p=99.9, symmetric=True: (0.0, np.percentile(np.abs(x), p)),
        "The percentile of |x| is a threshold. A symmetric range reaches as far below zero as above it.",
    ),
    Misconception(
        "a fraction where percent are meant",
        lambda x, p=99.9, symmetric=True: _at_any(x, p / 100, symmetric),
        "`np.percentile` takes percent, 99.9 and not 0.999: yours keeps less than one value of a hundred.",
    ),
    Misconception(
        "percent where a fraction is meant",
        lambda x, p=99.9, symmetric=True: (-np.quantile(np.abs(x), p), np.quantile(np.abs(x), p)),
        "`np.quantile` takes a fraction from 0 to 1, and `percentile` is in percent: divide by 100, or use another "
        "function.",
    ),
    Misconception(
        "each end loses the whole rest",
        _apart(lambda x, p: (np.percentile(x, 100 - p), np.percentile(x, p))),
        "At 99 percent, 1 percent may lie outside: half a percent on each side. Yours leaves out 1 percent on each.",
    ),
    Misconception(
        "symmetric, whatever was asked for",
        lambda x, p=99.9, symmetric=True: answers.percentile_range(x, p),
        "`symmetric=False` asks for two ends that are chosen apart, each with half of the rest beyond it.",
    ),
    Misconception(
        "asymmetric, whatever was asked for",
        lambda x, p=99.9, symmetric=True: answers.percentile_range(x, p, False),
        "`symmetric=True` asks for one threshold t, for values of both signs, and the range (-t, t).",
    ),
    Misconception(
        "the wider of two ends",
        _both_ways(lambda x, p: max(map(abs, answers.percentile_range(x, p, False)))),
        "The ends of the asymmetric range have half of the rest beyond each. For a symmetric one, sort by magnitude: "
        "the percentile of |x|.",
    ),
    Misconception(
        "a share of the largest magnitude",
        lambda x, p=99.9, symmetric=True: (-p / 100 * np.abs(x).max(), p / 100 * np.abs(x).max()),
        "A percentile is about how many values lie below it, not about how large the largest is: 99.9% of max|x| is "
        "next to max|x|.",
    ),
    Misconception(
        "the largest magnitude, whatever was asked for",
        lambda x, p=99.9, symmetric=True: answers.percentile_range(x, 100, symmetric),
        "That is min-max: nothing is cut off. Use `percentile`.",
    ),
    Misconception(
        "99.9 at every percentile",
        lambda x, p=99.9, symmetric=True: answers.percentile_range(x, 99.9, symmetric),
        "99.9 is the default only. Use `percentile`.",
    ),
    Misconception(
        "zeros are left out",
        lambda x, p=99.9, symmetric=True: answers.percentile_range(x[x != 0] if x.any() else x, p, symmetric),
        "After a ReLU half of the values are 0. They count: the percentile is of all values.",
    ),
    Misconception(
        "a range for each row",
        lambda x, p=99.9, symmetric=True: (
            -np.percentile(np.abs(x), p, axis=-1, keepdims=True), np.percentile(np.abs(x), p, axis=-1, keepdims=True)
        ) if x.ndim > 1 else answers.percentile_range(x, p, symmetric),
        "One range for the whole tensor: take the percentile over all values, without an axis.",
    ),
    Misconception(
        "returns the threshold alone",
        _returning(answers.percentile_range, lambda low, high: high),
        "The contract is two values, low and high, also where low is just -high.",
    ),
    Misconception(
        "returns high before low",
        _returning(answers.percentile_range, lambda low, high: (high, low)),
        "The contract is low before high: the smaller end first.",
    ),
)  # fmt: skip


# --- mse_range --------------------------------------------------------------------------------------------------------


def _mse_cases() -> list[Case]:
    rng = np.random.default_rng(8)
    gaussian = rng.normal(size=3000).astype(np.float32)
    laplace = rng.laplace(size=3000).astype(np.float32)
    lopsided = _gelu(2 * gaussian)
    one_sided = np.append(gaussian, 25.0).astype(np.float32)
    spiked = np.append(gaussian[:2000], [-40.0, 30.0]).astype(np.float32)
    apart = {"symmetric": False}
    return [
        Case("a Gaussian at 4 bits", (gaussian, 4)),
        Case("a Laplace source at 4 bits", (laplace, 4)),
        Case("a Laplace source at 3 bits", (laplace, 3)),
        Case("symmetric at 8 bits is the default", (laplace,)),
        Case("two outliers at 6 bits", (spiked, 6)),
        Case("activations of the digits network at 4 bits", (_activations(), 4)),
        Case("activations of the digits network at 4 bits, asymmetric", (_activations(), 4), apart),
        Case("a short side below zero at 4 bits, asymmetric", (lopsided, 4), apart),
        Case("a short side above zero at 3 bits, asymmetric", (-lopsided, 3), apart),
        Case("one outlier above zero at 3 bits, asymmetric", (one_sided, 3), apart),
        Case("two outliers at 4 bits, asymmetric", (spiked, 4), apart),
        Case("far from zero, asymmetric", (np.abs(gaussian[:2000]) + np.float32(3), 4), apart),
        Case("a uniform source, where clipping gains nothing", (rng.uniform(-1, 1, 3000).astype(np.float32), 6)),
        Case("values a million times smaller", (laplace[:2000] * np.float32(1e-6), 4)),
        Case("all zero", (np.zeros(8, dtype=np.float32), 4)),
        Case("a constant", (np.full(6, -0.3, dtype=np.float32), 4)),
    ]


def _losses(x: np.ndarray, low: float, high: float, scheme: Scheme) -> tuple[float, float]:
    """The mean squared error, with the code -2^(b-1) for values far below and without it."""
    qparams = qparams_of_range(low, high, scheme, like=x)
    ends = -float(qparams[0]) * scheme.quant_max, float(qparams[0]) * scheme.quant_max
    inside = np.clip(x, *ends) if scheme.symmetric else x
    return tuple(
        float(np.mean((x.astype(np.float64) - fake_quantize(source, scheme, qparams)) ** 2)) for source in (x, inside)
    )


def _judge_mse(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.args[1] if len(case.args) > 1 else 8
    symmetric = case.kwargs.get("symmetric", True)
    low, high = _require_range(answer, symmetric)
    if low == high == 0 and x.any():
        raise Wrong("the range is (0, 0), into which no value fits")
    scheme, best = Scheme(num_bits, symmetric=symmetric), answers.mse_range(x, num_bits, symmetric)
    yours, least = _losses(x, low, high, scheme), _losses(x, *best, scheme)
    rounding = (1e-6 * float(np.abs(x).max())) ** 2  # of float32
    # The error is flat near its minimum: a search over 50 candidates for each end comes this near.
    if all(mine > 1.05 * theirs + rounding for mine, theirs in zip(yours, least)):
        raise Wrong(
            f"the range ({low:.4g}, {high:.4g}) has a mean squared error of {min(yours):.3g}, "
            f"but ({best[0]:.4g}, {best[1]:.4g}) has {min(least):.3g}"
        )


FRACTIONS = np.linspace(0.02, 1, 50)


def _searching(loss: Callable, fractions: np.ndarray = FRACTIONS, bits: Callable = lambda b: b) -> Callable:
    """Searches with `loss(x, back, low, high, step)`, one end after the other where they are apart."""

    def mse_range(x, num_bits=8, symmetric=True):
        num_bits = bits(num_bits)

        def lost(low, high):
            levels = 2 ** (num_bits - 1) - 1 if symmetric else 2**num_bits - 1
            step = (high if symmetric else high - low) / levels
            zero = 0.0 if symmetric else np.round(-low / step)
            least, most = (-levels, levels) if symmetric else (0, levels)
            back = (np.clip(np.round(x / step) + zero, least, most) - zero) * step
            return loss(x, back, low, high, step)

        def best(ends):
            return ends[int(np.argmin([lost(*end) for end in ends]))]

        largest = float(np.abs(x).max())
        if symmetric:
            return best([(-f * largest, f * largest) for f in fractions])
        first, last = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        low, high = best([(max(first, -f * largest), min(last, f * largest)) for f in fractions])
        for _ in range(2):
            low, high = best([(low, f * last) for f in fractions if f * last > low])
            low, high = best([(f * first, high) for f in fractions if high > f * first])
        return low, high

    return mse_range


def _squared(x, back, low, high, step):
    return np.mean((x - back) ** 2)


def _ends(ends: Callable) -> Callable:
    """Right in the symmetric half, `ends(x, num_bits)` in the other."""

    def mse_range(x, num_bits=8, symmetric=True):
        return answers.mse_range(x, num_bits) if symmetric else ends(x, num_bits)

    return mse_range


def _shrunk(x: np.ndarray, num_bits: int, both: bool) -> tuple:
    first, last = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    ranges = [(f * first if both else first, f * last) for f in FRACTIONS]
    scheme = Scheme(num_bits, symmetric=False)
    return ranges[int(np.argmin([_losses(x, *ends, scheme)[0] for ends in ranges]))]


def _min_max(x, num_bits=8, symmetric=True):
    return calibration.MinMax(symmetric).observe(x).range()


MSE_RANGE = (
    Misconception(
        "measures against the clipped tensor",
        _searching(lambda x, back, low, high, step: np.mean((np.clip(x, low, high) - back) ** 2)),
        "Comparing with the clipped tensor hides what clipping lost, so the narrowest range wins. Compare with x "
        "itself.",
    ),
    Misconception(
        "measures only what lies in the range",
        _searching(lambda x, back, low, high, step: _mean_where((x - back) ** 2, (x >= low) & (x <= high))),
        "The values beyond the range are the ones that clipping costs. Left out of the mean, they cost nothing.",
    ),
    Misconception(
        "measures in steps",
        _searching(lambda x, back, low, high, step: np.mean((x / step - back / step) ** 2)),
        "A range with coarse steps has few of them, so an error counted in steps favours the widest. Multiply by the "
        "scale: compare reconstructions, in the units of x.",
    ),
    Misconception(
        "the largest error instead of the mean squared one",
        _searching(lambda x, back, low, high, step: np.max(np.abs(x - back))),
        "The largest error is that of a clipped outlier, so it never pays to clip. Take the mean of the squares.",
    ),
    Misconception(
        "the mean error with its sign",
        _searching(lambda x, back, low, high, step: np.abs(np.mean(x - back))),
        "Errors above and below cancel in a mean. Square them first.",
    ),
    Misconception(
        "min-max",
        _min_max,
        "That is where the search starts, not where it ends: try narrower ranges, and measure.",
    ),
    Misconception(
        "the search starts at 0",
        _searching(_squared, np.linspace(0, 1, 51)),
        "At a clip of 0 the scale is 0 and the error NaN, and `argmin` takes NaN for the least. Start above 0.",
    ),
    Misconception(
        "both ends shrink by one factor",
        _ends(lambda x, bits: _shrunk(x, bits, both=True)),
        "An outlier lies on one side, and both sides are cut for it. Search the two ends apart: hold one, and move the "
        "other.",
    ),
    Misconception(
        "only the upper end is searched",
        _ends(lambda x, bits: _shrunk(x, bits, both=False)),
        "The long side may be below zero. Search both ends.",
    ),
    Misconception(
        "symmetric, whatever was asked for",
        lambda x, num_bits=8, symmetric=True: answers.mse_range(x, num_bits),
        "`symmetric=False` asks for the grid of lab 02, with a zero point, and for two ends that are chosen apart.",
    ),
    Misconception(
        "asymmetric, whatever was asked for",
        lambda x, num_bits=8, symmetric=True: answers.mse_range(x, num_bits, False),
        "`symmetric=True` asks for one threshold c, the range (-c, c) and the grid of lab 01.",
    ),
    Misconception(
        "8 bits, whatever was asked for",
        lambda x, num_bits=8, symmetric=True: answers.mse_range(x, 8, symmetric),
        "With fewer bits the steps are coarser, and it pays to clip more. Use `num_bits`.",
    ),
    Misconception(
        "the 99.9th percentile",
        lambda x, num_bits=8, symmetric=True: answers.percentile_range(x, 99.9, symmetric),
        "A fixed percentile knows nothing of the bit width: with fewer bits it pays to clip more. Measure the error.",
    ),
    Misconception(
        "fractions instead of values",
        lambda x, num_bits=8, symmetric=True: tuple(
            end / (float(np.abs(x).max()) or 1.0) for end in answers.mse_range(x, num_bits, symmetric)
        ),
        "Those are fractions of max|x|. Multiply them by it.",
    ),
    Misconception(
        "returns the threshold alone",
        _returning(answers.mse_range, lambda low, high: high),
        "The contract is two values, low and high, also where low is just -high.",
    ),
    Misconception(
        "returns the error instead of the range",
        lambda x, num_bits=8, symmetric=True: (
            0.0, _losses(x, *answers.mse_range(x, num_bits, symmetric), Scheme(num_bits, symmetric=symmetric))[0]
        ),
        "That is how small the error becomes. Return where it does: `argmin`, not `min`.",
    ),
)  # fmt: skip


def _mean_where(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.any() else math.inf


# --- kl_range ---------------------------------------------------------------------------------------------------------


def _kl_cases() -> list[Case]:
    rng = np.random.default_rng(9)
    gaussian = rng.normal(size=20_000).astype(np.float32)
    laplace = rng.laplace(size=20_000).astype(np.float32)
    spiked = np.append(gaussian[:8000], [-12.0, 9.0, 11.0]).astype(np.float32)
    return [
        Case("the worked example: 9 bins, 2 levels", (_spread([6, 4, 4, 2, 0, 0, 1, 0, 1]), 2), {"num_bins": 9}),
        Case("a Gaussian at 4 bits, 256 bins", (gaussian, 4), {"num_bins": 256}),
        Case("a Laplace source at 4 bits, 256 bins", (laplace, 4), {"num_bins": 256}),
        Case("a Laplace source at 6 bits, 512 bins", (laplace, 6), {"num_bins": 512}),
        Case("8 bits and 2048 bins are the defaults", (gaussian,)),
        Case("outliers, 5 bits, 256 bins", (spiked, 5), {"num_bins": 256}),
        Case("activations of the digits network, half of them 0", (_activations(), 4), {"num_bins": 256}),
        Case("only negative values", (-np.abs(laplace[:6000]), 4), {"num_bins": 256}),
        Case("a short side below zero", (_gelu(2 * gaussian[:8000]), 4), {"num_bins": 256}),
        Case("as many bins as levels: nothing to cut", (gaussian[:500], 8), {"num_bins": 128}),
        Case("values a million times smaller", (laplace[:6000] * np.float32(1e-6), 4), {"num_bins": 256}),
        Case("all zero", (np.zeros((3, 4), dtype=np.float32), 4), {"num_bins": 64}),
    ]


def _spread(counts: list[int]) -> np.ndarray:
    """Values at the middle of bins of width 1, signs alternating, and one at the very end."""
    middles = np.repeat(np.arange(len(counts)) + 0.5, counts)
    middles[-1] = len(counts)
    return (middles * np.where(np.arange(middles.size) % 2, -1, 1)).astype(np.float32)


def _histogram(x: np.ndarray, num_bins: int) -> np.ndarray:
    magnitudes = np.abs(x[x != 0])
    return np.histogram(magnitudes, num_bins, range=(0, np.abs(x).max()))[0]


def _divergence(counts: np.ndarray, keep: int, num_levels: int) -> float:
    if not num_levels <= keep <= counts.size:
        return math.inf
    return float(calibration.cut_divergences(counts, np.array([0]), np.array([keep]), num_levels)[0])


def _judge_kl(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.args[1] if len(case.args) > 1 else 8
    num_bins, num_levels = case.kwargs.get("num_bins", 2048), 2 ** (num_bits - 1)
    _, high = _require_range(answer, symmetric=True)
    peak = float(np.abs(x).max())
    if peak == 0:
        if high != 0:
            raise Wrong(f"all values are 0, so the range should be (0, 0), but high is {high:.4g}")
        return
    counts, keep = _histogram(x, num_bins), high / peak * num_bins
    if not 0.4 < keep < num_bins + 0.6:
        raise Wrong(f"the threshold should lie in the histogram, which ends at {peak:.5g}, but it is {high:.5g}")
    best = round(answers.kl_range(x, num_bits, num_bins)[1] / peak * num_bins)
    least = _divergence(counts, best, num_levels)
    # The end of the last bin, or its middle: both are usual.
    yours = min(_divergence(counts, near, num_levels) for near in {math.floor(keep + 0.01), math.ceil(keep - 0.01)})
    if yours > 1.01 * least + 1e-9:
        raise Wrong(
            f"with a threshold of {high:.4g}, after bin {keep:.4g}, the divergence is {yours:.4g}, "
            f"but it is {least:.4g} after bin {best}, at {best / num_bins * peak:.4g}"
        )


def _cutting(
    score: Callable,
    histogram: Callable = _histogram,
    levels: Callable = lambda bits: 2 ** (bits - 1),
    choose: Callable = lambda scores: int(np.argmin(scores)),
    threshold: Callable = lambda keep, width: keep * width,
) -> Callable:
    """Cuts a histogram where `score(kept, rest, level)` is least; `level` says which level each bin belongs to."""

    def kl_range(x, num_bits=8, num_bins=2048):
        peak = float(np.abs(x).max())
        if peak == 0:
            return 0.0, 0.0
        counts, num_levels = histogram(x, num_bins), levels(num_bits)
        keeps = list(range(min(num_levels, num_bins), num_bins + 1))
        scores = [score(counts[:k], counts[k:].sum(), np.arange(k) * num_levels // k) for k in keeps]
        t = threshold(keeps[choose(scores)], peak / num_bins)
        return -t, t

    return kl_range


def _p(kept: np.ndarray, rest: int) -> np.ndarray:
    p = kept.astype(np.float64)
    p[-1] += rest
    return p


def _q(kept: np.ndarray, level: np.ndarray, everywhere: bool = False) -> np.ndarray:
    filled = np.ones(kept.size) if everywhere else (kept > 0).astype(np.float64)
    members = np.bincount(level, filled)
    return np.where(filled > 0, (np.bincount(level, kept) / np.maximum(members, 1))[level], 0.0)


def _kl(p: np.ndarray, q: np.ndarray, normalise: bool = True, careful: bool = True) -> float:
    if normalise:
        p, q = p / p.sum(), q / q.sum()
    if careful:
        p, q = p[p > 0], q[p > 0]
    return float(np.sum(p * np.log(p / q)))


KL_RANGE = (
    Misconception(
        "what was cut off is in neither P nor Q, or in both",
        _cutting(lambda kept, rest, level: _kl(_p(kept, 0), _q(kept, level))),
        "P is what the values are after clipping: those beyond the cut saturate, so they count in the last bin of P, "
        "and not in Q. With them in both or in neither, nothing speaks against cutting: P and Q are equal where each "
        "bin is a level.",
    ),
    Misconception(
        "P and Q swapped",
        _cutting(lambda kept, rest, level: _kl(_q(kept, level), _p(kept, rest))),
        "KL(P || Q) weighs the logarithm of P / Q by P, the histogram before. It is not the same the other way round.",
    ),
    Misconception(
        "histograms that are not normalised",
        _cutting(lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level), normalise=False)),
        "The divergence compares distributions: divide P by its sum and Q by its own.",
    ),
    Misconception(
        "empty bins get a share",
        _cutting(lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level, everywhere=True))),
        "What a level holds is spread over those of its bins that were not empty. Yours puts values where there were "
        "none.",
    ),
    Misconception(
        "0 log 0 is NaN",
        _cutting(lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level), careful=False)),
        "Where P is 0, P log(P / Q) counts 0, but in floats it is NaN, and `argmin` takes NaN for the least. Sum only "
        "where P is not 0.",
    ),
    Misconception(
        "zeros are counted",
        _cutting(
            lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level)),
            histogram=lambda x, bins: np.histogram(np.abs(x), bins, range=(0, np.abs(x).max()))[0],
        ),
        "After a ReLU the first bin is half of the histogram, and everything turns on it. 0 is exact on every grid: "
        "leave the zeros out.",
    ),
    Misconception(
        "the histogram of x instead of |x|",
        _cutting(
            lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level)),
            histogram=lambda x, bins: np.histogram(x[x > 0], bins, range=(0, np.abs(x).max()))[0],
        ),
        "Values below zero fall out of that histogram. The range is symmetric: take magnitudes first.",
    ),
    Misconception(
        "the levels of the whole grid",
        _cutting(
            lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level)),
            levels=lambda bits: min(2**bits, 512),
        ),
        "Half of the 2^b codes are for values below zero. |x| has 2^(b-1) levels: 128 at 8 bits.",
    ),
    Misconception(
        "128 levels at every bit width",
        _cutting(lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level)), levels=lambda bits: 128),
        "128 are the levels of |x| at 8 bits only. Compute them from `num_bits`.",
    ),
    Misconception(
        "the greatest divergence",
        _cutting(
            lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level)),
            choose=lambda scores: int(np.argmax(np.where(np.isfinite(scores), scores, -1))),
        ),
        "The divergence says how unlike the two are. Take the least.",
    ),
    Misconception(
        "a number of bins instead of a threshold",
        _cutting(
            lambda kept, rest, level: _kl(_p(kept, rest), _q(kept, level)), threshold=lambda keep, width: float(keep)
        ),
        "That is how many bins are kept. Multiply it by the width of a bin.",
    ),
    Misconception(
        "min-max",
        lambda x, num_bits=8, num_bins=2048: (-float(np.abs(x).max()), float(np.abs(x).max())),
        "That keeps every bin. Try fewer, from the number of levels on, and compare.",
    ),
    Misconception(
        "an error instead of a divergence",
        lambda x, num_bits=8, num_bins=2048: answers.mse_range(x, num_bits),
        "That is the range of the least squared error. KL compares histograms and knows nothing of distances.",
    ),
    Misconception(
        "returns the threshold alone",
        _returning(answers.kl_range, lambda low, high: high),
        "The contract is two values, low and high, also where low is just -high.",
    ),
)

# --- moving_average_range (stretch) -----------------------------------------------------------------------------------


def _average_cases() -> list[Case]:
    rng = np.random.default_rng(10)

    def batch(low: float, high: float) -> np.ndarray:
        return np.append(rng.uniform(low, high, 30), [low, high]).astype(np.float32)

    by_hand = [np.array([-1.0, 1.0], np.float32), np.array([-2.0, 3.0], np.float32)]
    drifting = [batch(-1 - 0.1 * i, 2 + 0.3 * i) for i in range(12)]
    spiked = [batch(-1, 2), batch(-1.2, 1.5), batch(-0.8, 90), batch(-1.1, 1.9), batch(-60, 2.1)]
    sizes = [batch(-1, 1)[-k:] for k in (32, 2, 32)]
    return [
        Case("the worked example", (by_hand, 0.75)),
        Case("0.9 is the default", (spiked,)),
        Case("batches with outliers", (spiked, 0.8)),
        Case("a range that drifts", (drifting, 0.5)),
        Case("one batch", ([batch(-0.5, 4)], 0.9)),
        Case("batches far from zero", ([batch(5, 6), batch(5.5, 7), batch(5.2, 6.1)], 0.9)),
        Case("batches of several shapes", ([b.reshape(-1, 2) for b in (*sizes, batch(-3, 3))], 0.7)),
        Case("no momentum", (spiked, 0.0)),
        Case("a short side", ([np.abs(b) for b in spiked], 0.9)),
    ]


def _judge_average(answer: dict, case: Case) -> None:
    low, high = answer["low"], answer["high"]
    expected = answers.moving_average_range(*case.args)
    for name, value, wanted in (("low", low, expected[0]), ("high", high, expected[1])):
        if not math.isclose(value, wanted, rel_tol=1e-4, abs_tol=1e-6):
            raise Wrong(f"{name} should be {wanted:.5g}, but it is {value:.5g}")


def _averaging(start: Callable, step: Callable, ends: Callable = lambda b: np.array([b.min(), b.max()])) -> Callable:
    def moving_average_range(batches, momentum=0.9):
        state, *others = start([ends(batch).astype(np.float64) for batch in batches])
        for new in others:
            state = step(state, new, momentum)
        return float(state[0]), float(state[1])

    return moving_average_range


def _smooth(state, new, momentum):
    return momentum * state + (1 - momentum) * new


MOVING_AVERAGE_RANGE = (
    Misconception(
        "starts at zero",
        _averaging(lambda ends: [np.zeros(2), *ends], _smooth),
        "An average that starts at 0 needs many batches to leave it. The first batch's own ends are a better start.",
    ),
    Misconception(
        "momentum on the wrong side",
        _averaging(lambda ends: ends, lambda state, new, m: (1 - m) * state + m * new),
        "A momentum of 0.9 keeps 90% of what was there and takes 10% of the new. Yours does the reverse.",
    ),
    Misconception(
        "a plain mean of the ends",
        _averaging(lambda ends: [np.mean(ends, axis=0)], _smooth),
        "A plain mean weighs all batches alike. Here what was there is kept to `momentum`, batch after batch.",
    ),
    Misconception(
        "min-max of everything",
        _averaging(lambda ends: [np.array([np.min(ends), np.max(ends)])], _smooth),
        "One outlier in one batch stays for ever that way. Average the ends.",
    ),
    Misconception(
        "the last batch alone",
        _averaging(lambda ends: ends[-1:], _smooth),
        "Each batch replaces what was there. Keep `momentum` of it.",
    ),
    Misconception(
        "nothing is kept to momentum: the ends add up",
        _averaging(lambda ends: ends, lambda state, new, m: state + (1 - m) * new),
        "What was there must shrink to `momentum` of it before the new share is added, or the sum grows without end.",
    ),
    Misconception(
        "an average of the values instead of the ends",
        _averaging(lambda ends: ends, _smooth, ends=lambda b: np.array([b.mean(), b.mean()])),
        "It is the smallest and the largest value of a batch that are averaged, not its mean.",
    ),
    Misconception(
        "a symmetric range",
        _averaging(lambda ends: ends, _smooth, ends=lambda b: np.array([-np.abs(b).max(), np.abs(b).max()])),
        "Here the ends are averaged apart: the minimum with the minima, the maximum with the maxima.",
    ),
    Misconception(
        "ends that only ever widen",
        _averaging(
            lambda ends: ends,
            lambda s, new, m: np.array([min(s[0], _smooth(s, new, m)[0]), max(s[1], _smooth(s, new, m)[1])]),
        ),
        "An extreme batch must be forgotten again: the ends move inwards as well.",
    ),
    Misconception(
        "0.9 at every momentum",
        lambda batches, momentum=0.9: answers.moving_average_range(batches, 0.9),
        "0.9 is the default only. Use `momentum`.",
    ),
    Misconception(
        "the range is widened to include 0",
        _averaging(lambda ends: ends, _smooth, ends=lambda b: np.array([min(b.min(), 0), max(b.max(), 0)])),
        "That comes later, when scale and zero point are made of the range. Here, report what was seen.",
    ),
)

EXERCISES = (
    Exercise(
        name="percentile_range",
        lab=LAB,
        points=2,
        reference=answers.percentile_range,
        cases=_percentile_cases,
        read=read_range,
        judge=_judge_percentile,
        misconceptions=PERCENTILE_RANGE,
    ),
    Exercise(
        name="mse_range",
        lab=LAB,
        points=3,
        reference=answers.mse_range,
        cases=_mse_cases,
        read=read_range,
        judge=_judge_mse,
        misconceptions=MSE_RANGE,
    ),
    Exercise(
        name="kl_range",
        lab=LAB,
        points=3,
        reference=answers.kl_range,
        cases=_kl_cases,
        read=read_range,
        judge=_judge_kl,
        misconceptions=KL_RANGE,
    ),
    Exercise(
        name="moving_average_range",
        lab=LAB,
        points=1,
        reference=answers.moving_average_range,
        cases=_average_cases,
        read=read_range,
        judge=_judge_average,
        misconceptions=MOVING_AVERAGE_RANGE,
        stretch=True,
    ),
)
