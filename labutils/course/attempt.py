"""One attempt: a function is called with its own copy of a case, and what came of it is read."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.course import guard
from labutils.course.exercise import Case, Exercise, Wrong
from labutils.course.reading import Endless, brief, error_text, read_answer

# Kinds of failure after which no other case is tried. No misconception fails so.
HANGS, UNDONE, NO_TORCH = LAST = ("hangs", "undone", "no torch")


@dataclass(frozen=True)
class Attempt:
    """What one implementation made of one case: a readable value, or the reason why there is none."""

    value: dict | None
    kind: str  # "" for a value, else the kind of failure: two failures of one kind count as alike
    complaint: str = ""
    printed: str = ""


def attempt(function: Callable, case: Case, exercise: Exercise, call: Callable) -> Attempt:
    """Call a function on its own copy of a case's input, and read what it returns."""
    args, kwargs = tuple(map(_own, case.args)), {name: _own(value) for name, value in case.kwargs.items()}
    outcome = call(exercise.run, function, *args, **kwargs)
    error = outcome.error
    if outcome.undone:
        return Attempt(None, UNDONE, "not done yet", outcome.printed)
    if outcome.timed_out:
        return Attempt(None, HANGS, f"it gave {error}. Is there a loop that never ends?", outcome.printed)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        told = "this exercise needs torch, which is not installed: `pip install torch`, then restart the kernel"
        return Attempt(None, NO_TORCH, told, outcome.printed)
    if error is not None:
        told = call(_told, function, error, exercise).value or f"it raised {type(error).__name__}"
        return Attempt(None, type(error).__name__, brief(told), outcome.printed)
    if changed((args, kwargs), (case.args, case.kwargs)):
        return Attempt(None, "changes its input", "it changed the array it was given: work on a copy", outcome.printed)
    try:
        return Attempt(read_answer(exercise.read, outcome.value, call), "", "", outcome.printed)
    except Endless as endless:
        return Attempt(None, HANGS, str(endless), outcome.printed)
    except Wrong as wrong:
        return Attempt(None, str(wrong), str(wrong), outcome.printed)


def unguarded(function: Callable, *args: Any, **kwargs: Any) -> guard.Outcome:
    """As `guard.call`, for our own misconceptions, which end."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return guard.Outcome(function(*args, **kwargs))
        except Exception as error:
            return guard.Outcome(error=error)


def _own(value: Any) -> Any:
    """A copy of an argument; of a non-contiguous array, a copy that is not contiguous either."""
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        return np.repeat(value, 2, axis=-1)[..., ::2]
    return copy.deepcopy(value)


def changed(after: Any, before: Any) -> bool:
    """Whether an array anywhere in the arguments is no longer what it was."""
    if type(after) is not type(before):
        return True
    if isinstance(before, np.ndarray):
        return after.shape != before.shape or after.dtype != before.dtype or after.tobytes() != before.tobytes()
    if isinstance(before, (tuple, list)):
        return len(after) != len(before) or any(changed(a, b) for a, b in zip(after, before))
    if isinstance(before, dict):
        return after.keys() != before.keys() or any(changed(after[key], value) for key, value in before.items())
    return False


def _told(function: Callable, error: BaseException, exercise: Exercise) -> str:
    where = _line_in(function, error)
    if isinstance(error, TypeError) and not where and exercise.name.islower():
        where = f"; it is called as `{exercise.name}({', '.join(_parameters(exercise.reference))})`"
    return f"it raised {error_text(error)}{where}"


def _line_in(function: Callable, error: BaseException) -> str:
    """Where in the submission an exception came from: ' (line 3 of your function)', or of a class's method."""
    methods = vars(function) if isinstance(function, type) else {"function": function}
    codes = {getattr(inspect.unwrap(getattr(m, "__func__", m)), "__code__", None): name for name, m in methods.items()}
    trace, found = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code in codes:
            found = f" (line {trace.tb_lineno - code.co_firstlineno + 1} of your {codes[code]})"
        trace = trace.tb_next
    return found


def _parameters(function: Callable) -> list[str]:
    bare = (p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values())
    return [str(parameter) for parameter in bare]
