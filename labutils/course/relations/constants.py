"""Numbers that a quantizer may be off by, and what they are called: 255/127, the number of values, sqrt(2)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from labutils.course.exercise import Case

TOLERANCE = 2e-6  # relative, below which a number is the one that is named; float32 is good to 6e-8

# Formulas in the bit width; their quotients are factors that scales are wrong by.
OF_BITS: dict[str, Callable[[int], float]] = {
    "2^(b-1) - 1": lambda bits: 2 ** (bits - 1) - 1,
    "2^(b-1)": lambda bits: 2 ** (bits - 1),
    "2^b - 1": lambda bits: 2**bits - 1,
    "2^b": lambda bits: 2**bits,
    "(2^b - 1) / 2": lambda bits: (2**bits - 1) / 2,
}
AT_8_BITS = {"127": 127, "128": 128, "255": 255, "256": 256}
SIMPLE = {
    **{str(n): n for n in (2, 3, 4, 5, 8, 10, 16, 32, 64, 100, 1000, 1024)},
    **{f"1/{n}": 1 / n for n in (2, 3, 4, 5, 8, 10, 16, 32, 64, 100, 1000, 1024)},
    "sqrt(2)": math.sqrt(2), "1/sqrt(2)": math.sqrt(0.5), "pi": math.pi, "ln(10)": math.log(10), "ln(2)": math.log(2),
    "1/ln(10)": 1 / math.log(10), "1/ln(2)": 1 / math.log(2),
}  # fmt: skip


def arguments_of(case: Case, function: Callable) -> dict[str, Any]:
    """The arguments of a case by the names that `function` gives them, with its defaults; {} where it takes others."""
    try:
        bound = inspect.signature(function).bind(*case.args, **case.kwargs)
    except (TypeError, ValueError):
        return {}
    bound.apply_defaults()
    return dict(bound.arguments)


def named_factors(arguments: dict[str, Any]) -> dict[str, tuple[float, str]]:
    """Formula -> (its value, how it is written with numbers), for the factors that may occur with these arguments.

    >>> named_factors({"num_bits": 8})["(2^b - 1) / (2^(b-1) - 1)"]
    (2.0078740157480315, '255/127')
    """
    found = {name: (float(value), name) for name, value in SIMPLE.items()}
    bits = arguments.get("num_bits")
    if isinstance(bits, int):
        values = {name: formula(bits) for name, formula in OF_BITS.items()} | (AT_8_BITS if bits != 8 else {})
        for above in values:
            for below in (name for name in values if values[name] and name != above):
                formula = f"{_in_brackets(above)} / {_in_brackets(below)}"
                found.setdefault(formula, (values[above] / values[below], f"{values[above]:g}/{values[below]:g}"))
        for name, value in values.items():
            if value > 1:
                found |= {
                    f"sqrt({name})": (math.sqrt(value), f"the square root of {value:g}"),
                    f"1 / sqrt({name})": (1 / math.sqrt(value), f"1 / the square root of {value:g}"),
                }
            if value:
                found |= {name: (float(value), f"{value:g}"), f"1 / {_in_brackets(name)}": (1 / value, f"1/{value:g}")}
    for name, value in _sizes(arguments):
        if value > 1:
            found |= {
                name: (value, f"{value:g}, {name}"),
                f"1 / {name}": (1 / value, f"1/{value:g}, for {name} is {value:g}"),
                f"sqrt of {name}": (math.sqrt(value), f"the square root of {value:g}, {name}"),
                f"1 / sqrt of {name}": (1 / math.sqrt(value), f"1 / the square root of {value:g}, {name}"),
            }
    return found


def _in_brackets(formula: str) -> str:
    return f"({formula})" if " " in formula else formula


def _sizes(arguments: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and value.ndim:
            yield f"the number of values in `{name}`", float(value.size)
            if value.ndim > 1:
                yield from ((f"the length of axis {i} of `{name}`", float(n)) for i, n in enumerate(value.shape))
        elif name == "group_size" and isinstance(value, int):
            yield "group_size", float(value)


def name_of(value: float, factors: dict[str, tuple[float, str]]) -> list[tuple[str, str]]:
    """The formulas whose value is this one, each with how it is written: simple numbers first."""
    return [
        (formula, written)
        for formula, (known, written) in factors.items()
        if math.isclose(value, known, rel_tol=TOLERANCE) and known != 1
    ]
