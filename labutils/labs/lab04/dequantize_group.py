"""dequantize group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import MAX_BITS, code_array, real_array
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array
from labutils.labs.lab04 import LESSON
from labutils.labs.lab04._shared import _each, _groups_of, _place, _signed_width

Array = Any  # a numpy.ndarray or a torch.Tensor


def dequantize_group(q: Array, scales: Array, group_size: int) -> Array:
    """Floats from codes: each code times the scale of its group, in float32 (float64 where `scales` is float64).

    >>> q = np.array([[7, -2, 4, 7, 7]], dtype=np.int8)
    >>> dequantize_group(q, np.array([[0.1, 1.0, 0.2]], dtype=np.float32), group_size=2)
    array([[ 0.7, -0.2,  4. ,  7. ,  1.4]], dtype=float32)

    ValueError for scales that are not positive and finite, or whose shape is not (*q.shape[:-1], ceil(n / group_size)).
    """
    xp, q = code_array(q)
    library, scales = real_array(scales, "scales")
    if library is not xp:
        raise TypeError(f"scales and q must come from one library, got {type(scales)} and {type(q)}")
    if not bool(xp.all(xp.isfinite(scales) & (scales > 0))):
        raise ValueError("scales must be positive and finite everywhere")
    work = xp.float64 if scales.dtype == xp.float64 else xp.float32
    scheme = Scheme(MAX_BITS, granularity=PerGroup(group_size))
    return affine.dequantize(affine.QuantizedArray(q, xp.astype(scales, work, copy=False), 0, scheme, work))


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
    return dequantize_group(q[..., : whole * group_size], scales[..., :whole], group_size)


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


EXERCISE = Exercise(
    name="dequantize_group",
    lab=LESSON,
    place=20,
    points=1,
    reference=dequantize_group,
    cases=_dequantizer_cases,
    read=_read_floats,
    judge=_judge_dequantized,
    misconceptions=DEQUANTIZE_GROUP,
)
