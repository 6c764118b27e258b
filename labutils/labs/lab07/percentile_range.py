"""percentile_range: a range that leaves out a given share of the values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays.calibration import Percentile, Range
from labutils.arrays.inputs import Array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs.contract import arguments, gelu
from labutils.labs.lab07 import LESSON
from labutils.labs.lab07._ranges import flat_float64, read_range, relu_activations, require_range, threshold_alone
from labutils.labs.recipes import Recipe


def percentile_range(x: Array, percentile: float = 99.9, symmetric: bool = True) -> Range:
    """The range in which `percentile` percent of the values lie.

    >>> x = np.arange(-100, 301, dtype=np.float32)
    >>> percentile_range(x, 75), percentile_range(x, 75, symmetric=False)
    ((-200.0, 200.0), (-50.0, 250.0))

    symmetric: [-t, t], t the percentile of |x|. Otherwise half of the rest lies below the range and half above. Between
    two values it is interpolated. ValueError for a percentile outside (50, 100].
    """
    values = flat_float64(x)
    percentile = Percentile(percentile, symmetric).percentile  # checked there
    if symmetric:
        threshold = float(np.percentile(np.abs(values), percentile))
        return -threshold, threshold
    low, high = np.percentile(values, [(100 - percentile) / 2, (100 + percentile) / 2])
    return float(low), float(high)


HAND = np.array([0.5, -8.0, 1.5, -0.25, 3.0], dtype=np.float32)  # of the lesson: the 75th percentile of |x| is 3


def cases() -> list[Case]:
    rng = np.random.default_rng(7)
    gaussian = rng.normal(size=20_000).astype(np.float32)
    lopsided = gelu(2 * gaussian).astype(np.float32)
    spiked = np.append(gaussian[:3000], np.full(30, -25.0)).astype(np.float32)
    apart = {"symmetric": False}
    return [
        Case("the worked example", (HAND, 75)),
        Case("the worked example, asymmetric", (HAND, 75), apart),
        Case("a Gaussian; symmetric at 99.9 is the default", (gaussian,)),
        Case("activations of the digits network, 99 percent", (relu_activations(), 99)),
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


def judge(answer: dict, case: Case) -> None:
    x, percentile, symmetric = arguments(percentile_range, case)
    low, high = require_range(answer, symmetric)
    if symmetric:
        judge_rank(high, np.abs(x), percentile, f"the threshold should be the {percentile:g}th percentile of |x|")
        return
    rest = (100 - percentile) / 2
    judge_rank(low, x, rest, f"{rest:g}% of the values should lie below low")
    judge_rank(high, x, 100 - rest, f"{rest:g}% of the values should lie above high")


def judge_rank(value: float, x: np.ndarray, percentile: float, demand: str) -> None:
    """However it is interpolated, a percentile lies between the neighbours of its rank."""
    ordered = np.sort(x, axis=None).astype(np.float64)
    rank = math.floor(percentile / 100 * (ordered.size - 1))
    least, most = ordered[max(rank - 1, 0)], ordered[min(rank + 2, ordered.size - 1)]
    slack = 1e-5 * abs(value)
    if not least - slack <= value <= most + slack:
        raise Wrong(f"{demand}: that is {np.percentile(x, percentile):.5g}, but it is {value:.5g}")


@dataclass(frozen=True)
class PercentileRange(Recipe):
    """(-t, t) with t = threshold(x, percentile), or ends(x, percentile); `result` is what is returned of the two."""

    threshold: Callable = lambda x, p: np.percentile(np.abs(x), p)
    ends: Callable = lambda x, p: (np.percentile(x, (100 - p) / 2), np.percentile(x, (100 + p) / 2))
    result: Callable = lambda low, high: (low, high)

    def __call__(self, x, percentile=99.9, symmetric=True):
        if not symmetric:
            return self.result(*self.ends(x, percentile))
        t = self.threshold(x, percentile)
        return self.result(-t, t)


right = PercentileRange()


def share_of_the_largest(x, percentile=99.9, symmetric=True):
    t = percentile / 100 * np.abs(x).max()
    return -t, t


MISCONCEPTIONS = (
    Misconception("the percentile of x instead of |x|", right.but(threshold=np.percentile),
        "A symmetric range cuts at both ends. The percentile of x counts only what is cut above, and where the long "
        "side is below zero it sees nothing of it."),
    Misconception("only the upper end is cut", lambda x, p=99.9, symmetric=True: (x.min(), np.percentile(x, p)),
        "Outliers may lie below zero as well: low is the minimum here, whatever it is."),
    Misconception("a range from zero", lambda x, p=99.9, symmetric=True: (0.0, np.percentile(np.abs(x), p)),
        "The percentile of |x| is a threshold. A symmetric range reaches as far below zero as above it."),
    Misconception("a fraction where percent are meant",
        lambda x, p=99.9, symmetric=True: right(x, p / 100, symmetric),
        "`np.percentile` takes percent, 99.9 and not 0.999: yours keeps less than one value of a hundred."),
    Misconception("percent where a fraction is meant", right.but(threshold=lambda x, p: np.quantile(np.abs(x), p),
        ends=lambda x, p: np.quantile(x, [(100 - p) / 2, (100 + p) / 2])),
        "`np.quantile` takes a fraction from 0 to 1, and `percentile` is in percent: divide by 100, or use another "
        "function."),
    Misconception("each end loses the whole rest",
        right.but(ends=lambda x, p: (np.percentile(x, 100 - p), np.percentile(x, p))),
        "At 99 percent, 1 percent may lie outside: half a percent on each side. Yours leaves out 1 percent on each."),
    Misconception("symmetric, whatever was asked for", lambda x, p=99.9, symmetric=True: right(x, p),
        "`symmetric=False` asks for two ends that are chosen apart, each with half of the rest beyond it."),
    Misconception("asymmetric, whatever was asked for", lambda x, p=99.9, symmetric=True: right(x, p, False),
        "`symmetric=True` asks for one threshold t, for values of both signs, and the range (-t, t)."),
    Misconception("the wider of two ends", right.but(threshold=lambda x, p: max(map(abs, right(x, p, False)))),
        "The ends of the asymmetric range have half of the rest beyond each. For a symmetric one, sort by magnitude: "
        "the percentile of |x|."),
    Misconception("a share of the largest magnitude", share_of_the_largest,
        "A percentile is about how many values lie below it, not about how large the largest is: 99.9% of max|x| is "
        "next to max|x|."),
    Misconception("the largest magnitude, whatever was asked for",
        lambda x, p=99.9, symmetric=True: right(x, 100, symmetric),
        "That is min-max: nothing is cut off. Use `percentile`."),
    Misconception("99.9 at every percentile", lambda x, p=99.9, symmetric=True: right(x, 99.9, symmetric),
        "99.9 is the default only. Use `percentile`."),
    Misconception("zeros are left out",
        lambda x, p=99.9, symmetric=True: right(x[x != 0] if x.any() else x, p, symmetric),
        "After a ReLU half of the values are 0. They count: the percentile is of all values."),
    Misconception("a range for each row",
        right.but(threshold=lambda x, p: np.percentile(np.abs(x), p, axis=-1, keepdims=x.ndim > 1)),
        "One range for the whole tensor: take the percentile over all values, without an axis."),
    threshold_alone(right),
    Misconception("returns high before low", right.but(result=lambda low, high: (high, low)),
        "The contract is low before high: the smaller end first."),
)  # fmt: skip

EXERCISE = Exercise(
    name="percentile_range",
    lab=LESSON,
    place=10,
    points=2,
    reference=percentile_range,
    cases=cases,
    read=read_range,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
