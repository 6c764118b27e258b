"""Lab 04: groups, packed codes, and bits per weight."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from labutils import answers, packing
from labutils.checks.contract import judge_codes, judge_rounding, trained_weights, wrapping
from labutils.checks.engine import Case, Exercise, Misconception, Wrong, as_array, as_number, parts
from labutils.scheme import Scheme

LAB = "04_group_int4"
HAND = np.array([[0.33, -0.7, 0.12, 0.48, 2.8, -7.0]], dtype=np.float32)  # of the lesson: scales 0.1 and 1, groups of 4


def _groups_of(x: np.ndarray, size: int, mode: str = "constant") -> np.ndarray:
    """(..., n) -> (..., G, size), the last group of each row filled up."""
    short = -x.shape[-1] % size
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)], mode=mode)
    return padded.reshape(*x.shape[:-1], -1, size)


def _ungroup(groups: np.ndarray, like: np.ndarray) -> np.ndarray:
    return groups.reshape(*groups.shape[:-2], -1)[..., : like.shape[-1]]


def _each(scales: np.ndarray, size: int, length: int) -> np.ndarray:
    """The scale of every element: (..., G) -> (..., n)."""
    return np.repeat(scales, size, axis=-1)[..., :length]


def _place(where: tuple) -> str:
    return ", ".join(str(int(i)) for i in where)


def _signed_width(num_bits: int) -> type:
    return np.int8 if num_bits <= 8 else np.int16


# --- quantize_group ---------------------------------------------------------------------------------------------------


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
    return answers.quantize_group(x[..., : x.shape[-1] // group_size * group_size], num_bits, group_size)


def _along_the_first_axis(x, num_bits=4, group_size=128):
    q, scales = answers.quantize_group(np.moveaxis(x, 0, -1), num_bits, group_size)
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
    pieces = [answers.quantize_group(group, num_bits, max(1, group.shape[-1])) for group in groups]
    return tuple(np.concatenate([piece[i] for piece in pieces], axis=-1) for i in (0, 1))


def _equal_parts(x, num_bits=4, group_size=128):
    groups = np.array_split(x, -(-x.shape[-1] // group_size), axis=-1)
    pieces = [answers.quantize_group(group, num_bits, group.shape[-1]) for group in groups]
    return tuple(np.concatenate([piece[i] for piece in pieces], axis=-1) for i in (0, 1))


def _quantize_returning(what: Callable) -> Callable:
    """The right codes and scales, of which `what(q, scales, x, group_size)` is returned."""

    def quantize(x, num_bits=4, group_size=128):
        return what(*answers.quantize_group(x, num_bits, group_size), x, min(group_size, x.shape[-1]))

    return quantize


def _in_place(x, num_bits=4, group_size=128):
    q, scales = answers.quantize_group(x, num_bits, group_size)
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
            answers.quantize_group(x, num_bits, x.shape[-1])[0],
            np.repeat(answers.quantize_group(x, num_bits, x.shape[-1])[1], -(-x.shape[-1] // group_size), axis=-1),
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

# --- dequantize_group -------------------------------------------------------------------------------------------------


def _dequantizer_cases() -> list[Case]:
    rng = np.random.default_rng(5)

    def case(name: str, shape: tuple, size: int, num_bits: int = 4) -> Case:
        top = 2 ** (num_bits - 1) - 1
        q = rng.integers(-top, top + 1, shape).astype(_signed_width(num_bits))
        scales = rng.uniform(0.01, 3, (*shape[:-1], -(-shape[-1] // size))).astype(np.float32)
        return Case(name, (q, scales, size))

    by_hand = np.array([[3, -7, 1, 5, 3, -7]], dtype=np.int8), np.array([[0.1, 1.0]], dtype=np.float32)
    return [
        Case("the worked example", (*by_hand, 4)),
        case("whole groups", (6, 32), 8),
        case("rows of 20 in groups of 8", (5, 20), 8),
        case("one axis", (50,), 16),
        case("three axes", (3, 4, 30), 12),
        case("a group larger than the row", (3, 10), 128),
        case("groups of one", (2, 5), 1),
        case("as many groups as each has values", (4, 16), 4),
        case("8-bit codes", (4, 40), 32, num_bits=8),
        case("16-bit codes", (2, 40), 32, num_bits=16),
        Case("the code -8", (np.array([-8, 7, -8], dtype=np.int8), np.array([0.5, 2.0], dtype=np.float32), 2)),
    ]


def _read_floats(value: object) -> dict:
    return {"x": as_array(value, "the result")}


def _judge_dequantized(answer: dict, case: Case) -> None:
    q, scales, size = case.args
    x = answer["x"]
    if x.shape != q.shape:
        raise Wrong(f"the result should have the shape of q, {q.shape}, but has {x.shape}")
    if x.dtype != np.float32:
        raise Wrong(f"the result should be float32, but its dtype is {x.dtype}")
    each = _each(scales.astype(np.float64), size, q.shape[-1])
    expected = q * each
    error = np.abs(x - expected)
    worst = np.unravel_index(np.argmax(error - 2.0**-22 * np.abs(expected)), error.shape)
    if not error[worst] <= 2.0**-22 * abs(expected[worst]):  # two roundings to float32
        group = worst[-1] // size
        raise Wrong(
            f"code q[{_place(worst)}] = {q[worst]} lies in group {group} of its row, whose scale is {each[worst]:.4g}: "
            f"it stands for {expected[worst]:.6g}, but came back as {x[worst]:.6g}"
        )


def _scaled_by(spread: Callable) -> Callable:
    """q times the scales as `spread(scales, size, q)` lays them out."""

    def dequantize(q, scales, group_size):
        return q.astype(np.float32) * spread(scales, group_size, q).astype(np.float32)

    return dequantize


def _tiled(scales, size, q):
    return np.tile(scales, (*([1] * (scales.ndim - 1)), size))[..., : q.shape[-1]]


def _whole_groups_back(q, scales, group_size):
    whole = q.shape[-1] // group_size
    return answers.dequantize_group(q[..., : whole * group_size], scales[..., :whole], group_size)


DEQUANTIZE_GROUP = (
    Misconception(
        "scales in turn instead of in runs",
        _scaled_by(_tiled),
        "`np.tile` lays the scales out as 0, 1, 2, 0, 1, 2. A group is a run of neighbours: `np.repeat` gives 0, 0, "
        "1, 1.",
    ),
    Misconception(
        "scales run on across rows",
        _scaled_by(lambda s, size, q: np.resize(np.repeat(s.reshape(-1), size), q.shape)),
        "After a short last group the next row begins with a scale of its own. Spread the scales row by row, then cut.",
    ),
    Misconception(
        "the group size computed from the number of groups",
        _scaled_by(lambda s, size, q: _each(s, -(-q.shape[-1] // s.shape[-1]), q.shape[-1])),
        "20 values in 3 groups are 8, 8 and 4, not 7, 7 and 6: the number of groups does not say how large they are. "
        "Use `group_size`.",
    ),
    Misconception(
        "one scale a row",
        _scaled_by(lambda s, size, q: np.broadcast_to(s[..., :1], q.shape)),
        "Only the first scale of each row was used. Every group has its own.",
    ),
    Misconception(
        "the mean scale of a row",
        _scaled_by(lambda s, size, q: np.broadcast_to(s.mean(axis=-1, keepdims=True), q.shape)),
        "Every group has a scale of its own: none may be averaged away.",
    ),
    Misconception(
        "the short last group is dropped",
        _whole_groups_back,
        "Every code stands for a value, those of a short last group too.",
    ),
    Misconception(
        "the result keeps the padding",
        lambda q, scales, group_size: (_groups_of(q, group_size).astype(np.float32) * scales[..., None]).reshape(
            *q.shape[:-1], -1
        ),
        "The result must have the shape of q. What was added to complete the last group is cut off at the end.",
    ),
    Misconception(
        "the result is left in groups",
        lambda q, scales, group_size: _groups_of(q, group_size).astype(np.float32) * scales[..., None],
        "The result must have the shape of q. Undo the reshape into groups, and cut off what was added.",
    ),
    Misconception(
        "divides by the scales",
        lambda q, scales, group_size: (q / _each(scales, group_size, q.shape[-1])).astype(np.float32),
        "Quantizing divided by the scale; the way back multiplies.",
    ),
    Misconception(
        "adds the scales",
        lambda q, scales, group_size: q.astype(np.float32) + _each(scales, group_size, q.shape[-1]),
        "A code counts steps. What it stands for is that many steps of size scale: a product.",
    ),
    Misconception(
        "the scales are not used",
        lambda q, scales, group_size: q.astype(np.float32),
        "A code counts steps. What it stands for is that many steps of its group's scale.",
    ),
    Misconception(
        "a float64 result",
        lambda q, scales, group_size: q.astype(np.float64) * _each(scales, group_size, q.shape[-1]),
        "float64 takes twice the memory of the float32 that was quantized. Turn the codes to float32.",
    ),
    Misconception(
        "the scales are lost in integers",
        lambda q, scales, group_size: (q * _each(scales, group_size, q.shape[-1]).astype(np.int8)).astype(np.float32),
        "A scale such as 0.1 is 0 as an integer. Turn the codes to float, not the scales to int.",
    ),
    Misconception(
        "the product is cast back to integers",
        lambda q, scales, group_size: np.trunc(q * _each(scales, group_size, q.shape[-1])).astype(q.dtype),
        "The point of coming back is to have floats again: leave the product as float32.",
    ),
)

# --- pack_int4 --------------------------------------------------------------------------------------------------------


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
        lambda q: np.moveaxis(answers.pack_int4(np.ascontiguousarray(np.moveaxis(q, 0, -1))), -1, 0),
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
        lambda q: answers.pack_int4(q).view(np.int8),
        "The bits are right, the dtype is not: a byte that holds two codes has no sign. Cast to uint8.",
    ),
    Misconception(
        "integers wider than a byte",
        lambda q: answers.pack_int4(q).astype(np.int64),
        "Each byte still lies in 8 of them, so nothing got smaller. Cast to uint8.",
    ),
    Misconception(
        "integers wider than a byte",
        lambda q: answers.pack_int4(q).astype(np.int16),
        "Each byte still lies in 2 of them, so nothing got smaller. Cast to uint8.",
    ),
)

# --- unpack_int4 ------------------------------------------------------------------------------------------------------


def _unpacker_cases() -> list[Case]:
    return [Case(case.name, (packing.pack(case.args[0], 4), case.args[0].shape[-1])) for case in _packer_cases(4)]


def _read_codes(value: object) -> dict:
    return {"q": as_array(value, "the result")}


def _judge_unpacked(answer: dict, case: Case) -> None:
    packed, length = case.args
    q, expected = answer["q"], packing.unpack(packed, 4, length)
    if q.shape != expected.shape:
        raise Wrong(f"the result should have shape {expected.shape}, {length} codes a row, but it has {q.shape}")
    if q.dtype != np.int8:
        raise Wrong(f"4-bit codes belong into int8, but the dtype of the result is {q.dtype}")
    if (q != expected).any():
        where = np.unravel_index(np.argmax(q != expected), q.shape)
        byte = packed[(*where[:-1], where[-1] // 2)]
        half = "high" if where[-1] % 2 else "low"
        raise Wrong(
            f"code [{_place(where)}] is the {half} nibble of {byte:08b} and should be {expected[where]}, "
            f"but it is {q[where]}"
        )


def _unpacking(
    to_code: Callable = lambda nibble: (nibble ^ 8) - 8,
    order: Callable = lambda low, high: np.stack([low, high], axis=-1),
    dtype: type = np.int8,
    cut: Callable = lambda codes, length: codes[..., :length],
) -> Callable:
    def unpack(packed, length):
        nibbles = packed.astype(np.int16)
        pairs = order(nibbles & 15, nibbles >> 4)
        return cut(to_code(pairs.reshape(*packed.shape[:-1], -1)), length).astype(dtype)

    return unpack


UNPACK_INT4 = (
    Misconception(
        "the sign is not extended",
        _unpacking(to_code=lambda nibble: nibble),
        "1110 came back as 14. In four bits it is -2: where the highest of the four is set, the code is 16 less.",
    ),
    Misconception(
        "only the high nibble gets its sign back",
        _unpacking(to_code=lambda n: np.where(np.arange(n.shape[-1]) % 2 == 1, (n ^ 8) - 8, n)),
        "Shifting a signed byte right by four extends the sign of its high nibble. The low one needs the same: shift "
        "it up first, or subtract.",
    ),
    Misconception(
        "the code -8 stays 8",
        _unpacking(to_code=lambda nibble: np.where(nibble > 8, nibble - 16, nibble)),
        "1000 is -8: codes are negative from 8 on, not from 9 on.",
    ),
    Misconception(
        "ones' complement",
        _unpacking(to_code=lambda nibble: np.where(nibble > 7, nibble - 15, nibble)),
        "1111 is -1, so 16 must be subtracted where the highest bit is set, not 15.",
    ),
    Misconception(
        "offset binary instead of two's complement",
        _unpacking(to_code=lambda nibble: nibble - 8),
        "Subtracting 8 from every nibble undoes an offset that was never added. 0000 is 0 here, and 1111 is -1.",
    ),
    Misconception(
        "sign and magnitude instead of two's complement",
        _unpacking(to_code=lambda nibble: np.where(nibble > 7, -(nibble & 7), nibble)),
        "1111 is -1 in two's complement, not -7: where the highest bit is set, the code is 16 less.",
    ),
    Misconception(
        "nibbles swapped",
        _unpacking(order=lambda low, high: np.stack([high, low], axis=-1)),
        "The low nibble, the last four digits of the byte, is the first code of the pair.",
    ),
    Misconception(
        "halves instead of neighbours",
        _unpacking(order=lambda low, high: np.concatenate([low, high], axis=-1)),
        "All low nibbles came first, then all high ones. The two codes of a byte are neighbours: stack them along a "
        "new last axis before you reshape.",
    ),
    Misconception(
        "length is ignored",
        _unpacking(cut=lambda codes, length: codes),
        "Two codes come out of every byte, and the last one may be filling. Keep `length` of them.",
    ),
    Misconception(
        "the last code of an odd row is lost",
        _unpacking(cut=lambda codes, length: codes[..., : length // 2 * 2]),
        "Only whole bytes were unpacked. The low nibble of the last byte is a code, too.",
    ),
    Misconception(
        "rows run into one another",
        lambda packed, length: answers.unpack_int4(packed, length).reshape(-1),
        "The codes are right, but flattened: keep the axes of `packed`, and make the last one `length` long.",
    ),
    Misconception(
        "unsigned codes",
        _unpacking(dtype=np.uint8),
        "uint8 has no negative numbers: -2 became 254. Codes are int8.",
    ),
    Misconception(
        "codes wider than they need to be",
        _unpacking(dtype=np.int16),
        "int16 takes 2 bytes a code. int8 is enough, and what the rest of the lab expects.",
    ),
    Misconception(
        "codes wider than they need to be",
        _unpacking(dtype=np.int64),
        "int64 takes 8 bytes a code. int8 is enough, and what the rest of the lab expects.",
    ),
    Misconception(
        "only the low nibbles",
        _unpacking(order=lambda low, high: np.stack([low, low], axis=-1)),
        "Both codes of each pair came from the low nibble. The second one lies four bits higher.",
    ),
)

# --- bits_per_weight --------------------------------------------------------------------------------------------------


def _price_cases() -> list[Case]:
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


def _read_price(value: object) -> dict:
    return {"bits": as_number(value, "the result")}


def _judge_price(answer: dict, case: Case) -> None:
    expected = answers.bits_per_weight(*case.args, **case.kwargs)
    if not math.isclose(answer["bits"], expected, rel_tol=1e-9):
        raise Wrong(f"a weight costs {expected:.6g} bits, but the result is {answer['bits']:.6g}")


def _price(formula: Callable) -> Callable:
    def bits_per_weight(num_bits, group_size, scale_bits=16, zero_point_bits=0):
        return formula(num_bits, group_size, scale_bits, zero_point_bits)

    return bits_per_weight


BITS_PER_WEIGHT = (
    Misconception(
        "the scales are left out",
        _price(lambda b, g, s, z: b),
        "A scale takes memory as well. It is shared by a group: find out how many bits of it fall on one weight.",
    ),
    Misconception(
        "a scale for each weight",
        _price(lambda b, g, s, z: b + s + z),
        "The scale is stored once for a group, so each weight pays only its share: divide by the group size.",
    ),
    Misconception(
        "the zero point is left out",
        _price(lambda b, g, s, z: b + s / g),
        "Where there is a zero point, each group stores one, like its scale.",
    ),
    Misconception(
        "a zero point for each weight",
        _price(lambda b, g, s, z: b + s / g + z),
        "The zero point is stored once for a group, like the scale: divide it by the group size, too.",
    ),
    Misconception(
        "scales of 16 bits, whatever was asked for",
        _price(lambda b, g, s, z: b + (16 + z) / g),
        "16 is the default only. Use `scale_bits`.",
    ),
    Misconception(
        "scales of 32 bits, whatever was asked for",
        _price(lambda b, g, s, z: b + (32 + z) / g),
        "In memory your scales are float32, but files store them in 16 bits or less. Use `scale_bits`.",
    ),
    Misconception(
        "a whole number of bits",
        _price(lambda b, g, s, z: b + (s + z) // g),
        "`//` rounds the share of the scale down, mostly to 0. It is a fraction of a bit: divide with `/`.",
    ),
    Misconception(
        "rounded up to whole bits",
        _price(lambda b, g, s, z: math.ceil(b + (s + z) / g)),
        "The group as a whole takes whole bits; the share of one weight is a fraction. Do not round.",
    ),
    Misconception(
        "the bits of a group instead of a weight",
        _price(lambda b, g, s, z: b * g + s + z),
        "That is what the whole group takes. Divide by its size.",
    ),
    Misconception(
        "the group size in the numerator",
        _price(lambda b, g, s, z: b + g / (s + z)),
        "Larger groups share a scale among more weights, so the cost must fall with the group size.",
    ),
    Misconception(
        "bytes instead of bits",
        _price(lambda b, g, s, z: (b + (s + z) / g) / 8),
        "That is bytes a weight. The field counts in bits.",
    ),
    Misconception(
        "everything divided by the group size",
        _price(lambda b, g, s, z: (b + s + z) / g),
        "Only scale and zero point are shared. The code is each weight's own.",
    ),
)

# --- pack_int3 (stretch) ----------------------------------------------------------------------------------------------


def _stream(bits_of: Callable, order: str = "little", rows: bool = True) -> Callable:
    """Packs the bits that `bits_of(q)` gives for each code, (..., n, k), with `np.packbits`."""

    def pack(q):
        q = q if rows else q.reshape(-1)
        bits = bits_of(q)
        return np.packbits(bits.reshape(*q.shape[:-1], -1), axis=-1, bitorder=order)

    return pack


def _low_bits(q: np.ndarray, count: int = 3) -> np.ndarray:
    return ((q[..., None].astype(np.int16) >> np.arange(count)) & 1).astype(np.uint8)


def _whole_blocks(q):
    padded = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -q.shape[-1] % 8)])
    return answers.pack_int3(padded)


PACK_INT3 = (
    Misconception(
        "two codes a byte, two bits wasted",
        _stream(lambda q: np.pad(_low_bits(_evened(q)).reshape(*q.shape[:-1], -1, 6), [(0, 0)] * q.ndim + [(0, 2)])),
        "No code crosses into the next byte here, so two bits of each byte are wasted. Code 2 starts at bit 6 of byte "
        "0 and ends at bit 0 of byte 1.",
    ),
    Misconception(
        "four bits a code",
        _stream(lambda q: _low_bits(q, 4)),
        "Each code takes a nibble. Three bits are enough for -4 to 3: eight codes fit into three bytes.",
    ),
    Misconception(
        "bytes filled from their highest bit",
        _stream(lambda q: _low_bits(q)[..., ::-1], order="big"),
        "The first code belongs into the lowest three bits of the byte. `np.packbits` starts at the highest unless "
        "told otherwise.",
    ),
    Misconception(
        "each code reversed",
        _stream(lambda q: _low_bits(q)[..., ::-1]),
        "Within a code the lowest bit comes first, as in the byte itself. Yours starts with the sign.",
    ),
    Misconception(
        "low bits first in bytes filled from their highest bit",
        _stream(_low_bits, order="big"),
        "Bit j of the stream is bit j % 8 of its byte, counted from the lowest. `np.packbits` counts from the highest "
        "unless told otherwise.",
    ),
    Misconception(
        "offset binary instead of two's complement",
        _stream(lambda q: _low_bits(q + 4)),
        "Adding 4 makes the codes 0 to 7. The contract is two's complement: -1 is 111.",
    ),
    Misconception(
        "codes after the last full eight are lost",
        lambda q: (
            answers.pack_int3(q[..., : q.shape[-1] // 8 * 8])
            if q.shape[-1] >= 8
            else np.zeros((*q.shape[:-1], 0), np.uint8)
        ),
        "Eight codes make three whole bytes, but a row may end before. Round the number of bytes up.",
    ),
    Misconception(
        "rows filled up to whole blocks of three bytes",
        _whole_blocks,
        "A row ends with the byte that holds its last bit: 3 codes are 9 bits and take 2 bytes, not 3.",
    ),
    Misconception(
        "rows run into one another",
        _stream(_low_bits, rows=False),
        "The array was flattened. Pack along the last axis only: each row starts with a byte of its own.",
    ),
    Misconception(
        "integers wider than a byte",
        lambda q: answers.pack_int3(q).astype(np.int64),
        "Each byte still lies in 8 of them, so nothing got smaller. Cast to uint8.",
    ),
)

EXERCISES = (
    Exercise(
        name="quantize_group",
        lab=LAB,
        points=3,
        reference=answers.quantize_group,
        cases=_quantizer_cases,
        read=read_grouped,
        judge=_judge_quantized,
        misconceptions=QUANTIZE_GROUP,
    ),
    Exercise(
        name="dequantize_group",
        lab=LAB,
        points=1,
        reference=answers.dequantize_group,
        cases=_dequantizer_cases,
        read=_read_floats,
        judge=_judge_dequantized,
        misconceptions=DEQUANTIZE_GROUP,
    ),
    Exercise(
        name="pack_int4",
        lab=LAB,
        points=2,
        reference=answers.pack_int4,
        cases=lambda: _packer_cases(4),
        read=_read_bytes,
        judge=_judge_packed(4),
        misconceptions=PACK_INT4,
    ),
    Exercise(
        name="unpack_int4",
        lab=LAB,
        points=2,
        reference=answers.unpack_int4,
        cases=_unpacker_cases,
        read=_read_codes,
        judge=_judge_unpacked,
        misconceptions=UNPACK_INT4,
    ),
    Exercise(
        name="bits_per_weight",
        lab=LAB,
        points=1,
        reference=answers.bits_per_weight,
        cases=_price_cases,
        read=_read_price,
        judge=_judge_price,
        misconceptions=BITS_PER_WEIGHT,
    ),
    Exercise(
        name="pack_int3",
        lab=LAB,
        points=2,
        reference=answers.pack_int3,
        cases=lambda: _packer_cases(3),
        read=_read_bytes,
        judge=_judge_packed(3),
        misconceptions=PACK_INT3,
        stretch=True,
    ),
)
