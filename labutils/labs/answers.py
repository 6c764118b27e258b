"""The functions that learners write, as the labs name them: `answers.quantize_group` is the reference in its file.

These are references, not solutions: a lab's solution spells out the arithmetic that `arrays` keeps in one place.
"""

from __future__ import annotations

from typing import Any

from labutils.labs import catalogue


def __getattr__(name: str) -> Any:
    if name not in catalogue.EXERCISES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: no exercise is called so")
    return globals().setdefault(name, catalogue.load(name))


def __dir__() -> list[str]:
    return sorted(catalogue.EXERCISES)
