"""What the exercises that pack codes into bytes have in common: cases, reading and judging."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labutils.arrays import packing
from labutils.arrays.inputs import Array, code_array
from labutils.course.exercise import Case, Wrong
from labutils.course.reading import as_array, place
from labutils.labs.contract import largest_at


def require_signed(q: Array) -> None:
    xp, q = code_array(q)
    if not xp.isdtype(q.dtype, "signed integer"):
        raise TypeError(f"q must hold signed codes, as symmetric quantizers give, got dtype {q.dtype}")


def packer_cases(num_bits: int) -> list[Case]:
    top = 2 ** (num_bits - 1)
    first = [1, -2, 7] if num_bits == 4 else [1, -2, 3, -4, 0, -1]

    def codes(shape: tuple, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(-top, top, shape).astype(np.int8)

    return [
        Case("the codes 1 and -2", (np.array([1, -2], dtype=np.int8),)),
        Case("the worked example", (np.array(first, dtype=np.int8),)),
        Case("every code once", (np.arange(-top, top, dtype=np.int8),)),
        Case("only positive codes", (np.arange(1, 9, dtype=np.int8) % top,)),
        Case("only negative codes", (-(np.arange(8, dtype=np.int8) % top) - np.int8(1),)),
        Case("one code", (np.array([-3], dtype=np.int8),)),
        Case("rows of even length", (codes((6, 8), 6),)),
        Case("rows of odd length: each ends with a byte of its own", (codes((5, 7), 7),)),
        Case("three axes", (codes((2, 3, 11), 8),)),
        Case("a strided view", (codes((4, 24), 9)[:, ::2],)),
        Case("a long row", (codes((1000,), 10),)),
        Case("zeros", (np.zeros((2, 5), dtype=np.int8),)),
    ]


def read_bytes(value: object) -> dict:
    """The answer of a packer: an array of bytes."""
    return {"packed": as_array(value, "the result")}


def judge_packed(num_bits: int) -> Callable:
    """The judge of a packer of `num_bits` codes: dtype and shape, then the first byte that is another."""

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
            where = largest_at(packed != expected)
            first, last = where[-1] * 8 // num_bits, ((where[-1] + 1) * 8 - 1) // num_bits
            codes = ", ".join(str(code) for code in q[where[:-1]][first : last + 1])
            raise Wrong(
                f"byte [{place(where)}] holds bits of the codes {codes} and should be "
                f"{expected[where]:08b}, but it is {packed[where]:08b}"
            )

    return judge


def evened(q: np.ndarray, mode: str = "constant") -> np.ndarray:
    """Codes in rows of even length: an odd row gets a 0 at its end, or what another mode of `np.pad` gives."""
    return np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)], mode=mode)
