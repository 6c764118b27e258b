"""Lab 02: asymmetric quantization, its inverse, and a range that is given."""

from __future__ import annotations

from typing import Any

from labutils import affine
from labutils.answers.lab01 import reconstruct
from labutils.scheme import MAX_BITS, Scheme, real_number, whole_number

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantize_asymmetric(x: Array, num_bits: int = 8) -> tuple[Array, Array, Array]:
    """Unsigned codes, scale and zero point: q = clamp(round(x / scale) + zero_point, 0, 2^b - 1).

    >>> quantize_asymmetric(np.array([-0.6, 0.0, 0.444, 1.95], dtype=np.float32))
    (array([  0,  60, 104, 255], dtype=uint8), array(0.01, dtype=float32), array(60, dtype=int32))

    The range is first widened to include 0, and scale = (max - min) / (2^b - 1), zero_point = round(-min / scale): the
    code of 0.0, which is therefore exact. Jacob et al. 2018 (arXiv:1712.05877), equation 1 and section 2.1.
    """
    quantized = affine.quantize(x, Scheme(num_bits, symmetric=False))
    return quantized.codes, quantized.scale, quantized.zero_point


def dequantize_asymmetric(q: Array, scale: float | Array, zero_point: int | Array) -> Array:
    """Floats from codes: x' = (q - zero_point) * scale, in float32 (float64 where `scale` is a float64 array).

    >>> dequantize_asymmetric(np.array([0, 60, 104, 255], dtype=np.uint8), 0.25, 60)
    array([-15.  ,   0.  ,  11.  ,  48.75], dtype=float32)

    ValueError for a zero point that the dtype of `q` cannot hold: it would not be the code of anything.
    """
    xp, q = affine.code_array(q)
    zero, info = whole_number(zero_point, "zero_point"), xp.iinfo(q.dtype)
    if not max(info.min, -(2**31)) <= zero <= min(info.max, 2**31 - 1):
        raise ValueError(f"zero_point must be a code, {info.min} to {info.max} for {q.dtype}, got {zero}")
    return reconstruct(q, scale, zero, Scheme(MAX_BITS, symmetric=False))


def quantize_in_range(x: Array, low: float, high: float, num_bits: int = 8) -> tuple[Array, Array, Array]:
    """As `quantize_asymmetric`, with the grid of [low, high] instead of [min(x), max(x)]; values beyond it saturate.

    >>> quantize_in_range(np.array([-0.6, 0.5, 2.0, 9.0], dtype=np.float32), 0, 2.55)
    (array([  0,  50, 200, 255], dtype=uint8), array(0.01, dtype=float32), array(0, dtype=int32))

    The range is first widened to include 0. ValueError where low > high, or where both are 0 in
    the dtype of `scale`.
    """
    scheme = Scheme(num_bits, symmetric=False)
    _, x = affine.real_array(x)
    if real_number(low, "low") == real_number(high, "high") == 0:
        raise ValueError(f"the range must be more than 0, got [{low:g}, {high:g}]")
    quantized = affine.quantize(x, scheme, affine.qparams_of_range(low, high, scheme, like=x))
    return quantized.codes, quantized.scale, quantized.zero_point
