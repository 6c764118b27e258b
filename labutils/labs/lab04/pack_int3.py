"""pack int3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import packing
from labutils.course.exercise import Exercise, Misconception
from labutils.labs.lab04 import LESSON
from labutils.labs.lab04._shared import _require_signed
from labutils.labs.lab04.pack_int4 import _evened, _judge_packed, _packer_cases, _read_bytes

Array = Any  # a numpy.ndarray or a torch.Tensor


def pack_int3(q: Array) -> Array:
    """Eight 3-bit codes in three bytes, lowest bits first: (..., n) integers from -4 to 3 -> (..., ceil(3n / 8)) uint8.

    >>> pack_int3(np.array([1, 2, 3, -4, -3, -2, -1, 0], dtype=np.int8))
    array([209,  88,  31], dtype=uint8)
    """
    _require_signed(q)
    return packing.pack(q, 3)


def _stream(bits_of: Callable, order: str = "little", rows: bool = True) -> Callable:
    """Packs the bits that `bits_of(q)` gives for each code, (..., n, k), with `np.packbits`."""

    def pack(q):
        q = q if rows else q.reshape(-1)
        bits = bits_of(q)
        return np.packbits(bits.reshape(*q.shape[:-1], -1), axis=-1, bitorder=order)

    return pack


def _low_bits(q: np.ndarray, count: int = 3) -> np.ndarray:
    return ((q[..., None].astype(np.int16) >> np.arange(count)) & 1).astype(np.uint8)


def _whole_blocks(q):
    padded = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -q.shape[-1] % 8)])
    return pack_int3(padded)


PACK_INT3 = (
    Misconception(
        "two codes a byte, two bits wasted",
        _stream(lambda q: np.pad(_low_bits(_evened(q)).reshape(*q.shape[:-1], -1, 6), [(0, 0)] * q.ndim + [(0, 2)])),
        "No code crosses into the next byte here, so two bits of each byte are wasted. Code 2 starts at bit 6 of byte "
        "0 and ends at bit 0 of byte 1.",
    ),
    Misconception(
        "four bits a code",
        _stream(lambda q: _low_bits(q, 4)),
        "Each code takes a nibble. Three bits are enough for -4 to 3: eight codes fit into three bytes.",
    ),
    Misconception(
        "bytes filled from their highest bit",
        _stream(lambda q: _low_bits(q)[..., ::-1], order="big"),
        "The first code belongs into the lowest three bits of the byte. `np.packbits` starts at the highest unless "
        "told otherwise.",
    ),
    Misconception(
        "each code reversed",
        _stream(lambda q: _low_bits(q)[..., ::-1]),
        "Within a code the lowest bit comes first, as in the byte itself. Yours starts with the sign.",
    ),
    Misconception(
        "low bits first in bytes filled from their highest bit",
        _stream(_low_bits, order="big"),
        "Bit j of the stream is bit j % 8 of its byte, counted from the lowest. `np.packbits` counts from the highest "
        "unless told otherwise.",
    ),
    Misconception(
        "offset binary instead of two's complement",
        _stream(lambda q: _low_bits(q + 4)),
        "Adding 4 makes the codes 0 to 7. The contract is two's complement: -1 is 111.",
    ),
    Misconception(
        "codes after the last full eight are lost",
        lambda q: (
            pack_int3(q[..., : q.shape[-1] // 8 * 8]) if q.shape[-1] >= 8 else np.zeros((*q.shape[:-1], 0), np.uint8)
        ),
        "Eight codes make three whole bytes, but a row may end before. Round the number of bytes up.",
    ),
    Misconception(
        "rows filled up to whole blocks of three bytes",
        _whole_blocks,
        "A row ends with the byte that holds its last bit: 3 codes are 9 bits and take 2 bytes, not 3.",
    ),
    Misconception(
        "rows run into one another",
        _stream(_low_bits, rows=False),
        "The array was flattened. Pack along the last axis only: each row starts with a byte of its own.",
    ),
    Misconception(
        "integers wider than a byte",
        lambda q: pack_int3(q).astype(np.int64),
        "Each byte still lies in 8 of them, so nothing got smaller. Cast to uint8.",
    ),
)


EXERCISE = Exercise(
    name="pack_int3",
    lab=LESSON,
    place=60,
    points=2,
    reference=pack_int3,
    cases=lambda: _packer_cases(3),
    read=_read_bytes,
    judge=_judge_packed(3),
    misconceptions=PACK_INT3,
    stretch=True,
)
