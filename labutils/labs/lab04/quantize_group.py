"""quantize group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, parts
from labutils.labs.contract import judge_codes, judge_rounding, trained_weights
from labutils.labs.lab04 import LESSON
from labutils.labs.lab04._shared import _each, _groups_of, _place, _signed_width
from labutils.labs.recipes import wrapping

Array = Any  # a numpy.ndarray or a torch.Tensor


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


HAND = np.array([[0.33, -0.7, 0.12, 0.48, 2.8, -7.0]], dtype=np.float32)  # of the lesson: scales 0.1 and 1, groups of 4


def _ungroup(groups: np.ndarray, like: np.ndarray) -> np.ndarray:
    return groups.reshape(*groups.shape[:-2], -1)[..., : like.shape[-1]]


def _quantizer_cases() -> list[Case]:
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
        Case("weights a billion times smaller", (w[:4] * np.float32(1e-9),), {"num_bits": 4, "group_size": 32}),
        Case("a strided view", (w[:6, ::3],), {"num_bits": 4, "group_size": 8}),
        Case("float64 input", (w[:2].astype(np.float64),), {"num_bits": 4, "group_size": 16}),
    ]


def read_grouped(value: object) -> dict:
    """The answer of a group quantizer: codes, and an array of scales."""
    q, scales = parts(value, ("q", "scales"))
    return {"q": as_array(q, "q"), "scales": as_array(scales, "scales")}


def _judge_quantized(answer: dict, case: Case) -> None:
    x, num_bits, size = case.args[0], case.kwargs.get("num_bits", 4), case.kwargs.get("group_size", 128)
    q, scales = answer["q"], answer["scales"]
    judge_codes(q, x, num_bits)
    quant_max = Scheme(num_bits).quant_max
    size = min(size, x.shape[-1])
    largest = np.abs(_groups_of(x.astype(np.float64), size)).max(axis=-1)
    if scales.shape != largest.shape:
        raise Wrong(
            f"scales should have shape {largest.shape}, a scale for each group of each row, but has {scales.shape}"
        )
    scales = scales.astype(np.float64)
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise Wrong(f"scales should be positive numbers, but one is {scales[~(scales > 0)].flat[0]:g}")
    off = np.where(largest > 0, np.abs(scales * quant_max / np.where(largest > 0, largest, 1) - 1), 0)
    worst = np.unravel_index(np.argmax(off), off.shape)
    if off[worst] > 1e-5:
        raise Wrong(
            f"scales[{_place(worst)}] should be max|group| / {quant_max} = {largest[worst] / quant_max:.6g}, "
            f"but it is {scales[worst]:.6g}"
        )
    judge_rounding(q, _each(scales, size, x.shape[-1]), x, num_bits)


def _grouping(
    span: Callable = lambda groups: np.abs(groups).max(axis=-1),
    divisor: Callable = lambda bits: 2 ** (bits - 1) - 1,
    to_codes: Callable = np.round,
    limits: Callable | None = lambda bits: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
    dtype: Callable = _signed_width,
    adjust: Callable = lambda scales: np.where(scales == 0, np.float32(1), scales),
    size: Callable = lambda length, group_size: group_size,
    mode: str = "constant",
    cast_first: bool = False,
    finish: Callable = lambda q, scales, x: (_ungroup(q, x), scales),
) -> Callable:
    """A group quantizer in which one step can be replaced by a wrong one. It works on (..., G, size)."""

    def quantize(x, num_bits=4, group_size=128):
        groups = _groups_of(x, size(x.shape[-1], group_size), mode)
        scales = adjust((span(groups) / divisor(num_bits)).astype(np.float32))
        steps = to_codes(groups / scales[..., None])
        kind = dtype(num_bits)
        if cast_first:
            steps = wrapping(steps, kind)
        if limits is not None:
            steps = np.clip(steps, *limits(num_bits))
        return finish(steps if kind is None else wrapping(steps, kind), scales, x)

    return quantize


def _across_rows(scales_like_rows: bool) -> Callable:
    right = _grouping()

    def quantize(x, num_bits=4, group_size=128):
        q, scales = right(x.reshape(-1), num_bits, group_size)
        return q.reshape(x.shape), scales.reshape(*x.shape[:-1], -1) if scales_like_rows else scales

    return quantize


def _whole_groups_only(x, num_bits=4, group_size=128):
    return quantize_group(x[..., : x.shape[-1] // group_size * group_size], num_bits, group_size)


def _along_the_first_axis(x, num_bits=4, group_size=128):
    q, scales = quantize_group(np.moveaxis(x, 0, -1), num_bits, group_size)
    return np.moveaxis(q, -1, 0), np.moveaxis(scales, -1, 0)


def _interleaved(x, num_bits=4, group_size=128):
    """Every G-th value belongs to one group."""
    groups = np.swapaxes(_groups_of(x, -(-x.shape[-1] // group_size)), -1, -2)
    scales = np.abs(groups).max(axis=-1) / np.float32(2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, np.float32(1), scales).astype(np.float32)
    q = np.swapaxes(np.round(groups / scales[..., None]), -1, -2)
    return _ungroup(q, x).astype(_signed_width(num_bits)), scales


def _rest_joins_the_last_group(x, num_bits=4, group_size=128):
    count = max(1, x.shape[-1] // group_size)
    groups = np.split(x, [group_size * i for i in range(1, count)], axis=-1)
    pieces = [quantize_group(group, num_bits, max(1, group.shape[-1])) for group in groups]
    return tuple(np.concatenate([piece[i] for piece in pieces], axis=-1) for i in (0, 1))


def _equal_parts(x, num_bits=4, group_size=128):
    groups = np.array_split(x, -(-x.shape[-1] // group_size), axis=-1)
    pieces = [quantize_group(group, num_bits, group.shape[-1]) for group in groups]
    return tuple(np.concatenate([piece[i] for piece in pieces], axis=-1) for i in (0, 1))


def _quantize_returning(what: Callable) -> Callable:
    """The right codes and scales, of which `what(q, scales, x, group_size)` is returned."""

    def quantize(x, num_bits=4, group_size=128):
        return what(*quantize_group(x, num_bits, group_size), x, min(group_size, x.shape[-1]))

    return quantize


def _in_place(x, num_bits=4, group_size=128):
    q, scales = quantize_group(x, num_bits, group_size)
    x /= _each(scales, min(group_size, x.shape[-1]), x.shape[-1])
    return q, scales


ACROSS_ROWS = (
    "groups across rows",
    "The matrix was flattened, so a group that is not full at the end of a row takes values from the next one. A row "
    "is a neuron of its own: group along the last axis, and let the last group of each row be short.",
)


BEYOND_7 = "The largest code is 2^(b-1) - 1: 7 at 4 bits, not 8. Code 8 does not exist, and the largest value loses"


QUANTIZE_GROUP = (
    Misconception(ACROSS_ROWS[0], _across_rows(scales_like_rows=False), ACROSS_ROWS[1]),
    Misconception(ACROSS_ROWS[0], _across_rows(scales_like_rows=True), ACROSS_ROWS[1]),
    Misconception(
        "the short last group is dropped",
        _whole_groups_only,
        "A row of 20 in groups of 8 has three groups: 8, 8 and 4. Every value needs a code, so fill the last group up "
        "with something that cannot change its maximum, and cut it off again at the end.",
    ),
    Misconception(
        "the rest of a row joins its last full group",
        _rest_joins_the_last_group,
        "Rounding down gave one group too few. A row of 20 in groups of 8 has three: 8, 8, and 4 with a scale of their "
        "own.",
    ),
    Misconception(
        "the row is cut into equal parts",
        _equal_parts,
        "All groups but the last have exactly `group_size` values. `np.array_split` makes parts of about equal length "
        "instead: 7, 7 and 6 where 8, 8 and 4 are meant.",
    ),
    Misconception(
        "the short group borrows values from the start of its row",
        _grouping(mode="wrap"),
        "What fills the last group up takes part in its maximum. Fill up with zeros: they never are the largest.",
    ),
    Misconception(
        "the codes keep the padding",
        _grouping(finish=lambda q, scales, x: (q.reshape(*q.shape[:-2], -1), scales)),
        "q must have the shape of x. What was added to complete the last group is cut off at the end.",
    ),
    Misconception(
        "the codes are left in groups",
        _grouping(finish=lambda q, scales, x: (q, scales)),
        "q must have the shape of x. Undo the reshape into groups at the end, and cut off what was added.",
    ),
    Misconception(
        "the scales keep an axis of length 1",
        _grouping(finish=lambda q, scales, x: (_ungroup(q, x), scales[..., None])),
        "`keepdims` is good for dividing, but the contract is one scale a group and no more axes. Drop the last axis.",
    ),
    Misconception(
        "groups along the first axis",
        _along_the_first_axis,
        "These groups run down a column, through weights of different neurons. Group along the last axis.",
    ),
    Misconception(
        "every G-th value makes a group",
        _interleaved,
        "A group is a run of neighbours. In a reshape the last axis runs fastest: groups first, then their elements.",
    ),
    Misconception(
        "group_size taken for the number of groups",
        _grouping(size=lambda length, group_size: -(-length // group_size)),
        "`group_size` says how many values share a scale, not into how many groups a row is cut.",
    ),
    Misconception(
        "group_size is ignored",
        _grouping(size=lambda length, group_size: min(128, length)),
        "The groups have 128 values whatever was asked for. Use `group_size`.",
    ),
    Misconception(
        "one scale a row",
        _grouping(size=lambda length, group_size: length),
        "The maximum was taken over whole rows, which is lab 03. Take it over each run of `group_size` values.",
    ),
    Misconception(
        "one scale a row",
        lambda x, num_bits=4, group_size=128: (
            quantize_group(x, num_bits, x.shape[-1])[0],
            np.repeat(quantize_group(x, num_bits, x.shape[-1])[1], -(-x.shape[-1] // group_size), axis=-1),
        ),
        "The maximum was taken over whole rows, which is lab 03. Take it over each run of `group_size` values.",
    ),
    Misconception(
        "one scale for the whole tensor",
        _grouping(span=lambda groups: np.full(groups.shape[:-1], np.abs(groups).max())),
        "The maximum was taken over everything, so the outlier of one group sets the scale of all. Take it over the "
        "axis along which a group lies.",
    ),
    Misconception(
        "divides by 2^(b-1)",
        _grouping(divisor=lambda bits: 2 ** (bits - 1)),
        f"{BEYOND_7} up to a whole step to the clamp.",
    ),
    Misconception(
        "divides by 2^(b-1), and the cast wraps around",
        _grouping(divisor=lambda bits: 2 ** (bits - 1), limits=None),
        f"{BEYOND_7} its place: at 8 bits the cast wraps it to -128. Clamp before you cast, too.",
    ),
    Misconception(
        "divides by 2^(b-1), and casts before the clamp",
        _grouping(divisor=lambda bits: 2 ** (bits - 1), cast_first=True),
        f"{BEYOND_7} its place. At 8 bits the cast wrapped it to -128 before the clamp could help: clamp, then cast.",
    ),
    Misconception(
        "divides by 2^b - 1",
        _grouping(divisor=lambda bits: 2**bits - 1),
        "2^b - 1 = 15 counts the steps of the whole grid, but max|x| spans only the positive half of it: 7 steps.",
    ),
    Misconception(
        "the whole range max - min for the span",
        _grouping(span=lambda groups: groups.max(axis=-1) - groups.min(axis=-1), divisor=lambda bits: 2**bits - 1),
        "`(max - min) / (2^b - 1)` belongs to asymmetric quantization, which also has a zero point (lab 02).",
    ),
    Misconception(
        "7 at every bit width",
        _grouping(divisor=lambda bits: 7, limits=lambda bits: (-8, 7)),
        "7 is the largest code at 4 bits only. Compute it from num_bits: 1 at 2 bits, 127 at 8.",
    ),
    Misconception(
        "127 at every bit width",
        _grouping(divisor=lambda bits: 127, limits=lambda bits: (-128, 127)),
        "127 is the largest code at 8 bits only. Compute it from num_bits: 7 at 4 bits, 1 at 2 bits.",
    ),
    Misconception(
        "max(x) instead of max|x|",
        _grouping(span=lambda groups: groups.max(axis=-1)),
        "The scale must cover the largest magnitude of the group, and that may be a negative value.",
    ),
    Misconception(
        "floor instead of round",
        _grouping(to_codes=np.floor),
        "`np.floor` always goes down, so the error reaches a whole step. Go to the nearest integer.",
    ),
    Misconception(
        "truncation instead of round",
        _grouping(to_codes=np.trunc),
        "Casting to an integer cuts the fraction off: 1.9 becomes 1. Round before you cast.",
    ),
    Misconception(
        "ceil instead of round",
        _grouping(to_codes=np.ceil),
        "`np.ceil` always goes up, so the error reaches a whole step. Go to the nearest integer.",
    ),
    Misconception(
        "a zero group divides by zero",
        _grouping(adjust=lambda scales: scales),
        "Where a whole group is zero its scale is 0, and 0 / 0 is NaN. Any positive scale will do there: use 1.",
    ),
    Misconception(
        "a floor under the scales",
        _grouping(adjust=lambda scales: np.maximum(scales, np.float32(1e-8))),
        "A smallest scale such as 1e-8 rounds groups of small values to zero. Only scales of exactly 0 need replacing.",
    ),
    Misconception(
        "an epsilon added to the scales",
        _grouping(adjust=lambda scales: scales + np.float32(1e-8)),
        "Adding 1e-8 wipes out groups whose scale is smaller than that. Only scales of exactly 0 need replacing.",
    ),
    Misconception(
        "scales rounded to half precision",
        _quantize_returning(lambda q, scales, x, size: (q, scales.astype(np.float16))),
        "float16 keeps three digits, and its smallest number is 6e-8. Files do store such scales, but then the codes "
        "must be made with the rounded ones. Leave yours float32.",
    ),
    Misconception(
        "codes left as floats",
        _grouping(dtype=lambda bits: None),
        "The values are whole numbers, but still stored as floats. Cast them to an integer dtype.",
    ),
    Misconception(
        "codes wider than they need to be",
        _grouping(dtype=lambda bits: np.int32),
        "int32 takes 4 bytes a code. int8 holds codes of up to 8 bits, int16 of up to 16.",
    ),
    Misconception(
        "codes wider than they need to be",
        _grouping(dtype=lambda bits: np.int64),
        "int64 takes 8 bytes a code. int8 holds codes of up to 8 bits, int16 of up to 16.",
    ),
    Misconception(
        "int8 at every bit width",
        _grouping(dtype=lambda bits: np.int8),
        "Codes of more than 8 bits do not fit into int8: they wrap around. Use int16 above 8 bits.",
    ),
    Misconception(
        "offset binary codes",
        _quantize_returning(lambda q, scales, x, size: ((q.astype(np.int16) + 8).astype(np.uint8), scales)),
        "Codes from 0 to 15 with 8 for zero are how some files store them. Here codes are signed, -8 to 7.",
    ),
    Misconception(
        "returns the reconstruction instead of the codes",
        _quantize_returning(lambda q, scales, x, size: (q * _each(scales, size, x.shape[-1]), scales)),
        "Quantizing ends with integers. Multiplying by the scales again is what `dequantize_group` is for.",
    ),
    Misconception(
        "returns scales and codes in the wrong order",
        _quantize_returning(lambda q, scales, x, size: (scales, q)),
        "The contract is `return q, scales`: codes first.",
    ),
    Misconception(
        "the scales are upside down",
        _quantize_returning(lambda q, scales, x, size: (q, 1 / scales)),
        "7 / max|group| is how many steps fit into one unit. The scale is how long a step is: max|group| / 7.",
    ),
    Misconception(
        "the input is changed",
        _in_place,
        "`x /= ...` writes into the caller's array, also through a reshaped view of it. Make a new one.",
    ),
)


EXERCISE = Exercise(
    name="quantize_group",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_group,
    cases=_quantizer_cases,
    read=read_grouped,
    judge=_judge_quantized,
    misconceptions=QUANTIZE_GROUP,
)
