"""mxfp4_scales: a power of two for each block of 32, by the rule of OCP's microscaling formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.block_formats import MXFP4
from labutils.arrays.scheme import PerGroup
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import place
from labutils.labs.contract import largest_at, trained_weights
from labutils.labs.floats import as_float64
from labutils.labs.lab11 import LESSON
from labutils.labs.lab11._blocks import blocks, judge_positive, peaks
from labutils.labs.recipes import Recipe

HAND = np.array([[0.5, -3.0, 1.25, 2.0, 0.07, 0.1, -0.11, 0.0]], dtype=np.float32)  # scales 0.5 and 2^-6
SMALLEST = 2.0**-127  # of E8M0


def mxfp4_scales(x: np.ndarray, block_size: int = 32) -> np.ndarray:
    """The scale of each block of a row: 2^(floor(log2(max|block|)) - 2), since 4 = 2^2 is E2M1's largest power of two.

    >>> mxfp4_scales(np.float32([[0.5, -3.0, 1.25, 2.0]]), block_size=4)  # 3 = 1.5 * 2^1, and 2^(1 - 2)
    array([[0.5]], dtype=float32)

    `block_size` divides the rows; the result has the shape (*x.shape[:-1], n / block_size) and the dtype of `x`. No
    scale is below 2^-127, E8M0's smallest number; that of a block of zeros is 1. OCP, "Microscaling
    Formats (MX)" 1.0, section 6.3.
    """
    if x.ndim and x.shape[-1] % block_size:
        raise ValueError(f"block_size must divide the rows, got {block_size} and rows of {x.shape[-1]}")
    return affine.choose_qparams(x, replace(MXFP4, granularity=PerGroup(block_size)))[0]


def cases() -> list[Case]:
    rng = np.random.default_rng(12)
    w = trained_weights()
    spread = (rng.normal(size=(12, 64)) * 10.0 ** rng.uniform(-6, 6, (12, 1))).astype(np.float32)
    silent = w[:4, :64].copy()
    silent[1, 32:] = 0
    powers = np.ones((8, 32), np.float32) * 2.0 ** np.arange(-4, 4, dtype=np.float32)[:, None]
    between = powers * np.linspace(1.01, 1.99, 8, dtype=np.float32)[:, None]
    return [
        Case("the worked example, blocks of 4", (HAND,), {"block_size": 4}),
        Case("trained weights, blocks of 32", (w,)),
        Case("rows of all sizes", (spread,)),
        Case("the largest is a power of two", (powers,)),
        Case("the largest is between two powers of two", (between,)),
        Case("the largest is negative", (-np.abs(w[:6]),)),
        Case("blocks of 16", (w[:8],), {"block_size": 16}),
        Case("a block of zeros", (silent,)),
        Case("values near the end of float32", (w[:2] * np.float32(1e-38), 32)),
        Case("a row, one axis", (w[0].copy(),)),
        Case("three axes", (w.reshape(8, 16, 64)[:2, :3].copy(),)),
        Case("a strided view", (spread[::2, ::2],)),
    ]


def read(value: Any) -> dict:
    return {"scales": as_float64(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    x, size = case.args[0], (*case.args[1:], case.kwargs.get("block_size", 32))[0]
    largest, scales = peaks(x.astype(np.float64), size), answer["scales"]
    judge_positive(scales, largest.shape, "the scales")
    wanted = np.maximum(2.0 ** (np.frexp(largest)[1] - 3), SMALLEST)  # frexp: a mantissa from 0.5 on
    off = np.where(largest > 0, np.abs(np.log2(scales / wanted)), 0)
    if (zeros := (largest == 0) & (scales != 1)).any():
        block = largest_at(zeros)
        raise Wrong(f"block [{place(block)}] is all zero, so its scale should be 1, but it is {scales[block]:.6g}")
    worst = largest_at(off)
    if off[worst] > 1e-5:
        low = np.log2(wanted[worst])
        raise Wrong(f"the largest magnitude of block [{place(worst)}] is {largest[worst]:.5g}, so its scale should be "
                    f"2^{low:g} = {wanted[worst]:.6g}, but it is {scales[worst]:.6g}")  # fmt: skip


@dataclass(frozen=True)
class PowersOfTwo(Recipe):
    """2^(exponent(largest of each block) - shift), from `least` on."""

    largest: Callable = lambda parts: np.abs(parts).max(axis=-1)
    split: Callable = blocks
    exponent: Callable = lambda largest: np.floor(np.log2(largest))
    shift: float = 2
    least: float = SMALLEST
    zero: float = 1.0
    result: Callable = lambda scales: scales

    def __call__(self, x, block_size=32):
        largest = self.largest(self.split(x.astype(np.float64), block_size))
        with np.errstate(divide="ignore", invalid="ignore"):
            scales = np.maximum(2.0 ** (self.exponent(largest) - self.shift), self.least)
        return self.result(np.where(largest == 0, self.zero, scales))


right = PowersOfTwo()


def exact(factor):
    """The recipe without a power of two: the scale is a part of the largest magnitude."""
    return right.but(exponent=lambda largest: np.log2(largest / factor), shift=0)


def in_blocks_of(size):
    return right.but(split=lambda x, block_size: blocks(x, min(size, x.shape[-1])))


def along_the_first_axis(x, block_size=32):
    if x.ndim < 2 or x.shape[0] % block_size:
        return right(x, block_size)
    return np.moveaxis(right(np.moveaxis(x, 0, -1), block_size), -1, 0)


ROUNDED_UP = (
    "The standard rounds the exponent down, and lets values between 6 and 8 steps saturate. Rounded up, nothing "
    "saturates, and the whole grid is coarser. Some libraries do it, and files of the two do not agree."
)
ALL_OF_IT = (
    "That scale takes the largest magnitude exactly to the end of the grid, but E8M0 has no such number: a scale here "
    "is a power of two, one byte that holds only an exponent."
)

MISCONCEPTIONS = (
    Misconception("the exponent is rounded up", right.but(exponent=lambda largest: np.ceil(np.log2(largest))),
        ROUNDED_UP),
    Misconception("the scale is rounded up", exact(6).but(exponent=lambda largest: np.ceil(np.log2(largest / 6))),
        ROUNDED_UP),
    Misconception("the exponent is rounded to the nearest",
        right.but(exponent=lambda largest: np.round(np.log2(largest))),
        "The standard rounds the exponent down, whatever the fraction: 2^1.9 has the exponent 1."),
    Misconception("max / 6 rounded to the nearest power of two",
        exact(6).but(exponent=lambda largest: np.round(np.log2(largest / 6))),
        "The rule of the standard is about exponents: that of the largest magnitude, less that of 4, the largest power "
        "of two on the grid. 6 does not occur in it."),
    Misconception("max / 6 rounded down to a power of two",
        exact(6).but(exponent=lambda largest: np.floor(np.log2(largest / 6))),
        "With max / 6 rounded down, the largest magnitude may lie at 12 steps, and half of it is cut off. Round the "
        "exponent of max itself down, and subtract 2."),
    Misconception("the exponent is cut off towards zero",
        right.but(exponent=lambda largest: np.trunc(np.log2(largest))),
        "A cast to an integer cuts towards zero: -1.3 becomes -1, and should be -2. Use floor."),
    Misconception("the exponent of the grid is not subtracted", right.but(shift=0),
        "With the exponent of the largest magnitude alone, that magnitude is 1 to 2 steps, and most of the grid, up to "
        "6, is never used. Subtract 2, the exponent of 4."),
    Misconception("1 is subtracted", right.but(shift=1),
        "1 is E2M1's bias, but what counts is its largest exponent: 4 = 2^2, so subtract 2. If you used `frexp`: its "
        "exponent is one larger than floor(log2)."),
    Misconception("3 is subtracted", right.but(shift=3),
        "With 3 the largest magnitude lies at 8 to 16 steps, and the grid ends at 6. The largest power of two on it is "
        "4 = 2^2: subtract 2."),
    Misconception("the natural logarithm", right.but(exponent=lambda largest: np.floor(np.log(largest))),
        "`np.log` is the logarithm to the base e. Powers of two need `np.log2`."),
    Misconception("the logarithm to the base 10", right.but(exponent=lambda largest: np.floor(np.log10(largest))),
        "Powers of two need the logarithm to the base 2."),
    Misconception("the scale is not a power of two", exact(6), ALL_OF_IT),
    Misconception("the scale is not a power of two", exact(4), ALL_OF_IT),
    Misconception("the scale is not a power of two", exact(7), ALL_OF_IT),
    Misconception("returns the exponents", right.but(result=lambda scales: np.log2(scales)),
        "The exponent is what is stored. The result is the scale itself, 2 to the power of it."),
    Misconception("returns the stored codes", right.but(result=lambda scales: np.log2(scales) + 127),
        "Exponent + 127 is the byte in the file. The result is the scale that it stands for."),
    Misconception("the scales are upside down", right.but(result=lambda scales: 1 / scales),
        "That is how many steps fit into one. The scale is how long a step is."),
    Misconception("max(x) instead of max|x|", right.but(largest=lambda parts: parts.max(axis=-1)),
        "The largest magnitude may be that of a negative value."),
    Misconception("the mean magnitude instead of the largest", right.but(largest=lambda parts: np.abs(parts).mean(-1)),
        "The grid must reach the largest magnitude of the block, or nearly."),
    Misconception("one scale for each row", in_blocks_of(2**30),
        "Each block of 32 neighbours has a scale of its own, not the whole row."),
    Misconception("one scale for the whole array",
        right.but(largest=lambda parts: np.full(parts.shape[:-1], np.abs(parts).max())),
        "Each block of 32 neighbours has a scale of its own."),
    Misconception("block_size is ignored", in_blocks_of(32), "The blocks have 32 values by default only."),
    Misconception("blocks along the first axis", along_the_first_axis,
        "A block is a run of neighbours in a row, along the last axis."),
    Misconception("the scales keep an axis of length 1", right.but(result=lambda scales: scales[..., None]),
        "`keepdims` is good for dividing, but the result has one number for each block and no more axes."),
    Misconception("every element has its scale", lambda x, block_size=32: right(x, block_size).repeat(block_size, -1),
        "One number for each block is enough: that is what is stored."),
    Misconception("a block of zeros has the scale 0", right.but(zero=0.0, least=0.0),
        "The logarithm of 0 is minus infinity, and 2 to the power of it is 0, by which nobody can divide. Use 1 for a "
        "block of zeros."),
    Misconception("a block of zeros has the smallest scale", right.but(zero=SMALLEST),
        "Nothing is lost by it, but the agreement here is 1: a file should not depend on who wrote it."),
    Misconception("an epsilon under the largest magnitude",
        right.but(largest=lambda parts: np.maximum(np.abs(parts).max(-1), 1e-8)),
        "Blocks of small values are rounded to zero by that. Only 0 itself needs care."),
    Misconception("smaller than E8M0's smallest number", right.but(least=0.0),
        "E8M0 ends at 2^-127. Tiny blocks get that scale, and round to zero."),
)  # fmt: skip

EXERCISE = Exercise(
    name="mxfp4_scales",
    lab=LESSON,
    place=30,
    points=2,
    reference=mxfp4_scales,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
