"""How far the reconstruction is from the original."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from labutils.arrays.inputs import Array, code_array, real_array, require_finite, require_one_library
from labutils.arrays.layout import TILE


def quantization_error(original: Array, quantized: Array, dequantized: Array) -> dict[str, float]:
    """Return six measures of the error e = original - dequantized.

    >>> x = np.array([-1.0, 0.0, 1.0, 2.0])
    >>> quantization_error(x, np.array([-1, 0, 1, 1], dtype=np.int8), np.array([-1.0, 0.0, 1.0, 1.0]))["mse"]
    0.25

    mse             mean of e^2, in squared units of x
    mae             mean of |e|, in units of x
    max_error       largest |e|, in units of x
    relative_error  mse / variance of the original; 0 where mse is 0, inf where only the variance is 0
    sqnr_db         10 log10(mean of x^2 / mean of e^2), in decibels; inf where nothing was lost
    codes_used      how many distinct codes occur in `quantized` (an int)

    The three arrays have one shape; sums are taken in float64. TypeError or ValueError for anything else.
    """
    xp, original, dequantized, unit = _checked_pair(original, dequantized)
    count = math.prod(original.shape)
    total = power = squares = absolutes = largest = spread = 0.0
    first = float(original[0]) / unit  # the variance is taken about it: for a constant it is exactly 0
    for x, e in _tiles(xp, original, dequantized, unit):
        total += float(xp.sum(x - first))
        power += float(xp.sum(x * x))
        squares += float(xp.sum(e * e))
        absolutes += float(xp.sum(xp.abs(e)))
        largest = max(largest, float(xp.max(xp.abs(e))))
    for x, _ in _tiles(xp, original, dequantized, unit):
        spread += float(xp.sum((x - first - total / count) ** 2))
    return {
        "mse": squares / count * unit * unit,
        "mae": absolutes / count * unit,
        "max_error": largest * unit,
        "relative_error": 0.0 if squares == 0 else math.inf if spread == 0 else squares / spread,
        "sqnr_db": _decibels(power, squares),
        "codes_used": _codes_used(quantized, tuple(original.shape)),
    }


def sqnr_db(original: Array, dequantized: Array) -> float:
    """The signal to quantization noise ratio, 10 log10(mean of x^2 / mean of e^2), in decibels.

    >>> round(sqnr_db(np.array([1.0, -1.0]), np.array([0.9, -0.9])), 6)
    20.0

    inf where nothing was lost. TypeError or ValueError as in `quantization_error`.
    """
    xp, original, dequantized, unit = _checked_pair(original, dequantized)
    power = squares = 0.0
    for x, e in _tiles(xp, original, dequantized, unit):
        power += float(xp.sum(x * x))
        squares += float(xp.sum(e * e))
    return _decibels(power, squares)


def _checked_pair(original: Array, dequantized: Array) -> tuple[Any, Array, Array, float]:
    """The namespace, the two arrays checked and flattened, and the power of two next to their largest magnitude.

    In this unit values are at most 1: otherwise squares of 1e-200 would underflow and those of 1e200 overflow.
    """
    xp, original = real_array(original, "original")
    _, dequantized = real_array(dequantized, "dequantized")
    require_one_library(original=original, dequantized=dequantized)
    if tuple(original.shape) != tuple(dequantized.shape):
        raise ValueError(
            f"dequantized must have the shape of original, {tuple(original.shape)}, got {tuple(dequantized.shape)}"
        )
    ends = *require_finite(xp, original, "original"), *require_finite(xp, dequantized, "dequantized")
    peak = max(map(abs, ends))
    unit = math.ldexp(1.0, min(max(math.frexp(peak)[1], -1022), 1023))
    return xp, xp.reshape(original, (-1,)), xp.reshape(dequantized, (-1,)), unit


def _tiles(xp: Any, original: Array, dequantized: Array, unit: float) -> Iterator[tuple[Array, Array]]:
    """(x / unit, e / unit) in float64, tile by tile."""
    for start in range(0, original.shape[0], TILE):
        x = xp.astype(original[start : start + TILE], xp.float64) / unit
        yield x, x - xp.astype(dequantized[start : start + TILE], xp.float64) / unit


def _decibels(power: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power else -math.inf


def _codes_used(quantized: Array, shape: tuple[int, ...]) -> int:
    xp, quantized = code_array(quantized, "quantized")
    if math.prod(quantized.shape) != math.prod(shape):
        raise ValueError(f"quantized must have as many elements as original, {math.prod(shape)}, got {quantized.shape}")
    codes = xp.astype(xp.reshape(quantized, (-1,)), xp.int64)
    least, most = int(xp.min(codes)), int(xp.max(codes))
    if most - least > 2**16:  # wider than any code of the course: a table of counts would be large
        return int(xp.unique_values(codes).shape[0])
    return int(xp.sum(xp.bincount(codes - least) > 0))
