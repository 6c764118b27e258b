"""moving average range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labutils.arrays import calibration
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs.lab07 import LESSON
from labutils.labs.lab07._shared import Range, read_range

Array = Any  # a numpy.ndarray or a torch.Tensor


def moving_average_range(batches: Sequence[Array], momentum: float = 0.9) -> Range:
    """Each end as a moving average of the batches' ends: end = momentum * end + (1 - momentum) * end of the batch.

    >>> moving_average_range([np.array([-1.0, 1.0]), np.array([-1.0, 3.0])], momentum=0.75)
    (-1.0, 1.5)

    The first batch's ends are where it starts. ValueError for no batches, or a momentum outside [0, 1).
    """
    estimator = calibration.MovingAverage(momentum, symmetric=False)
    for batch in batches:
        estimator.observe(batch)
    return estimator.range()


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
    expected = moving_average_range(*case.args)
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
        lambda batches, momentum=0.9: moving_average_range(batches, 0.9),
        "0.9 is the default only. Use `momentum`.",
    ),
    Misconception(
        "the range is widened to include 0",
        _averaging(lambda ends: ends, _smooth, ends=lambda b: np.array([min(b.min(), 0), max(b.max(), 0)])),
        "That comes later, when scale and zero point are made of the range. Here, report what was seen.",
    ),
)


EXERCISE = Exercise(
    name="moving_average_range",
    lab=LESSON,
    place=40,
    points=1,
    reference=moving_average_range,
    cases=_average_cases,
    read=read_range,
    judge=_judge_average,
    misconceptions=MOVING_AVERAGE_RANGE,
    stretch=True,
)
