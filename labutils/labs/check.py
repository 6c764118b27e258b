"""`check(function)` tells whether an exercise is solved, and if not, which mistake was made."""

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
from labutils.labs.catalogue import EXERCISES


def examine(submission: Callable, time_limit: float = engine.TIME_LIMIT) -> Report:
    """Judge a submission by the exercise of its name, and return the report. Shows and records nothing.

    >>> def storage_bytes(num_values, num_bits):
    ...     return num_values * num_bits
    >>> examine(storage_bytes).diagnosis
    'bits taken for bytes'

    TypeError unless it is a function, or a class where the exercise is one; LookupError if no exercise has its name.
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

    A submission that still raises NotImplementedError is shown as "not done yet" and raises nothing, so that a notebook
    runs to its end - except under nbgrader, which gives points to every cell that raises nothing.
    """
    report = examine(submission)
    show(panel(report))
    if report.passed:
        if not _grading():  # the grader has no progress to record, and a warning about it would cost the points
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

    The cells after an exercise use this, so that a lab can be read to its end before every exercise is done.
    """
    exercise = find(submission)
    if engine.examine(submission, exercise).passed:
        return submission
    note = f"<code>{exercise.name}</code> does not pass its check yet: this cell uses the reference."
    show(Panel(frame(note), f"{exercise.name} does not pass its check yet: this cell uses the reference."))
    return EXERCISES.load(exercise.name)


def find(submission: Callable) -> Exercise:
    """Return the exercise of a function or class, found by its name.

    NotCheckable (a TypeError) for anything else, NoSuchExercise (a LookupError) if there is none of this name.
    """
    name = getattr(submission, "__name__", None)
    if not callable(submission) or not isinstance(name, str):
        raise NotCheckable(
            f"check takes the function itself, as in check(quantize_symmetric); got {describe(submission)}"
        )
    if name == "<lambda>":
        raise NoSuchExercise("a lambda has no name by which its exercise could be found: write it with `def`")
    if name not in EXERCISES:
        names = EXERCISES.names  # not in the order of the course, which would need every exercise's file
        close = difflib.get_close_matches(name, names, n=1)
        suggestion = f"; did you mean {close[0]}?" if close else "."
        raise NoSuchExercise(f"no exercise is called {brief(name)!r}{suggestion} The exercises are: {', '.join(names)}")
    expected = "class" if name[0].isupper() else "function"
    received = "class" if isinstance(submission, type) else "function"
    if received != expected:
        raise NotCheckable(f"{name} should be a {expected}, but it is a {received}")
    return EXERCISES[name]


def _grading() -> bool:
    """nbgrader sets this variable while it runs a submission."""
    return "NBGRADER_EXECUTION" in os.environ
