"""The nearest value of an ascending table, exactly, ties to the even place.

Between two neighbours of the table lies the first float that goes to the upper one: its threshold. A value's place is
the number of thresholds that it has reached.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays.inputs import Array

# Up to so many thresholds, comparing with each of them is faster than a binary search: 15 take a fifth of its time.
FEW = 64


def thresholds(values: np.ndarray, dtype: Any) -> np.ndarray:
    """The first float of `dtype` that goes to the upper one of each two neighbours of `values`, float64 ascending.

    >>> thresholds(np.array([0.0, 0.5, 1.0]), np.float32)  # the tie 0.25 goes down to place 0, the tie 0.75 up to 2
    array([0.25000003, 0.75      ], dtype=float32)
    """
    low, high = values[:-1], values[1:]
    total = low + high
    carried = total - low
    lost = (low - (total - carried)) + (high - carried)  # low + high = total + lost, exactly (Knuth's TwoSum)
    middle = (total / 2).astype(dtype)
    twice = 2 * middle.astype(np.float64)
    is_tie = (twice == total) & (lost == 0)
    upper_is_odd = np.arange(1, len(values)) % 2 == 1
    is_below = (twice < total) | ((twice == total) & (lost > 0)) | (is_tie & upper_is_odd)
    return np.where(is_below, np.nextafter(middle, np.array(np.inf, dtype)), middle)


def places(xp: Any, x: Array, edges: np.ndarray) -> Array:
    """How many of the thresholds `edges` each element of `x` has reached: its place in the table, an integer array."""
    if len(edges) > FEW:
        on_device = xp.asarray(edges, device=array_api_compat.device(x))
        return xp.searchsorted(on_device, x, side="right")
    reached = xp.zeros(x.shape, dtype=xp.uint8, device=array_api_compat.device(x))
    for edge in edges.tolist():
        reached += (x >= edge).view(xp.uint8)  # seen as bytes: a cast would cost as much as the comparison
    return reached
