"""What a submission returned, read as arrays and numbers and described in words; `Wrong` for what cannot be read."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from labutils.course import guard
from labutils.course.exercise import Wrong

LENGTH = 400  # characters that a complaint may take: what it quotes may be of any size


class Endless(Wrong):
    """Reading an answer came to no end."""


UNFINISHED: dict[type, str] = {
    types.CoroutineType: "a coroutine: begin with `def`, without `async`",
    types.AsyncGeneratorType: "an async generator: begin with `def`, without `async`, and end with `return`",
    types.GeneratorType: "a generator: end with `return`, without `yield`",
}


def read_answer(read: Callable[[Any], dict], value: Any, call: Callable = guard.call) -> dict:
    """What `read` makes of a returned value, or Wrong. Guarded as well: an object may do anything when looked at."""
    outcome = call(_read_finished, read, value)
    if isinstance(outcome.error, Wrong):
        raise Wrong(brief(str(outcome.error)))
    if outcome.error is None:
        return outcome.value
    if outcome.timed_out:
        raise Endless(f"what it returned cannot be read: {outcome.error}")
    raise Wrong(f"what it returned cannot be read: {call(error_text, outcome.error).value}")


def _read_finished(read: Callable[[Any], dict], value: Any) -> dict:
    if type(value) in UNFINISHED:
        if isinstance(value, types.CoroutineType):
            value.close()  # else Python warns that nobody waited for it
        raise Wrong(f"it returned {UNFINISHED[type(value)]}")
    return read(value)


def as_array(value: Any, name: str) -> np.ndarray:
    """A returned array as NumPy, whether it was NumPy, torch or a number; Wrong for what is none of these."""
    if value is None or isinstance(value, (str, bytes, dict, set, list, tuple)) or callable(value):
        raise Wrong(f"{name} should be an array, but it is {describe(value)}")
    try:
        array = np.asarray(value.detach().cpu().numpy() if array_api_compat.is_torch_array(value) else value)
    except Exception as error:
        raise Wrong(f"{name} is {describe(value)}, of which NumPy cannot make an array: {error_text(error)}") from None
    if array.dtype.kind not in "iufb":
        raise Wrong(f"{name} should hold numbers, but its dtype is {array.dtype}")
    return array


def as_number(value: Any, name: str) -> float:
    """A returned number as a float: a Python or NumPy number, or an array of one element; Wrong for anything else."""
    array = as_array(value, name)
    if array.size != 1:
        raise Wrong(f"{name} should be one number, but it is an array of shape {array.shape}")
    return float(array.reshape(()))


def parts(value: Any, names: tuple[str, ...]) -> tuple:
    """The parts of a returned tuple, or Wrong with what came instead."""
    wanted = f"`return {', '.join(names)}`"
    if value is None:
        raise Wrong(f"it returned None: end with {wanted}")
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        came = f"{len(value)} values" if isinstance(value, (tuple, list)) else describe(value)
        raise Wrong(f"it returned {came}; expected {len(names)} values: {wanted}")
    return tuple(value)


def brief(text: str) -> str:
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 3]}..."


def describe(value: Any) -> str:
    """A value in a few words: 'an array of shape (3,)', 'the str 'a'', 'None'."""
    if value is None:
        return "None"
    if array_api_compat.is_array_api_obj(value):
        return f"an array of shape {tuple(value.shape)!s:.60}"
    if type(value) is int and value.bit_length() > 200:  # of thousands of digits Python makes no text
        return f"an int of {value.bit_length()} bits"
    if type(value) in (bool, int, float, str):
        return f"the {type(value).__name__} {value!r:.60}"
    if isinstance(value, type):
        return f"the class {value.__name__:.60}"
    return f"a {type(value).__name__:.60}"


def place(where: tuple) -> str:
    """An index as one writes it: '2, 0'."""
    return ", ".join(str(int(i)) for i in where)


def error_text(error: BaseException) -> str:
    """An exception in a line or so: 'ValueError: no'."""
    text = str(error)[:LENGTH]
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # torch raises a RuntimeError
        return f"MemoryError: more memory than there is for it. {text}".rstrip(". ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
