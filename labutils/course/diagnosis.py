"""Which misconception gives the same answers as the submission."""

from __future__ import annotations

from labutils.course import guard
from labutils.course.attempt import Attempt, attempt
from labutils.course.exercise import Case, Exercise, Misconception, Wrong

MANY = 5  # failing cases


def diagnose(
    attempts: list[Attempt], failing: list[int], cases: list[Case], exercise: Exercise
) -> Misconception | None:
    """Return the misconception that agrees with a submission's `attempts`, or None.

    It must agree in the first of the `failing` cases, and where it agrees with a wrong answer, fail itself: one that is
    right in a case does not explain why another answer is wrong in it. Of several, the one that agrees in the most
    failing cases is returned, then the one that agrees in the most cases of all, then the first in the table. A
    submission with two mistakes is so told about the one shown first, and about the other at its next check. Where
    many cases fail, agreement in one of them and in few of all is taken for chance.
    """

    def agrees(misconception: Misconception, i: int) -> bool:
        made = attempt(misconception.wrong, cases[i], exercise, guard.call_trusted)
        return _same_outcome(made, attempts[i], exercise) and (i not in failing or _fails(made, cases[i], exercise))

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
    is_chance = len(failing) >= MANY and best_score[0] == 1 and best_score[1] < len(attempts) / 3
    return None if is_chance else best


def _same_outcome(one: Attempt, other: Attempt, exercise: Exercise) -> bool:
    """Whether two attempts failed in the same way, or gave equal answers."""
    if one.failure or other.failure:
        return one.failure == other.failure
    return exercise.alike(one.answer, other.answer)


def _fails(made: Attempt, case: Case, exercise: Exercise) -> bool:
    if made.failure:
        return True
    try:
        exercise.judge(made.answer, case)
    except Wrong:
        return True
    return False
