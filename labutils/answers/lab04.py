"""Lab 04: a scale for every group, codes in real bytes, and what a weight then costs."""

from __future__ import annotations

from typing import Any

from labutils import affine, packing
from labutils.scheme import MAX_BITS, PerGroup, Scheme, bit_width, whole_number

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantize_group(x: Array, num_bits: int = 4, group_size: int = 128) -> tuple[Array, Array]:
    """Codes, and a scale for each run of `group_size` elements along the last axis: scale = max|group| / (2^(b-1) - 1).

    >>> q, scales = quantize_group(np.array([[0.7, -0.2, 3.5, 7.0, 1.4]], dtype=np.float32), 4, group_size=2)
    >>> q, scales
    (array([[ 7, -2,  4,  7,  7]], dtype=int8), array([[0.1, 1. , 0.2]], dtype=float32))

    `q` has the shape of `x` and one code in each int8 (int16 above 8 bits); `scales` has shape (*x.shape[:-1],
    ceil(n / group_size)). A group never reaches into the next row, so a row's last group may be short; a group size
    beyond the row's length makes one group of it. All-zero groups get scale 1. ValueError or TypeError for a group size
    that is not a whole number from 1 on, and otherwise as `affine.quantize`.
    """
    quantized = affine.quantize(x, Scheme(num_bits, granularity=PerGroup(group_size)))
    return quantized.codes, quantized.scale


def dequantize_group(q: Array, scales: Array, group_size: int) -> Array:
    """Floats from codes: each code times the scale of its group, in float32 (float64 where `scales` is float64).

    >>> q = np.array([[7, -2, 4, 7, 7]], dtype=np.int8)
    >>> dequantize_group(q, np.array([[0.1, 1.0, 0.2]], dtype=np.float32), group_size=2)
    array([[ 0.7, -0.2,  4. ,  7. ,  1.4]], dtype=float32)

    ValueError for scales that are not positive and finite, or whose shape is not (*q.shape[:-1], ceil(n / group_size)).
    """
    xp, q = affine.code_array(q)
    library, scales = affine.real_array(scales, "scales")
    if library is not xp:
        raise TypeError(f"scales and q must come from one library, got {type(scales)} and {type(q)}")
    if not bool(xp.all(xp.isfinite(scales) & (scales > 0))):
        raise ValueError("scales must be positive and finite everywhere")
    work = xp.float64 if scales.dtype == xp.float64 else xp.float32
    scheme = Scheme(MAX_BITS, granularity=PerGroup(group_size))
    return affine.dequantize(affine.QuantizedArray(q, xp.astype(scales, work, copy=False), 0, scheme, work))


def pack_int4(q: Array) -> Array:
    """Two 4-bit codes in each byte, low nibble first: (..., n) integers from -8 to 7 -> (..., ceil(n / 2)) uint8.

    >>> pack_int4(np.array([1, -2, 7], dtype=np.int8))  # 0xE1 and 0x07
    array([225,   7], dtype=uint8)

    Two's complement; after an odd number of codes the last high nibble is 0. Errors as in `packing.pack`.
    """
    _require_signed(q)
    return packing.pack(q, 4)


def unpack_int4(packed: Array, length: int) -> Array:
    """The 4-bit codes that `pack_int4` packed: (..., ceil(length / 2)) uint8 -> (..., length) int8.

    >>> unpack_int4(np.array([225, 7], dtype=np.uint8), length=3)
    array([ 1, -2,  7], dtype=int8)
    """
    return packing.unpack(packed, 4, length)


def pack_int3(q: Array) -> Array:
    """Eight 3-bit codes in three bytes, lowest bits first: (..., n) integers from -4 to 3 -> (..., ceil(3n / 8)) uint8.

    >>> pack_int3(np.array([1, 2, 3, -4, -3, -2, -1, 0], dtype=np.int8))
    array([209,  88,  31], dtype=uint8)
    """
    _require_signed(q)
    return packing.pack(q, 3)


def _require_signed(q: Array) -> None:
    xp, q = affine.code_array(q)
    if not xp.isdtype(q.dtype, "signed integer"):
        raise TypeError(f"q must hold signed codes, as symmetric quantizers give, got dtype {q.dtype}")


def bits_per_weight(num_bits: int, group_size: int, scale_bits: int = 16, zero_point_bits: int = 0) -> float:
    """What a weight costs, its share of scale and zero point counted: num_bits + (scale + zero point) / group_size.

    >>> bits_per_weight(4, 128), bits_per_weight(4, 32), bits_per_weight(4, 32, zero_point_bits=4)
    (4.125, 4.5, 4.625)

    Every group is taken to be full. ValueError or TypeError for a bit width that is not 2 to 16, a group size below 1,
    negative bits, or what is not a whole number.
    """
    bits, size = bit_width(num_bits), PerGroup(group_size).group_size
    extra = [
        whole_number(value, name) for name, value in (("scale_bits", scale_bits), ("zero_point_bits", zero_point_bits))
    ]
    if min(extra) < 0:
        raise ValueError(f"expected scale_bits >= 0 and zero_point_bits >= 0, got {extra[0]} and {extra[1]}")
    return bits + sum(extra) / size
