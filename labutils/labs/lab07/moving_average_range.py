"""moving_average_range: the ends of batches that pass by, averaged with a momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from labutils.arrays.calibration import MovingAverage, Range
from labutils.arrays.inputs import Array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct
from labutils.labs.lab07 import LESSON
from labutils.labs.lab07._ranges import read_range
from labutils.labs.recipes import Recipe


def moving_average_range(batches: Sequence[Array], momentum: float = 0.9) -> Range:
    """Each end as a moving average of the batches' ends: end = momentum * end + (1 - momentum) * end of the batch.

    >>> moving_average_range([np.array([-1.0, 1.0]), np.array([-1.0, 3.0])], momentum=0.75)
    (-1.0, 1.5)

    The first batch's ends are where it starts. ValueError for no batches, or a momentum outside [0, 1).
    """
    estimator = MovingAverage(momentum, symmetric=False)
    for batch in batches:
        estimator.observe(batch)
    return estimator.range()


def cases() -> list[Case]:
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


def judge(answer: dict, case: Case) -> None:
    for name, wanted in zip(("low", "high"), moving_average_range(*case.args)):
        if not math.isclose(answer[name], wanted, rel_tol=1e-4, abs_tol=1e-6):
            expected, found = distinct(wanted, answer[name], 5)
            raise Wrong(f"{name} should be {expected}, but it is {found}")


def smooth(state, new, momentum):
    return momentum * state + (1 - momentum) * new


@dataclass(frozen=True)
class Average(Recipe):
    """The ends of each batch, of which `start` makes a first state and those that follow, merged by step after step."""

    ends: Callable = lambda batch: np.array([batch.min(), batch.max()])
    start: Callable = lambda ends: ends
    step: Callable = smooth

    def __call__(self, batches, momentum=0.9):
        state, *others = self.start([self.ends(batch).astype(np.float64) for batch in batches])
        for new in others:
            state = self.step(state, new, momentum)
        return float(state[0]), float(state[1])


right = Average()


def only_widening(state, new, momentum):
    low, high = smooth(state, new, momentum)
    return np.array([min(state[0], low), max(state[1], high)])


MISCONCEPTIONS = (
    Misconception("starts at zero", right.but(start=lambda ends: [np.zeros(2), *ends]),
        "An average that starts at 0 needs many batches to leave it. The first batch's own ends are a better start."),
    Misconception("momentum on the wrong side", right.but(step=lambda state, new, m: (1 - m) * state + m * new),
        "A momentum of 0.9 keeps 90% of what was there and takes 10% of the new. Yours does the reverse."),
    Misconception("a plain mean of the ends", right.but(start=lambda ends: [np.mean(ends, axis=0)]),
        "A plain mean weighs all batches alike. Here what was there is kept to `momentum`, batch after batch."),
    Misconception("min-max of everything", right.but(start=lambda ends: [np.array([np.min(ends), np.max(ends)])]),
        "One outlier in one batch stays for ever that way. Average the ends."),
    Misconception("the last batch alone", right.but(start=lambda ends: ends[-1:]),
        "Each batch replaces what was there. Keep `momentum` of it."),
    Misconception("nothing is kept to momentum: the ends add up",
        right.but(step=lambda state, new, m: state + (1 - m) * new),
        "What was there must shrink to `momentum` of it before the new share is added, or the sum grows without end."),
    Misconception("an average of the values instead of the ends",
        right.but(ends=lambda batch: np.array([batch.mean(), batch.mean()])),
        "It is the smallest and the largest value of a batch that are averaged, not its mean."),
    Misconception("a symmetric range",
        right.but(ends=lambda batch: np.array([-np.abs(batch).max(), np.abs(batch).max()])),
        "Here the ends are averaged apart: the minimum with the minima, the maximum with the maxima."),
    Misconception("ends that only ever widen", right.but(step=only_widening),
        "An extreme batch must be forgotten again: the ends move inwards as well."),
    Misconception("0.9 at every momentum", lambda batches, momentum=0.9: right(batches, 0.9),
        "0.9 is the default only. Use `momentum`."),
    Misconception("the range is widened to include 0",
        right.but(ends=lambda batch: np.array([min(batch.min(), 0), max(batch.max(), 0)])),
        "That comes later, when scale and zero point are made of the range. Here, report what was seen."),
)  # fmt: skip

EXERCISE = Exercise(
    name="moving_average_range",
    lab=LESSON,
    place=40,
    points=1,
    reference=moving_average_range,
    cases=cases,
    read=read_range,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
)
