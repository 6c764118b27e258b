"""pack_int3: eight codes in three bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labutils.arrays import packing
from labutils.arrays.inputs import Array
from labutils.course.exercise import Exercise, Misconception
from labutils.labs.lab04 import LESSON
from labutils.labs.lab04._packing import evened, judge_packed, packer_cases, read_bytes, require_signed


def pack_int3(q: Array) -> Array:
    """Eight 3-bit codes in three bytes, lowest bits first: (..., n) integers from -4 to 3 -> (..., ceil(3n / 8)) uint8.

    >>> pack_int3(np.array([1, 2, 3, -4, -3, -2, -1, 0], dtype=np.int8))
    array([209,  88,  31], dtype=uint8)
    """
    require_signed(q)
    return packing.pack(q, 3)


def stream(bits_of: Callable, order: str = "little", rows: bool = True) -> Callable:
    """A packer of the bits that `bits_of(q)` gives for each code, (..., n, k)."""

    def pack(q):
        q = q if rows else q.reshape(-1)
        bits = bits_of(q)
        return np.packbits(bits.reshape(*q.shape[:-1], -1), axis=-1, bitorder=order)

    return pack


def low_bits(q: np.ndarray, count: int = 3) -> np.ndarray:
    return ((q[..., None].astype(np.int16) >> np.arange(count)) & 1).astype(np.uint8)


def whole_blocks(q):
    padded = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -q.shape[-1] % 8)])
    return pack_int3(padded)


MISCONCEPTIONS = (
    Misconception("two codes a byte, two bits wasted",
        stream(lambda q: np.pad(low_bits(evened(q)).reshape(*q.shape[:-1], -1, 6), [(0, 0)] * q.ndim + [(0, 2)])),
        "No code crosses into the next byte here, so two bits of each byte are wasted. Code 2 starts at bit 6 of byte "
        "0 and ends at bit 0 of byte 1."),
    Misconception("four bits a code", stream(lambda q: low_bits(q, 4)),
        "Each code takes a nibble. Three bits are enough for -4 to 3: eight codes fit into three bytes."),
    Misconception("bytes filled from their highest bit", stream(lambda q: low_bits(q)[..., ::-1], order="big"),
        "The first code belongs into the lowest three bits of the byte. `np.packbits` starts at the highest unless "
        "told otherwise."),
    Misconception("each code reversed", stream(lambda q: low_bits(q)[..., ::-1]),
        "Within a code the lowest bit comes first, as in the byte itself. Yours starts with the sign."),
    Misconception("low bits first in bytes filled from their highest bit", stream(low_bits, order="big"),
        "Bit j of the stream is bit j % 8 of its byte, counted from the lowest. `np.packbits` counts from the highest "
        "unless told otherwise."),
    Misconception("offset binary instead of two's complement", stream(lambda q: low_bits(q + 4)),
        "Adding 4 makes the codes 0 to 7. The contract is two's complement: -1 is 111."),
    Misconception("codes after the last full eight are lost",
        lambda q: stream(low_bits)(q[..., : q.shape[-1] // 8 * 8]),
        "Eight codes make three whole bytes, but a row may end before. Round the number of bytes up."),
    Misconception("rows filled up to whole blocks of three bytes", whole_blocks,
        "A row ends with the byte that holds its last bit: 3 codes are 9 bits and take 2 bytes, not 3."),
    Misconception("rows run into one another", stream(low_bits, rows=False),
        "The array was flattened. Pack along the last axis only: each row starts with a byte of its own."),
    Misconception("integers wider than a byte", lambda q: pack_int3(q).astype(np.int64),
        "Each byte still lies in 8 of them, so nothing got smaller. Cast to uint8."),
)  # fmt: skip

EXERCISE = Exercise(
    name="pack_int3",
    lab=LESSON,
    place=60,
    points=2,
    reference=pack_int3,
    cases=lambda: packer_cases(3),
    read=read_bytes,
    judge=judge_packed(3),
    misconceptions=MISCONCEPTIONS,
    stretch=True,
)
