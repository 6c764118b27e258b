"""normal_float: a grid with as many weights of a Gaussian at each of its values, and an exact 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from labutils.arrays.inputs import whole_number
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct
from labutils.labs.contract import largest_at
from labutils.labs.floats import as_float64
from labutils.labs.lab11 import LESSON
from labutils.labs.recipes import Recipe

TOLERANCE = 1e-4  # of the table's end; the nearest mistakes are off by more than ten times as much
quantile = np.vectorize(NormalDist().inv_cdf, otypes=[float])


def normal_float(num_bits: int = 4) -> np.ndarray:
    """The 2^b values of QLoRA's NormalFloat, ascending from -1 to 1, with an exact 0, float64.

    >>> normal_float(2).round(4)
    array([-1.    ,  0.    ,  0.4358,  1.    ])

    With d = (1 / 2^b + 1 / (2^b - 1)) / 4: the quantiles of a standard normal distribution at 2^(b-1) probabilities
    from d to 1/2 and at 2^(b-1) + 1 from 1/2 to 1 - d, 1/2 once, divided by the largest. `grids.NF4` holds these for 4
    bits. Dettmers et al., 2023, "QLoRA" (arXiv:2305.14314); d is that of the code published with it. ValueError
    below 2 bits.
    """
    half = 2 ** (whole_number(num_bits, "num_bits", least=2) - 1)
    d = (1 / (2 * half) + 1 / (2 * half - 1)) / 4
    below, above = np.linspace(d, 0.5, half), np.linspace(0.5, 1 - d, half + 1)
    values = np.concatenate([quantile(below[:-1]), [0.0], quantile(above[1:])])
    return values / values[-1]


def cases() -> list[Case]:
    return [Case(f"{num_bits} bits", (num_bits,)) for num_bits in (4, 2, 3, 5, 8)]


def read(value: Any) -> dict:
    return {"values": as_float64(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    (num_bits,), found = case.args, answer["values"]
    wanted = normal_float(num_bits)
    if found.shape != wanted.shape:
        raise Wrong(f"{num_bits} bits have {wanted.size} values, but the result has shape {found.shape}")
    if not np.isfinite(found).all():
        raise Wrong("the result holds NaN or Inf: at the probabilities 0 and 1 a normal distribution has no quantile")
    if (np.diff(found) <= 0).any():
        raise Wrong("the values should ascend, each different from the one before")
    if not (found == 0).any():
        least = found[np.argmin(np.abs(found))]
        raise Wrong(f"one of the values should be exactly 0, but the nearest to it is {least:.3g}")
    off = np.abs(found - wanted)
    worst = largest_at(off)
    if off[worst] > TOLERANCE:
        expected, came = distinct(wanted[worst], found[worst], digits=5)
        raise Wrong(f"value {int(worst[0])} of {wanted.size} should be {expected}, but it is {came}")


def delta(num_bits):
    return (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4


@dataclass(frozen=True)
class Quantiles(Recipe):
    """inverse(p) at `below` probabilities under 1/2 and `above` ones over it, and 0, divided by the largest."""

    d: Callable = delta
    below: Callable = lambda half: half - 1
    above: Callable = lambda half: half
    inverse: Callable = quantile
    middle: tuple = (0.0,)
    result: Callable = lambda values: values / values[-1]

    def __call__(self, num_bits=4):
        half, d = 2 ** (num_bits - 1), self.d(num_bits)
        low = np.linspace(d, 0.5, self.below(half) + 1)[:-1]
        high = np.linspace(0.5, 1 - d, self.above(half) + 1)[1:]
        return self.result(np.concatenate([self.inverse(low), self.middle, self.inverse(high)]))


right = Quantiles()


def symmetric(num_bits=4):
    values = quantile(np.linspace(delta(num_bits), 1 - delta(num_bits), 2**num_bits))
    return values / values[-1]


def middles_of_equal_shares(num_bits=4):
    values = quantile((np.arange(2**num_bits) + 0.5) / 2**num_bits)
    return values / values[-1]


def from_zero_to_one(num_bits=4):
    with np.errstate(all="ignore"):
        from scipy.stats import norm

        values = norm.ppf(np.linspace(0, 1, 2**num_bits))
        return values / values[-1]


def sampled(num_bits=4):
    draws = np.random.default_rng(0).normal(size=100_000)
    half, d = 2 ** (num_bits - 1), delta(num_bits)
    low, high = np.linspace(d, 0.5, half)[:-1], np.linspace(0.5, 1 - d, half + 1)[1:]
    values = np.concatenate([np.quantile(draws, low), [0.0], np.quantile(draws, high)])
    return values / values[-1]


def density(p):
    x = quantile(p)
    return np.sign(x) * (0.4 - np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))


def laplace(p):
    return np.sign(p - 0.5) * -np.log(1 - 2 * np.abs(p - 0.5))


NO_ZERO = (
    "An even number of values that mirror each other has none in the middle: no value is 0, and zeros come back as "
    "something else. Take the two sides apart, one with a value more, and 0 between them."
)

MISCONCEPTIONS = (
    Misconception("no exact 0", symmetric, NO_ZERO),
    Misconception("no exact 0", middles_of_equal_shares, NO_ZERO),
    Misconception("0 occurs twice", right.but(middle=(0.0, 0.0), above=lambda half: half - 1),
        "Both sides start from the probability 1/2, whose quantile is 0. Keep it once: it leaves room for one value "
        "more."),
    Misconception("0 is missing", right.but(middle=()),
        "The probability 1/2 was left out on both sides. Its quantile is 0, and belongs to the table once."),
    Misconception("one value too few", right.but(above=lambda half: half - 1),
        "Two sides with as many values each share the 0, so there is one less than 2^b. The positive side has one "
        "more."),
    Misconception("one value too many", right.but(below=lambda half: half),
        "2^(b-1) + 1 probabilities on each side, 1/2 in common, make 2^b + 1 values: no room in b bits. One side has "
        "one less."),
    Misconception("the longer side is the negative one",
        right.but(below=lambda half: half, above=lambda half: half - 1),
        "One side has a value more. In QLoRA's table it is the positive one."),
    Misconception("quantiles at 0 and 1", from_zero_to_one,
        "A normal distribution has no smallest and no largest value: its quantiles at 0 and 1 are infinite. Stay away "
        "from both by d."),
    Misconception("d is half of what it should be", right.but(d=lambda b: delta(b) / 2),
        "d is the mean of 1 / (2 * 2^b) and 1 / (2 * (2^b - 1)): divide their sum of reciprocals by 4 in all."),
    Misconception("d is twice what it should be", right.but(d=lambda b: 2 * delta(b)),
        "d is the mean of 1 / (2 * 2^b) and 1 / (2 * (2^b - 1)): divide their sum of reciprocals by 4 in all."),
    Misconception("d is 1 / (2 * 2^b)", right.but(d=lambda b: 1 / 2 ** (b + 1)),
        "That is half of an even share for 2^b values. The table's d is the mean of this and the same for 2^b - 1."),
    Misconception("d is 1 / (2 * (2^b - 1))", right.but(d=lambda b: 1 / (2 * (2**b - 1))),
        "That is half of an even share for 2^b - 1 values. The table's d is the mean of this and the same for 2^b."),
    Misconception("d of 4 bits at every width", right.but(d=lambda b: delta(4)),
        "0.0323 is d for 4 bits only. Compute it from num_bits."),
    Misconception("not divided by the largest", right.but(result=lambda values: values),
        "The table reaches from -1 to 1, so that the scale is max|x|. Divide by the largest value."),
    Misconception("divided by the sum", right.but(result=lambda values: values / np.abs(values).sum()),
        "The table reaches from -1 to 1: divide by the largest value."),
    Misconception("evenly spaced values",
        right.but(inverse=lambda p: 2 * (p - 0.5)),
        "Those are probabilities. Their quantiles, the inverse of the cumulative distribution, are dense near 0 and "
        "wide apart at the ends."),
    Misconception("the density instead of the quantile", right.but(inverse=density),
        "The density says how often a value occurs. What is needed is the value below which a share p of all lies."),
    Misconception("quantiles of random numbers", sampled,
        "Quantiles of a sample vary with the sample. The distribution itself has exact ones: `NormalDist().inv_cdf`."),
    Misconception("quantiles of a Laplace distribution", right.but(inverse=laplace),
        "A normal distribution has shorter tails than that. Its quantiles are `NormalDist().inv_cdf`."),
    Misconception("from the largest to the smallest", right.but(result=lambda values: values[::-1] / values[-1]),
        "The values ascend, from -1 to 1."),
    Misconception("4 bits, whatever was asked for", lambda num_bits=4: right(4),
        "There are 2^num_bits values. Use `num_bits`."),
)  # fmt: skip

EXERCISE = Exercise(
    name="normal_float",
    lab=LESSON,
    place=50,
    points=2,
    reference=normal_float,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
