"""quantize_group_asymmetric: a scale and a zero point for each run of neighbours in a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, parts, place
from labutils.labs import families
from labutils.labs.contract import (
    float32_noise,
    judge_codes,
    judge_rounding,
    judge_scales,
    largest_at,
    trained_weights,
)
from labutils.labs.lab04 import LESSON
from labutils.labs.lab04.quantize_group import count, padded_by
from labutils.labs.recipes import (
    Asymmetric,
    cast,
    clamped,
    clamped_unsigned,
    largest_code,
    smallest_dtype,
    smallest_unsigned_dtype,
    wrapping,
)
from labutils.labs.slices import along_groups, codes_of_groups, groups

HAND = np.array([[0.12, -0.3, 1.2, 0.48, 2.24, 3.0]], np.float32)  # scales 0.1 and 0.2, zero points 3 and 0


def quantize_group_asymmetric(x: Array, num_bits: int = 4, group_size: int = 128) -> tuple[Array, Array, Array]:
    """Unsigned codes, and a scale and a zero point for each run of `group_size` elements along the last axis.

    >>> x = np.array([[0.12, -0.3, 1.2, 0.48, 2.24, 3.0]], dtype=np.float32)
    >>> q, scales, zero_points = quantize_group_asymmetric(x, 4, group_size=4)
    >>> q, scales.round(6), zero_points
    (array([[ 4,  0, 15,  8, 11, 15]], dtype=uint8), array([[0.1, 0.2]], dtype=float32), array([[3, 0]], dtype=int32))

    Each group is quantized as by `quantize_asymmetric`: its range is widened to include 0, scale = (max - min) /
    (2^b - 1), zero point = round(-min / scale). Shapes and short groups as in `quantize_group`; `zero_points` has the
    shape of `scales`. All-zero groups get scale 1 and zero point 0. Errors as there.
    """
    quantized = affine.quantize(x, Scheme(num_bits, symmetric=False, granularity=PerGroup(group_size)))
    return quantized.codes, quantized.scale, quantized.zero_point


def cases() -> list[Case]:
    rng = np.random.default_rng(6)
    w = trained_weights()
    lifted = (rng.normal(size=(5, 20)) + np.arange(-4, 6, 2)[:, None]).astype(np.float32)  # rows with other means
    silent = w[:6, :24].copy()
    silent[2, 8:16] = 0
    below = np.linspace(-1, 0.2, 128, dtype=np.float32).reshape(2, 64)
    beyond = np.array([[-61.5, 3, 193.5, -3.5, 0, 251.5]], np.float32)
    return [
        Case("the worked example", (HAND,), {"num_bits": 4, "group_size": 4}),
        Case("trained weights, 4 bits, groups of 32", (w,), {"num_bits": 4, "group_size": 32}),
        Case("trained weights, 8 bits, groups of 16", (w,), {"num_bits": 8, "group_size": 16}),
        Case("trained weights, 2 bits, groups of 8", (w,), {"num_bits": 2, "group_size": 8}),
        Case("rows of 20 with different means, groups of 8", (lifted,), {"group_size": 8}),
        Case("groups of positive values", (np.abs(w[:4, :20]) + 1,), {"num_bits": 5, "group_size": 6}),
        Case("groups of negative values", (-np.abs(w[4:8, :20]) - 1,), {"num_bits": 5, "group_size": 6}),
        Case("4 bits and groups of 128 are the defaults", (rng.normal(size=(3, 300)).astype(np.float32),)),
        Case("the largest value lies half a step beyond the last code", (beyond,), {"num_bits": 8, "group_size": 3}),
        Case("the same at 4 bits", (np.array([[-3.5, 0, 11.5]], np.float32),), {"num_bits": 4, "group_size": 3}),
        Case("a group that is all zero", (silent,), {"num_bits": 4, "group_size": 8}),
        Case("a row, one axis", (w[0, :50].copy(),), {"num_bits": 4, "group_size": 16}),
        Case("three axes", (w.reshape(16, 8, 64)[:4, :3, :30].copy(),), {"num_bits": 3, "group_size": 12}),
        Case("a group larger than the row", (w[:3],), {"num_bits": 4, "group_size": 128}),
        Case("groups of one", (w[:2, :9],), {"num_bits": 4, "group_size": 1}),
        Case("16 bits, most of each range below 0", (below,), {"num_bits": 16, "group_size": 32}),
        Case("weights 1e20 times smaller", (w[:4] * np.float32(1e-20),), {"num_bits": 4, "group_size": 32}),
        Case("a strided view", (w[:6, ::3],), {"num_bits": 4, "group_size": 8}),
        Case("float64 input", (w[:2].astype(np.float64),), {"num_bits": 4, "group_size": 16}),
    ]


def read(value: object) -> dict:
    """Codes, scales as float64, and zero points, which stay the kind that they came as."""
    q, scales, zero_points = parts(value, ("q", "scales", "zero_points"))
    zeros = as_array(zero_points, "zero_points")
    return {
        "q": as_array(q, "q"),
        "scales": as_array(scales, "scales").astype(np.float64),
        "zero_points": zeros.astype(np.int64 if zeros.dtype.kind in "iu" else np.float64),
    }


def judge(answer: dict, case: Case) -> None:
    x, num_bits, size = case.args[0], case.kwargs.get("num_bits", 4), case.kwargs.get("group_size", 128)
    q, scales, zero_points = answer["q"], answer["scales"], answer["zero_points"]
    judge_codes(q, x, num_bits, symmetric=False)
    size = min(size, x.shape[-1])
    low, high = (end[..., 0] for end in ends_of_each(groups(x.astype(np.float64), size)))
    for name, found in (("scales", scales), ("zero_points", zero_points)):
        if found.shape != low.shape:
            raise Wrong(f"{name} should have shape {low.shape}, one for each group of each row, but has {found.shape}")
    judge_scales(scales, high - low, num_bits, "(max - min of that group, with 0 in the range)", symmetric=False)
    judge_zero_points(zero_points, -low / scales, num_bits)
    each = (along_groups(part, size, x.shape[-1]) for part in (scales, zero_points))
    judge_rounding(q, next(each), x, num_bits, zero_point=next(each))


def judge_zero_points(zero_points: np.ndarray, steps: np.ndarray, num_bits: int) -> None:
    """Integers, codes, and where 0.0 lies in each group: `steps` of scale above its smallest value."""
    quant_max = Scheme(num_bits, symmetric=False).quant_max
    if zero_points.dtype.kind != "i":
        raise Wrong("zero_points are codes, so they should be integers, but they are floats")
    if zero_points.min() < 0 or zero_points.max() > quant_max:
        raise Wrong(
            f"zero_points are the codes of 0.0, so they should lie in [0, {quant_max}], but they reach from "
            f"{zero_points.min()} to {zero_points.max()}"
        )
    off = np.abs(zero_points - steps)
    worst = largest_at(off)
    if off[worst] > 0.5 + float32_noise(quant_max):
        raise Wrong(
            f"in group [{place(worst)}] 0.0 lies {steps[worst] + 0.0:.4g} steps above the smallest value of the range, "
            f"so its zero point should be {round(steps[worst])}, but it is {zero_points[worst]}"
        )


def ends_of_each(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of each slice, 0 among them: (..., elements) -> two of (..., 1)."""
    return slices.min(axis=-1, keepdims=True).clip(max=0), slices.max(axis=-1, keepdims=True).clip(min=0)


