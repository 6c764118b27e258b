"""`check(function)` says whether an exercise is solved, and if not, which mistake was made."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable

from labutils.course import engine, progress
from labutils.course.engine import Report
from labutils.course.exercise import Exercise
from labutils.course.panel import Panel, frame, show
from labutils.course.reading import brief, describe
from labutils.course.report import CheckFailed, NoSuchExercise, NotCheckable, panel
from labutils.labs.catalogue import EXERCISES, load


def examine(submission: Callable, time_limit: float = engine.TIME_LIMIT) -> Report:
    """Return the report on a submission, found among the exercises by its name. Shows and records nothing.

    >>> def storage_bytes(num_values, num_bits):
    ...     return num_values * num_bits
    >>> examine(storage_bytes).diagnosis
    'bits taken for bytes'

    TypeError for what is not the function or class that is due, LookupError for a name that no exercise has.
    """
    return engine.examine(submission, find(submission), time_limit)


def check(submission: Callable) -> None:
    """Show the report on a submission; record a pass, raise CheckFailed for a failure.

    >>> def storage_bytes(num_values, num_bits):
    ...     return num_values * num_bits // 8
    >>> check(storage_bytes)
    Traceback (most recent call last):
    labutils.course.report.CheckFailed: storage_bytes: 4 of 7 cases pass.
    3 values of 3 bits: 9 bits need a second byte: ...; you returned 1.
    It looks like this: the last byte is lost. `//` rounds down: 9 bits do not fit into 1 byte. Round up.

    An exercise that still raises NotImplementedError shows "not done yet" and raises nothing, so that a notebook runs
    to its end - except under nbgrader, where only an error earns no points.
    """
    report = examine(submission)
    show(panel(report))
    if report.passed:
        if not _grading():  # the grader's own progress is nobody's, and a warning about it would cost the points
            progress.record(report.exercise)
    elif not report.undone or _grading():
        raise CheckFailed(report)


def or_reference(submission: Callable) -> Callable:
    """Return `submission` once it passes its check, and the reference from `labutils.answers` until then.

    >>> def storage_bytes(num_values, num_bits):
    ...     raise NotImplementedError()
    >>> or_reference(storage_bytes)(3, 3)
    storage_bytes does not pass its check yet: this cell uses the reference.
    2

    Cells after an exercise build on this, so that the lab can be read on before every exercise is done.
    """
    exercise = find(submission)
    if engine.examine(submission, exercise).passed:
        return submission
    note = f"<code>{exercise.name}</code> does not pass its check yet: this cell uses the reference."
    show(Panel(frame(note), f"{exercise.name} does not pass its check yet: this cell uses the reference."))
    return load(exercise.name)


def find(submission: Callable) -> Exercise:
    """The exercise that a function or class belongs to, by its name."""
    name = getattr(submission, "__name__", None)
    if not callable(submission) or not isinstance(name, str):
        raise NotCheckable(
            f"check takes the function itself, as in check(quantize_symmetric); got {describe(submission)}"
        )
    if name == "<lambda>":
        raise NoSuchExercise("a lambda has no name by which its exercise could be found: write it with `def`")
    if name not in EXERCISES:
        near = difflib.get_close_matches(name, EXERCISES, n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise NoSuchExercise(f"no exercise is called {brief(name)!r}{meant} The exercises are: {', '.join(EXERCISES)}")
    due, came = "class" if name[0].isupper() else "function", "class" if isinstance(submission, type) else "function"
    if due != came:
        raise NotCheckable(f"{name} should be a {due}, but it is a {came}")
    return EXERCISES[name]


def _grading() -> bool:
    """nbgrader sets this variable while it runs a submission."""
    return "NBGRADER_EXECUTION" in os.environ
