"""kl_range: the range whose histogram on the grid is most like the one before."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays.calibration import Range, best_cut, cut_divergences
from labutils.arrays.inputs import Array, whole_number
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import answers
from labutils.labs.contract import arguments, gelu
from labutils.labs.lab07 import LESSON
from labutils.labs.lab07._ranges import flat_float64, read_range, relu_activations, require_range, threshold_alone
from labutils.labs.recipes import Recipe


def kl_range(x: Array, num_bits: int = 8, num_bins: int = 2048) -> Range:
    """The range [-t, t] for which the histogram of |x| on the grid is most like the one before: least KL divergence.

    >>> x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    >>> low, high = kl_range(x, num_bits=4, num_bins=512)
    >>> low == -high, 2.5 < high < 4
    (True, True)

    The histogram has `num_bins` bins from 0 to max|x|, and zeros are left out of it; `calibration.best_cut` does the
    rest. All-zero data have the range (0, 0). Migacz 2017, "8-bit inference with TensorRT".
    """
    magnitudes, scheme = np.abs(flat_float64(x)), Scheme(num_bits)
    bins = whole_number(num_bins, "num_bins", least=1)
    peak = float(magnitudes.max())
    if peak == 0:
        return 0.0, 0.0
    # On [0, 1]: the width of a bin of tiny values would vanish.
    counts, _ = np.histogram(magnitudes[magnitudes > 0] / peak, bins, range=(0, 1))
    threshold = best_cut(counts, 0, scheme.quant_max + 1) / bins * peak
    return -threshold, threshold


def cases() -> list[Case]:
    rng = np.random.default_rng(9)
    gaussian = rng.normal(size=20_000).astype(np.float32)
    laplace = rng.laplace(size=20_000).astype(np.float32)
    spiked = np.append(gaussian[:8000], [-12.0, 9.0, 11.0]).astype(np.float32)
    return [
        Case("the worked example: 9 bins, 2 levels", (values_of([6, 4, 4, 2, 0, 0, 1, 0, 1]), 2), {"num_bins": 9}),
        Case("a Gaussian at 4 bits, 256 bins", (gaussian, 4), {"num_bins": 256}),
        Case("a Laplace source at 4 bits, 256 bins", (laplace, 4), {"num_bins": 256}),
        Case("a Laplace source at 6 bits, 512 bins", (laplace, 6), {"num_bins": 512}),
        Case("8 bits and 2048 bins are the defaults", (gaussian,)),
        Case("outliers, 5 bits, 256 bins", (spiked, 5), {"num_bins": 256}),
        Case("activations of the digits network, half of them 0", (relu_activations(), 4), {"num_bins": 256}),
        Case("only negative values", (-np.abs(laplace[:6000]), 4), {"num_bins": 256}),
        Case("a short side below zero", (gelu(2 * gaussian[:8000]).astype(np.float32), 4), {"num_bins": 256}),
        Case("as many bins as levels: nothing to cut", (gaussian[:500], 8), {"num_bins": 128}),
        Case("values a million times smaller", (laplace[:6000] * np.float32(1e-6), 4), {"num_bins": 256}),
        Case("all zero", (np.zeros((3, 4), dtype=np.float32), 4), {"num_bins": 64}),
    ]


def values_of(counts: list[int]) -> np.ndarray:
    """Values whose magnitudes have this histogram: in the middle of bins of width 1, and one at the very end."""
    middles = np.repeat(np.arange(len(counts)) + 0.5, counts)
    middles[-1] = len(counts)
    return (middles * np.where(np.arange(middles.size) % 2, -1, 1)).astype(np.float32)


def histogram(x: np.ndarray, num_bins: int) -> np.ndarray:
    """Counts of |x| from 0 to max|x|, without the zeros."""
    return np.histogram(np.abs(x[x != 0]), num_bins, range=(0, np.abs(x).max()))[0]


def divergence(counts: np.ndarray, keep: int, num_levels: int) -> float:
    if not num_levels <= keep <= counts.size:
        return math.inf
    return float(cut_divergences(counts, np.array([0]), np.array([keep]), num_levels)[0])


def judge(answer: dict, case: Case) -> None:
    x, num_bits, num_bins = arguments(kl_range, case)
    num_levels = 2 ** (num_bits - 1)
    _, high = require_range(answer, symmetric=True)
    peak = float(np.abs(x).max())
    if peak == 0:
        if high != 0:
            raise Wrong(f"all values are 0, so the range should be (0, 0), but high is {high:.4g}")
        return
    counts, keep = histogram(x, num_bins), high / peak * num_bins
    if not 0.4 < keep < num_bins + 0.6:
        raise Wrong(f"the threshold should lie in the histogram, which ends at {peak:.5g}, but it is {high:.5g}")
    best = round(kl_range(x, num_bits, num_bins)[1] / peak * num_bins)
    least = divergence(counts, best, num_levels)
    # The end of the last bin, or its middle: both are usual.
    yours = min(divergence(counts, near, num_levels) for near in {math.floor(keep + 0.01), math.ceil(keep - 0.01)})
    if yours > 1.01 * least + 1e-9:
        raise Wrong(
            f"with a threshold of {high:.4g}, after bin {keep:.4g}, the divergence is {yours:.4g}, "
            f"but it is {least:.4g} after bin {best}, at {best / num_bins * peak:.4g}"
        )


def saturated(kept: np.ndarray, rest: int) -> np.ndarray:
    """P: the counts of the bins that are kept, and in the last of them those of the rest."""
    p = kept.astype(np.float64)
    p[-1] += rest
    return p


def on_levels(kept: np.ndarray, level: np.ndarray, everywhere: bool = False) -> np.ndarray:
    """Q: the counts of each level, spread evenly over those of its bins that were not empty, or over all."""
    filled = np.ones(kept.size) if everywhere else (kept > 0).astype(np.float64)
    members = np.bincount(level, filled)
    return np.where(filled > 0, (np.bincount(level, kept) / np.maximum(members, 1))[level], 0.0)


def kl(p: np.ndarray, q: np.ndarray, normalise: bool = True, skip_zeros: bool = True) -> float:
    if normalise:
        p, q = p / p.sum(), q / q.sum()
    if skip_zeros:
        p, q = p[p > 0], q[p > 0]
    return float(np.sum(p * np.log(p / q)))


def kl_where_both(p: np.ndarray, q: np.ndarray) -> float:
    p, q = p / p.sum(), q / q.sum()
    both = (p > 0) & (q > 0)
    return float(np.sum(p[both] * np.log(p[both] / q[both])))


@dataclass(frozen=True)
class Cut(Recipe):
    """The cut of a histogram at which P and Q are most alike; `result` is what is returned of the two ends."""

    histogram: Callable = histogram  # of x and num_bins
    levels: Callable = lambda bits: 2 ** (bits - 1)
    p: Callable = saturated  # of the counts that are kept, and the sum of the rest
    q: Callable = on_levels  # of the counts that are kept, and the level of each bin
    divergence: Callable = kl
    choose: Callable = np.argmin  # of the divergences
    threshold: Callable = lambda keep, width: keep * width
    result: Callable = lambda low, high: (low, high)

    def __call__(self, x, num_bits=8, num_bins=2048):
        peak = float(np.abs(x).max())
        if peak == 0:
            return self.result(0.0, 0.0)
        counts, num_levels = self.histogram(x, num_bins), self.levels(num_bits)
        keeps = range(min(num_levels, num_bins), num_bins + 1)
        t = self.threshold(keeps[int(self.choose([self.score(counts, k, num_levels) for k in keeps]))], peak / num_bins)
        return self.result(-t, t)

    def score(self, counts: np.ndarray, keep: int, num_levels: int) -> float:
        kept, level = counts[:keep], np.arange(keep) * num_levels // keep
        return self.divergence(self.p(kept, counts[keep:].sum()), self.q(kept, level))


right = Cut()


MISCONCEPTIONS = (
    Misconception("what was cut off is in neither P nor Q, or in both", right.but(p=lambda kept, rest: kept),
        "P is what the values are after clipping: those beyond the cut saturate, so they count in the last bin of P, "
        "and not in Q. With them in both or in neither, nothing speaks against cutting: P and Q are equal where each "
        "bin is a level."),
    Misconception("P and Q swapped", right.but(divergence=lambda p, q: kl(q, p)),
        "KL(P || Q) weighs the logarithm of P / Q by P, the histogram before. It is not the same the other way round."),
    Misconception("histograms that are not normalised", right.but(divergence=lambda p, q: kl(p, q, normalise=False)),
        "The divergence compares distributions: divide P by its sum and Q by its own."),
    Misconception("empty bins get a share", right.but(q=lambda kept, level: on_levels(kept, level, everywhere=True)),
        "What a level holds is spread over those of its bins that were not empty. Yours puts values where there were "
        "none."),
    Misconception("bins in which Q is 0 are left out of the sum",
        right.but(divergence=lambda p, q: kl_where_both(p, q)),
        "Where Q is 0 and P is not, the divergence is infinite: Q says that what happens cannot happen. Leave out only "
        "the bins in which P is 0."),
    Misconception("0 log 0 is NaN", right.but(divergence=lambda p, q: kl(p, q, skip_zeros=False)),
        "Where P is 0, P log(P / Q) counts 0, but in floats it is NaN, and `argmin` takes NaN for the least. Sum only "
        "where P is not 0."),
    Misconception("zeros are counted",
        right.but(histogram=lambda x, bins: np.histogram(np.abs(x), bins, range=(0, np.abs(x).max()))[0]),
        "After a ReLU the first bin is half of the histogram, and everything turns on it. 0 is exact on every grid: "
        "leave the zeros out."),
    Misconception("the histogram of x instead of |x|",
        right.but(histogram=lambda x, bins: np.histogram(x[x > 0], bins, range=(0, np.abs(x).max()))[0]),
        "Values below zero fall out of that histogram. The range is symmetric: take magnitudes first."),
    Misconception("the levels of the whole grid", right.but(levels=lambda bits: min(2**bits, 512)),
        "Half of the 2^b codes are for values below zero. |x| has 2^(b-1) levels: 128 at 8 bits."),
    Misconception("128 levels at every bit width", right.but(levels=lambda bits: 128),
        "128 are the levels of |x| at 8 bits only. Compute them from `num_bits`."),
    Misconception("the greatest divergence",
        right.but(choose=lambda scores: np.argmax(np.where(np.isfinite(scores), scores, -1))),
        "The divergence says how unlike the two are. Take the least."),
    Misconception("a number of bins instead of a threshold", right.but(threshold=lambda keep, width: float(keep)),
        "That is how many bins are kept. Multiply it by the width of a bin."),
    Misconception("min-max",
        lambda x, num_bits=8, num_bins=2048: (-float(np.abs(x).max()), float(np.abs(x).max())),
        "That keeps every bin. Try fewer, from the number of levels on, and compare."),
    Misconception("an error instead of a divergence",
        lambda x, num_bits=8, num_bins=2048: answers.mse_range(x, num_bits),
        "That is the range of the least squared error. KL compares histograms and knows nothing of distances."),
    threshold_alone(right),
)  # fmt: skip

EXERCISE = Exercise(
    name="kl_range",
    lab=LESSON,
    place=30,
    points=3,
    reference=kl_range,
    cases=cases,
    read=read_range,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
