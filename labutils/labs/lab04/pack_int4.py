"""pack int4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import packing
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array
from labutils.labs.lab04 import LESSON
from labutils.labs.lab04._shared import _place, _require_signed

Array = Any  # a numpy.ndarray or a torch.Tensor


def pack_int4(q: Array) -> Array:
    """Two 4-bit codes in each byte, low nibble first: (..., n) integers from -8 to 7 -> (..., ceil(n / 2)) uint8.

    >>> pack_int4(np.array([1, -2, 7], dtype=np.int8))  # 0xE1 and 0x07
    array([225,   7], dtype=uint8)

    Two's complement; after an odd number of codes the last high nibble is 0. Errors as in `packing.pack`.
    """
    _require_signed(q)
    return packing.pack(q, 4)


def _codes(shape: tuple, num_bits: int, seed: int) -> np.ndarray:
    top = 2 ** (num_bits - 1)
    return np.random.default_rng(seed).integers(-top, top, shape).astype(np.int8)


def _packer_cases(num_bits: int) -> list[Case]:
    top = 2 ** (num_bits - 1)
    first = [1, -2, 7] if num_bits == 4 else [1, -2, 3, -4, 0, -1]
    return [
        Case("the codes 1 and -2", (np.array([1, -2], dtype=np.int8),)),
        Case("the worked example", (np.array(first, dtype=np.int8),)),
        Case("every code once", (np.arange(-top, top, dtype=np.int8),)),
        Case("only positive codes", (np.arange(1, 9, dtype=np.int8) % top,)),
        Case("only negative codes", (-(np.arange(8, dtype=np.int8) % top) - np.int8(1),)),
        Case("one code", (np.array([-3], dtype=np.int8),)),
        Case("rows of even length", (_codes((6, 8), num_bits, 6),)),
        Case("rows of odd length: each ends with a byte of its own", (_codes((5, 7), num_bits, 7),)),
        Case("three axes", (_codes((2, 3, 11), num_bits, 8),)),
        Case("a strided view", (_codes((4, 24), num_bits, 9)[:, ::2],)),
        Case("a long row", (_codes((1000,), num_bits, 10),)),
        Case("zeros", (np.zeros((2, 5), dtype=np.int8),)),
    ]


def _read_bytes(value: object) -> dict:
    return {"packed": as_array(value, "the result")}


def _judge_packed(num_bits: int) -> Callable:
    def judge(answer: dict, case: Case) -> None:
        (q,) = case.args
        packed, expected = answer["packed"], packing.pack(q, num_bits)
        if packed.dtype != np.uint8:
            raise Wrong(f"bytes are uint8, but the dtype of the result is {packed.dtype}")
        if packed.shape != expected.shape:
            raise Wrong(
                f"{q.shape[-1]} codes of {num_bits} bits take {expected.shape[-1]} bytes, so the result should have "
                f"shape {expected.shape}, but it has {packed.shape}"
            )
        if (packed != expected).any():
            where = np.unravel_index(np.argmax(packed != expected), packed.shape)
            first = where[-1] * 8 // num_bits
            codes = q[(*where[:-1], slice(first, -(-(where[-1] + 1) * 8 // num_bits)))].tolist()
            raise Wrong(
                f"byte [{_place(where)}] holds bits of the codes {', '.join(map(str, codes))} and should be "
                f"{expected[where]:08b}, but it is {packed[where]:08b}"
            )

    return judge


def _evened(q: np.ndarray) -> np.ndarray:
    return np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)])


def _in_pairs(join: Callable, even: Callable = _evened) -> Callable:
    """Packs by `join(first, second)` of each two neighbours, in int16."""

    def pack(q):
        padded = even(q).astype(np.int16)
        return join(padded[..., ::2], padded[..., 1::2])

    return pack


def _nibbles(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return ((low & 15) | ((high & 15) << 4)).astype(np.uint8)


def _by_halves(q):
    padded = _evened(q)
    half = padded.shape[-1] // 2
    return _nibbles(padded[..., :half], padded[..., half:])


def _sign_and_magnitude(q):
    return np.abs(q) + 8 * (q < 0)


PACK_INT4 = (
    Misconception(
        "nibbles swapped",
        _in_pairs(lambda first, second: _nibbles(second, first)),
        "The first code of each pair belongs into the low nibble, the last four digits of the byte. bitsandbytes packs "
        "the other way round, and nothing in a file says which it is.",
    ),
    Misconception(
        "the sign of the low code runs into the high nibble",
        _in_pairs(lambda first, second: (first | (second << 4)).astype(np.uint8)),
        "-2 is ...11111110 in any signed integer: its ones do not end after four bits. Keep only the lowest four "
        "before you combine.",
    ),
    Misconception(
        "the low code borrows from the high one",
        _in_pairs(lambda first, second: (first + 16 * second).astype(np.uint8)),
        "Adding a negative low code takes 1 from the high nibble. Cut each code down to its four bits first.",
    ),
    Misconception(
        "offset binary instead of two's complement",
        _in_pairs(lambda first, second: _nibbles(first + 8, second + 8)),
        "Adding 8 makes the codes 0 to 15, which compressed-tensors and GPTQ do. The contract here is two's "
        "complement: -1 is 1111.",
    ),
    Misconception(
        "sign and magnitude instead of two's complement",
        _in_pairs(lambda first, second: _nibbles(_sign_and_magnitude(first), _sign_and_magnitude(second))),
        "A sign bit in front of |q| has no place for -8, and two zeros. In two's complement -1 is 1111 and -8 is 1000.",
    ),
    Misconception(
        "an odd row is not filled up",
        _in_pairs(_nibbles, even=lambda q: q),
        "A row of 7 has four first codes and three second ones: they do not pair up. (With 3 codes NumPy even lets one "
        "stand for two, without a word.) Add a zero to a row of odd length before you split it.",
    ),
    Misconception(
        "the last code of an odd row is lost",
        _in_pairs(_nibbles, even=lambda q: q[..., : q.shape[-1] // 2 * 2]),
        "Three codes need two bytes: the second holds one code and a nibble of zeros. Round up.",
    ),
    Misconception(
        "the last code of an odd row is packed twice",
        _in_pairs(_nibbles, even=lambda q: np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)], mode="edge")),
        "After an odd number of codes the last high nibble is to be 0.",
    ),
    Misconception(
        "an odd row is filled up in front",
        _in_pairs(_nibbles, even=lambda q: np.pad(q, [(0, 0)] * (q.ndim - 1) + [(q.shape[-1] % 2, 0)])),
        "The zero that fills up an odd row comes after its last code, not before its first.",
    ),
    Misconception(
        "rows run into one another",
        lambda q: _nibbles(*(_evened(q.reshape(-1))[i::2] for i in (0, 1))),
        "The array was flattened. Pack along the last axis only: each row starts with a byte of its own.",
    ),
    Misconception(
        "halves instead of neighbours",
        _by_halves,
        "The first half of the row went into the low nibbles and the second into the high ones, as in HQQ. The "
        "contract is neighbours: codes 0 and 1 in byte 0.",
    ),
    Misconception(
        "packs along the first axis",
        lambda q: np.moveaxis(pack_int4(np.ascontiguousarray(np.moveaxis(q, 0, -1))), -1, 0),
        "Pairs are neighbours along the last axis. These were above and below each other.",
    ),
    Misconception(
        "one code in each byte",
        lambda q: (q & 15).astype(np.uint8),
        "Each code still has a byte of its own, half of it empty. Put the second of each pair into the high nibble.",
    ),
    Misconception(
        "the high nibble stays empty",
        _in_pairs(lambda first, second: ((first & 15) | (second & 15)).astype(np.uint8)),
        "Both codes of the pair lie on the same four bits. Shift the second one up by four.",
    ),
    Misconception(
        "the shift is one short",
        _in_pairs(lambda first, second: ((first & 15) | ((second & 15) << 3)).astype(np.uint8)),
        "A nibble has four bits: shifted by three, the second code still covers the first one's sign.",
    ),
    Misconception(
        "signed bytes",
        lambda q: pack_int4(q).view(np.int8),
        "The bits are right, the dtype is not: a byte that holds two codes has no sign. Cast to uint8.",
    ),
    Misconception(
        "integers wider than a byte",
        lambda q: pack_int4(q).astype(np.int64),
        "Each byte still lies in 8 of them, so nothing got smaller. Cast to uint8.",
    ),
    Misconception(
        "integers wider than a byte",
        lambda q: pack_int4(q).astype(np.int16),
        "Each byte still lies in 2 of them, so nothing got smaller. Cast to uint8.",
    ),
)


EXERCISE = Exercise(
    name="pack_int4",
    lab=LESSON,
    place=30,
    points=2,
    reference=pack_int4,
    cases=lambda: _packer_cases(4),
    read=_read_bytes,
    judge=_judge_packed(4),
    misconceptions=PACK_INT4,
)
