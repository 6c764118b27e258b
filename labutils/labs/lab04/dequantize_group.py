"""dequantize_group: from codes back to floats, each with the scale of its group."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labutils.arrays.inputs import Array
from labutils.arrays.scheme import PerGroup
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct, place
from labutils.labs import slices
from labutils.labs.contract import judge_floats, largest_at, read_floats
from labutils.labs.lab03.dequantize_per_channel import codes_and_scales, reconstruct
from labutils.labs.lab04 import LESSON
from labutils.labs.recipes import smallest_dtype
from labutils.labs.slices import along_groups, groups


def dequantize_group(q: Array, scales: Array, group_size: int) -> Array:
    """Floats from codes: each code times the scale of its group, in float32.

    >>> q = np.array([[7, -2, 4, 7, 7]], dtype=np.int8)
    >>> dequantize_group(q, np.array([[0.1, 1.0, 0.2]], dtype=np.float32), group_size=2)
    array([[ 0.7, -0.2,  4. ,  7. ,  1.4]], dtype=float32)

    ValueError for scales that are not positive and finite, or whose shape is not (*q.shape[:-1], ceil(n / group_size)).
    """
    _, q, scales = codes_and_scales(q, scales)
    return reconstruct(q, scales, PerGroup(group_size))


def cases() -> list[Case]:
    rng = np.random.default_rng(5)

    def case(name: str, shape: tuple, size: int, num_bits: int = 4) -> Case:
        top = 2 ** (num_bits - 1) - 1
        q = rng.integers(-top, top + 1, shape).astype(smallest_dtype(num_bits))
        scales = rng.uniform(0.01, 3, (*shape[:-1], -(-shape[-1] // size))).astype(np.float32)
        return Case(name, (q, scales, size))

    q, scales, size = case("", (4, 20), 8).args
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
        Case("scales in float64", (q, scales.astype(np.float64), size)),
        Case("the code -8", (np.array([-8, 7, -8], dtype=np.int8), np.array([0.5, 2.0], dtype=np.float32), 2)),
    ]


def judge(answer: dict, case: Case) -> None:
    (q, scales, size), x = case.args, answer["x"]
    judge_floats(x, q, why_float64="float32 times an array of float64")
    each = spread(scales.astype(np.float64), q, size)
    expected = q * each
    error = np.abs(x - expected)
    worst = largest_at(error - 2.0**-22 * np.abs(expected))
    if not error[worst] <= 2.0**-22 * abs(expected[worst]):  # two roundings to float32
        wanted, found = distinct(expected[worst], x[worst])
        raise Wrong(
            f"code q[{place(worst)}] = {q[worst]} lies in group {worst[-1] // size} of its row, "
            f"whose scale is {each[worst]:.4g}: "
            f"it stands for {wanted}, but came back as {found}"
        )


def spread(scales: np.ndarray, q: np.ndarray, size: int) -> np.ndarray:
    """The scale of each code."""
    return along_groups(scales, size, q.shape[-1])


def in_turn(scales, q, size):
    return np.tile(scales, size)[..., : q.shape[-1]]


def across_rows(scales, q, size):
    return np.resize(np.repeat(scales.reshape(-1), size), q.shape)


def of_equal_parts(scales, q, size):
    return spread(scales, q, -(-q.shape[-1] // scales.shape[-1]))


def times(layout: Callable) -> Callable:
    """Codes times the scales as `layout(scales, q, group_size)` lays them out."""
    return lambda q, scales, group_size: q.astype(np.float32) * layout(scales, q, group_size)


def whole_groups_only(q, scales, group_size):
    whole = q.shape[-1] // group_size
    return times(spread)(q[..., : whole * group_size], scales[..., :whole], group_size)


def left_in_groups(q, scales, group_size):
    return groups(q, group_size).astype(np.float32) * scales[..., None]


def with_the_padding(q, scales, group_size):
    return left_in_groups(q, scales, group_size).reshape(*q.shape[:-1], -1)


MISCONCEPTIONS = (
    Misconception("scales in turn instead of in runs", times(in_turn),
        "`np.tile` lays the scales out as 0, 1, 2, 0, 1, 2. A group is a run of neighbours: `np.repeat` gives 0, 0, "
        "1, 1."),
    Misconception("scales run on across rows", times(across_rows),
        "After a short last group the next row begins with a scale of its own. "
        "Spread the scales row by row, then cut."),
    Misconception("the group size computed from the number of groups", times(of_equal_parts),
        "20 values in 3 groups are 8, 8 and 4, not 7, 7 and 6: the number of groups does not say how large they are. "
        "Use `group_size`."),
    Misconception("one scale a row", times(lambda scales, q, size: scales[..., :1]),
        "Only the first scale of each row was used. Every group has its own."),
    Misconception("the mean scale of a row", times(lambda scales, q, size: scales.mean(axis=-1, keepdims=True)),
        "Every group has a scale of its own: none may be averaged away."),
    Misconception("the short last group is dropped", whole_groups_only,
        "Every code stands for a value, those of a short last group too."),
    Misconception("the result keeps the padding", with_the_padding,
        "The result must have the shape of q. What was added to complete the last group is cut off at the end."),
    Misconception("the result is left in groups", left_in_groups,
        "The result must have the shape of q. Undo the reshape into groups, and cut off what was added."),
    Misconception("a float64 result where the scales are float64", times(spread),
        "NumPy makes float32 times an array of float64 a float64. Turn the product, or the scales, to float32."),
    *slices.reconstructions(spread, "group"),
)  # fmt: skip

EXERCISE = Exercise(
    name="dequantize_group",
    lab=LESSON,
    place=20,
    points=1,
    reference=dequantize_group,
    cases=cases,
    read=read_floats,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
