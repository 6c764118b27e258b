"""Run a submission over many inputs, say what is wrong, and name the mistake that makes it answer so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from labutils.course import guard, world
from labutils.course.attempt import LAST, UNDONE, Attempt, attempt
from labutils.course.diagnosis import diagnose
from labutils.course.exercise import Case, Exercise, Wrong
from labutils.course.reading import brief

TIME_LIMIT = 5.0  # seconds a case


ALL_CASES = 6  # time limits that all cases may take together


@dataclass(frozen=True)
class CaseResult:
    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What a check found. `diagnosis` is a misconception's name, or None where none answers as the submission does."""

    exercise: str
    passed: bool
    cases: tuple[CaseResult, ...]
    diagnosis: str | None = None
    hint: str | None = None
    undone: bool = False
    printed: str = ""

    @property
    def first_failure(self) -> CaseResult | None:
        return next((case for case in self.cases if not case.passed), None)


@world.kept()  # cases, judges and misconceptions draw random numbers too
def examine(submission: Callable, exercise: Exercise, time_limit: float = TIME_LIMIT) -> Report:
    """Judge `submission` by `exercise`. Pure: shows nothing, records nothing, and raises for no submission."""
    cases = list(exercise.cases())
    answers: list[Attempt] = []
    results: list[CaseResult] = []
    untried = ""
    end = time.monotonic() + ALL_CASES * time_limit
    for case in cases:
        if not untried and time.monotonic() > end:
            untried = f"not tried: the cases before it took {ALL_CASES * time_limit:g} seconds, look for slow loops"
        if untried:
            results.append(CaseResult(case.name, False, untried))
            continue
        answer = attempt(submission, case, exercise, lambda f, *a, **k: guard.call(f, *a, time_limit=time_limit, **k))
        answers.append(answer)
        complaint = answer.complaint or _complaint(answer.value, case, exercise)
        results.append(CaseResult(case.name, not complaint, complaint))
        if answer.kind in LAST:
            untried = "not tried, after the case above"
    if answers[0].kind == UNDONE:
        return Report(exercise.name, False, tuple(results), undone=True)
    failing = [i for i, answer in enumerate(answers) if not results[i].passed]
    named = diagnose(answers, failing, cases, exercise) if failing and answers[failing[0]].kind not in LAST else None
    return Report(
        exercise=exercise.name,
        passed=all(result.passed for result in results),
        cases=tuple(results),
        diagnosis=named.name if named else None,
        hint=named.hint if named else None,
        printed=answers[failing[0]].printed if failing else "",
    )


def _complaint(value: dict, case: Case, exercise: Exercise) -> str:
    try:
        exercise.judge(value, case)
    except Wrong as wrong:
        return brief(str(wrong))
    return ""
