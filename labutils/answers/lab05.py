"""Lab 05: a matrix product of codes, a linear layer that holds them, and one that multiplies them."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from labutils.affine import code_array, real_array
from labutils.answers.lab03 import quantize_per_token

Array = Any  # a numpy.ndarray or a torch.Tensor
EXACT_IN_FLOAT64 = 2**53  # whole numbers up to here are floats, in whatever order they are added
INT64 = 2**63


def __getattr__(name: str) -> Any:
    if name == "QuantizedLinear":  # it brings torch, which the rest of this module does without
        from labutils.nn import QuantizedLinear

        return QuantizedLinear
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def quantized_matmul(
    a_q: Array,
    a_scale: float | Array,
    b_q: Array,
    b_scale: float | Array,
    a_zp: int | Array = 0,
    b_zp: int | Array = 0,
) -> Array:
    """a @ b for a = a_scale * (a_q - a_zp) and b = b_scale * (b_q - b_zp), multiplied as integers and scaled once.

    >>> a_q = np.array([[130, 125, 140]], dtype=np.uint8)  # 0.2, -0.3, 1.2
    >>> b_q = np.array([[12], [-3], [5]], dtype=np.int8)  # 5, -2.5, 1.5
    >>> quantized_matmul(a_q, 0.1, b_q, 0.5, a_zp=128, b_zp=2)
    array([[3.55]], dtype=float32)

    a_q (M, K) and b_q (K, N) hold integer codes of any width, NumPy or torch. A scale or zero point is one number, or
    one for each row of a, shape (M,) or (M, 1), or for each column of b, shape (N,) or (1, N): what varies along K
    cannot leave the sum. The integers are exact:

        a_q @ b_q - a_zp * (column sums of b_q) - b_zp * (row sums of a_q) + K * a_zp * b_zp

    (Jacob et al., 2018, arXiv:1712.05877, equation 7). The result is float32, or float64 where a scale is a float64
    array. TypeError for codes or zero points that are not integers and for scales that are not real; ValueError for
    shapes that do not match, scales that are not positive and finite, and sums that int64 may not hold.
    """
    xp, a_q, b_q = _matrices(a_q, b_q)
    (rows, length), columns = a_q.shape, b_q.shape[1]
    a_scale, wide_a = _scale(xp, a_scale, "a_scale", rows, (rows, 1), a_q)
    b_scale, wide_b = _scale(xp, b_scale, "b_scale", columns, (1, columns), b_q)
    a_zp = _zero_point(xp, a_zp, "a_zp", rows, (rows, 1), a_q)
    b_zp = _zero_point(xp, b_zp, "b_zp", columns, (1, columns), b_q)
    a_q, a_zp, b_q, b_zp = *_signed(xp, a_q, a_zp), *_signed(xp, b_q, b_zp)
    sums = (
        _product(xp, a_q, b_q, a_zp, b_zp)
        - a_zp * xp.sum(b_q, axis=0, keepdims=True, dtype=xp.int64)
        - b_zp * xp.sum(a_q, axis=1, keepdims=True, dtype=xp.int64)
        + length * a_zp * b_zp
    )
    scaled = xp.astype(sums, xp.float64) * (a_scale * b_scale)
    return xp.astype(scaled, xp.float64 if wide_a or wide_b else xp.float32)


def int8_linear(x: Array, w_q: Array, w_scale: Array, bias: Array | None = None) -> Array:
    """x @ (w_scale * w_q).T + bias, with symmetric 8-bit codes for each row of `x`, found as it comes (W8A8, dynamic).

    >>> import torch
    >>> w_q = torch.tensor([[1, 2], [-3, 127]], dtype=torch.int8)
    >>> int8_linear(torch.tensor([[1.27, 0.5]]), w_q, torch.tensor([0.1, 0.01]))
    tensor([[0.2270, 0.5969]])

    x (..., K) floats, w_q (N, K) int8, w_scale (N,), bias (N,) or None -> (..., N) float32. Torch tensors. A row of
    zeros gives the bias. TypeError for an `x` that holds no floats, ValueError for shapes that do not match.
    """
    from labutils import kernels

    if not x.is_floating_point():
        raise TypeError(f"x must hold floats, got dtype {x.dtype}")
    if not x.ndim or x.shape[-1] != w_q.shape[-1] or w_scale.shape != (len(w_q),):
        raise ValueError(
            f"expected x (..., K), w_q (N, K) and w_scale (N,), got shapes {tuple(x.shape)}, {tuple(w_q.shape)} and "
            f"{tuple(w_scale.shape)}"
        )
    rows = x.detach().reshape(-1, x.shape[-1]).float()
    y = rows.new_zeros(len(rows), len(w_q))
    if len(rows):
        q, row_scale = quantize_per_token(rows)
        y = kernels.int_matmul(q, w_q.t()) * (row_scale * w_scale)
    y = y.reshape(*x.shape[:-1], len(w_q))
    return y if bias is None else y + bias


def _matrices(a_q: Array, b_q: Array) -> tuple[Any, Array, Array]:
    xp, a_q = code_array(a_q, "a_q")
    library, b_q = code_array(b_q, "b_q")
    if library is not xp:
        raise TypeError(f"a_q and b_q must come from one library, got {type(a_q)} and {type(b_q)}")
    for name, q in (("a_q", a_q), ("b_q", b_q)):
        if q.ndim != 2:
            raise ValueError(f"{name} must be a matrix, got shape {tuple(q.shape)}")
    if a_q.shape[1] != b_q.shape[0]:
        raise ValueError(f"a_q has {a_q.shape[1]} columns, but b_q has {b_q.shape[0]} rows: {_shapes(a_q, b_q)}")
    return xp, a_q, b_q


def _shapes(a_q: Array, b_q: Array) -> str:
    return f"their shapes are {tuple(a_q.shape)} and {tuple(b_q.shape)}"


def _scale(xp: Any, scale: Any, name: str, count: int, shape: tuple, like: Array) -> tuple[Array, bool]:
    """`scale` as float64, ready to broadcast over the result, and whether it came as a float64 array."""
    if type(scale) in (int, float):
        wide, scale = False, xp.asarray(float(scale), dtype=xp.float64, device=array_api_compat.device(like))
    else:
        if not isinstance(scale, (np.ndarray, np.generic)) and not array_api_compat.is_torch_array(scale):
            raise TypeError(f"{name} must be a number or an array of floats, got {scale!r:.60}")
        library, scale = real_array(scale, name)
        wide = scale.dtype == xp.float64
        scale = _placed(xp, library, scale, name, count, shape, xp.float64)
    if not bool(xp.all(xp.isfinite(scale) & (scale > 0))):
        raise ValueError(f"{name} must be positive and finite everywhere")
    return scale, wide


def _zero_point(xp: Any, zero_point: Any, name: str, count: int, shape: tuple, like: Array) -> Array:
    """`zero_point` as int64, ready to broadcast over the result."""
    if type(zero_point) is int:
        if abs(zero_point) > 2**31:
            raise ValueError(f"{name} must be a whole number of at most 32 bits, got {zero_point}")
        return xp.asarray(zero_point, dtype=xp.int64, device=array_api_compat.device(like))
    if not isinstance(zero_point, (np.ndarray, np.generic)) and not array_api_compat.is_torch_array(zero_point):
        raise TypeError(f"{name} must be a whole number or an array of them, got {zero_point!r:.60}")
    library, zero_point = code_array(zero_point, name)
    return _placed(xp, library, zero_point, name, count, shape, xp.int64)


def _placed(xp: Any, library: Any, value: Array, name: str, count: int, shape: tuple, dtype: Any) -> Array:
    if library is not xp:
        raise TypeError(f"{name} and the codes must come from one library, got {type(value)}")
    if tuple(value.shape) not in ((), (count,), shape):
        which = "row of a_q" if shape[1] == 1 else "column of b_q"
        raise ValueError(
            f"{name} must be one number, or one for each {which} with shape ({count},) or {shape}, got shape "
            f"{tuple(value.shape)}; what varies along the axis that is summed over cannot leave the sum"
        )
    value = xp.astype(value, dtype)
    return xp.reshape(value, shape) if value.ndim else value


def _signed(xp: Any, q: Array, zero_point: Array) -> tuple[Array, Array]:
    """Unsigned bytes and their zero point, both 128 less: the same values, in int8."""
    if q.dtype != xp.uint8:
        return q, zero_point
    return xp.astype(xp.astype(q, xp.int16) - 128, xp.int8), zero_point - 128


def _product(xp: Any, a_q: Array, b_q: Array, a_zp: Array, b_zp: Array) -> Array:
    """a_q @ b_q in int64, by the fastest way that is exact."""
    length = a_q.shape[1]
    largest = length * (_largest(xp, a_q) + _largest(xp, a_zp)) * (_largest(xp, b_q) + _largest(xp, b_zp))
    if largest >= INT64:
        raise ValueError(f"sums may reach {largest:.3g}, which int64 cannot hold: {length} products of such codes")
    if array_api_compat.is_torch_namespace(xp) and a_q.dtype == b_q.dtype == xp.int8:
        from labutils import kernels

        if length <= kernels.MOST_PRODUCTS:
            return xp.astype(kernels.int_matmul(a_q, b_q), xp.int64)
    work = xp.float64 if largest <= EXACT_IN_FLOAT64 else xp.int64
    return xp.astype(xp.astype(a_q, work) @ xp.astype(b_q, work), xp.int64)


def _largest(xp: Any, q: Array) -> int:
    return max(-int(xp.min(q)), int(xp.max(q)))
