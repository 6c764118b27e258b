"""dequantize per channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import MAX_BITS, code_array, real_array
from labutils.arrays.layout import Layout
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array
from labutils.labs.lab03 import LESSON
from labutils.labs.lab03._shared import _along
from labutils.labs.lab03.quantize_per_channel import _index
from labutils.labs.recipes import wrapping

Array = Any  # a numpy.ndarray or a torch.Tensor


def dequantize_per_channel(q: Array, scales: Array, axis: int) -> Array:
    """Floats from codes, each times the scale of its channel, in float32 (float64 where `scales` is float64).

    >>> q = np.array([[25, -127, 51], [127, 15, -51]], dtype=np.int8)
    >>> dequantize_per_channel(q, np.array([0.002, 0.02], dtype=np.float32), axis=0).round(3)
    array([[ 0.05 , -0.254,  0.102],
           [ 2.54 ,  0.3  , -1.02 ]], dtype=float32)

    ValueError where the scales have another shape than (q.shape[axis],), or are not all positive and finite.
    """
    granularity = PerAxis(axis)
    xp, q = code_array(q)
    library, scales = real_array(scales, "scales")
    if library is not xp:
        raise TypeError(f"q and scales must come from one library, got {xp.__name__} and {library.__name__}")
    Layout.of(q.shape, granularity).column(xp, scales, "scales")  # raises for another shape
    if not bool(xp.all((scales > 0) & xp.isfinite(scales))):
        raise ValueError(
            f"scales must be positive and finite everywhere, got values from {xp.min(scales)} to {xp.max(scales)}"
        )
    dtype = xp.float64 if scales.dtype == xp.float64 else xp.float32
    scheme = Scheme(MAX_BITS, granularity=granularity)
    return affine.dequantize(affine.QuantizedArray(q, xp.astype(scales, dtype), 0, scheme, dtype))


def _back_cases() -> list[Case]:
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


def _read_floats(value: object) -> dict:
    return {"x": as_array(value, "the result")}


def _judge_back(answer: dict, case: Case) -> None:
    q, scales, axis = case.args
    x = answer["x"]
    if x.shape != q.shape:
        raise Wrong(f"the result should have the shape of q, {q.shape}, but has {x.shape}")
    if x.dtype != np.float32:
        raise Wrong(f"the result should be float32, but its dtype is {x.dtype}")
    steps = np.broadcast_to(_along(scales, q.ndim, axis).astype(np.float64), q.shape)
    expected = q * steps
    error = np.abs(x - expected)
    worst = np.unravel_index(np.argmax(error / steps), error.shape)
    if not error[worst] <= 2.0**-22 * abs(expected[worst]):  # two roundings to float32
        raise Wrong(
            f"q{_index(worst)} = {q[worst]} belongs to channel {worst[axis]}, whose scale is {steps[worst]:.4g}: "
            f"it stands for {expected[worst]:.6g}, but came back as {x[worst]:.6g}"
        )


def _loop_back_without_the_last(q, scales, axis):
    rows = np.moveaxis(q, axis, 0).astype(np.float32)
    for c in range(len(rows) - 1):
        rows[c] *= scales[c]
    return np.moveaxis(rows, 0, axis)


def _channel_by_comparison(q, scales, axis):
    return q.astype(np.float32) * scales.reshape([len(scales) if i == axis else 1 for i in range(q.ndim)])


DEQUANTIZE_PER_CHANNEL = (
    Misconception(
        "scales spread along the last axis",
        lambda q, scales, axis: q.astype(np.float32) * scales,
        "Scales of shape (C,) line up with the last axis of q, whatever `axis` says. In a square matrix nothing "
        "complains, and every value gets the scale of another channel. Give the scales axes of length 1 where they "
        "do not vary.",
    ),
    Misconception(
        "one new axis, however many there are",
        lambda q, scales, axis: q.astype(np.float32) * scales[:, None],
        "`scales[:, None]` is right for the rows of a matrix. With more axes, or another `axis`, the scales need a "
        "length of 1 everywhere else.",
    ),
    Misconception(
        "always along axis 0",
        lambda q, scales, axis: q.astype(np.float32) * _along(scales, q.ndim, 0),
        "`axis` is not used: the scales were laid along axis 0.",
    ),
    Misconception(
        "the axis is counted from the wrong end",
        lambda q, scales, axis: q.astype(np.float32) * _along(scales, q.ndim, -1 - axis),
        "The scales lie along the mirror image of `axis`. In a square matrix the shapes fit all the same.",
    ),
    Misconception(
        "a negative axis is not found",
        _channel_by_comparison,
        "No axis number i equals -1, so a comparison such as `i == axis` never says yes. "
        "Make the axis positive first, or index a list of lengths with it: a list understands -1.",
    ),
    Misconception(
        "one scale for all channels",
        lambda q, scales, axis: q.astype(np.float32) * scales.max(),
        "Each channel has a scale of its own: that of the loudest makes the quiet ones loud.",
    ),
    Misconception(
        "the first scale for all channels",
        lambda q, scales, axis: q.astype(np.float32) * scales[0],
        "Each channel has a scale of its own, at its own index.",
    ),
    Misconception(
        "the loop ends one channel early",
        _loop_back_without_the_last,
        "The last channel still holds its codes: `range(n)` ends at n - 1 by itself.",
    ),
    Misconception(
        "the channel axis is moved to the front, and not back",
        lambda q, scales, axis: np.moveaxis(q, axis, 0).astype(np.float32) * _along(scales, q.ndim, 0),
        "After `moveaxis` or a transpose the values lie in another order. Move the axis back at the end.",
    ),
    Misconception(
        "divides by the scales",
        lambda q, scales, axis: q.astype(np.float32) / _along(scales, q.ndim, axis),
        "Quantizing divided by the scales; the way back multiplies.",
    ),
    Misconception(
        "the scales are not used",
        lambda q, scales, axis: q.astype(np.float32),
        "A code counts steps. What it stands for is that many steps of its channel's scale.",
    ),
    Misconception(
        "a float64 result",
        lambda q, scales, axis: q.astype(np.float64) * _along(scales, q.ndim, axis),
        "float64 takes twice the memory of the float32 that was quantized. Turn the codes to float32.",
    ),
    Misconception(
        "the product is cast back to integers",
        lambda q, scales, axis: wrapping(np.trunc(q * _along(scales, q.ndim, axis)), q.dtype.type),
        "The point of coming back is to have floats again: leave the product as float32.",
    ),
)


EXERCISE = Exercise(
    name="dequantize_per_channel",
    lab=LESSON,
    place=20,
    points=2,
    reference=dequantize_per_channel,
    cases=_back_cases,
    read=_read_floats,
    judge=_judge_back,
    misconceptions=DEQUANTIZE_PER_CHANNEL,
)
