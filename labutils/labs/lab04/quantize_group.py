"""quantize_group: a scale for each run of neighbours in a row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import families, slices
from labutils.labs.contract import judge_codes, judge_rounding, judge_scales, read_scaled, trained_weights
from labutils.labs.families import unclamped
from labutils.labs.lab04 import LESSON
from labutils.labs.recipes import clamped, smallest_dtype, wrapping
from labutils.labs.slices import Sliced, along_groups, codes_of_groups, groups, join_groups, largest_of_all

HAND = np.array([[0.33, -0.7, 0.12, 0.48, 2.8, -7.0]], dtype=np.float32)  # of the lesson: scales 0.1 and 1, groups of 4


def quantize_group(x: Array, num_bits: int = 4, group_size: int = 128) -> tuple[Array, Array]:
    """Codes, and a scale for each run of `group_size` elements along the last axis: scale = max|group| / (2^(b-1) - 1).

    >>> q, scales = quantize_group(np.array([[0.7, -0.2, 3.5, 7.0, 1.4]], dtype=np.float32), 4, group_size=2)
    >>> q, scales
    (array([[ 7, -2,  4,  7,  7]], dtype=int8), array([[0.1, 1. , 0.2]], dtype=float32))

    `q` has the shape of `x` and one code in each int8 (int16 above 8 bits); `scales` has shape (*x.shape[:-1],
    ceil(n / group_size)). A group never reaches into the next row, so a row's last group may be short; a group size
    beyond the row's length makes one group of it. All-zero groups get scale 1. ValueError or TypeError for a group size
    that is not a whole number from 1 on, and otherwise as `affine.quantize`.
    """
    quantized = affine.quantize(x, Scheme(num_bits, granularity=PerGroup(group_size)))
    return quantized.codes, quantized.scale


def cases() -> list[Case]:
    rng = np.random.default_rng(4)
    w = trained_weights()
    uneven = (rng.normal(size=(5, 20)) * 10.0 ** np.arange(-2, 3)[:, None]).astype(np.float32)
    silent = w[:6, :24].copy()
    silent[2, 8:16] = 0
    spiked = w[:8].copy()
    spiked[3, 17] = 40.0
    return [
        Case("the worked example", (HAND,), {"num_bits": 4, "group_size": 4}),
        Case("trained weights, 4 bits, groups of 32", (w,), {"num_bits": 4, "group_size": 32}),
        Case("trained weights, 8 bits, groups of 16", (w,), {"num_bits": 8, "group_size": 16}),
        Case("trained weights, 2 bits, groups of 8", (w,), {"num_bits": 2, "group_size": 8}),
        Case("rows of 20 values in groups of 8, each row ten times the one before", (uneven,), {"group_size": 8}),
        Case("4 bits and groups of 128 are the defaults", (rng.normal(size=(3, 300)).astype(np.float32),)),
        Case("one outlier in one group", (spiked,), {"num_bits": 4, "group_size": 16}),
        Case("the largest magnitudes are negative", (-np.abs(w[:4, :20]),), {"num_bits": 5, "group_size": 6}),
        Case("only positive values", (np.abs(w[4:8, :20]),), {"num_bits": 5, "group_size": 6}),
        Case("a group that is all zero", (silent,), {"num_bits": 4, "group_size": 8}),
        Case("a row, one axis", (w[0, :50].copy(),), {"num_bits": 4, "group_size": 16}),
        Case("three axes", (w.reshape(16, 8, 64)[:4, :3, :30].copy(),), {"num_bits": 3, "group_size": 12}),
        Case("a group larger than the row", (w[:3],), {"num_bits": 4, "group_size": 128}),
        Case("groups of one", (w[:2, :9],), {"num_bits": 4, "group_size": 1}),
        Case("12 bits", (w[:4],), {"num_bits": 12, "group_size": 32}),
        Case("weights 1e20 times smaller", (w[:4] * np.float32(1e-20),), {"num_bits": 4, "group_size": 32}),
        Case("a strided view", (w[:6, ::3],), {"num_bits": 4, "group_size": 8}),
        Case("float64 input", (w[:2].astype(np.float64),), {"num_bits": 4, "group_size": 16}),
    ]


def judge(answer: dict, case: Case) -> None:
    x, num_bits, size = case.args[0], case.kwargs.get("num_bits", 4), case.kwargs.get("group_size", 128)
    q, scales = answer["q"], answer["scales"]
    judge_codes(q, x, num_bits)
    size = min(size, x.shape[-1])
    peaks = np.abs(groups(x.astype(np.float64), size)).max(axis=-1)
    if scales.shape != peaks.shape:
        raise Wrong(
            f"scales should have shape {peaks.shape}, a scale for each group of each row, but has {scales.shape}"
        )
    judge_scales(scales, peaks, num_bits, "max|group|")
    judge_rounding(q, along_groups(scales, size, x.shape[-1]), x, num_bits)


@dataclass(frozen=True)
class Grouped(Sliced):
    """`Sliced` with the arguments of this exercise."""

    def __call__(self, x, num_bits=4, group_size=128):
        return super().__call__(x, group_size, num_bits)


right = Grouped(split=groups, join=join_groups)
one_scale_a_row = right.but(split=lambda x, size: groups(x, x.shape[-1]))


def count(x: np.ndarray, group_size: int) -> int:
    """How many groups a row of `x` has."""
    return -(-x.shape[-1] // group_size)


def across_rows(x, num_bits=4, group_size=128):
    q, scales = right(x.reshape(-1), num_bits, group_size)
    return q.reshape(x.shape), scales


def across_rows_and_scales_back_in_rows(x, num_bits=4, group_size=128):
    q, scales = across_rows(x, num_bits, group_size)
    return q, scales.reshape(*x.shape[:-1], -1)


def whole_groups_only(x, num_bits=4, group_size=128):
    return right(x[..., : x.shape[-1] // group_size * group_size], num_bits, group_size)


def piece_by_piece(pieces: list, num_bits: int) -> list:
    """Codes and scales of pieces along the last axis that are a group each."""
    answers = [right(piece, num_bits, piece.shape[-1]) for piece in pieces]
    return [np.concatenate(parts, axis=-1) for parts in zip(*answers)]


def rest_joins_the_last_group(x, num_bits=4, group_size=128):
    starts = range(group_size, x.shape[-1] - group_size + 1, group_size)
    return piece_by_piece(np.split(x, starts, axis=-1), num_bits)


def equal_parts(x, num_bits=4, group_size=128):
    return piece_by_piece(np.array_split(x, count(x, group_size), axis=-1), num_bits)


def padded_by(x: np.ndarray, size: int, count: int) -> np.ndarray:
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count)]).reshape(*x.shape[:-1], -1, size)


def padded_everywhere(x, num_bits=4, group_size=128):
    padded = np.pad(x, (0, -x.shape[-1] % group_size))
    q, scales = right(padded.reshape(*x.shape[:-1], -1), num_bits, group_size)  # as many rows as before, too long
    return q[..., : x.shape[-1]], scales


def full_groups(x, num_bits=4, group_size=128):
    x.reshape(*x.shape[:-1], -1, group_size)  # raises for a short last group
    return right(x, num_bits, group_size)


def along_the_first_axis(x, num_bits=4, group_size=128):
    q, scales = right(np.moveaxis(x, 0, -1), num_bits, group_size)
    return np.moveaxis(q, -1, 0), np.moveaxis(scales, -1, 0)


def in_place(x, num_bits=4, group_size=128):
    q, scales = right(x, num_bits, group_size)
    x /= along_groups(scales, min(group_size, x.shape[-1]), x.shape[-1])
    return q, scales


ACROSS_ROWS = (
    "The matrix was flattened, so a group that is not full at the end of a row takes values from the next one. A row "
    "is a neuron of its own: group along the last axis, and let the last group of each row be short."
)
A_ROW = "The maximum was taken over whole rows, which is lab 03. Take it over each run of `group_size` values."
BEYOND_7 = "The largest code is 2^(b-1) - 1: 7 at 4 bits, not 8. Code 8 does not exist, and the largest value loses"

MISCONCEPTIONS = (
    Misconception("groups across rows", across_rows, ACROSS_ROWS),
    Misconception("groups across rows", across_rows_and_scales_back_in_rows, ACROSS_ROWS),
    Misconception("the short last group is dropped", whole_groups_only,
        "A row of 20 in groups of 8 has three groups: 8, 8 and 4. Every value needs a code, so fill the last group up "
        "with something that cannot change its maximum, and cut it off again at the end."),
    Misconception("the rest of a row joins its last full group", rest_joins_the_last_group,
        "Rounding down gave one group too few. A row of 20 in groups of 8 has three: 8, 8, and 4 with a scale of their "
        "own."),
    Misconception("the row is cut into equal parts", equal_parts,
        "All groups but the last have exactly `group_size` values. `np.array_split` makes parts of about equal length "
        "instead: 7, 7 and 6 where 8, 8 and 4 are meant."),
    Misconception("the short group borrows values from the start of its row",
        right.but(split=lambda x, size: groups(x, size, mode="wrap")),
        "What fills the last group up takes part in its maximum. Fill up with zeros: they never are the largest."),
    Misconception("whole groups get one more, all of padding",
        right.but(split=lambda x, size: padded_by(x, size, size - x.shape[-1] % size)),
        "`group_size - n % group_size` is a whole group where n is a multiple of it. `-n % group_size` is 0 there."),
    Misconception("padded along every axis", padded_everywhere,
        "`np.pad(x, (0, pad))` adds to each axis. Give it a pair for every axis, (0, 0) for all but the last."),
    Misconception("padded by the remainder", right.but(split=lambda x, size: padded_by(x, size, x.shape[-1] % size)),
        "`n % group_size` is how many values the last group has. What it lacks is `-n % group_size`."),
    Misconception("only full groups can be made of a row",
        full_groups,
        "The reshape needs a row that is a multiple of `group_size`, and this one is not: fill its last group up with "
        "zeros first, and cut the codes off again at the end."),
    Misconception("the codes keep the padding",
        right.but(join=lambda q, scales, x, size: (q.reshape(*x.shape[:-1], -1), scales[..., 0])),
        "q must have the shape of x. What was added to complete the last group is cut off at the end."),
    Misconception("the codes are left in groups", right.but(join=lambda q, scales, x, size: (q, scales[..., 0])),
        "q must have the shape of x. Undo the reshape into groups at the end, and cut off what was added."),
    Misconception("the scales keep an axis of length 1",
        right.but(join=lambda q, scales, x, size: (codes_of_groups(q, x), scales)),
        "`keepdims` is good for dividing, but the contract is one scale a group and no more axes. Drop the last axis."),
    Misconception("groups along the first axis", along_the_first_axis,
        "These groups run down a column, through weights of different neurons. Group along the last axis."),
    Misconception("every G-th value makes a group",
        right.but(split=lambda x, size: groups(x, count(x, size)).swapaxes(-1, -2),
            join=lambda q, scales, x, size: join_groups(q.swapaxes(-1, -2), scales, x, size)),
        "A group is a run of neighbours. In a reshape the last axis runs fastest: groups first, then their elements."),
    Misconception("group_size taken for the number of groups",
        right.but(split=lambda x, size: groups(x, count(x, size))),
        "`group_size` says how many values share a scale, not into how many groups a row is cut."),
    Misconception("group_size is ignored", right.but(split=lambda x, size: groups(x, min(128, x.shape[-1]))),
        "The groups have 128 values whatever was asked for. Use `group_size`."),
    Misconception("one scale a row", one_scale_a_row, A_ROW),
    Misconception("one scale a row",
        one_scale_a_row.but(join=lambda q, scales, x, size: (
            codes_of_groups(q, x), scales[..., 0].repeat(count(x, size), axis=-1))),
        A_ROW),
    Misconception("one scale for the whole tensor", right.but(span=largest_of_all),
        "The maximum was taken over everything, so the outlier of one group sets the scale of all. Take it over the "
        "axis along which a group lies."),
    Misconception("divides by 2^(b-1)", right.but(divisor=lambda bits: 2 ** (bits - 1)),
        f"{BEYOND_7} up to a whole step to the clamp."),
    Misconception("divides by 2^(b-1), and the cast wraps around",
        right.but(divisor=lambda bits: 2 ** (bits - 1), clamp=unclamped),
        f"{BEYOND_7} its place: at 8 bits the cast wraps it to -128. Clamp before you cast, too."),
    Misconception("divides by 2^(b-1), and casts before the clamp",
        right.but(divisor=lambda bits: 2 ** (bits - 1),
            clamp=lambda steps, bits: clamped(wrapping(steps, smallest_dtype(bits)), bits)),
        f"{BEYOND_7} its place. At 8 bits the cast wrapped it to -128 before the clamp could help: clamp, then cast."),
    Misconception("divides by 2^b - 1", right.but(divisor=lambda bits: 2**bits - 1),
        "2^b - 1 = 15 counts the steps of the whole grid, but max|x| spans only the positive half of it: 7 steps."),
    Misconception("7 at every bit width",
        right.but(divisor=lambda bits: 7, clamp=lambda steps, bits: np.clip(steps, -8, 7)),
        "7 is the largest code at 4 bits only. Compute it from num_bits: 1 at 2 bits, 127 at 8."),
    Misconception("127 at every bit width",
        right.but(divisor=lambda bits: 127, clamp=lambda steps, bits: np.clip(steps, -128, 127)),
        "127 is the largest code at 8 bits only. Compute it from num_bits: 7 at 4 bits, 1 at 2 bits."),
    *slices.spans(right, "group"),
    *families.rounding(right),
    *families.units(right),
    *slices.floors(right, "group"),
    Misconception("scales rounded to half precision",
        right.but(result=lambda q, scales, x: (q, scales.astype(np.float16))),
        "float16 keeps three digits, and its smallest number is 6e-8. Files do store such scales, but then the codes "
        "must be made with the rounded ones. Leave yours float32."),
    *families.signed_dtypes(right),
    Misconception("offset binary codes",
        right.but(result=lambda q, scales, x: ((q.astype(np.int16) + 8).astype(np.uint8), scales)),
        "Codes from 0 to 15 with 8 for zero are how some files store them. Here codes are signed, -8 to 7."),
    *slices.results(right, inverse="dequantize_group"),
    Misconception("the input is changed", in_place,
        "`x /= ...` writes into the caller's array, also through a reshaped view of it. Make a new one."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_group",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_group,
    cases=cases,
    read=read_scaled,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
