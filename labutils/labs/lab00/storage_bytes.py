"""storage_bytes: how many bytes a number of values takes at a number of bits."""

from __future__ import annotations

import math

import numpy as np

from labutils.arrays.inputs import whole_number
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe
from labutils.labs.lab00 import LESSON


def storage_bytes(num_values: int, num_bits: int) -> int:
    """Whole bytes that `num_values` numbers of `num_bits` bits take when they are packed without gaps.

    >>> storage_bytes(7_000_000_000, 4), storage_bytes(3, 3)
    (3500000000, 2)
    """
    values, bits = whole_number(num_values, "num_values"), whole_number(num_bits, "num_bits")
    if values < 0 or bits < 1:
        raise ValueError(f"expected num_values >= 0 and num_bits >= 1, got {values} and {bits}")
    return -(-values * bits // 8)


def cases() -> list[Case]:
    return [
        Case("1000 values of 8 bits", (1000, 8)),
        Case("1000 values of 4 bits: two share a byte", (1000, 4)),
        Case("3 values of 3 bits: 9 bits need a second byte", (3, 3)),
        Case("5 values of 3 bits: 15 bits need a second byte", (5, 3)),
        Case("1 value of 1 bit still takes a byte", (1, 1)),
        Case("7 billion values of 16 bits", (7_000_000_000, 16)),
        Case("no values take no bytes", (0, 8)),
    ]


def read(value: object) -> dict:
    if value is None:
        raise Wrong("it returned None: end with `return` and the number of bytes")
    number = as_number(value, "the result")
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise Wrong(f"bytes come whole: the result should be an int, but it is {describe(number)}")
    return {"bytes": number}


def judge(answer: dict, case: Case) -> None:
    num_values, num_bits = case.args
    expected = storage_bytes(num_values, num_bits)
    if answer["bytes"] != expected:
        total = num_values * num_bits
        raise Wrong(
            f"{num_values} values of {num_bits} bits are {total} bits, which fit into {expected} bytes; "
            f"you returned {answer['bytes']:.0f}"
        )


MISCONCEPTIONS = (
    Misconception("bits taken for bytes", lambda n, b: n * b,
        "`num_values * num_bits` counts bits. A byte has eight of them."),
    Misconception("the last byte is lost", lambda n, b: n * b // 8,
        "`//` rounds down: 9 bits do not fit into 1 byte. Round up."),
    Misconception("a fraction of a byte", lambda n, b: n * b / 8,
        "`/` gives a float such as 1.125. Storage comes in whole bytes: round up to an int."),
    Misconception("rounded to the nearest byte", lambda n, b: round(n * b / 8),
        "9 bits are 1.125 bytes, and `round` makes that 1: the ninth bit has no place. Round up."),
    Misconception("whole bytes for every value", lambda n, b: n * math.ceil(b / 8),
        "Each value got bytes of its own. Packed, two 4-bit values share one byte: round up once, at the end."),
    Misconception("one byte too many", lambda n, b: n * b // 8 + 1,
        "Adding 1 is right only when bits are left over. 8000 bits are exactly 1000 bytes."),
    Misconception("rounded up to a float", lambda n, b: float(math.ceil(n * b / 8)),
        "The number is right and its type is not: `np.ceil` returns a float. Convert it to an int."),
)  # fmt: skip

EXERCISE = Exercise(
    name="storage_bytes",
    lab=LESSON,
    place=10,
    points=1,
    reference=storage_bytes,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
