"""`check(function)` says whether an exercise is solved, and if not, which mistake was made.

One file of exercises a lab, labNN.py, found by its name; `EXERCISES` is all of them, in the order of the course.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from collections.abc import Callable

from labutils import answers, progress
from labutils.checks import engine
from labutils.checks.engine import Exercise, Report
from labutils.checks.report import CheckFailed, NoSuchExercise, NotCheckable, panel
from labutils.panel import Panel, escape, frame, show

LABS = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith("lab"))
EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise for lab in LABS for exercise in importlib.import_module(f"{__name__}.{lab}").EXERCISES
}


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
    labutils.checks.report.CheckFailed: storage_bytes: 4 of 7 cases pass.
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
    return getattr(answers, exercise.name)


def find(submission: Callable) -> Exercise:
    """The exercise that a function or class belongs to, by its name."""
    name = getattr(submission, "__name__", None)
    if not callable(submission) or not isinstance(name, str):
        raise NotCheckable(
            f"check takes the function itself, as in check(quantize_symmetric); got {engine.describe(submission)}"
        )
    if name == "<lambda>":
        raise NoSuchExercise("a lambda has no name by which its exercise could be found: write it with `def`")
    if name not in EXERCISES:
        near = difflib.get_close_matches(name, EXERCISES, n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise NoSuchExercise(
            f"no exercise is called {engine.brief(name)!r}{meant} The exercises are: {', '.join(EXERCISES)}"
        )
    due, came = "class" if name[0].isupper() else "function", "class" if isinstance(submission, type) else "function"
    if due != came:
        raise NotCheckable(f"{name} should be a {due}, but it is a {came}")
    return EXERCISES[name]


def board() -> Panel:
    """A bar per lab that fills as its checks pass.

    >>> board()  # doctest: +SKIP
    00_start_here      [##########] 1 of 1
    01_fundamentals    [####......] 2 of 6
    """
    done = progress.passed()
    labs: dict[str, list[str]] = {}
    for exercise in EXERCISES.values():
        labs.setdefault(exercise.lab, []).append(exercise.name)
    lines, rows, width = [], [], max(map(len, labs))
    for lab, names in labs.items():
        count, total = len(done.intersection(names)), len(names)
        filled = round(10 * count / total)
        left = [name for name in names if name not in done]
        lines.append(f"{lab:<{width}} [{'#' * filled}{'.' * (10 - filled)}] {count} of {total}")
        rows.append(_bar(lab, count, total, left))
    return Panel(frame("Your progress", "".join(rows)), "\n".join(lines))


def _bar(lab: str, count: int, total: int, left: list[str]) -> str:
    from labutils import palette

    still = f"still open: {escape(', '.join(left))}" if left else "complete"
    return (
        '<div style="display:flex;flex-wrap:wrap;align-items:baseline;gap:0 10px;margin:4px 0;font-weight:400">'
        f'<span style="flex:0 0 12em">{escape(lab)}</span>'
        f'<span role="img" aria-label="{count} of {total}" style="flex:0 0 160px;height:10px;border-radius:5px;'
        f'background:#8884"><span style="display:block;height:10px;border-radius:5px;background:{palette.GOOD};'
        f'width:{100 * count / total:.0f}%"></span></span>'
        f'<span style="flex:0 0 3.5em">{count} of {total}</span>'
        f'<span style="flex:1 1 16em;opacity:.75">{still}</span></div>'
    )


def _grading() -> bool:
    """nbgrader sets this variable while it runs a submission."""
    return "NBGRADER_EXECUTION" in os.environ
