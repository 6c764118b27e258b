"""Affine quantization, x ~ scale * (q - zero_point): choosing scale and zero point, quantizing, dequantizing.

The map is equation 1 of Jacob et al. 2018 (arXiv:1712.05877). One implementation serves NumPy arrays and torch tensors
on any device, through array-api-compat. It works tile by tile (see `layout.TILE`): the memory needed beside the result
stays below a megabyte, and most intermediates never leave the processor's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays.inputs import (
    Array,
    code_array,
    numpy_on_cpu,
    real_array,
    real_number,
    require_finite,
    require_one_library,
    working_dtype,
)
from labutils.arrays.layout import Layout
from labutils.arrays.scales import scale_of_range
from labutils.arrays.scheme import PerTensor, Scheme

QParams = tuple[Array, "Array | int"]  # (scale, zero_point)


@dataclass(frozen=True, eq=False)
class QuantizedArray:
    """Codes, and everything needed to dequantize them.

    codes       integers in the shape of the original, dtype `scheme.code_dtype`
    scale       float array, positive and finite; the granularity determines its shape
    zero_point  the int 0 when symmetric, else an int32 array in the shape of `scale`
    scheme      the scheme with which the codes were made
    dtype       of the original; `dequantize` returns it
    """

    codes: Array
    scale: Array
    zero_point: Array | int
    scheme: Scheme
    dtype: Any

    @property
    def nbytes(self) -> int:
        """Bytes of the codes in their dtype (a 4-bit code takes a byte until it is packed), scales and zero points."""
        arrays = [self.codes, self.scale] if self.scheme.symmetric else [self.codes, self.scale, self.zero_point]
        return sum(array.nbytes for array in arrays)


def choose_qparams(x: Array, scheme: Scheme = Scheme()) -> QParams:
    """Return the `(scale, zero_point)` with which the grid of `scheme` spans the range of `x`.

    >>> choose_qparams(np.array([-1.0, 0.5, 2.54], dtype=np.float32))
    (array(0.02, dtype=float32), 0)

    symmetric:   scale = clip * max|x| / quant_max, zero_point = 0 (the Python int)
    asymmetric:  the range is first widened to include 0, so that 0.0 is exact and the zero point fits its codes;
                 scale = clip * (max - min) / (2^b - 1), zero_point = round(-clip * min / scale) as int32

    `scale` is float32 (float64 for float64 input); the granularity determines its shape. A slice that is all zero gets
    scale 1. There is no floor: tiny values keep their relative precision. TypeError unless `x` is a NumPy or torch
    array of real floats; ValueError for an empty array, for NaN or Inf, and for an axis that is not there.
    """
    xp, x = real_array(x)
    layout = _layout(x, scheme)
    low, high = _range(xp, x, layout, scheme.symmetric)
    if not bool(xp.all(xp.isfinite(low) & xp.isfinite(high))):  # NaN and Inf show here: x is not read again
        require_finite(xp, x)
    scale, zero_point = _qparams(xp, low, high, scheme)
    scale = xp.reshape(scale, layout.scale_shape)
    return scale, 0 if scheme.symmetric else xp.reshape(zero_point, layout.scale_shape)


def qparams_of_range(low: float, high: float, scheme: Scheme, like: Array) -> QParams:
    """Return the `(scale, zero_point)` with which one grid of `scheme` spans [low, high], for arrays such as `like`.

    >>> x = np.array([-0.6, 0.5, 2.0, 9.0], dtype=np.float32)
    >>> qparams_of_range(0, 2.55, Scheme(symmetric=False), like=x)
    (array(0.01, dtype=float32), array(0, dtype=int32))

    The same as `choose_qparams` of a tensor that reaches from `low` to `high`; `like` determines library, device and
    precision. It turns a range found by `calibration` into the `qparams` of `quantize`. [0, 0] gets scale 1, as a slice
    of zeros does. ValueError where low > high, or where the dtype of the scale cannot hold the ends.
    """
    xp, like = real_array(like, "like")
    low, high = real_number(low, "low"), real_number(high, "high")
    dtype = working_dtype(xp, like)
    largest = float(xp.finfo(dtype).max)
    if max(abs(low), abs(high)) > largest:
        raise ValueError(f"low and high must lie within {largest:g} of 0, got [{low:g}, {high:g}]")
    ends = xp.asarray([low, high], dtype=dtype, device=array_api_compat.device(like))
    underflowed = not low == high == 0 and not bool(xp.any(ends != 0))
    if low > high or underflowed:
        raise ValueError(f"the range must reach from low up to high, and be more than 0, got [{low:g}, {high:g}]")
    return choose_qparams(ends, replace(scheme, granularity=PerTensor()))


def quantize(x: Array, scheme: Scheme = Scheme(), qparams: QParams | None = None) -> QuantizedArray:
    """Quantize: q = clamp(round(x / scale) + zero_point, quant_min, quant_max), ties to even.

    >>> quantize(np.array([-1.0, 0.5, 2.54], dtype=np.float32)).codes
    array([-50,  25, 127], dtype=int8)

    `qparams` is the result of `choose_qparams` for `x` or for calibration data; by default it is chosen from `x`.
    |x - dequantize(q)| <= scale / 2 wherever nothing was clamped. Errors as in `choose_qparams`, and
    ValueError for a scale that is not positive, a zero point that is not a code, or another shape.
    """
    xp, x = real_array(x)
    layout = _layout(x, scheme)
    scale, zero_point = choose_qparams(x, scheme) if qparams is None else _checked_qparams(xp, x, scheme, *qparams)
    source = layout.view(xp, x)
    codes = xp.empty(layout.rgk, dtype=getattr(xp, scheme.code_dtype), device=array_api_compat.device(x))
    near, held = numpy_on_cpu(xp, codes)
    scales, zeros = (
        None if column is None else numpy_on_cpu(xp, column)[1]
        for column in _columns(xp, layout, scale, zero_point, scheme)
    )
    for tile, shared in layout.tiles(_on_cpu(x)):
        zero = None if zeros is None else zeros[shared]
        _, piece = numpy_on_cpu(xp, xp.astype(source[tile], scale.dtype, copy=False))
        with np.errstate(over="ignore"):  # x / scale beyond the largest float saturates like any other
            # The quotient has no name here: its memory is free for reuse as soon as it has been rounded.
            held[tile] = scheme.grid.to_codes(near, piece / scales[shared], zero)
    return QuantizedArray(layout.unview(xp, codes), scale, zero_point, scheme, x.dtype)


def dequantize(quantized: QuantizedArray) -> Array:
    """Reconstruct x' = scale * (q - zero_point), in the dtype that was quantized.

    >>> dequantize(quantize(np.array([-1.0, 0.5, 2.54], dtype=np.float32)))
    array([-1.  ,  0.5 ,  2.54], dtype=float32)
    """
    if not isinstance(quantized, QuantizedArray):
        raise TypeError(f"quantized must be a QuantizedArray, as `quantize` returns, got {type(quantized).__name__}")
    codes, scale, scheme = quantized.codes, quantized.scale, quantized.scheme
    xp = array_api_compat.array_namespace(codes)
    layout = Layout.of(codes.shape, scheme.granularity)
    scales, zeros = _columns(xp, layout, scale, quantized.zero_point, scheme)
    source = layout.view(xp, codes)
    values = xp.empty(layout.rgk, dtype=quantized.dtype, device=array_api_compat.device(codes))
    # The outermost code may lie up to half a step beyond the largest float: it saturates there.
    largest = float(xp.finfo(quantized.dtype).max) * (1 - 2 * float(xp.finfo(scale.dtype).eps))
    safe_scale = largest / (2 * scheme.grid.peak)  # no code times this scale exceeds it, with room for rounding
    saturates = float(xp.max(scale)) > safe_scale
    if saturates:  # array / array: torch computes number / array as number * (1 / array), which is subnormal here
        limit = xp.full_like(scales, largest) / xp.maximum(scales, xp.full_like(scales, safe_scale))
    for tile, shared in layout.tiles(_on_cpu(codes)):
        steps = scheme.grid.to_steps(xp, source[tile], scale.dtype, None if zeros is None else zeros[shared])
        if saturates:
            steps = xp.clip(steps, -limit[shared], limit[shared])
        steps *= scales[shared]
        values[tile] = xp.astype(steps, values.dtype, copy=False)
    return layout.unview(xp, values)


def fake_quantize(x: Array, scheme: Scheme = Scheme(), qparams: QParams | None = None) -> Array:
    """Quantize and dequantize in one call: floats in, the nearest floats on the grid out. It saves no memory.

    >>> fake_quantize(np.array([-1.0, 0.5, 2.54], dtype=np.float32), Scheme(num_bits=3))
    array([-0.84666663,  0.84666663,  2.54      ], dtype=float32)
    """
    return dequantize(quantize(x, scheme, qparams))


def _layout(x: Array, scheme: Scheme) -> Layout:
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, such as Scheme(num_bits=4), got {scheme!r}")
    return Layout.of(x.shape, scheme.granularity)


def _on_cpu(x: Array) -> bool:
    return str(array_api_compat.device(x)) == "cpu"


def _range(xp: Any, x: Array, layout: Layout, symmetric: bool) -> tuple[Array, Array]:
    """The ends of each slice's range, which includes 0, as (R or 1, G, 1) arrays of the working dtype.

    Symmetric: minus and plus the largest magnitude. That is one pass over `x` where the other takes two.
    """
    work = working_dtype(xp, x)
    low = xp.zeros(layout.column_shape, dtype=work, device=array_api_compat.device(x))
    high = xp.zeros_like(low)
    reduced = 2 if layout.per_row else (0, 2)
    source = layout.view(xp, x)
    for tile, shared in layout.tiles(_on_cpu(x)):
        piece = xp.astype(source[tile], work, copy=False)
        if symmetric:
            piece = xp.abs(piece)
        else:
            low[shared] = xp.minimum(low[shared], xp.min(piece, axis=reduced, keepdims=True))
        high[shared] = xp.maximum(high[shared], xp.max(piece, axis=reduced, keepdims=True))
    return (-high if symmetric else low), high


def _qparams(xp: Any, low: Array, high: Array, scheme: Scheme) -> QParams:
    """Scale and zero point for the range [low, high], which includes 0, times `scheme.clip`."""
    scale = scale_of_range(xp, low, high, scheme)
    if scheme.symmetric:
        return scale, 0
    # A scale that was rounded down, or saturated on its grid, may leave 0 beyond the codes.
    zero_point = xp.clip(xp.round(-(low * scheme.clip) / scale), scheme.quant_min, scheme.quant_max)
    return scale, xp.astype(zero_point, xp.int32)


def _checked_qparams(xp: Any, x: Array, scheme: Scheme, scale: Array, zero_point: Array | int) -> QParams:
    """Check the caller's parameters for `x`; return `scale` in the working dtype and `zero_point` as int32."""
    require_finite(xp, x)
    _, scale = real_array(scale, "scale")
    require_one_library(scale=scale, x=x)
    least, most = float(xp.min(scale)), float(xp.max(scale))
    if not 0 < least <= most < math.inf:
        raise ValueError(f"scale must be positive and finite everywhere, got values from {least} to {most}")
    scale = xp.astype(scale, working_dtype(xp, x, scale))
    if scheme.symmetric:
        if not isinstance(zero_point, int) or zero_point != 0:
            raise ValueError(f"zero_point of a symmetric scheme must be the int 0, got {zero_point!r}")
        return scale, 0
    _, zero_point = code_array(zero_point, "zero_point")
    require_one_library(zero_point=zero_point, x=x)
    least, most = int(xp.min(zero_point)), int(xp.max(zero_point))
    if not scheme.quant_min <= least <= most <= scheme.quant_max:
        raise ValueError(f"zero_point must be a code, {scheme.quant_min} to {scheme.quant_max}, got {least} to {most}")
    return scale, xp.astype(zero_point, xp.int32)


def _columns(xp: Any, layout: Layout, scale: Array, zero_point: Array | int, scheme: Scheme) -> tuple[Array, Any]:
    """Scales and zero points in a shape that broadcasts over the view; no zero points (None) where symmetric."""
    scales = layout.column(xp, scale, "scale")
    if scheme.symmetric:
        return scales, None
    return scales, xp.astype(layout.column(xp, zero_point, "zero_point"), scale.dtype)
