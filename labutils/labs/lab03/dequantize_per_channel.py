"""dequantize_per_channel: from codes back to floats, each with the scale of its channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import MAX_BITS, Array, code_array, real_array, require_one_library
from labutils.arrays.layout import Layout
from labutils.arrays.scheme import Granularity, PerAxis, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct, place
from labutils.labs import slices
from labutils.labs.contract import judge_floats, largest_at, read_floats
from labutils.labs.lab03 import LESSON
from labutils.labs.slices import along_axis


def dequantize_per_channel(q: Array, scales: Array, axis: int) -> Array:
    """Floats from codes, each times the scale of its channel, in float32.

    >>> q = np.array([[25, -127, 51], [127, 15, -51]], dtype=np.int8)
    >>> dequantize_per_channel(q, np.array([0.002, 0.02], dtype=np.float32), axis=0).round(3)
    array([[ 0.05 , -0.254,  0.102],
           [ 2.54 ,  0.3  , -1.02 ]], dtype=float32)

    ValueError where the scales have another shape than (q.shape[axis],), or are not all positive and finite.
    """
    granularity = PerAxis(axis)
    xp, q, scales = codes_and_scales(q, scales)
    Layout.of(q.shape, granularity).column(xp, scales, "scales")  # raises for another shape
    return reconstruct(q, scales, granularity)


def codes_and_scales(q: Array, scales: Array) -> tuple[Any, Array, Array]:
    """Return `(namespace, q, scales)`, the scales in float32, or raise for what are no such arrays."""
    xp, q = code_array(q)
    _, scales = real_array(scales, "scales")
    require_one_library(scales=scales, q=q)
    if not (bool(xp.all(scales > 0)) and float(xp.max(scales)) <= float(xp.finfo(xp.float32).max)):
        raise ValueError(
            f"scales must be positive and finite in float32, got values from {xp.min(scales)} to {xp.max(scales)}"
        )
    return xp, q, xp.astype(scales, xp.float32)


def reconstruct(q: Array, scales: Array, granularity: Granularity) -> Array:
    """Each code times the scale of its slice, in the dtype of `scales`."""
    scheme = Scheme(MAX_BITS, granularity=granularity)
    return affine.dequantize(affine.QuantizedArray(q, scales, 0, scheme, scales.dtype))


def cases() -> list[Case]:
    rng = np.random.default_rng(3)

    def case(name: str, shape: tuple[int, ...], axis: int, dtype: type = np.int8) -> Case:
        info = np.iinfo(dtype)
        q = rng.integers(info.min, info.max + 1, shape).astype(dtype)
        return Case(name, (q, rng.uniform(0.01, 0.3, shape[axis]).astype(np.float32), axis))

    by_hand = np.array([[25, -127, 51], [127, 15, -51]], dtype=np.int8), np.array([0.002, 0.02], dtype=np.float32), 0
    return [
        Case("the worked example", by_hand),
        case("a matrix along axis 0", (16, 9), 0),
        case("a matrix along axis 1", (16, 9), 1),
        case("a square matrix along axis 0", (12, 12), 0),
        case("a square matrix along axis 1", (12, 12), 1),
        case("convolution weights, four axes", (8, 3, 3, 3), 0),
        case("the middle one of three axes", (4, 6, 5), 1),
        case("axis -1 is the last one", (3, 4, 6), -1),
        case("axis -2 of three", (4, 6, 5), -2),
        case("one channel alone", (1, 7), 0),
        case("16-bit codes", (6, 10), 0, np.int16),
        Case("scales far apart", (by_hand[0], np.array([1e-9, 1e6], dtype=np.float32), 0)),
    ]


def judge(answer: dict, case: Case) -> None:
    (q, scales, axis), x = case.args, answer["x"]
    judge_floats(x, q)
    steps = np.broadcast_to(spread(scales, q, axis).astype(np.float64), q.shape)
    expected = q * steps
    error = np.abs(x - expected)
    worst = largest_at(error / steps)
    if not error[worst] <= 2.0**-22 * abs(expected[worst]):  # two roundings to float32
        wanted, found = distinct(expected[worst], x[worst])
        raise Wrong(
            f"q[{place(worst)}] = {q[worst]} belongs to channel {worst[axis]}, whose scale is {steps[worst]:.4g}: "
            f"it stands for {wanted}, but came back as {found}"
        )


def spread(scales: np.ndarray, q: np.ndarray, axis: int) -> np.ndarray:
    return along_axis(scales, q.ndim, axis)


def along_the_axis_that_equals(q, scales, axis):
    """No i equals -1: for a negative axis no length is that of the scales."""
    return q.astype(np.float32) * scales.reshape([len(scales) if i == axis else 1 for i in range(q.ndim)])


def ends_one_channel_early(q, scales, axis):
    return q.astype(np.float32) * spread(np.append(scales[:-1], np.float32(1)), q, axis)


MISCONCEPTIONS = (
    Misconception("scales spread along the last axis", lambda q, scales, axis: q.astype(np.float32) * scales,
        "Scales of shape (C,) line up with the last axis of q, whatever `axis` says. In a square matrix nothing "
        "complains, and every value gets the scale of another channel. Give the scales axes of length 1 where they "
        "do not vary."),
    Misconception("one new axis, however many there are",
        lambda q, scales, axis: q.astype(np.float32) * scales[:, None],
        "`scales[:, None]` is right for the rows of a matrix. With more axes, or another `axis`, the scales need a "
        "length of 1 everywhere else."),
    Misconception("always along axis 0", lambda q, scales, axis: q.astype(np.float32) * spread(scales, q, 0),
        "`axis` is not used: the scales were laid along axis 0."),
    Misconception("the axis is counted from the wrong end",
        lambda q, scales, axis: q.astype(np.float32) * spread(scales, q, -1 - axis),
        "The scales lie along the mirror image of `axis`. In a square matrix the shapes fit all the same."),
    Misconception("a negative axis is not found", along_the_axis_that_equals,
        "No axis number i equals -1, so a comparison such as `i == axis` never says yes. "
        "Make the axis positive first, or index a list of lengths with it: a list understands -1."),
    Misconception("one scale for all channels", lambda q, scales, axis: q.astype(np.float32) * scales.max(),
        "Each channel has a scale of its own: that of the loudest makes the quiet ones loud."),
    Misconception("the first scale for all channels", lambda q, scales, axis: q.astype(np.float32) * scales[0],
        "Each channel has a scale of its own, at its own index."),
    Misconception("the loop ends one channel early", ends_one_channel_early,
        "The last channel still holds its codes: `range(n)` ends at n - 1 by itself."),
    Misconception("the channel axis is moved to the front, and not back",
        lambda q, scales, axis: np.moveaxis(q, axis, 0).astype(np.float32) * spread(scales, q, 0),
        "After `moveaxis` or a transpose the values lie in another order. Move the axis back at the end."),
    *slices.reconstructions(spread, "channel"),
)  # fmt: skip

EXERCISE = Exercise(
    name="dequantize_per_channel",
    lab=LESSON,
    place=20,
    points=2,
    reference=dequantize_per_channel,
    cases=cases,
    read=read_floats,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
