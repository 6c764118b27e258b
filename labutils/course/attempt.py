"""One attempt: call an implementation with a copy of one case's arguments, and read what it returns."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.course.exercise import Case, Exercise, Wrong
from labutils.course.guard import Outcome
from labutils.course.raised import kind_of, sentence_about
from labutils.course.reading import ReadingTimeout, read_answer

HANGS, UNDONE, NO_TORCH = "hangs", "undone", "no torch"
FINAL = (HANGS, UNDONE, NO_TORCH)  # kinds of failure after which no other case is run; no misconception has them


@dataclass(frozen=True)
class Attempt:
    """The answer of one implementation to one case, or why there is none.

    answer   what the exercise's `read` made of the returned value; None after a failure
    failure  the kind of failure, "" if there is an answer; the diagnosis takes two of one kind for the same mistake
    message  the failure in a sentence for the learner
    printed  what the call wrote to stdout and stderr
    """

    answer: dict | None
    failure: str = ""
    message: str = ""
    printed: str = ""


def attempt(implementation: Callable, case: Case, exercise: Exercise, call: Callable) -> Attempt:
    """Run one case through `call`, which is `guard.call` for a submission and `guard.call_trusted` for our own code."""
    args, kwargs = tuple(map(_copied, case.args)), {name: _copied(value) for name, value in case.kwargs.items()}
    outcome = call(exercise.run, implementation, *args, **kwargs)
    failure = _failure(outcome, implementation, exercise, call)
    if failure is None and changed((args, kwargs), (case.args, case.kwargs)):
        failure = "changes its input", "it changed what it was given: work on a copy"
    if failure:
        return Attempt(None, *failure, outcome.printed)
    try:
        return Attempt(read_answer(exercise.read, outcome.value, call), printed=outcome.printed)
    except ReadingTimeout as timeout:
        return Attempt(None, HANGS, str(timeout), outcome.printed)
    except Wrong as wrong:
        return Attempt(None, str(wrong), str(wrong), outcome.printed)


def _failure(outcome: Outcome, implementation: Callable, exercise: Exercise, call: Callable) -> tuple[str, str] | None:
    """(kind, message) of a call that returned nothing, None for one that returned."""
    error = outcome.error
    if error is None:
        return None
    if outcome.undone:
        return UNDONE, "not done yet"
    if outcome.timed_out:
        return HANGS, f"it gave {error}. Is there a loop that never ends?"
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return (
            NO_TORCH,
            "this exercise needs torch, which is not installed: `pip install torch`, then restart the kernel",
        )
    # Guarded, because the text of a learner's exception is a learner's code too.
    unknown = type(error).__name__
    kind = call(kind_of, error).value or unknown
    sentence = call(sentence_about, error, implementation, exercise.name, exercise.reference).value
    return kind, sentence or f"it raised {unknown}"


def _copied(value: Any) -> Any:
    """A copy of an argument. The copy of a non-contiguous array is not contiguous either."""
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        return np.repeat(value, 2, axis=-1)[..., ::2]
    return copy.deepcopy(value)


def changed(after: Any, before: Any) -> bool:
    """Whether any array in the arguments, however nested, has another shape, dtype or content than before."""
    if type(after) is not type(before):
        return True
    if isinstance(before, np.ndarray):
        return after.shape != before.shape or after.dtype != before.dtype or after.tobytes() != before.tobytes()
    if isinstance(before, (tuple, list)):
        return len(after) != len(before) or any(changed(a, b) for a, b in zip(after, before))
    if isinstance(before, dict):
        return after.keys() != before.keys() or any(changed(after[key], value) for key, value in before.items())
    return False
