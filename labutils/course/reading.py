"""Reading what a submission returned: as arrays and numbers, or described in words where it is neither."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from labutils.course import guard
from labutils.course.exercise import Wrong

MAX_LENGTH = 400  # characters of a message to the learner, which may quote something of any size

# Returned by functions that have not run yet -> what to do about it.
UNFINISHED: dict[type, str] = {
    types.CoroutineType: "a coroutine: begin with `def`, without `async`",
    types.AsyncGeneratorType: "an async generator: begin with `def`, without `async`, and end with `return`",
    types.GeneratorType: "a generator: end with `return`, without `yield`",
}


class ReadingTimeout(Wrong):
    """Reading an answer took longer than the time limit."""


def read_answer(read: Callable[[Any], dict], value: Any, call: Callable = guard.call) -> dict:
    """Return `read(value)`, or raise Wrong.

    Guarded by `call` like the submission itself, because a returned object may run the learner's code when it is read.
    """
    outcome = call(_read_finished, read, value)
    if isinstance(outcome.error, Wrong):
        raise Wrong(brief(str(outcome.error)))
    if outcome.error is None:
        return outcome.value
    if outcome.timed_out:
        raise ReadingTimeout(f"what it returned cannot be read: {outcome.error}")
    raise Wrong(f"what it returned cannot be read: {call(error_text, outcome.error).value}")


def _read_finished(read: Callable[[Any], dict], value: Any) -> dict:
    if type(value) in UNFINISHED:
        if isinstance(value, types.CoroutineType):
            value.close()  # otherwise Python warns that it was never awaited
        raise Wrong(f"it returned {UNFINISHED[type(value)]}")
    return read(value)


def as_array(value: Any, name: str, kind: str = "an array") -> np.ndarray:
    """Convert a returned NumPy array, torch tensor or number to a NumPy array; Wrong for anything else.

    >>> as_array(2.5, "scale")
    array(2.5)

    `name` is the value's name in the error message, and `kind` what it should be.
    """
    if value is None or isinstance(value, (str, bytes, dict, set, list, tuple)) or callable(value):
        raise Wrong(f"{name} should be {kind}, but it is {describe(value)}")
    try:
        array = np.asarray(value.detach().cpu().numpy() if array_api_compat.is_torch_array(value) else value)
    except Exception as error:
        raise Wrong(f"{name} is {describe(value)}, of which NumPy cannot make an array: {error_text(error)}") from None
    if array.dtype.kind not in "iufb":
        raise Wrong(f"{name} should hold numbers, but its dtype is {array.dtype}")
    return array


def as_number(value: Any, name: str) -> float:
    """Convert a returned number, or an array of one element, to a float; Wrong for anything else.

    >>> as_number(np.float32([0.5]), "scale")
    0.5
    """
    array = as_array(value, name, "a number")
    if array.size != 1:
        raise Wrong(f"{name} should be one number, but it is an array of shape {array.shape}")
    return float(array.reshape(()))


def parts(value: Any, names: tuple[str, ...]) -> tuple:
    """Check that a tuple or list of `len(names)` values was returned, and return it as a tuple; Wrong otherwise.

    >>> parts([1, 2], ("q", "scale"))
    (1, 2)
    """
    expected = f"`return {', '.join(names)}`"
    if value is None:
        raise Wrong(f"it returned None: end with {expected}")
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        received = f"{len(value)} values" if isinstance(value, (tuple, list)) else describe(value)
        raise Wrong(f"it returned {received}; expected {len(names)} values: {expected}")
    return tuple(value)


def brief(text: str) -> str:
    """Cut a message to MAX_LENGTH characters."""
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def distinct(wanted: float, found: float, digits: int = 6) -> tuple[str, str]:
    """Two numbers as text, with as many digits as show how they differ, and `digits` at least.

    >>> distinct(2.0, 1.5), distinct(2.0291041, 2.0291044)
    (('2', '1.5'), ('2.0291041', '2.0291044'))
    """
    for precision in range(digits, 18):
        texts = f"{wanted + 0.0:.{precision}g}", f"{found + 0.0:.{precision}g}"  # + 0.0 makes 0 of -0
        if texts[0] != texts[1]:
            break
    return texts


def describe(value: Any) -> str:
    """Describe a value in a few words.

    >>> describe(np.zeros(3)), describe("a"), describe(None)
    ('an array of shape (3,)', "the str 'a'", 'None')
    """
    if value is None:
        return "None"
    if isinstance(value, type):  # of NumPy's, which has an array's attributes
        return f"the class {value.__name__:.60}"
    if array_api_compat.is_array_api_obj(value) and value.ndim == 0:
        return "one number"
    if array_api_compat.is_array_api_obj(value):
        return f"an array of shape {tuple(value.shape)!s:.60}"
    if type(value) is int and value.bit_length() > 200:  # Python refuses to print thousands of digits
        return f"an int of {value.bit_length()} bits"
    if type(value) in (bool, int, float, str):
        return f"the {type(value).__name__} {value!r:.60}"
    return f"a {type(value).__name__:.60}"


def place(where: tuple) -> str:
    """An index as it is written between brackets: '2, 0'."""
    return ", ".join(str(int(i)) for i in where)


def error_text(error: BaseException) -> str:
    """An exception as type and message: 'ValueError: no'."""
    text = str(error)[:MAX_LENGTH]
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # torch raises a RuntimeError
        return f"MemoryError: more memory than there is for it. {text}".rstrip(". ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
