"""Which misconception gives the same answers as the submission."""

from __future__ import annotations

import numpy as np

from labutils.course import guard
from labutils.course.attempt import Attempt, attempt
from labutils.course.exercise import Case, Exercise, Misconception


def diagnose(
    attempts: list[Attempt], failing: list[int], cases: list[Case], exercise: Exercise
) -> Misconception | None:
    """Return the misconception that agrees with a submission's `attempts`, or None.

    It must agree in the first of the `failing` cases. Of several, the one that agrees in the most failing cases is
    returned, then the one that agrees in the most cases of all, then the first in the table. A submission with two
    mistakes is so told about the one shown first, and about the other at its next check.
    """

    def agrees(misconception: Misconception, i: int) -> bool:
        return _same_answer(attempt(misconception.wrong, cases[i], exercise, guard.call_trusted), attempts[i])

    passing = [i for i in range(len(attempts)) if i not in failing]
    best, best_score = None, (0, 0)
    for misconception in exercise.misconceptions:
        score = len(failing), len(attempts)  # agreement in failing cases, in all cases; counted down, to stop early
        for i in (*failing, *passing):
            if score <= best_score:
                break
            if not agrees(misconception, i):
                score = (0, 0) if i == failing[0] else (score[0] - (i in failing), score[1] - 1)
        if score > best_score:
            best, best_score = misconception, score
    return best


def _same_answer(one: Attempt, other: Attempt) -> bool:
    """Whether two attempts failed in the same way, or gave equal answers."""
    if one.failure or other.failure:
        return one.failure == other.failure
    if one.answer.keys() != other.answer.keys():
        return False
    return all(_equal(np.asarray(one.answer[key]), np.asarray(other.answer[key])) for key in one.answer)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal up to rounding; integers may differ in one element of a thousand, because rounding decides ties."""
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return False
    if a.dtype.kind in "bU":  # booleans and text
        return bool(np.array_equal(a, b))
    if a.dtype.kind in "iu":
        return a.dtype == b.dtype and np.sum(a != b) <= 1e-3 * a.size
    if a.dtype.kind == "f" and a.ndim:  # float64 where float32 was asked for is a mistake of its own
        return a.dtype == b.dtype and np.allclose(a, b, rtol=1e-4, atol=0, equal_nan=True)
    return bool(np.allclose(a, b, rtol=1e-4, atol=0, equal_nan=True))