def rounded_zero_points(low, scale, num_bits):
    return families.whole(np.round(-low / scale))


def join(q, scales, zero_points, x, size):
    """Codes in the shape of `x`, scales and zero points in the shape (..., G)."""
    return codes_of_groups(q, x), scales[..., 0], zero_points[..., 0]


@dataclass(frozen=True)
class GroupedAsymmetric(Asymmetric):
    """`Asymmetric` with a range for each group; split(x, size) has shape (..., G, size), and `join` undoes it."""

    ends: Callable = ends_of_each
    zero_point: Callable = rounded_zero_points
    split: Callable = groups
    join: Callable = join

    def __call__(self, x, num_bits=4, group_size=128):
        q, scales, zero_points = super().__call__(self.split(x, group_size), num_bits)
        return self.join(q, scales, np.broadcast_to(zero_points, scales.shape), x, group_size)


right = GroupedAsymmetric()
without_zero = right.but(ends=lambda s: (s.min(axis=-1, keepdims=True), s.max(axis=-1, keepdims=True)))


def ends_over(axes: Callable) -> Callable:
    """The ends of what is left of (..., G, size) when `axes(ndim)` are reduced, 0 among them, for each group."""

    def ends(s):
        shape = (*s.shape[:-1], 1)
        low, high = (f(axis=axes(s.ndim), keepdims=True) for f in (s.min, s.max))
        return np.broadcast_to(low.clip(max=0), shape), np.broadcast_to(high.clip(min=0), shape)

    return ends


