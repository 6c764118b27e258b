"""The references of all exercises, by name: `answers.quantize_group` is the function that its exercise's file defines.

They are references, not model solutions: a lab's solution spells out the arithmetic that `arrays` implements once.
"""

from __future__ import annotations

from typing import Any

from labutils.labs.catalogue import EXERCISES


def __getattr__(name: str) -> Any:
    if name not in EXERCISES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: no exercise is called so")
    return globals().setdefault(name, EXERCISES.load(name))


def __dir__() -> list[str]:
    return sorted(EXERCISES.names)
