"""mse_range: the range whose grid loses least, sought by trying."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays.affine import fake_quantize, qparams_of_range
from labutils.arrays.calibration import MSE, MinMax, Range
from labutils.arrays.inputs import Array
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import answers
from labutils.labs.contract import arguments, gelu
from labutils.labs.lab07 import LESSON
from labutils.labs.lab07._ranges import read_range, relu_activations, require_range, threshold_alone
from labutils.labs.recipes import Recipe


def mse_range(x: Array, num_bits: int = 8, symmetric: bool = True) -> Range:
    """The range whose grid loses least: mean squared error, against `x` itself.

    >>> x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    >>> low, high = mse_range(x, num_bits=4)
    >>> low == -high, round(high, 1)
    (True, 2.4)

    symmetric: [-c, c], for the grid of lab 01. Otherwise both ends are searched, for the grid of lab 02.
    """
    return MSE(num_bits, symmetric).observe(x).range()


def cases() -> list[Case]:
    rng = np.random.default_rng(8)
    gaussian = rng.normal(size=3000).astype(np.float32)
    laplace = rng.laplace(size=3000).astype(np.float32)
    lopsided = gelu(2 * gaussian).astype(np.float32)
    one_sided = np.append(gaussian, 25.0).astype(np.float32)
    spiked = np.append(gaussian[:2000], [-40.0, 30.0]).astype(np.float32)
    apart = {"symmetric": False}
    return [
        Case("a Gaussian at 4 bits", (gaussian, 4)),
        Case("a Laplace source at 4 bits", (laplace, 4)),
        Case("a Laplace source at 3 bits", (laplace, 3)),
        Case("symmetric at 8 bits is the default", (laplace,)),
        Case("two outliers at 6 bits", (spiked, 6)),
        Case("activations of the digits network at 4 bits", (relu_activations(), 4)),
        Case("activations of the digits network at 4 bits, asymmetric", (relu_activations(), 4), apart),
        Case("a short side below zero at 4 bits, asymmetric", (lopsided, 4), apart),
        Case("a short side above zero at 3 bits, asymmetric", (-lopsided, 3), apart),
        Case("one outlier above zero at 3 bits, asymmetric", (one_sided, 3), apart),
        Case("two outliers at 4 bits, asymmetric", (spiked, 4), apart),
        Case("far above zero, asymmetric", (np.abs(gaussian[:2000]) + np.float32(3), 4), apart),
        Case("far below zero, asymmetric", (-np.abs(gaussian[:2000]) - np.float32(3), 4), apart),
        Case("a uniform source, where clipping gains nothing", (rng.uniform(-1, 1, 3000).astype(np.float32), 6)),
        Case("values a million times smaller", (laplace[:2000] * np.float32(1e-6), 4)),
        Case("all zero", (np.zeros(8, dtype=np.float32), 4)),
        Case("a constant", (np.full(6, -0.3, dtype=np.float32), 4)),
    ]


def losses(x: np.ndarray, low: float, high: float, scheme: Scheme) -> tuple[float, float]:
    """The mean squared error with the code -2^(b-1) for values far below, and without it."""
    qparams = qparams_of_range(low, high, scheme, like=x)
    reach = float(qparams[0]) * scheme.quant_max
    sources = x, np.clip(x, -reach, reach) if scheme.symmetric else x
    return tuple(
        float(np.mean((x.astype(np.float64) - fake_quantize(source, scheme, qparams)) ** 2)) for source in sources
    )


def judge(answer: dict, case: Case) -> None:
    x, num_bits, symmetric = arguments(mse_range, case)
    low, high = require_range(answer, symmetric)
    if low == high == 0 and x.any():
        raise Wrong("the range is (0, 0), into which no value fits")
    if (low or high) and not x.any():
        raise Wrong(f"x is all zero, so the range should be (0, 0), but it is ({low:.4g}, {high:.4g})")
    if low > 0 or high < 0:
        raise Wrong(f"the range should include 0, as the grid of lab 02 does, but it is ({low:.4g}, {high:.4g})")
    scheme, best = Scheme(num_bits, symmetric=symmetric), mse_range(x, num_bits, symmetric)
    yours, least = losses(x, low, high, scheme), losses(x, *best, scheme)
    rounding = (1e-6 * float(np.abs(x).max())) ** 2  # of float32
    # The error is flat near its minimum: a search over 50 candidates for each end comes this near.
    if all(mine > 1.05 * theirs + rounding for mine, theirs in zip(yours, least)):
        raise Wrong(
            f"the range ({low:.4g}, {high:.4g}) has a mean squared error of {min(yours):.3g}, "
            f"but ({best[0]:.4g}, {best[1]:.4g}) has {min(least):.3g}"
        )


def in_turns(best: Callable, first: float, last: float, fractions: tuple) -> Range:
    """Both ends cut at one magnitude, then one end moved while the other is held."""
    peak = max(-first, last)
    low, high = best([(max(first, -f * peak), min(last, f * peak)) for f in fractions])
    for _ in range(2):
        low, high = best([(low, f * last) for f in fractions if f * last > low])
        low, high = best([(f * first, high) for f in fractions if high > f * first])
    return low, high


@dataclass(frozen=True)
class Search(Recipe):
    """The candidate with the least loss(x, back, low, high, step), where `back` is `x` on the grid of (low, high).

    fractions  of the largest magnitude, at which a range may end
    apart      picks two ends with `best(candidates)`, from the smallest value and the largest, 0 included
    result     what is returned of the two ends
    """

    loss: Callable = lambda x, back, low, high, step: np.mean((x - back) ** 2)
    fractions: tuple = tuple(np.linspace(0.02, 1, 50))
    apart: Callable = in_turns
    result: Callable = lambda low, high: (low, high)

    def __call__(self, x, num_bits=8, symmetric=True):
        def lost(low, high):
            levels = 2 ** (num_bits - 1) - 1 if symmetric else 2**num_bits - 1
            step = (high if symmetric else high - low) / levels
            zero, least = (0.0, -levels) if symmetric else (np.round(-low / step), 0)
            back = (np.clip(np.round(x / step) + zero, least, levels) - zero) * step
            return self.loss(x, back, low, high, step)

        def best(ranges):
            return ranges[int(np.argmin([lost(*ends) for ends in ranges]))]

        if symmetric:
            peak = float(np.abs(x).max())
            return self.result(*best([(-f * peak, f * peak) for f in self.fractions]))
        return self.result(*self.apart(best, min(float(x.min()), 0.0), max(float(x.max()), 0.0), self.fractions))


right = Search()


def within_the_range(x, back, low, high, step):
    inside = (x >= low) & (x <= high)
    return float(((x - back) ** 2)[inside].mean()) if inside.any() else math.inf


def as_fractions(x, num_bits=8, symmetric=True):
    peak = float(np.abs(x).max()) or 1.0
    return tuple(end / peak for end in mse_range(x, num_bits, symmetric))


def least_error(x, num_bits=8, symmetric=True):
    return 0.0, losses(x, *mse_range(x, num_bits, symmetric), Scheme(num_bits, symmetric=symmetric))[0]


MISCONCEPTIONS = (
    Misconception("measures against the clipped tensor",
        right.but(loss=lambda x, back, low, high, step: np.mean((np.clip(x, low, high) - back) ** 2)),
        "Comparing with the clipped tensor hides what clipping lost, so the narrowest range wins. Compare with x "
        "itself."),
    Misconception("measures only what lies in the range", right.but(loss=within_the_range),
        "The values beyond the range are the ones that clipping costs. Left out of the mean, they cost nothing."),
    Misconception("measures in steps",
        right.but(loss=lambda x, back, low, high, step: np.mean((x / step - back / step) ** 2)),
        "A range with coarse steps has few of them, so an error counted in steps favours the widest. Multiply by the "
        "scale: compare reconstructions, in the units of x."),
    Misconception("the largest error instead of the mean squared one",
        right.but(loss=lambda x, back, low, high, step: np.max(np.abs(x - back))),
        "The largest error is that of a clipped outlier, so it never pays to clip. Take the mean of the squares."),
    Misconception("the mean absolute error instead of the mean squared one",
        right.but(loss=lambda x, back, low, high, step: np.mean(np.abs(x - back))),
        "A mean of magnitudes counts one large error like many small ones, and clips too early. Square the errors."),
    Misconception("the search starts at one half", right.but(fractions=tuple(np.linspace(0.5, 1, 25))),
        "With few bits, or an outlier, the best range ends far below half of the largest magnitude. Start near 0."),
    Misconception("8 bits at every bit width",
        lambda x, num_bits=8, symmetric=True: right(x, 8, symmetric),
        "The loss was measured on the grid of 8 bits. With fewer, steps are coarser and clipping pays more. Hand "
        "`num_bits` on."),
    Misconception("the mean error with its sign",
        right.but(loss=lambda x, back, low, high, step: np.abs(np.mean(x - back))),
        "Errors above and below cancel in a mean. Square them first."),
    Misconception("min-max", lambda x, num_bits=8, symmetric=True: MinMax(symmetric).observe(x).range(),
        "That is where the search starts, not where it ends: try narrower ranges, and measure."),
    Misconception("the search starts at 0", right.but(fractions=tuple(np.linspace(0, 1, 51))),
        "At a clip of 0 the scale is 0 and the error NaN, and `argmin` takes NaN for the least. Start above 0."),
    Misconception("both ends shrink by one factor",
        right.but(apart=lambda best, first, last, fractions: best([(f * first, f * last) for f in fractions])),
        "An outlier lies on one side, and both sides are cut for it. Search the two ends apart: hold one, and move the "
        "other."),
    Misconception("only the upper end is searched",
        right.but(apart=lambda best, first, last, fractions: best([(first, f * last) for f in fractions])),
        "The long side may be below zero. Search both ends."),
    Misconception("symmetric, whatever was asked for",
        lambda x, num_bits=8, symmetric=True: mse_range(x, num_bits),
        "`symmetric=False` asks for the grid of lab 02, with a zero point, and for two ends that are chosen apart."),
    Misconception("asymmetric, whatever was asked for",
        lambda x, num_bits=8, symmetric=True: mse_range(x, num_bits, False),
        "`symmetric=True` asks for one threshold c, the range (-c, c) and the grid of lab 01."),
    Misconception("8 bits, whatever was asked for",
        lambda x, num_bits=8, symmetric=True: mse_range(x, 8, symmetric),
        "With fewer bits the steps are coarser, and it pays to clip more. Use `num_bits`."),
    Misconception("the 99.9th percentile",
        lambda x, num_bits=8, symmetric=True: answers.percentile_range(x, 99.9, symmetric),
        "A fixed percentile knows nothing of the bit width: with fewer bits it pays to clip more. Measure the error."),
    Misconception("fractions instead of values", as_fractions,
        "Those are fractions of max|x|. Multiply them by it."),
    threshold_alone(right),
    Misconception("returns the error instead of the range", least_error,
        "That is how small the error becomes. Return where it does: `argmin`, not `min`."),
)  # fmt: skip

EXERCISE = Exercise(
    name="mse_range",
    lab=LESSON,
    place=20,
    points=3,
    reference=mse_range,
    cases=cases,
    read=read_range,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
