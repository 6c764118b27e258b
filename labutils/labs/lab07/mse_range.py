"""mse range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import calibration
from labutils.arrays.affine import fake_quantize, qparams_of_range
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import answers
from labutils.labs.lab07 import LESSON
from labutils.labs.lab07._shared import Range, _activations, _gelu, _require_range, read_range
from labutils.labs.lab07.percentile_range import _returning

Array = Any  # a numpy.ndarray or a torch.Tensor


def mse_range(x: Array, num_bits: int = 8, symmetric: bool = True) -> Range:
    """The range whose grid loses least: mean squared error, against `x` itself.

    >>> x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    >>> low, high = mse_range(x, num_bits=4)
    >>> low == -high, round(high, 1)
    (True, 2.4)

    symmetric: [-c, c], for the grid of lab 01. Otherwise both ends are searched, for the grid of lab 02.
    """
    return calibration.MSE(num_bits, symmetric).observe(x).range()


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
    scheme, best = Scheme(num_bits, symmetric=symmetric), mse_range(x, num_bits, symmetric)
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
        return mse_range(x, num_bits) if symmetric else ends(x, num_bits)

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
        lambda x, num_bits=8, symmetric=True: mse_range(x, num_bits),
        "`symmetric=False` asks for the grid of lab 02, with a zero point, and for two ends that are chosen apart.",
    ),
    Misconception(
        "asymmetric, whatever was asked for",
        lambda x, num_bits=8, symmetric=True: mse_range(x, num_bits, False),
        "`symmetric=True` asks for one threshold c, the range (-c, c) and the grid of lab 01.",
    ),
    Misconception(
        "8 bits, whatever was asked for",
        lambda x, num_bits=8, symmetric=True: mse_range(x, 8, symmetric),
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
            end / (float(np.abs(x).max()) or 1.0) for end in mse_range(x, num_bits, symmetric)
        ),
        "Those are fractions of max|x|. Multiply them by it.",
    ),
    Misconception(
        "returns the threshold alone",
        _returning(mse_range, lambda low, high: high),
        "The contract is two values, low and high, also where low is just -high.",
    ),
    Misconception(
        "returns the error instead of the range",
        lambda x, num_bits=8, symmetric=True: (
            0.0, _losses(x, *mse_range(x, num_bits, symmetric), Scheme(num_bits, symmetric=symmetric))[0]
        ),
        "That is how small the error becomes. Return where it does: `argmin`, not `min`.",
    ),
)  # fmt: skip


def _mean_where(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.any() else math.inf


EXERCISE = Exercise(
    name="mse_range",
    lab=LESSON,
    place=20,
    points=3,
    reference=mse_range,
    cases=_mse_cases,
    read=read_range,
    judge=_judge_mse,
    misconceptions=MSE_RANGE,
)