def offset_codes(low, scale, num_bits):
    return np.full(low.shape, 2 ** (num_bits - 1))


def across_rows(x, num_bits=4, group_size=128):
    q, scales, zero_points = right(x.reshape(-1), num_bits, group_size)
    return q.reshape(x.shape), scales, zero_points


def across_rows_and_back_in_rows(x, num_bits=4, group_size=128):
    q, *shared = across_rows(x, num_bits, group_size)
    return q, *(part.reshape(*x.shape[:-1], -1) for part in shared)


def whole_groups_only(x, num_bits=4, group_size=128):
    return right(x[..., : x.shape[-1] // group_size * group_size], num_bits, group_size)


def full_groups(x, num_bits=4, group_size=128):
    x.reshape(*x.shape[:-1], -1, group_size)  # raises for a short last group
    return right(x, num_bits, group_size)


def shifted_by_minimum(x, num_bits=4, group_size=128):
    _, scales, zero_points = right(x, num_bits, group_size)
    g = groups(x, group_size)
    codes = clamped_unsigned(np.round((g - ends_of_each(g)[0]) / scales[..., None]), num_bits)
    return codes_of_groups(cast(codes, smallest_unsigned_dtype(num_bits)), x), scales, zero_points


def zero_point_of_the_tensor(x, num_bits=4, group_size=128):
    _, _, zero_point = Asymmetric()(x, num_bits)
    return right.but(zero_point=lambda low, scale, bits: np.full(low.shape, zero_point))(x, num_bits, group_size)


def guarding_constants(x, num_bits=4, group_size=128):
    constant = np.ptp(groups(x, group_size), axis=-1, keepdims=True) == 0
    return right.but(floor=lambda scale: np.where(constant, np.float32(1), right.floor(scale)))(x, num_bits, group_size)


def apart(x, num_bits=4, group_size=128):
    def split(x, size):
        g = groups(x, size)
        return np.moveaxis(g.reshape(*g.shape[:-2], size, -1), -1, -2)

    def back(q, scales, zero_points, x, size):
        return join(np.moveaxis(q, -1, -2).reshape(q.shape), scales, zero_points, x, size)

    return right.but(split=split, join=back)(x, num_bits, group_size)


def along_axis_0(x, num_bits=4, group_size=128):
    q, *shared = right(np.moveaxis(x, 0, -1), num_bits, group_size)
    return tuple(np.moveaxis(part, -1, 0) for part in (q, *shared))


def in_place(x, num_bits=4, group_size=128):
    found = right(x, num_bits, group_size)
    x -= x.min()
    return found


ONE_SIDED = "In a small group all values often lie on one side of 0, and then 0.0 has no code."
WIDEN = "Widen the range of every group to include 0 before you divide."
ACROSS_ROWS = (
    "The matrix was flattened, so a group that is not full at the end of a row takes values from the next one. Group "
    "along the last axis, and let the last group of each row be short."
)

MISCONCEPTIONS = (
    Misconception("the range leaves 0 out, and the clamp of the zero point flattens one-sided groups",
        without_zero.but(zero_point=lambda low, scale, bits: families.whole(
            clamped_unsigned(np.round(-low / scale), bits))),
        f"{ONE_SIDED} Clamping its zero point moves the grid away from the values. {WIDEN}"),
    Misconception("the range leaves 0 out, and zero points are no codes", without_zero,
        f"{ONE_SIDED} Its zero point lies beyond the ends of the grid. {WIDEN}"),
    Misconception("the range leaves 0 out, and zero points wrap around",
        without_zero.but(zero_point=lambda low, scale, bits: wrapping(np.round(-low / scale), np.uint8)),
        f"{ONE_SIDED} Its zero point does not fit, and the cast wrapped it around. {WIDEN}"),
    Misconception("0 is included from below only",
        right.but(ends=lambda s: (ends_of_each(s)[0], s.max(axis=-1, keepdims=True))),
        "Groups of positive values are right now. Where all are negative, it is the upper end that must move to 0."),
    Misconception("0 is included from above only",
        right.but(ends=lambda s: (s.min(axis=-1, keepdims=True), ends_of_each(s)[1])),
        "Groups of negative values are right now. Where all are positive, it is the lower end that must move to 0."),
    Misconception("one range a row", right.but(ends=ends_over(lambda ndim: (-2, -1))),
        "Minimum and maximum were taken over whole rows. Each group has a range, a scale and a zero point of its own."),
    Misconception("one range for the whole tensor", right.but(ends=ends_over(lambda ndim: tuple(range(ndim)))),
        "Minimum and maximum were taken over everything. Each group has a range, a scale and a zero point of its own."),
    Misconception("one lower end for all groups",
        right.but(ends=lambda s: (np.broadcast_to(ends_over(lambda ndim: tuple(range(ndim)))(s)[0], (*s.shape[:-1], 1)),
            ends_of_each(s)[1])),
        "The minimum was taken over everything, the maximum over each group. Each group has both ends of its own."),
    Misconception("one scale for all groups",
        right.but(span=lambda low, high: np.full(low.shape, high.max() - low.min())),
        "One scale for the whole tensor is lab 02. Here each group has one of its own."),
    Misconception("a constant group taken for an all-zero one", guarding_constants,
        "max = min does not mean that there is nothing to quantize: with 0 in its range, a constant group is one end "
        "of it. Ask whether the widened range is 0."),
    Misconception("the members of a group lie apart, not side by side", apart,
        "`reshape(..., group_size, -1)` makes groups of every k-th value. A group is a run of neighbours: "
        "`reshape(..., -1, group_size)`."),
    Misconception("the groups run along axis 0", along_axis_0,
        "A group is a run of neighbours in a row, along the last axis."),
    Misconception("symmetric codes, moved by half the grid",
        right.but(ends=lambda s: (-np.abs(s).max(axis=-1, keepdims=True), np.abs(s).max(axis=-1, keepdims=True)),
            span=lambda low, high: high, levels=largest_code, zero_point=offset_codes),
        "Adding 8 to symmetric codes makes them unsigned, but the grid still reaches equally far both ways. "
        "Here it reaches from the minimum of the group to its maximum."),
    Misconception("the range reaches equally far both ways",
        right.but(ends=lambda s: (-np.abs(s).max(axis=-1, keepdims=True), np.abs(s).max(axis=-1, keepdims=True))),
        "max|group| at both ends is a symmetric range on unsigned codes. The range goes from the minimum of the group "
        "to its maximum."),
    Misconception("groups across rows", across_rows, ACROSS_ROWS),
    Misconception("groups across rows", across_rows_and_back_in_rows, ACROSS_ROWS),
    Misconception("the short last group is dropped", whole_groups_only,
        "A row of 20 in groups of 8 has three groups: 8, 8 and 4. Fill the last one up, and cut it off at the end."),
    Misconception("only full groups can be made of a row", full_groups,
        "The reshape needs a row that is a multiple of `group_size`: fill the last group up with zeros first, and cut "
        "the codes off again at the end."),
    Misconception("filled up with the last value, and the range leaves 0 out",
        without_zero.but(split=lambda x, size: groups(x, size, mode="edge")),
        f"Padding with the last value hides what is missing: 0 is not in the range. {ONE_SIDED} {WIDEN}"),
    Misconception("the short group borrows values from the start of its row",
        right.but(split=lambda x, size: groups(x, size, mode="wrap")),
        "What fills the last group up takes part in its range. Zeros do no harm: 0 is in every range anyway."),
    Misconception("whole groups get one more, all of padding",
        right.but(split=lambda x, size: padded_by(x, size, size - x.shape[-1] % size)),
        "`group_size - n % group_size` is a whole group where n is a multiple of it. `-n % group_size` is 0 there."),
    Misconception("the codes keep the padding",
        right.but(join=lambda q, scales, zeros, x, size: (
            q.reshape(*x.shape[:-1], -1), scales[..., 0], zeros[..., 0])),
        "q must have the shape of x. What was added to complete the last group is cut off at the end."),
    Misconception("the codes are left in groups",
        right.but(join=lambda q, scales, zeros, x, size: (q, scales[..., 0], zeros[..., 0])),
        "q must have the shape of x. Undo the reshape into groups at the end, and cut off what was added."),
    Misconception("scales and zero points keep an axis of length 1",
        right.but(join=lambda q, scales, zeros, x, size: (codes_of_groups(q, x), scales, zeros)),
        "`keepdims` is good for dividing, but the contract is one number a group and no more axes."),
    Misconception("group_size taken for the number of groups",
        right.but(split=lambda x, size: groups(x, count(x, size))),
        "`group_size` says how many values share a scale, not into how many groups a row is cut."),
    Misconception("group_size is ignored", right.but(split=lambda x, size: groups(x, min(128, x.shape[-1]))),
        "The groups have 128 values whatever was asked for. Use `group_size`."),
    *families.zero_points(right),
    *families.narrow_zero_points(right),
    Misconception("shifted by the minimum, not by the zero point", shifted_by_minimum,
        "`round((x - min) / scale)` puts the minimum on a code, and 0.0 between two. Count steps from 0, and add the "
        "rounded zero point."),
    Misconception("zero points from the minimum of the row",
        right.but(zero_point=lambda low, scale, bits: rounded_zero_points(
            low.min(axis=-2, keepdims=True), scale, bits)),
        "A group's zero point counts the steps from its own minimum to 0, not from that of the row."),
    Misconception("one zero point for all groups", zero_point_of_the_tensor,
        "Each group has its own distance from the minimum to 0: a zero point for each, as there is a scale for each."),
    *families.unsigned_clamps(right),
    Misconception("the clamp comes before the zero point is added",
        right.but(round=lambda steps: np.maximum(np.round(steps), 0)),
        "Steps below 0 belong to values below 0: clamped to 0, all of these get the code of 0.0. Add the zero point, "
        "then clamp."),
    Misconception("the cast comes before the zero point is added",
        right.but(round=lambda steps: wrapping(np.round(steps), np.uint8).astype(np.int64)),
        "Steps below 0 do not fit into an unsigned integer: -3 wraps around to 253. Add the zero point and clamp while "
        "they are floats, and cast at the end."),
    Misconception("signed codes",
        right.but(zero_point=lambda low, scale, bits: rounded_zero_points(low, scale, bits) - 2 ** (bits - 1),
            clamp=clamped, dtype=smallest_dtype),
        "Codes from -2^(b-1) are another convention. The contract here is unsigned, from 0 to 2^b - 1."),
    *families.levels(right),
    *families.unsigned_dtypes(right),
    *families.unsigned_rounding(right),
    *families.units(right),
    *families.scale_floors(right.but(zero_point=families.cast_zero_point), zero="max - min of that group",
        of="group"),
    Misconception("the zero points are not returned",
        right.but(join=lambda q, scales, zeros, x, size: (codes_of_groups(q, x), scales[..., 0])),
        "Without its zero point a group's codes cannot be read: nobody knows which one stands for 0.0."),
    Misconception("scales and zero points in the wrong order",
        right.but(join=lambda q, scales, zeros, x, size: (codes_of_groups(q, x), zeros[..., 0], scales[..., 0])),
        "The contract is codes, then scales, then zero points."),
    Misconception("the input is changed", in_place,
        "`x -= ...` writes into the caller's array. `x - ...` makes a new one."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_group_asymmetric",
    lab=LESSON,
    place=55,
    points=3,
    reference=quantize_group_asymmetric,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
