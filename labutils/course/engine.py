"""Run a submission on an exercise's cases, judge the answers, and name the misconception behind a failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from labutils.course import guard, world
from labutils.course.attempt import FINAL, UNDONE, Attempt, attempt
from labutils.course.diagnosis import diagnose
from labutils.course.exercise import Case, Exercise, Wrong
from labutils.course.reading import brief
from labutils.course.relations import relate

TIME_LIMIT = 5.0  # seconds per case
TOTAL_LIMITS = 6  # all cases together may take this many time limits


@dataclass(frozen=True)
class CaseResult:
    """Whether one case passed, and if not, why."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """The result of a check.

    `diagnosis` is the name of a misconception, or None where none explains the failure. `relation` then says how the
    answers stand to the right ones, or is None.
    """

    exercise: str
    passed: bool
    cases: tuple[CaseResult, ...]
    diagnosis: str | None = None
    hint: str | None = None
    relation: str | None = None
    undone: bool = False
    printed: str = ""

    @property
    def first_failure(self) -> CaseResult | None:
        return next((case for case in self.cases if not case.passed), None)


@world.restored()  # cases, judges and misconceptions draw random numbers too
def examine(submission: Callable, exercise: Exercise, time_limit: float = TIME_LIMIT) -> Report:
    """Judge `submission` by `exercise`. Shows and records nothing, and raises nothing that the submission raises."""
    cases = list(exercise.cases())
    attempts, results = _run(submission, cases, exercise, time_limit)
    if attempts[0].failure == UNDONE:
        return Report(exercise.name, False, results, undone=True)
    failing = [i for i in range(len(attempts)) if not results[i].passed]
    if not failing:
        return Report(exercise.name, all(result.passed for result in results), results)
    first = attempts[failing[0]]
    final = first.failure in FINAL
    mistake = None if final else diagnose(attempts, failing, cases, exercise)
    return Report(
        exercise=exercise.name,
        passed=False,
        cases=results,
        diagnosis=mistake and mistake.name,
        hint=mistake and mistake.hint,
        relation=None if final or mistake else relate(attempts, failing, cases, exercise),
        printed=first.printed,
    )


def _run(
    submission: Callable, cases: list[Case], exercise: Exercise, time_limit: float
) -> tuple[list[Attempt], tuple[CaseResult, ...]]:
    """The attempts at the cases up to a final failure or the end of the time, and a result for every case."""
    attempts: list[Attempt] = []
    results: list[CaseResult] = []
    not_tried = ""
    total = TOTAL_LIMITS * time_limit
    end = time.monotonic() + total
    for case in cases:
        if not not_tried and time.monotonic() > end:
            not_tried = f"not tried: the cases before it took {total:g} seconds, look for slow loops"
        if not_tried:
            results.append(CaseResult(case.name, False, not_tried))
            continue
        tried = attempt(submission, case, exercise, partial(guard.call, time_limit=time_limit))
        attempts.append(tried)
        message = tried.message or _verdict(tried.answer, case, exercise)
        results.append(CaseResult(case.name, not message, message))
        if tried.failure in FINAL:
            not_tried = "not tried, after the case above"
    return attempts, tuple(results)


def _verdict(answer: dict, case: Case, exercise: Exercise) -> str:
    """What is wrong with an answer, or "" where nothing is."""
    try:
        exercise.judge(answer, case)
    except Wrong as wrong:
        return brief(str(wrong))
    return ""
