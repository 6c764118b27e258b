"""unpack_int4: from bytes back to codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labutils.arrays import packing
from labutils.arrays.inputs import Array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, place
from labutils.labs.contract import largest_at
from labutils.labs.lab04 import LESSON
from labutils.labs.lab04._packing import packer_cases


def unpack_int4(packed: Array, length: int) -> Array:
    """The 4-bit codes that `pack_int4` packed: (..., ceil(length / 2)) uint8 -> (..., length) int8.

    >>> unpack_int4(np.array([225, 7], dtype=np.uint8), length=3)
    array([ 1, -2,  7], dtype=int8)
    """
    return packing.unpack(packed, 4, length)


def cases() -> list[Case]:
    return [Case(case.name, (packing.pack(case.args[0], 4), case.args[0].shape[-1])) for case in packer_cases(4)]


def read(value: object) -> dict:
    return {"q": as_array(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    packed, length = case.args
    q, expected = answer["q"], packing.unpack(packed, 4, length)
    if q.shape != expected.shape:
        raise Wrong(f"the result should have shape {expected.shape}, {length} codes a row, but it has {q.shape}")
    if q.dtype != np.int8:
        raise Wrong(f"4-bit codes belong into int8, but the dtype of the result is {q.dtype}")
    if (q != expected).any():
        where = largest_at(q != expected)
        byte = packed[(*where[:-1], where[-1] // 2)]
        half = "high" if where[-1] % 2 else "low"
        raise Wrong(
            f"code [{place(where)}] is the {half} nibble of {byte:08b} and should be {expected[where]}, "
            f"but it is {q[where]}"
        )


def unpacking(
    to_code: Callable = lambda nibble: (nibble ^ 8) - 8,
    order: Callable = lambda low, high: np.stack([low, high], axis=-1),
    dtype: type = np.int8,
    cut: Callable = lambda codes, length: codes[..., :length],
) -> Callable:
    """The unpacker, of which one step can be replaced."""

    def unpack(packed, length):
        nibbles = packed.astype(np.int16)
        pairs = order(nibbles & 15, nibbles >> 4)
        return cut(to_code(pairs.reshape(*packed.shape[:-1], -1)), length).astype(dtype)

    return unpack


def sixteen_times_the_second(q):
    return np.where(np.arange(q.shape[-1]) % 2 == 1, 16 * q.astype(np.int16), q).astype(np.int8)


MISCONCEPTIONS = (
    Misconception("the sign is not extended", unpacking(to_code=lambda nibble: nibble),
        "1110 came back as 14. In four bits it is -2: where the highest of the four is set, the code is 16 less."),
    Misconception("only the high nibble gets its sign back",
        unpacking(to_code=lambda n: np.where(np.arange(n.shape[-1]) % 2 == 1, (n ^ 8) - 8, n)),
        "Shifting a signed byte right by four extends the sign of its high nibble. The low one needs the same: shift "
        "it up first, or subtract."),
    Misconception("the code -8 stays 8", unpacking(to_code=lambda nibble: np.where(nibble > 8, nibble - 16, nibble)),
        "1000 is -8: codes are negative from 8 on, not from 9 on."),
    Misconception("ones' complement", unpacking(to_code=lambda nibble: np.where(nibble > 7, nibble - 15, nibble)),
        "1111 is -1, so 16 must be subtracted where the highest bit is set, not 15."),
    Misconception("offset binary instead of two's complement", unpacking(to_code=lambda nibble: nibble - 8),
        "Subtracting 8 from every nibble undoes an offset that was never added. 0000 is 0 here, and 1111 is -1."),
    Misconception("sign and magnitude instead of two's complement",
        unpacking(to_code=lambda nibble: np.where(nibble > 7, -(nibble & 7), nibble)),
        "1111 is -1 in two's complement, not -7: where the highest bit is set, the code is 16 less."),
    Misconception("nibbles swapped", unpacking(order=lambda low, high: np.stack([high, low], axis=-1)),
        "The low nibble, the last four digits of the byte, is the first code of the pair."),
    Misconception("halves instead of neighbours",
        unpacking(order=lambda low, high: np.concatenate([low, high], axis=-1)),
        "All low nibbles came first, then all high ones. The two codes of a byte are neighbours: stack them along a "
        "new last axis before you reshape."),
    Misconception("length is ignored", unpacking(cut=lambda codes, length: codes),
        "Two codes come out of every byte, and the last one may be filling. Keep `length` of them."),
    Misconception("the last code of an odd row is lost",
        unpacking(cut=lambda codes, length: codes[..., : length // 2 * 2]),
        "Only whole bytes were unpacked. The low nibble of the last byte is a code, too."),
    Misconception("rows run into one another", lambda packed, length: unpack_int4(packed, length).reshape(-1),
        "The codes are right, but flattened: keep the axes of `packed`, and make the last one `length` long."),
    Misconception("unsigned codes", unpacking(dtype=np.uint8),
        "uint8 has no negative numbers: -2 became 254. Codes are int8."),
    Misconception("codes wider than they need to be", unpacking(dtype=np.int16),
        "int16 takes 2 bytes a code. int8 is enough, and what the rest of the lab expects."),
    Misconception("codes wider than they need to be", unpacking(dtype=np.int64),
        "int64 takes 8 bytes a code. int8 is enough, and what the rest of the lab expects."),
    Misconception("the high nibble is not shifted down",
        lambda packed, length: sixteen_times_the_second(unpack_int4(packed, length)),
        "A mask of 1111 0000 leaves the high nibble where it is, 16 times too large. Shift it down by four."),
    Misconception("only the low nibbles", unpacking(order=lambda low, high: np.stack([low, low], axis=-1)),
        "Both codes of each pair came from the low nibble. The second one lies four bits higher."),
)  # fmt: skip

EXERCISE = Exercise(
    name="unpack_int4",
    lab=LESSON,
    place=40,
    points=2,
    reference=unpack_int4,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
