"""The blocks of GGUF: 32 values of a row with a float16 scale, in bytes.

| type | bytes | codes | value |
|---|---|---|---|
| Q8_0 | 34 | int8, in order | scale * q |
| Q4_0 | 18 | 4 bits, 0 to 15 | scale * (q - 8) |
| Q4_1 | 20 | 4 bits, 0 to 15 | scale * q + minimum |

Byte i of the 4-bit codes holds code i in its low half and code i + 16 in its high one. The functions that choose scales
and round do it as llama.cpp does (ggml/src/ggml-quants.c), number by number; bytes equal those of the package gguf.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labutils.arrays.affine import QuantizedArray
from labutils.arrays.grids import Integers
from labutils.arrays.inputs import Array, numpy_on_cpu, real_array, require_finite
from labutils.arrays.scheme import PerGroup, Scheme

BLOCK = 32
UNDERFLOWS = 2.0**-25  # rounded to float16, this is 0


def q8_0_blocks(x: Array) -> np.ndarray:
    """Quantize rows to Q8_0: (..., n) floats -> (..., n / 32, 34) uint8.

    >>> block = q8_0_blocks(np.linspace(-1, 1, 32, dtype=np.float32))[0]
    >>> float(block[:2].view(np.float16)[0]), block[2:].view(np.int8)[:4].tolist()
    (0.00787353515625, [-127, -119, -111, -102])

    scale = max|x| / 127, q = round(x / scale), halves away from zero. ValueError for rows that are no whole blocks, for
    NaN and Inf, and for a scale beyond float16.
    """
    blocks = _in_blocks(x)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    steps = blocks * _reciprocal(scale)
    whole = np.floor(np.abs(steps))
    codes = np.sign(steps) * (whole + np.floor(2 * (np.abs(steps) - whole)))
    return _joined(_float16(scale), codes.astype(np.int8))


def q4_0_blocks(x: Array) -> np.ndarray:
    """Quantize rows to Q4_0: (..., n) floats -> (..., n / 32, 18) uint8.

    >>> block = q4_0_blocks(np.linspace(-1, 1, 32, dtype=np.float32))[0]
    >>> float(block[:2].view(np.float16)[0]), [hex(byte) for byte in block[2:5]]
    (0.125, ['0x80', '0x91', '0x91'])

    scale = m / -8, where m is the value of the largest magnitude, with its sign: it becomes code 0 exactly. The scale
    may be negative. q = floor(x / scale + 8.5), at most 15. Errors as for Q8_0.
    """
    blocks = _in_blocks(x)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
    scale = largest / np.float32(-8)
    codes = np.trunc(blocks * _reciprocal(scale) + np.float32(8.5)).clip(0, 15).astype(np.uint8)
    return _joined(_float16(scale), _nibbles(codes))


def q4_1_blocks(x: Array) -> np.ndarray:
    """Quantize rows to Q4_1: (..., n) floats -> (..., n / 32, 20) uint8.

    >>> block = q4_1_blocks(np.linspace(0, 15, 32, dtype=np.float32))[0]
    >>> block[:4].view(np.float16).tolist(), [hex(byte) for byte in block[4:7]]
    ([1.0, 0.0], ['0x80', '0x80', '0x91'])

    scale = (max - min) / 15, q = floor((x - min) / scale + 0.5). Errors as for Q8_0.
    """
    blocks = _in_blocks(x)
    low, high = blocks.min(axis=-1, keepdims=True), blocks.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # reported as a scale beyond float16
        scale = (high - low) / np.float32(15)
    codes = np.trunc((blocks - low) * _reciprocal(scale) + np.float32(0.5)).clip(0, 15).astype(np.uint8)
    return _joined(_float16(scale), _float16(low), _nibbles(codes))


def _plain(dtype: str) -> Callable[[Array], np.ndarray]:
    """Values as they are, their bytes along the last axis."""

    def blocks(x: Array) -> np.ndarray:
        values = _float16(_finite(x)) if dtype == "<f2" else _finite(x)
        return np.ascontiguousarray(values.astype(dtype)).view(np.uint8)

    return blocks


BLOCKS = {  # type -> how floats become its bytes
    "F32": _plain("<f4"),
    "F16": _plain("<f2"),
    "Q8_0": q8_0_blocks,
    "Q4_0": q4_0_blocks,
    "Q4_1": q4_1_blocks,
}
STORED_SCHEMES = {  # what a quantized layer's codes are stored as, without being rounded again
    Scheme(8, granularity=PerGroup(BLOCK)): "Q8_0",
    Scheme(4, granularity=PerGroup(BLOCK)): "Q4_0",
    Scheme(4, False, granularity=PerGroup(BLOCK)): "Q4_1",
}


def type_of(scheme: Scheme) -> str:
    """The type that holds codes of `scheme`.

    >>> type_of(Scheme(4, granularity=PerGroup(32)))
    'Q4_0'

    ValueError for schemes without one: codes of groups of 32 can be written in 8 bits, and in 4 with or without zero
    points.
    """
    for known, kind in STORED_SCHEMES.items():
        if isinstance(scheme.grid, Integers) and _layout(scheme) == _layout(known):
            return kind
    raise ValueError(
        f"GGUF has no type for {scheme}: its groups are of {BLOCK}, in 8 bits without zero points, or in 4"
    )


def stored_blocks(quantized: QuantizedArray) -> np.ndarray:
    """The codes of a quantized (outputs, inputs) weight in blocks: (outputs, inputs / 32, bytes of a block) uint8.

    >>> from labutils.arrays.affine import quantize
    >>> weight = np.linspace(-7, 7, 32, dtype=np.float32)[None]
    >>> stored_blocks(quantize(weight, Scheme(4, granularity=PerGroup(32))))[0, 0, :4].tolist()
    [0, 60, 129, 145]

    Codes stay; scales are rounded to float16, by 0.05% at most, and the minimum -scale * zero_point of Q4_1 likewise.
    ValueError as in `type_of`, and for scales that float16 cannot hold.
    """
    kind = type_of(quantized.scheme)
    codes, scale = _array(quantized.codes), _array(quantized.scale).astype(np.float32)
    blocks, scale = _whole_blocks(codes), scale[..., None]
    if (scale <= UNDERFLOWS).any():
        raise ValueError(f"a scale of {scale.min():g} is 0 in float16, in which GGUF stores scales")
    if kind == "Q8_0":
        return _joined(_float16(scale), blocks)
    if kind == "Q4_0":
        return _joined(_float16(scale), _nibbles((blocks + 8).astype(np.uint8)))
    return _joined(_float16(scale), _float16(-scale * _array(quantized.zero_point)[..., None]), _nibbles(blocks))


def _layout(scheme: Scheme) -> tuple:
    return scheme.num_bits, scheme.symmetric, scheme.granularity


def _array(x: Array) -> np.ndarray:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _finite(x: Array) -> np.ndarray:
    """`x` as float32."""
    library, x = real_array(x)
    require_finite(library, x)
    with np.errstate(over="ignore"):
        values = np.asarray(numpy_on_cpu(library, library.astype(x, library.float32))[1])
    if not np.isfinite(values).all():
        raise ValueError("a float64 is beyond float32, which GGUF's values are made from")
    return values


def _in_blocks(x: Array) -> np.ndarray:
    return _whole_blocks(_finite(x))


def _whole_blocks(x: np.ndarray) -> np.ndarray:
    """(..., n) -> (..., n / 32, 32)."""
    if not x.shape or x.shape[-1] % BLOCK:
        raise ValueError(f"a row must be whole blocks of {BLOCK} values, got shape {x.shape}")
    return x.reshape(*x.shape[:-1], -1, BLOCK)


def _reciprocal(scale: np.ndarray) -> np.ndarray:
    """1 / scale, and 0 where that is no number: such a scale is 0 in float16, and so is every value."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(1) / scale
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _float16(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        rounded = x.astype("<f2")
    if not np.isfinite(rounded).all():
        raise ValueError(f"{np.abs(x).max():g} is beyond float16, in which GGUF stores it: 65504 at most")
    return rounded


def _nibbles(codes: np.ndarray) -> np.ndarray:
    """(..., 32) codes 0 to 15 -> (..., 16) bytes: the first half of a block in the low nibbles."""
    return codes[..., :16] | codes[..., 16:] << 4


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], axis=-1)
