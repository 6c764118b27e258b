"""bits_per_weight: what a weight costs, with its share of scale and zero point."""

from __future__ import annotations

import math
from collections.abc import Callable

from labutils.arrays.inputs import bit_width, whole_number
from labutils.arrays.scheme import PerGroup
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, distinct
from labutils.labs.lab04 import LESSON


def bits_per_weight(num_bits: int, group_size: int, scale_bits: int = 16, zero_point_bits: int = 0) -> float:
    """What a weight costs, its share of scale and zero point counted: num_bits + (scale + zero point) / group_size.

    >>> bits_per_weight(4, 128), bits_per_weight(4, 32), bits_per_weight(4, 32, zero_point_bits=4)
    (4.125, 4.5, 4.625)

    Every group is taken to be full. ValueError or TypeError for a bit width that is not 2 to 16, a group size below 1,
    negative bits, or what is not a whole number.
    """
    bits, size = bit_width(num_bits), PerGroup(group_size).group_size
    shared = whole_number(scale_bits, "scale_bits"), whole_number(zero_point_bits, "zero_point_bits")
    if min(shared) < 0:
        raise ValueError(f"expected scale_bits >= 0 and zero_point_bits >= 0, got {shared[0]} and {shared[1]}")
    return bits + sum(shared) / size


def cases() -> list[Case]:
    return [
        Case("4 bits, a 16-bit scale for each 128", (4, 128)),
        Case("4 bits, a 16-bit scale for each 32", (4, 32)),
        Case("3 bits in groups of 64", (3, 64)),
        Case("a zero point of 4 bits beside the scale", (4, 128), {"scale_bits": 16, "zero_point_bits": 4}),
        Case("scales in float32", (4, 64), {"scale_bits": 32}),
        Case("scales of 8 bits, as in MXFP4", (4, 32), {"scale_bits": 8}),
        Case("a zero point as wide as the scale", (8, 16), {"scale_bits": 16, "zero_point_bits": 16}),
        Case("groups of one", (4, 1)),
        Case("a group as long as a row of 3000", (2, 3000)),
    ]


def read(value: object) -> dict:
    return {"bits": as_number(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    expected = bits_per_weight(*case.args, **case.kwargs)
    if not math.isclose(answer["bits"], expected, rel_tol=1e-9):
        wanted, found = distinct(expected, answer["bits"])
        raise Wrong(f"a weight costs {wanted} bits, but the result is {found}")


def price(formula: Callable) -> Callable:
    """formula(b, g, s, z) with the arguments of the exercise."""

    def bits_per_weight(num_bits, group_size, scale_bits=16, zero_point_bits=0):
        return formula(num_bits, group_size, scale_bits, zero_point_bits)

    return bits_per_weight


MISCONCEPTIONS = (
    Misconception("the scales are left out", price(lambda b, g, s, z: b),
        "A scale takes memory as well. It is shared by a group: find out how many bits of it fall on one weight."),
    Misconception("a scale for each weight", price(lambda b, g, s, z: b + s + z),
        "The scale is stored once for a group, so each weight pays only its share: divide by the group size."),
    Misconception("the zero point is left out", price(lambda b, g, s, z: b + s / g),
        "Where there is a zero point, each group stores one, like its scale."),
    Misconception("a zero point for each weight", price(lambda b, g, s, z: b + s / g + z),
        "The zero point is stored once for a group, like the scale: divide it by the group size, too."),
    Misconception("scales of 16 bits, whatever was asked for", price(lambda b, g, s, z: b + (16 + z) / g),
        "16 is the default only. Use `scale_bits`."),
    Misconception("scales of 32 bits, whatever was asked for", price(lambda b, g, s, z: b + (32 + z) / g),
        "In memory your scales are float32, but files store them in 16 bits or less. Use `scale_bits`."),
    Misconception("a whole number of bits", price(lambda b, g, s, z: b + (s + z) // g),
        "`//` rounds the share of the scale down, mostly to 0. It is a fraction of a bit: divide with `/`."),
    Misconception("rounded up to whole bits", price(lambda b, g, s, z: math.ceil(b + (s + z) / g)),
        "The group as a whole takes whole bits; the share of one weight is a fraction. Do not round."),
    Misconception("the bits of a group instead of a weight", price(lambda b, g, s, z: b * g + s + z),
        "That is what the whole group takes. Divide by its size."),
    Misconception("the group size in the numerator", price(lambda b, g, s, z: b + g / (s + z)),
        "Larger groups share a scale among more weights, so the cost must fall with the group size."),
    Misconception("bytes instead of bits", price(lambda b, g, s, z: (b + (s + z) / g) / 8),
        "That is bytes a weight. The field counts in bits."),
    Misconception("everything divided by the group size", price(lambda b, g, s, z: (b + s + z) / g),
        "Only scale and zero point are shared. The code is each weight's own."),
)  # fmt: skip

EXERCISE = Exercise(
    name="bits_per_weight",
    lab=LESSON,
    place=50,
    points=1,
    reference=bits_per_weight,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
