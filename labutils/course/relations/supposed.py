"""What a submission may have taken something for: the right answer to a slightly different question.

>>> next(claim.sentence for claim, _ in questions({"num_bits": 4}))
'this is the right answer for num_bits = 8'
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np

from labutils.course.relations.pair import Claim

RANK = 5  # among the differences: after those that need no other question

Arguments = dict[str, Any]
Questions = Iterator[tuple[Claim, Arguments]]

ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the negative of `{}`": np.negative,
    "the magnitudes of `{}`": np.abs,
    "`{}` transposed": lambda x: np.ascontiguousarray(x.T),
    "`{}` with 0 for its negative values": lambda x: np.maximum(x, x.dtype.type(0)),
    "`{}` in reverse order": lambda x: np.ascontiguousarray(x[::-1]),
    "`{}` flattened": lambda x: x.reshape(-1),
    "the square of `{}`": np.square,
}


def questions(arguments: Arguments, function: Callable | None = None) -> Questions:
    """Other arguments for which an answer may be the right one, each with what there is to say if it is."""
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "iuf":
            for words, change in ARRAYS.items():
                if ("transposed" in words or "flattened" in words) and value.ndim < 2:
                    continue
                yield _supposing(words.format(name), arguments, {name: change(value)})
        elif isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
            for other in dict.fromkeys(_others(name, value, arguments)):
                if other != value:
                    yield _supposing(f"{name} = {other:g}", arguments, {name: other}, name)
    if function is not None:
        yield from _defaults(arguments, function)
    for one, other in combinations(arguments, 2):
        a, b = arguments[one], arguments[other]
        if type(a) is type(b) and not isinstance(a, (str, bool)) and np.ndim(a) == np.ndim(b) and a is not b:
            yield _supposing(f"`{one}` and `{other}` exchanged", arguments, {one: b, other: a})


def _supposing(words: str, arguments: Arguments, changed: Arguments, name: str = "") -> tuple[Claim, Arguments]:
    key = (name, words) if name else ("supposing", words)
    return Claim(key, f"this is the right answer for {words}", rank=RANK), arguments | changed


def _others(name: str, value: float, arguments: Arguments) -> Iterator[Any]:
    """Values that a whole number or a number is often taken for."""
    first = next((v for v in arguments.values() if isinstance(v, np.ndarray) and v.ndim), None)
    if name == "num_bits":
        yield from (8, 4, value + 1, value - 1)
    elif name == "axis" and first is not None:
        yield from range(first.ndim)
    elif name in ("group_size", "size") and first is not None:
        n = first.shape[-1]
        yield from (128, n, max(1, -(-n // value)), 2 * value)
    elif isinstance(value, (float, np.floating)):
        yield from (
            type(value)(v)
            for v in (
                0,
                1,
                1 - value,
                -value,
                value / 2,
                2 * value,
                value / 100,
                100 * value,
                1 / value if value else 0,
            )
        )
    elif "zp" in name or "zero" in name:
        yield from (type(value)(0), type(value)(-value))


def _defaults(arguments: Arguments, function: Callable) -> Questions:
    for name, parameter in inspect.signature(function).parameters.items():
        default, value = parameter.default, arguments.get(name)
        if default is not parameter.empty and isinstance(default, (bool, int, float)) and default != value:
            yield _supposing(f"`{name}` = {default}, its default, whatever is given", arguments, {name: default})
