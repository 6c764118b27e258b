"""Blocks of a row, and what the exercises on block formats read and judge alike."""

from __future__ import annotations

import numpy as np

from labutils.course.exercise import Wrong
from labutils.labs.contract import largest_at


def blocks(x: np.ndarray, size: int) -> np.ndarray:
    """(..., n) -> (..., n / size, size); `size` divides n."""
    return x.reshape(*x.shape[:-1], -1, size)


def peaks(x: np.ndarray, size: int) -> np.ndarray:
    """The largest magnitude of each block, (..., n / size)."""
    return np.abs(blocks(x, size)).max(axis=-1)


def nearest(x: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The place of the level nearest to each magnitude, ties to the even place; beyond the last level, the last."""
    middles = (levels[1:] + levels[:-1]) / 2
    place = np.searchsorted(middles, x)
    tie = np.isin(x, middles)
    return place + (tie & (place % 2 == 1))


def rounded(x: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Signed values at the nearest of `levels`, which are magnitudes."""
    return np.copysign(levels[nearest(np.abs(x), levels)], x)


def judge_positive(scales: np.ndarray, shape: tuple, name: str = "scales") -> None:
    """One positive number for each block."""
    if scales.shape != shape:
        raise Wrong(f"{name} should have shape {shape}, one for each block of each row, but has {scales.shape}")
    good = np.isfinite(scales) & (scales > 0)
    if not good.all():
        where = largest_at(~good)
        at = ", ".join(map(str, map(int, where)))
        raise Wrong(f"{name}[{at}] should be a positive number, but it is {scales[where]:g}")
