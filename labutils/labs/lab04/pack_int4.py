"""pack_int4: two codes in a byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labutils.arrays import packing
from labutils.arrays.inputs import Array
from labutils.course.exercise import Exercise, Misconception
from labutils.labs.lab04 import LESSON
from labutils.labs.lab04._packing import evened, judge_packed, packer_cases, read_bytes, require_signed


def pack_int4(q: Array) -> Array:
    """Two 4-bit codes in each byte, low nibble first: (..., n) integers from -8 to 7 -> (..., ceil(n / 2)) uint8.

    >>> pack_int4(np.array([1, -2, 7], dtype=np.int8))  # 0xE1 and 0x07
    array([225,   7], dtype=uint8)

    Two's complement; after an odd number of codes the last high nibble is 0. Errors as in `packing.pack`.
    """
    require_signed(q)
    return packing.pack(q, 4)


def in_pairs(join: Callable, even: Callable = evened) -> Callable:
    """A packer that makes a byte of each two neighbours by join(first, second), in int16."""

    def pack(q):
        padded = even(q).astype(np.int16)
        return join(padded[..., ::2], padded[..., 1::2])

    return pack


def nibbles(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return ((low & 15) | ((high & 15) << 4)).astype(np.uint8)


def by_halves(q):
    padded = evened(q)
    half = padded.shape[-1] // 2
    return nibbles(padded[..., :half], padded[..., half:])


def sign_and_magnitude(q):
    return np.abs(q) + 8 * (q < 0)


MISCONCEPTIONS = (
    Misconception("nibbles swapped", in_pairs(lambda first, second: nibbles(second, first)),
        "The first code of each pair belongs into the low nibble, the last four digits of the byte. bitsandbytes packs "
        "the other way round, and nothing in a file says which it is."),
    Misconception("the sign of the low code runs into the high nibble",
        in_pairs(lambda first, second: (first | (second << 4)).astype(np.uint8)),
        "-2 is ...11111110 in any signed integer: its ones do not end after four bits. Keep only the lowest four "
        "before you combine."),
    Misconception("the low code borrows from the high one",
        in_pairs(lambda first, second: (first + 16 * second).astype(np.uint8)),
        "Adding a negative low code takes 1 from the high nibble. Cut each code down to its four bits first."),
    Misconception("offset binary instead of two's complement",
        in_pairs(lambda first, second: nibbles(first + 8, second + 8)),
        "Adding 8 makes the codes 0 to 15, which compressed-tensors and GPTQ do. The contract here is two's "
        "complement: -1 is 1111."),
    Misconception("sign and magnitude instead of two's complement",
        in_pairs(lambda first, second: nibbles(sign_and_magnitude(first), sign_and_magnitude(second))),
        "A sign bit in front of |q| has no place for -8, and two zeros. "
        "In two's complement -1 is 1111 and -8 is 1000."),
    Misconception("an odd row is not filled up", in_pairs(nibbles, even=lambda q: q),
        "A row of 7 has four first codes and three second ones: they do not pair up. (With 3 codes NumPy even lets one "
        "stand for two, without a word.) Add a zero to a row of odd length before you split it."),
    Misconception("the last code of an odd row is lost",
        in_pairs(nibbles, even=lambda q: q[..., : q.shape[-1] // 2 * 2]),
        "Three codes need two bytes: the second holds one code and a nibble of zeros. Round up."),
    Misconception("the last code of an odd row is packed twice",
        in_pairs(nibbles, even=lambda q: evened(q, mode="edge")),
        "After an odd number of codes the last high nibble is to be 0."),
    Misconception("an odd row is filled up in front",
        in_pairs(nibbles, even=lambda q: evened(q[..., ::-1])[..., ::-1]),
        "The zero that fills up an odd row comes after its last code, not before its first."),
    Misconception("rows run into one another", lambda q: nibbles(*(evened(q.reshape(-1))[i::2] for i in (0, 1))),
        "The array was flattened. Pack along the last axis only: each row starts with a byte of its own."),
    Misconception("halves instead of neighbours", by_halves,
        "The first half of the row went into the low nibbles and the second into the high ones, as in HQQ. The "
        "contract is neighbours: codes 0 and 1 in byte 0."),
    Misconception("packs along the first axis",
        lambda q: np.moveaxis(pack_int4(np.ascontiguousarray(np.moveaxis(q, 0, -1))), -1, 0),
        "Pairs are neighbours along the last axis. These were above and below each other."),
    Misconception("one code in each byte", lambda q: (q & 15).astype(np.uint8),
        "Each code still has a byte of its own, half of it empty. Put the second of each pair into the high nibble."),
    Misconception("the high nibble stays empty",
        in_pairs(lambda first, second: ((first & 15) | (second & 15)).astype(np.uint8)),
        "Both codes of the pair lie on the same four bits. Shift the second one up by four."),
    Misconception("the high code is not shifted, for << comes before &",
        in_pairs(lambda first, second: ((first & 15) | (second & 15 << 4)).astype(np.uint8)),
        "Python reads `u & 15 << 4` as `u & (15 << 4)`: a shift comes before an and. Put brackets around the mask."),
    Misconception("the shift is one short",
        in_pairs(lambda first, second: ((first & 15) | ((second & 15) << 3)).astype(np.uint8)),
        "A nibble has four bits: shifted by three, the second code still covers the first one's sign."),
    Misconception("signed bytes", lambda q: pack_int4(q).view(np.int8),
        "The bits are right, the dtype is not: a byte that holds two codes has no sign. Cast to uint8."),
    Misconception("integers wider than a byte", lambda q: pack_int4(q).astype(np.int64),
        "Each byte still lies in 8 of them, so nothing got smaller. Cast to uint8."),
    Misconception("integers wider than a byte", lambda q: pack_int4(q).astype(np.int16),
        "Each byte still lies in 2 of them, so nothing got smaller. Cast to uint8."),
)  # fmt: skip

EXERCISE = Exercise(
    name="pack_int4",
    lab=LESSON,
    place=30,
    points=2,
    reference=pack_int4,
    cases=lambda: packer_cases(4),
    read=read_bytes,
    judge=judge_packed(4),
    misconceptions=MISCONCEPTIONS,
)
