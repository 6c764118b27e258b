"""The product of two quantized matrices, multiplied as integers: NumPy and torch alike, codes of any width.

A layer runs on the products in `kernels`. This one takes any codes, scales and zero points, and checks them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from labutils.arrays.inputs import Array, code_array, real_array

EXACT_IN_FLOAT64 = 2**53  # sums of integers up to here are exact in float64, in whatever order they are added
INT64 = 2**63


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

    a_q (M, K) and b_q (K, N) hold integer codes, NumPy or torch. A scale or zero point is one number, or one for each
    row of a, shape (M,) or (M, 1), or for each column of b, shape (N,) or (1, N). The integers are exact:

        a_q @ b_q - a_zp * (column sums of b_q) - b_zp * (row sums of a_q) + K * a_zp * b_zp

    (Jacob et al., 2018, arXiv:1712.05877, equation 7). The result is float32, or float64 where a scale is a float64
    array. TypeError for codes or zero points that are not integers and for scales that are not real; ValueError for
    shapes that do not match, scales that are not positive and finite, and sums that int64 may not hold.
    """
    xp, a_q, b_q = _matrices(a_q, b_q)
    (rows, length), columns = a_q.shape, b_q.shape[1]
    of_a = _Side(xp, a_q, rows, (rows, 1), "row of a_q")
    of_b = _Side(xp, b_q, columns, (1, columns), "column of b_q")
    a_scale, a_is_wide = of_a.scale(a_scale, "a_scale")
    b_scale, b_is_wide = of_b.scale(b_scale, "b_scale")
    a_q, a_zp = _signed(xp, a_q, of_a.zero_point(a_zp, "a_zp"))
    b_q, b_zp = _signed(xp, b_q, of_b.zero_point(b_zp, "b_zp"))
    sums = (
        _product(xp, a_q, b_q, a_zp, b_zp)
        - a_zp * xp.sum(b_q, axis=0, keepdims=True, dtype=xp.int64)
        - b_zp * xp.sum(a_q, axis=1, keepdims=True, dtype=xp.int64)
        + length * a_zp * b_zp
    )
    scaled = xp.astype(sums, xp.float64) * (a_scale * b_scale)
    return xp.astype(scaled, xp.float64 if a_is_wide or b_is_wide else xp.float32)


def _matrices(a_q: Array, b_q: Array) -> tuple[Any, Array, Array]:
    xp, a_q = code_array(a_q, "a_q")
    b_library, b_q = code_array(b_q, "b_q")
    if b_library is not xp:
        raise TypeError(f"a_q and b_q must come from one library, got {type(a_q)} and {type(b_q)}")
    for name, q in (("a_q", a_q), ("b_q", b_q)):
        if q.ndim != 2:
            raise ValueError(f"{name} must be a matrix, got shape {tuple(q.shape)}")
    if a_q.shape[1] != b_q.shape[0]:
        raise ValueError(
            f"a_q has {a_q.shape[1]} columns, but b_q has {b_q.shape[0]} rows: "
            f"their shapes are {tuple(a_q.shape)} and {tuple(b_q.shape)}"
        )
    return xp, a_q, b_q


class _Side(NamedTuple):
    """One of the two matrices, and the shape in which its scales and zero points broadcast over the result."""

    xp: Any
    q: Array
    count: int
    shape: tuple[int, int]
    slice_name: str  # what has a scale of its own: "row of a_q"

    def scale(self, scale: Any, name: str) -> tuple[Array, bool]:
        """The scale as float64, and whether it came as a float64 array."""
        xp, is_wide = self.xp, False
        if type(scale) in (int, float):
            scale = xp.asarray(float(scale), dtype=xp.float64, device=array_api_compat.device(self.q))
        else:
            if not _is_array(scale):
                raise TypeError(f"{name} must be a number or an array of floats, got {scale!r:.60}")
            library, scale = real_array(scale, name)
            is_wide = scale.dtype == xp.float64
            scale = self._broadcastable(library, scale, name, xp.float64)
        if not bool(xp.all(xp.isfinite(scale) & (scale > 0))):
            raise ValueError(f"{name} must be positive and finite everywhere")
        return scale, is_wide

    def zero_point(self, zero_point: Any, name: str) -> Array:
        """The zero point as int64."""
        if type(zero_point) is int:
            if abs(zero_point) > 2**31:
                raise ValueError(f"{name} must be a whole number of at most 32 bits, got {zero_point}")
            return self.xp.asarray(zero_point, dtype=self.xp.int64, device=array_api_compat.device(self.q))
        if not _is_array(zero_point):
            raise TypeError(f"{name} must be a whole number or an array of them, got {zero_point!r:.60}")
        library, zero_point = code_array(zero_point, name)
        return self._broadcastable(library, zero_point, name, self.xp.int64)

    def _broadcastable(self, library: Any, value: Array, name: str, dtype: Any) -> Array:
        if library is not self.xp:
            raise TypeError(f"{name} and the codes must come from one library, got {type(value)}")
        if tuple(value.shape) not in ((), (self.count,), self.shape):
            raise ValueError(
                f"{name} must be one number, or one for each {self.slice_name} with shape ({self.count},) or "
                f"{self.shape}, got shape {tuple(value.shape)}; what varies along the axis that is summed over "
                "cannot leave the sum"
            )
        value = self.xp.astype(value, dtype)
        return self.xp.reshape(value, self.shape) if value.ndim else value


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic)) or array_api_compat.is_torch_array(value)


def _signed(xp: Any, q: Array, zero_point: Array) -> tuple[Array, Array]:
    """uint8 codes and their zero point, both less 128: the same values in int8, which integer kernels take."""
    if q.dtype != xp.uint8:
        return q, zero_point
    return xp.astype(xp.astype(q, xp.int16) - 128, xp.int8), zero_point - 128


def _product(xp: Any, a_q: Array, b_q: Array, a_zp: Array, b_zp: Array) -> Array:
    """a_q @ b_q in int64: by the int8 kernel, else in float64 where that is exact, else in int64."""
    length = a_q.shape[1]
    largest = length * (_largest(xp, a_q) + _largest(xp, a_zp)) * (_largest(xp, b_q) + _largest(xp, b_zp))
    if largest >= INT64:
        raise ValueError(f"sums may reach {largest:.3g}, which int64 cannot hold: {length} products of such codes")
    if array_api_compat.is_torch_namespace(xp) and a_q.dtype == b_q.dtype == xp.int8:
        from labutils.models import kernels

        if length <= kernels.MOST_PRODUCTS:
            return xp.astype(kernels.int_matmul(a_q, b_q), xp.int64)
    work = xp.float64 if largest <= EXACT_IN_FLOAT64 else xp.int64
    return xp.astype(xp.astype(a_q, work) @ xp.astype(b_q, work), xp.int64)


def _largest(xp: Any, q: Array) -> int:
    return max(-int(xp.min(q)), int(xp.max(q)))
