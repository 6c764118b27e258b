"""asymmetric_gain: by how many decibels a zero point helps, from the two ends of a range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays.inputs import real_number
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, as_number, distinct
from labutils.labs.lab02 import LESSON
from labutils.labs.recipes import Recipe, largest_code, largest_unsigned


def asymmetric_gain(low: float, high: float, num_bits: int = 8) -> float:
    """Decibels by which the SQNR of the asymmetric grid for [low, high] lies above that of the symmetric one.

    >>> round(asymmetric_gain(-0.6, 1.95), 2), round(asymmetric_gain(0.0, 6.0), 2), round(asymmetric_gain(-1.0, 1.0), 2)
    (3.72, 6.05, 0.03)

    Noise is scale^2 / 12, so the gain is 20 log10 of the ratio of the scales: max|x| / (2^(b-1) - 1) over (max - min) /
    (2^b - 1), where the range is first widened to include 0. It holds where errors are spread evenly over a step.
    ValueError where low > high or both are 0, or for a bit width that is not 2 to 16.
    """
    low, high = real_number(low, "low"), real_number(high, "high")
    if low > high or low == high == 0:
        raise ValueError(f"the range must reach from low up to high, and be more than 0, got [{low:g}, {high:g}]")
    low, high = min(low, 0.0), max(high, 0.0)
    symmetric = max(-low, high) / Scheme(num_bits).quant_max
    asymmetric = (high - low) / Scheme(num_bits, symmetric=False).quant_max
    return 20 * math.log10(symmetric / asymmetric)


def cases() -> list[Case]:
    return [
        Case("the worked example", (-0.6, 1.95)),
        Case("after a ReLU: one bit", (0.0, 6.0)),
        Case("a balanced range: only the unused code", (-1.0, 1.0)),
        Case("the same at 2 bits", (-1.0, 1.0), {"num_bits": 2}),
        Case("the longer side is negative, 4 bits", (-3.0, 0.5), {"num_bits": 4}),
        Case("positive values far from 0", (10.0, 12.0)),
        Case("negative values far from 0", (-12.0, -10.0), {"num_bits": 4}),
        Case("one value", (0.3, 0.3), {"num_bits": 3}),
        Case("a GELU, 3 bits", (-0.17, 4.2), {"num_bits": 3}),
        Case("a billion times smaller", (-0.6e-9, 1.95e-9)),
        Case("16 bits", (-1.0, 2.0), {"num_bits": 16}),
        Case("ends in float32", (np.float32(-0.25), np.float32(0.75)), {"num_bits": 6}),
    ]


def read(value: object) -> dict:
    """One number, which the lesson prints with a format: an array of one element has none."""
    gain = as_number(value, "the result")
    if (shape := as_array(value, "the result").shape) != ():
        raise Wrong(f"the result should be a number, but it is an array of shape {shape}: take its element")
    return {"gain": gain}


def judge(answer: dict, case: Case) -> None:
    expected, found = asymmetric_gain(*case.args, **case.kwargs), answer["gain"]
    if not math.isclose(found, expected, rel_tol=1e-4, abs_tol=1e-5):
        wanted, came = distinct(expected, found, digits=4)
        raise Wrong(f"the gain should be {wanted} dB, but the result is {came}")


@dataclass(frozen=True)
class Gain(Recipe):
    """decibels(symmetric / divisor(b), asymmetric / levels(b)) of the widened ends, in steps that can be replaced."""

    widen: Callable = lambda low, high: (min(low, 0), max(high, 0))
    reach: Callable = lambda low, high: max(-low, high)  # of the symmetric grid
    length: Callable = lambda low, high: high - low  # of the asymmetric grid
    divisor: Callable = largest_code
    levels: Callable = largest_unsigned
    decibels: Callable = lambda symmetric, asymmetric: 20 * np.log10(symmetric / asymmetric)

    def __call__(self, low, high, num_bits=8):
        ends = self.widen(float(low), float(high))
        symmetric, asymmetric = self.reach(*ends) / self.divisor(num_bits), self.length(*ends) / self.levels(num_bits)
        return self.decibels(symmetric, asymmetric)


right = Gain()
guarded = right.but(
    decibels=lambda symmetric, asymmetric: right.decibels(symmetric, asymmetric) if symmetric > 0 else -np.inf
)
POWER = "Noise is the square of the step over 12: a step half as long is a quarter of the noise, 6 dB, not 3."

MISCONCEPTIONS = (
    Misconception("10 log10 of a ratio of steps",
        right.but(decibels=lambda symmetric, asymmetric: 10 * np.log10(symmetric / asymmetric)), POWER),
    Misconception("the ratio is upside down",
        right.but(decibels=lambda symmetric, asymmetric: 20 * np.log10(asymmetric / symmetric)),
        "A longer symmetric step means more noise there, so more gain for the other grid: it belongs above."),
    Misconception("10 log10, and upside down",
        right.but(decibels=lambda symmetric, asymmetric: 10 * np.log10(asymmetric / symmetric)),
        f"A longer symmetric step means more gain for the other grid: it belongs above. {POWER}"),
    Misconception("the ratio of the steps, not in decibels",
        right.but(decibels=lambda symmetric, asymmetric: symmetric / asymmetric),
        "That is how many times longer the symmetric step is. Say it in decibels."),
    Misconception("the ratio of the noises, not in decibels",
        right.but(decibels=lambda symmetric, asymmetric: (symmetric / asymmetric) ** 2),
        "That is how many times larger the noise is, the MSE ratio. Say it in decibels."),
    Misconception("the natural logarithm",
        right.but(decibels=lambda symmetric, asymmetric: 20 * np.log(symmetric / asymmetric)),
        "`np.log` is the natural logarithm. Decibels are counted with the one to base 10."),
    Misconception("in bits instead of decibels",
        right.but(decibels=lambda symmetric, asymmetric: np.log2(symmetric / asymmetric)),
        "log2 of the ratio counts bits: 1 after a ReLU. In decibels that is about 6."),
    Misconception("20 log2 instead of 20 log10",
        right.but(decibels=lambda symmetric, asymmetric: 20 * np.log2(symmetric / asymmetric)),
        "`np.log2` counts doublings. Decibels are counted with the logarithm to base 10."),
    Misconception("20 log10 of a ratio of noises",
        right.but(decibels=lambda symmetric, asymmetric: 40 * np.log10(symmetric / asymmetric)),
        "The steps were squared, and the logarithm counts that already: of a ratio of noises decibels are 10 log10."),
    Misconception("the difference of the steps",
        right.but(decibels=lambda symmetric, asymmetric: symmetric - asymmetric),
        "Decibels compare by a ratio: the unit of x must cancel."),
    Misconception("the range is not widened to include 0", right.but(widen=lambda low, high: (low, high)),
        "From 10 to 12 the grid would be 2 long, but it must also have a code for 0.0. Widen the range first."),
    Misconception("0 is included from below only", right.but(widen=lambda low, high: (min(low, 0), high)),
        "Positive ranges are right now. Where all values are negative, it is the upper end that must move to 0."),
    Misconception("0 is included from above only", right.but(widen=lambda low, high: (low, max(high, 0))),
        "Negative ranges are right now. Where all values are positive, it is the lower end that must move to 0."),
    Misconception("the symmetric grid reaches to the largest value only",
        guarded.but(reach=lambda low, high: high),
        "The symmetric grid must reach the largest magnitude, and that may be at the lower end."),
    Misconception("the same gain for every range", right.but(reach=lambda low, high: high - low),
        "At one bit width every range gains the same: both grids got one length. The symmetric scale spans from 0 to "
        "the largest magnitude, the asymmetric one from the lower end to the upper, and the lower is not always 0."),
    Misconception("half the range for the symmetric reach", right.but(reach=lambda low, high: (high - low) / 2),
        "(max - min) / 2 is the reach of a grid whose middle may be anywhere. The symmetric one has its middle at 0, "
        "and must reach the largest magnitude."),
    Misconception("the smaller of the two magnitudes",
        guarded.but(reach=lambda low, high: min(-low, high)),
        "The symmetric grid must reach the end that is farther from 0: the larger magnitude."),
    Misconception("the symmetric range counted once, its steps twice", right.but(divisor=largest_unsigned),
        "max|x| is half of the symmetric grid, and spans half of its steps: 127 at 8 bits."),
    Misconception("divides by 2^(b-1)", right.but(divisor=lambda bits: 2 ** (bits - 1)),
        "The largest symmetric code is 2^(b-1) - 1. The one that is left unused is a part of the gain."),
    Misconception("2^b - 2 for 2^(b-1) - 1", right.but(divisor=lambda bits: 2**bits - 2),
        "2^b - 2 steps span the symmetric grid from end to end. From 0 to max|x| there are half as many, 127 at 8 "
        "bits: mind the brackets of 2 ** (num_bits - 1) - 1."),
    Misconception("2^(b-2) for 2^(b-1) - 1", right.but(divisor=lambda bits: 2 ** (bits - 2)),
        "The largest symmetric code is 2^(b-1) - 1: 127 at 8 bits, not 64."),
    Misconception("divides by 2^b", right.but(levels=lambda bits: 2**bits),
        "Between 2^b codes there are 2^b - 1 steps."),
    Misconception("the unused code is left out",
        right.but(divisor=lambda bits: 2 ** (bits - 1), levels=lambda bits: 2**bits),
        "That is the gain of the range alone. The symmetric grid has one code less, which costs 0.03 dB at 8 bits and "
        "3.5 dB at 2: count the steps of both grids exactly."),
    Misconception("8 bits at every bit width", right.but(divisor=lambda bits: 127, levels=lambda bits: 255),
        "127 and 255 are the steps at 8 bits only. Compute them from num_bits."),
    Misconception("the sum of the ends for the range", right.but(length=lambda low, high: abs(high + low) or 1e-30),
        "From -1 to 2 the range is 3 long: the lower end is subtracted."),
    Misconception("always one bit", lambda low, high, num_bits=8: 20 * np.log10(2),
        "A whole bit is what a range gains that ends at 0. A balanced one gains next to nothing."),
    Misconception("capped at one bit",
        right.but(decibels=lambda symmetric, asymmetric: min(20 * np.log10(symmetric / asymmetric), 20 * np.log10(2))),
        "6.02 dB is what the range alone can gain. The code that the symmetric grid leaves unused comes on top: 6.05 "
        "dB at 8 bits, 9.54 at 2. Leave the result as it is."),
)  # fmt: skip

EXERCISE = Exercise(
    name="asymmetric_gain",
    lab=LESSON,
    place=25,
    points=2,
    reference=asymmetric_gain,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
