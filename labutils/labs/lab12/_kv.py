"""Keys and values as cases and explorers have them: outliers in few channels of the keys, none in the values."""

from __future__ import annotations

import numpy as np

from labutils.course.exercise import Wrong
from labutils.course.reading import distinct, place
from labutils.labs.contract import largest_at


def keys_and_values(heads: int = 2, tokens: int = 24, channels: int = 16, seed: int = 0) -> tuple:
    """(heads, tokens, channels) float32 each; two channels of the keys are large, one of them on one side of 0."""
    rng = np.random.default_rng(seed)
    keys, values = (rng.normal(size=(heads, tokens, channels)).astype(np.float32) for _ in range(2))
    keys[:, :, 3 % channels] *= 12
    keys[:, :, 10 % channels] = np.abs(keys[:, :, 10 % channels]) * 5 + 2
    return keys, values * np.geomspace(0.3, 3, tokens, dtype=np.float32)[:, None]


def judge_row_grids(found: np.ndarray, x: np.ndarray, axis: int, num_bits: int, name: str, shared: str) -> None:
    """`found` is `x` rounded to 2^b levels, a range that holds 0 for each slice along `axis`, and 0 is a level."""
    if found.shape != x.shape:
        raise Wrong(f"{name} should have the shape they came in, {x.shape}, but have {found.shape}")
    if not np.isfinite(found).all():
        raise Wrong(f"{name} hold NaN or Inf")
    x = x.astype(np.float64)
    low, high = np.minimum(x.min(axis, keepdims=True), 0), np.maximum(x.max(axis, keepdims=True), 0)
    scale = (high - low) / (2**num_bits - 1)
    step = np.where(scale > 0, scale, 1)
    # float32 may be off by a few units in the last place of the largest code.
    noise = 2.0**-20 * 2**num_bits
    off = np.where(scale > 0, np.abs(found - x) / step, np.where(found == 0, 0, np.inf))
    worst = largest_at(off)
    if off[worst] > 0.5 + noise:
        wanted, came = distinct(x[worst], found[worst], 4)
        own = np.broadcast_to(step, x.shape)[worst]
        raise Wrong(
            f"{name}[{place(worst)}] = {wanted} comes back as {came}: off by {off[worst]:.3g} steps of its {shared}'s "
            f"scale, {own:.4g}, where at most 0.5 is lost"
        )
    levels = 1 + np.round((found.max(axis, keepdims=True) - found.min(axis, keepdims=True)) / step)
    worst = largest_at(levels)
    if levels[worst] > 2**num_bits:
        raise Wrong(
            f"the {name} of one {shared} lie on {levels[worst]:.0f} levels, from the lowest to the highest: {num_bits} "
            f"bits tell {2**num_bits} apart"
        )
    between = np.abs(found / step - np.round(found / step))
    worst = largest_at(between)
    if between[worst] > 2 * noise + 1e-4:
        own = np.broadcast_to(step, x.shape)[worst]
        raise Wrong(
            f"{name}[{place(worst)}] comes back as {found[worst]:.5g}, which is no multiple of its {shared}'s scale, "
            f"{own:.5g}: the {2**num_bits} levels hold 0"
        )
