"""How a scale follows from a range, and which scales a scheme stores: any float, or numbers of a grid of their own.

MX (OCP, 2023, "Microscaling Formats (MX) Specification" 1.0, section 6.3): a block's scale is 2^(floor(log2(max|x|)) -
emax), 2^emax the largest power of two of the elements' grid; what then lies beyond the grid saturates.
NVFP4 (NVIDIA, 2025, "Pretraining Large Language Models with NVFP4", arXiv:2509.25149): a block's scale is max|x| / 6,
rounded to E4M3 in units of a float32 scale of the whole tensor, max|x| / (448 * 6).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from labutils.arrays.inputs import Array
from labutils.arrays.scheme import Scheme


def scale_of_range(xp: Any, low: Array, high: Array, scheme: Scheme) -> Array:
    """The scale of each slice, positive and finite, for ranges [low, high] that include 0, times `scheme.clip`.

    It is 1 where both ends are 0, in units of the tensor's scale.
    """
    grid, span = scheme.scale_grid, scheme.grid.span
    all_zero = (low == 0) & (high == 0)
    low, high = low * scheme.clip, high * scheme.clip

    def reach(parts: float) -> Array:
        """What one of so many equal parts of the range measures."""
        if scheme.symmetric:
            return xp.maximum(high, -low) / parts
        return high / parts - low / parts  # divided first: high - low overflows for values near the largest float

    if grid is None:
        return xp.where(all_zero, xp.ones_like(low), _covering(xp, reach(span)))
    unit = xp.ones_like(low)
    if scheme.tensor_scale and not bool(xp.all(all_zero)):
        unit *= _covering(xp, xp.max(reach(span * grid.peak)))
    with np.errstate(over="ignore"):  # a range beyond the grid of scales gets its largest
        if grid.mantissa_bits or scheme.scale_up:
            scale = grid.rounded(xp, reach(span) / unit, "up" if scheme.scale_up else "nearest")
        else:
            scale = _power_of_two(xp, reach(1.0) / unit) / 2.0 ** math.floor(math.log2(span))
            scale = _within(xp, scale, grid.least, grid.peak)
    scale = xp.where(all_zero, xp.ones_like(scale), scale) * unit
    return _within(xp, scale, _smallest(xp, scale), math.inf)


def scale_codes(xp: Any, scale: Array, scheme: Scheme) -> tuple[Array, Array | None]:
    """The codes of `scale` on the scheme's grid of scales, and the tensor's scale, or None where there is none.

    >>> from labutils.arrays.block_formats import NVFP4
    >>> scale_codes(np, np.array([448.0, 1.0, 0.25]), NVFP4)
    (array([126,  56,  40], dtype=uint8), np.float64(1.0))

    ValueError for a scheme without a grid of scales, and for scales that are not on it.
    """
    grid = scheme.scale_grid
    if grid is None:
        raise ValueError(f"{scheme} has no grid of scales")
    for unit in _units(xp, scale, grid.peak) if scheme.tensor_scale else [None]:
        codes = grid.to_codes(xp, scale if unit is None else scale / unit)
        values = grid.to_steps(xp, codes, scale.dtype)
        if bool(xp.all((values if unit is None else values * unit) == scale)):
            return codes, unit
    raise ValueError(f"scale must be numbers of {grid!r}{' times one tensor scale' if scheme.tensor_scale else ''}")


def _units(xp: Any, scale: Array, peak: float) -> list[Array]:
    """The floats whose product with `peak` may be the largest scale, by what a multiplication and a division round."""
    unit = xp.max(scale) / peak
    return [unit, xp.nextafter(unit, xp.zeros_like(unit)), xp.nextafter(unit, xp.full_like(unit, xp.inf))]


def _power_of_two(xp: Any, x: Array) -> Array:
    """The largest power of two that is not above `x`: its exponent without its mantissa. Subnormal numbers become 0."""
    mantissa_bits, integer = (23, xp.int32) if x.dtype == xp.float32 else (52, xp.int64)
    return (x.view(integer) & -(2**mantissa_bits)).view(x.dtype)


def _within(xp: Any, x: Array, least: float, most: float) -> Array:
    """`x`, clamped: array-api-compat's clip takes several times as long on NumPy arrays."""
    return xp.minimum(xp.maximum(x, xp.full_like(x, least)), xp.full_like(x, most))


def _smallest(xp: Any, x: Array) -> float:
    info = xp.finfo(x.dtype)
    return float(info.smallest_normal) * float(info.eps)


def _covering(xp: Any, scale: Array) -> Array:
    """One step up below the normal numbers, where a quotient may have been rounded down, even to 0."""
    return xp.where(scale < xp.finfo(scale.dtype).smallest_normal, scale + _smallest(xp, scale), scale)
