"""Arrays of floats in an answer: read in float64, and compared with the wanted ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils.course.exercise import Wrong
from labutils.course.reading import as_array, distinct, place
from labutils.labs.contract import largest_at


def as_float64(value: Any, name: str) -> np.ndarray:
    """A returned array of floats in float64: which float dtype an answer has is left open."""
    array = as_array(value, name)
    if array.dtype.kind != "f":
        raise Wrong(f"{name} should hold floats, but its dtype is {array.dtype}")
    return array.astype(np.float64)


def judge_close(found: np.ndarray, wanted: np.ndarray, name: str, meaning: str) -> None:
    """Equal up to 1e-5 of the largest wanted magnitude; names the worst element."""
    if found.shape != wanted.shape:
        raise Wrong(f"{name} should have shape {wanted.shape}, but has {found.shape}")
    off = np.abs(found - wanted)
    off = np.where(np.isfinite(off), off, np.inf)
    worst = largest_at(off)
    if off[worst] > 1e-5 * np.abs(wanted).max() + 1e-30:
        expected, came = distinct(wanted[worst], found[worst])
        raise Wrong(f"{name}[{place(worst)}] should be {meaning} = {expected}, but it is {came}")
