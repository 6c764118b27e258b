"""float_grid: the numbers that a few bits of exponent and mantissa can write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays.grids import FloatGrid
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct
from labutils.labs.floats import as_float64
from labutils.labs.lab11 import LESSON
from labutils.labs.recipes import Recipe


def float_grid(exponent_bits: int, mantissa_bits: int, specials: str = "none") -> np.ndarray:
    """The finite numbers without a sign of a small float format, in the order of their codes, float64.

    >>> float_grid(2, 1)  # E2M1, the grid of FP4
    array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ])
    >>> float_grid(4, 3, "nan")[-1], float_grid(5, 2, "ieee")[-1]  # E4M3 and E5M2, both of 8 bits with their sign
    (np.float64(448.0), np.float64(57344.0))

    specials  "none": all codes are numbers. "nan": the last one is NaN. "ieee": all with the largest exponent are
              infinity or NaN. Neither is in the result

    `grids.FloatGrid` is the same as a grid, with checks; TypeError or ValueError for what is no such format.
    """
    return FloatGrid(exponent_bits, mantissa_bits, specials).ascending.copy()


def cases() -> list[Case]:
    return [
        Case("E2M1, the worked example", (2, 1)),
        Case("E4M3, whose last code is NaN", (4, 3), {"specials": "nan"}),
        Case("E5M2, whose largest exponent is infinity and NaN", (5, 2), {"specials": "ieee"}),
        Case("E3M2", (3, 2), {"specials": "none"}),
        Case("E2M3", (2, 3), {"specials": "none"}),
        Case("E3M4, as IEEE would have it", (3, 4), {"specials": "ieee"}),
        Case("E1M2: one bit of exponent, bias 0", (1, 2), {"specials": "none"}),
        Case("float16", (5, 10), {"specials": "ieee"}),
    ]


def read(value: Any) -> dict:
    return {"levels": as_float64(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    (exponent_bits, mantissa_bits), found = case.args, answer["levels"]
    wanted = float_grid(exponent_bits, mantissa_bits, case.kwargs.get("specials", "none"))
    name = f"E{exponent_bits}M{mantissa_bits}"
    if found.ndim != 1:
        raise Wrong(f"the result should have one axis, a number for each code, but its shape is {found.shape}")
    shared = min(len(found), len(wanted))
    off = ~np.isclose(found[:shared], wanted[:shared], rtol=1e-6, atol=0)
    if off.any():
        code = int(np.argmax(off))
        fields = f"exponent {code >> mantissa_bits}, mantissa {code % 2**mantissa_bits}"
        expected, came = distinct(wanted[code], found[code])
        raise Wrong(f"code {code} of {name} ({fields}) should stand for {expected}, but it is {came}")
    if len(found) != len(wanted):
        last = f"code {len(wanted) - 1}, {wanted[-1]:g}"
        end = f"it ends with {found[-1]:g}" if len(found) else "it is empty"
        raise Wrong(
            f"{name} has {len(wanted)} finite numbers, the last of them {last}; here are {len(found)}, and {end}"
        )


def value_of(exponent, fraction, bias):
    """IEEE 754: with the exponent field 0, the exponent is that of field 1, and there is no leading 1."""
    return np.where(exponent > 0, 1 + fraction, fraction) * 2.0 ** (np.maximum(exponent, 1) - bias)


@dataclass(frozen=True)
class Floats(Recipe):
    """value(exponent field, fraction, bias(E)) of all codes but the last `reserved`; `result` is what is returned."""

    count: Callable = lambda e, m: 2 ** (e + m)
    split: Callable = lambda codes, e, m: (codes >> m, codes % 2**m / 2**m)
    bias: Callable = lambda e: 2 ** (e - 1) - 1
    value: Callable = value_of
    reserved: Callable = lambda specials, e, m: {"none": 0, "nan": 1, "ieee": 2**m}[specials]
    result: Callable = lambda values, finite: values[:finite]

    def __call__(self, exponent_bits, mantissa_bits, specials="none"):
        e, m = exponent_bits, mantissa_bits
        codes = np.arange(self.count(e, m))
        exponent, fraction = self.split(codes, e, m)
        values = self.value(exponent, fraction, self.bias(e))
        return self.result(values, len(codes) - self.reserved(specials, e, m))


right = Floats()


def all_normal(exponent, fraction, bias):
    return (1 + fraction) * 2.0 ** (exponent - bias)


def normal_but_zero(exponent, fraction, bias):
    values = all_normal(exponent, fraction, bias)
    values[0] = 0
    return values


def flushed(exponent, fraction, bias):
    return np.where(exponent > 0, all_normal(exponent, fraction, bias), 0.0)


def one_exponent_too_low(exponent, fraction, bias):
    return np.where(exponent > 0, 1 + fraction, fraction) * 2.0 ** (exponent - bias)


def no_leading_one(exponent, fraction, bias):
    return fraction * 2.0 ** (np.maximum(exponent, 1) - bias)


def with_specials(values, finite):
    """Infinity and NaN where they stand: the first of the reserved is infinity if there are several."""
    values = values.copy()
    values[finite:] = np.nan
    if len(values) - finite > 1:
        values[finite] = np.inf
    return values


def without_subnormals(exponent_bits, mantissa_bits, specials="none"):
    return np.delete(right(exponent_bits, mantissa_bits, specials), np.arange(1, 2**mantissa_bits))


NO_SUBNORMALS = (
    "With the exponent field 0 the rule changes: no leading 1, and the exponent of field 1. These are the subnormal "
    "numbers. Without them 0 has no code, and next to it is a hole."
)
LAST_OF_E4M3 = (
    "Only formats that follow IEEE give up the whole largest exponent. E4M3 gives up one code, the last, for NaN, and "
    "has no infinity: its largest number is 448, not 240."
)

MISCONCEPTIONS = (
    Misconception("no subnormal numbers", right.but(value=all_normal), NO_SUBNORMALS),
    Misconception("no subnormal numbers", right.but(value=normal_but_zero), NO_SUBNORMALS),
    Misconception("subnormal numbers are 0", right.but(value=flushed),
        "With the exponent field 0 the mantissa still counts, without the leading 1: only code 0 is 0."),
    Misconception("subnormal numbers are left out", without_subnormals, NO_SUBNORMALS),
    Misconception("subnormal numbers one exponent too low", right.but(value=one_exponent_too_low),
        "Subnormal numbers are as far apart as the smallest normal ones: they share the exponent of field 1, so 1 - "
        "bias and not 0 - bias. Otherwise a gap opens between the two."),
    Misconception("no leading 1", right.but(value=no_leading_one),
        "Where the exponent field is not 0, a 1 stands before the mantissa without being stored: 1 + mantissa / 2^M."),
    Misconception("the bias is one too large", right.but(bias=lambda e: 2 ** (e - 1)),
        "The bias is 2^(E-1) - 1: 1 for two bits of exponent, 7 for four. With 2^(E-1) all numbers are half as large."),
    Misconception("the bias is one too small", right.but(bias=lambda e: 2 ** (e - 1) - 2),
        "The bias is 2^(E-1) - 1: 1 for two bits of exponent, 7 for four. With one less, all numbers are twice as "
        "large."),
    Misconception("no bias", right.but(bias=lambda e: 0),
        "Without a bias there are no numbers between 0 and 1 but the subnormal ones. Subtract 2^(E-1) - 1 from the "
        "exponent field."),
    Misconception("the bias of float32", right.but(bias=lambda e: 127),
        "127 is the bias of 8 bits of exponent. In general it is 2^(E-1) - 1."),
    Misconception("the last code of E4M3 taken for a number",
        right.but(reserved=lambda specials, e, m: 2**m if specials == "ieee" else 0),
        "With specials=\"nan\" the last code is NaN: E4M3 ends at 448, and what would be 480 is no number."),
    Misconception("the largest exponent of E4M3 taken for infinity",
        right.but(reserved=lambda specials, e, m: 0 if specials == "none" else 2**m), LAST_OF_E4M3),
    Misconception("the largest exponent is never used", right.but(reserved=lambda specials, e, m: 2**m),
        "Formats of 4 and 6 bits have no code to give away: with specials=\"none\" every code is a number, and E2M1 "
        "ends at 6."),
    Misconception("only the last code of an IEEE format is no number",
        right.but(reserved=lambda specials, e, m: int(specials != "none")),
        "In IEEE formats the largest exponent holds no numbers at all: infinity and NaNs, 2^M codes. E5M2 ends at "
        "57344."),
    Misconception("specials is ignored", right.but(reserved=lambda specials, e, m: 0),
        "`specials` says which of the last codes are no numbers: none, the last one, or all with the largest "
        "exponent."),
    Misconception("infinity and NaN are listed", right.but(result=with_specials),
        "The result holds finite numbers only. Leave out the codes that stand for infinity or NaN."),
    Misconception("the mantissa is divided by 2^M - 1",
        right.but(split=lambda codes, e, m: (codes >> m, codes % 2**m / max(1, 2**m - 1))),
        "M bits of mantissa count in steps of 1 / 2^M. The last one is just below 1: 1 itself is the next exponent."),
    Misconception("the mantissa is not divided", right.but(split=lambda codes, e, m: (codes >> m, codes % 2**m * 1.0)),
        "The mantissa bits are a fraction: m / 2^M. With three bits, 5 stands for 5/8."),
    Misconception("exponent and mantissa change places",
        right.but(split=lambda codes, e, m: (codes % 2**e, (codes >> e) / 2**m)),
        "The mantissa is in the lowest M bits of a code, the exponent above it: that is why numbers ascend with their "
        "codes."),
    Misconception("a bit for the sign is counted", right.but(count=lambda e, m: 2 ** (e + m + 1)),
        "The numbers without a sign have E + M bits. The sign is one more bit, and mirrors them."),
    Misconception("negative numbers are listed, too",
        right.but(result=lambda values, finite: np.concatenate([-values[:finite][:0:-1], values[:finite]])),
        "The result holds the numbers without a sign, from 0 on, in the order of their codes. `round_to_grid` mirrors "
        "them."),
    Misconception("0 is left out", right.but(result=lambda values, finite: values[1:finite]),
        "Code 0 stands for 0, and belongs to the result."),
    Misconception("from the largest to the smallest", right.but(result=lambda values, finite: values[:finite][::-1]),
        "In the order of their codes the numbers ascend from 0 on."),
)  # fmt: skip

EXERCISE = Exercise(
    name="float_grid",
    lab=LESSON,
    place=10,
    points=3,
    reference=float_grid,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
