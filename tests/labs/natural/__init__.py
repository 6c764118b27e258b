"""Wrong answers as learners write them, one function each, grouped by lab and exercise.

To add one, write the function as it would be written in the lab, and say what may be said about it:

    @mistake("quantize_symmetric", "floor under the scale")
    def smallest_scale_of_1e_5(x, num_bits=8):
        ...

The second argument is a regular expression. A diagnosis that it is not found in is a wrong one. What is said where no
misconception explains the answer, a relation, is computed from the answer and need not match.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class NaturalMistake:
    exercise: str
    names: str  # a regular expression for the diagnoses that fit
    wrong: Callable

    def __str__(self) -> str:
        return f"{self.exercise}-{self.wrong.__wrapped__.__name__}"


MISTAKES: list[NaturalMistake] = []


def mistake(exercise: str, names: str = "$^") -> Callable[[Callable], Callable]:
    """Add a function to the table; without `names` no diagnosis fits, since no misconception is this mistake."""

    def add(function: Callable) -> Callable:
        if isinstance(function, type):
            function.__wrapped__ = type(function.__name__, (), {})
            wrong = function
        else:

            @functools.wraps(function)
            def wrong(*args, **kwargs):
                return function(*args, **kwargs)

        MISTAKES.append(NaturalMistake(exercise, names, wrong))
        return function

    return add


def load() -> list[NaturalMistake]:
    """All mistakes, from all modules of this folder."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return MISTAKES
