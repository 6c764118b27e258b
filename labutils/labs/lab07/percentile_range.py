"""percentile range."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from labutils.arrays import calibration
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs.lab07 import LESSON
from labutils.labs.lab07._shared import Range, _activations, _gelu, _require_range, _values, read_range

Array = Any  # a numpy.ndarray or a torch.Tensor


def percentile_range(x: Array, percentile: float = 99.9, symmetric: bool = True) -> Range:
    """The range in which `percentile` percent of the values lie.

    >>> x = np.arange(-100, 301, dtype=np.float32)
    >>> percentile_range(x, 75), percentile_range(x, 75, symmetric=False)
    ((-200.0, 200.0), (-50.0, 250.0))

    symmetric: [-t, t], t the percentile of |x|. Otherwise half of the rest lies below the range and half above. Between
    two values it is interpolated. ValueError for a percentile outside (50, 100].
    """
    values = _values(x)
    percentile = calibration.Percentile(percentile, symmetric).percentile  # checked there
    if symmetric:
        threshold = float(np.percentile(np.abs(values), percentile))
        return -threshold, threshold
    low, high = np.percentile(values, [(100 - percentile) / 2, (100 + percentile) / 2])
    return float(low), float(high)


HAND = np.array([0.5, -8.0, 1.5, -0.25, 3.0], dtype=np.float32)  # of the lesson: the 75th percentile of |x| is 3


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
            return percentile_range(x, percentile, False)
        t = threshold(x, percentile)
        return -t, t

    return percentile_range


def _apart(ends: Callable) -> Callable:
    """Right in the symmetric half, wrong in the other."""

    def percentile_range(x, percentile=99.9, symmetric=True):
        return percentile_range(x, percentile) if symmetric else ends(x, percentile)

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
        lambda x, p=99.9, symmetric=True: percentile_range(x, p),
        "`symmetric=False` asks for two ends that are chosen apart, each with half of the rest beyond it.",
    ),
    Misconception(
        "asymmetric, whatever was asked for",
        lambda x, p=99.9, symmetric=True: percentile_range(x, p, False),
        "`symmetric=True` asks for one threshold t, for values of both signs, and the range (-t, t).",
    ),
    Misconception(
        "the wider of two ends",
        _both_ways(lambda x, p: max(map(abs, percentile_range(x, p, False)))),
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
        lambda x, p=99.9, symmetric=True: percentile_range(x, 100, symmetric),
        "That is min-max: nothing is cut off. Use `percentile`.",
    ),
    Misconception(
        "99.9 at every percentile",
        lambda x, p=99.9, symmetric=True: percentile_range(x, 99.9, symmetric),
        "99.9 is the default only. Use `percentile`.",
    ),
    Misconception(
        "zeros are left out",
        lambda x, p=99.9, symmetric=True: percentile_range(x[x != 0] if x.any() else x, p, symmetric),
        "After a ReLU half of the values are 0. They count: the percentile is of all values.",
    ),
    Misconception(
        "a range for each row",
        lambda x, p=99.9, symmetric=True: (
            -np.percentile(np.abs(x), p, axis=-1, keepdims=True), np.percentile(np.abs(x), p, axis=-1, keepdims=True)
        ) if x.ndim > 1 else percentile_range(x, p, symmetric),
        "One range for the whole tensor: take the percentile over all values, without an axis.",
    ),
    Misconception(
        "returns the threshold alone",
        _returning(percentile_range, lambda low, high: high),
        "The contract is two values, low and high, also where low is just -high.",
    ),
    Misconception(
        "returns high before low",
        _returning(percentile_range, lambda low, high: (high, low)),
        "The contract is low before high: the smaller end first.",
    ),
)  # fmt: skip


EXERCISE = Exercise(
    name="percentile_range",
    lab=LESSON,
    place=10,
    points=2,
    reference=percentile_range,
    cases=_percentile_cases,
    read=read_range,
    judge=_judge_percentile,
    misconceptions=PERCENTILE_RANGE,
)
