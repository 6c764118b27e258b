"""Whether two answers are the same, up to what rounding may change."""

from __future__ import annotations

import numpy as np


def same_answer(one: dict, other: dict) -> bool:
    """Whether two answers, as an exercise reads them, have the same entries."""
    return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)


def same_value(one: object, other: object) -> bool:
    """Equal up to rounding; integers may differ in one element of a thousand, because rounding decides ties.

    >>> same_value(np.float32([0.1, 0.2]), np.float32([0.100001, 0.2])), same_value(np.int8([1, 2]), np.int8([1, 3]))
    (True, False)

    Arrays of another dtype are not the same: float64 where float32 was asked for is a mistake of its own.
    """
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind or (a.ndim and a.dtype.kind in "iuf" and a.dtype != b.dtype):
        return False
    if a.dtype.kind in "iu":
        return a.dtype == b.dtype and bool(np.sum(a != b) <= 1e-3 * a.size)
    if a.dtype.kind == "f":
        return bool(np.allclose(a, b, rtol=1e-4, atol=0, equal_nan=True))
    return bool(np.array_equal(a, b))  # booleans and text
