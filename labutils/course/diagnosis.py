"""Which misconception answers as the submission did."""

from __future__ import annotations

import numpy as np

from labutils.course.attempt import Attempt, attempt, unguarded
from labutils.course.exercise import Case, Exercise, Misconception


def diagnose(answers: list[Attempt], failing: list[int], cases: list[Case], exercise: Exercise) -> Misconception | None:
    """The misconception that explains the first failing case and the most of the others.

    Explaining is answering alike. A submission may make two mistakes at once: then one is named that accounts for what
    is shown first, and the next check names the other.
    """

    def alike(misconception: Misconception, i: int) -> bool:
        return _alike(attempt(misconception.wrong, cases[i], exercise, unguarded), answers[i])

    passing = [i for i in range(len(answers)) if i not in failing]
    best, best_score = None, (0, 0)
    for misconception in exercise.misconceptions:
        score = len(failing), len(answers)  # alike in failing cases, in all cases: counted down, to stop early
        for i in (*failing, *passing):
            if score <= best_score:
                break
            if not alike(misconception, i):
                score = (0, 0) if i == failing[0] else (score[0] - (i in failing), score[1] - 1)
        if score > best_score:
            best, best_score = misconception, score
    return best


def _alike(mine: Attempt, theirs: Attempt) -> bool:
    """Whether two answers come from one mistake: equal up to rounding, and up to ties in one element of a thousand."""
    if mine.kind or theirs.kind:
        return mine.kind == theirs.kind
    if mine.value.keys() != theirs.value.keys():
        return False
    return all(_equal(np.asarray(mine.value[key]), np.asarray(theirs.value[key])) for key in mine.value)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return False
    if a.dtype.kind in "bU":  # yes or no, and words
        return bool(np.array_equal(a, b))
    if a.dtype.kind in "iu":
        return a.dtype == b.dtype and np.sum(a != b) <= 1e-3 * a.size
    if a.dtype.kind == "f" and a.ndim:  # a float64 array where float32 was asked for is another mistake
        return a.dtype == b.dtype and np.allclose(a, b, rtol=1e-4, atol=0, equal_nan=True)
    return bool(np.allclose(a, b, rtol=1e-4, atol=0, equal_nan=True))
