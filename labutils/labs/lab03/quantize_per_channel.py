"""quantize per channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, parts
from labutils.labs import answers
from labutils.labs.contract import judge_codes, judge_rounding, trained_weights
from labutils.labs.lab03 import LESSON
from labutils.labs.lab03._shared import _along, _others, _trained, _uneven
from labutils.labs.recipes import wrapping

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantize_per_channel(x: Array, axis: int, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes, and a scale for each index along `axis`: scales[c] = max|channel c| / (2^(b-1) - 1).

    >>> w = np.array([[0.05, -0.254, 0.1015], [2.54, 0.3, -1.013]], dtype=np.float32)
    >>> quantize_per_channel(w, axis=0)
    (array([[  25, -127,   51],
           [ 127,   15,  -51]], dtype=int8), array([0.002, 0.02 ], dtype=float32))

    `axis` is the one that is kept; all others are reduced, and it counts from the end where it is negative. The scales
    have the shape (x.shape[axis],). Symmetric; a channel that is all zero gets scale 1.
    """
    quantized = affine.quantize(x, Scheme(num_bits, granularity=PerAxis(axis)))
    return quantized.codes, quantized.scale


HAND = np.array([[0.05, -0.254, 0.1015], [2.54, 0.3, -1.013]], dtype=np.float32)  # the lesson's example


def _channel_cases() -> list[Case]:
    w, conv, square = trained_weights(), _trained("block3.depthwise"), _uneven((12, 12), 0)
    silent = _uneven((5, 8), 0, seed=1)
    silent[2] = 0
    negative = np.array([[0.4, -3.0, 1.1], [-0.2, 0.1, 0.05]], dtype=np.float32)
    far_apart = w[:4] * np.array([[1], [1e-9], [1e9], [1e-12]], dtype=np.float32)
    return [
        Case("the worked example", (HAND, 0)),
        Case("trained weights along axis 0", (w, 0), {"num_bits": 4}),
        Case("trained weights along axis 1", (w, 1), {"num_bits": 4}),
        Case("convolution weights, four axes", (conv, 0), {"num_bits": 4}),
        Case("a square matrix along axis 0", (square, 0)),
        Case("a square matrix along axis 1", (square.T.copy(), 1)),
        Case("the middle one of three axes", (_uneven((4, 6, 5), 1), 1)),
        Case("axis -1 is the last one", (_uneven((3, 4, 6), 2), -1)),
        Case("axis -2 of three", (_uneven((4, 6, 5), 1, seed=2), -2)),
        Case("a channel that is all zero", (silent, 0)),
        Case("the largest magnitudes are negative", (negative, 0)),
        Case("channels a billion times smaller and larger", (far_apart, 0)),
        Case("one channel alone", (w[:1], 0)),
        Case("a single axis: a scale for each value", (HAND[1], 0)),
        Case("2 bits", (w, 0), {"num_bits": 2}),
        Case("16 bits", (w, 0), {"num_bits": 16}),
        Case("a strided view", (w[:, ::2], 1), {"num_bits": 6}),
        Case("float64 input", (w.astype(np.float64), 0)),
    ]


def read_scaled(value: object) -> dict:
    """The answer of a quantizer with many scales: codes, and an array of them."""
    q, scales = parts(value, ("q", "scales"))
    scales = as_array(scales, "scales")
    return {"q": as_array(q, "q"), "scales": scales.astype(np.float64)}  # of any float dtype


def _judge_scales(scales: np.ndarray, peaks: np.ndarray, num_bits: int, whose: str) -> None:
    """Every scale is the largest magnitude of its slice over the largest code; any will do for a slice of zeros."""
    if not np.isfinite(scales).all() or scales.min() <= 0:
        where = np.unravel_index(np.argmin(np.where(scales > 0, np.isfinite(scales), False)), scales.shape)
        raise Wrong(f"scales{_index(where)} should be a positive number, but it is {scales[where]:g}")
    quant_max = Scheme(num_bits).quant_max
    expected = np.where(peaks > 0, peaks / quant_max, scales)
    off = np.abs(scales / expected - 1)
    worst = np.unravel_index(np.argmax(off), off.shape)
    if off[worst] > 1e-5:
        raise Wrong(
            f"scales{_index(worst)} should be the largest magnitude of {whose} / {quant_max} = {expected[worst]:.6g}, "
            f"but it is {scales[worst]:.6g}"
        )


def _index(where: tuple) -> str:
    return f"[{', '.join(str(int(i)) for i in where)}]"


def _judge_channels(answer: dict, case: Case) -> None:
    (x, axis), num_bits = case.args, case.kwargs.get("num_bits", 8)
    q, scales = answer["q"], answer["scales"]
    judge_codes(q, x, num_bits)
    if scales.shape != (x.shape[axis],):
        channels = "1 channel" if x.shape[axis] == 1 else f"{x.shape[axis]} channels"
        raise Wrong(
            f"x of shape {x.shape} has {channels} along axis {axis}: "
            f"scales should have shape {(x.shape[axis],)}, but has {scales.shape}"
        )
    peaks = np.abs(x.astype(np.float64)).max(axis=_others(x.ndim, axis))
    _judge_scales(scales, peaks, num_bits, "that channel")
    judge_rounding(q, _along(scales, x.ndim, axis), x, num_bits)


def _channels(
    axis_of: Callable = lambda x, axis: axis % x.ndim,
    span: Callable = lambda x, others: np.abs(x).max(axis=others, keepdims=True),
    divisor: Callable = lambda bits: 2 ** (bits - 1) - 1,
    to_codes: Callable = np.round,
    dtype: Callable = lambda bits: np.int8 if bits <= 8 else np.int16,
    guard: Callable = lambda scales: np.where(scales == 0, np.float32(1), scales),
    shape: Callable = lambda scales, axis: scales.reshape(-1),
) -> Callable:
    """A per-channel quantizer in which one step can be replaced by a wrong one."""

    def quantize(x, axis, num_bits=8):
        kept = axis_of(x, axis)
        others = tuple(i for i in range(x.ndim) if i != kept)
        scales = guard((span(x, others) / divisor(num_bits)).astype(np.float32))
        steps = to_codes(x / scales)
        limit, kind = 2 ** (num_bits - 1), dtype(num_bits)
        q = steps if kind is None else wrapping(np.clip(steps, -limit, limit - 1), kind)
        return q, shape(scales, kept)

    return quantize


def _channels_returning(what: Callable) -> Callable:
    """The right codes and scales, of which `what(q, scales, x, axis)` is returned."""

    def quantize(x, axis, num_bits=8):
        return what(*quantize_per_channel(x, axis, num_bits), x, axis)

    return quantize


def _reduces_the_axis(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=axis, keepdims=True) / (2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, 1, scales)
    q = np.round(x / scales)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), np.squeeze(scales, axis)


def _broadcasts_along_the_last(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=_others(x.ndim, axis)) / (2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, 1, scales)
    limit = 2 ** (num_bits - 1)
    return np.clip(np.round(x / scales), -limit, limit - 1).astype(np.int8 if num_bits <= 8 else np.int16), scales


def _channel_first_and_not_back(x, axis, num_bits=8):
    return quantize_per_channel(np.moveaxis(x, axis, 0), 0, num_bits)


def _reshapes_without_moving(x, axis, num_bits=8):
    q, scales = quantize_per_channel(x.reshape(x.shape[axis], -1), 0, num_bits)
    return q.reshape(x.shape), scales


def _removes_from_a_list(x, axis, num_bits=8):
    others = list(range(x.ndim))
    others.remove(axis)
    return quantize_per_channel(x, axis, num_bits)


def _rows_of_a_matrix(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=1) / (2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, 1, scales)
    return np.round(x / scales[:, None]).astype(np.int8 if num_bits <= 8 else np.int16), scales


def _loop_without_the_last(x, axis, num_bits=8):
    rows = np.moveaxis(x, axis, 0)
    scales, q = np.ones(len(rows)), np.zeros(rows.shape, np.int8 if num_bits <= 8 else np.int16)
    for c in range(len(rows) - 1):
        q[c], scales[c] = answers.quantize_symmetric(np.ascontiguousarray(rows[c]), num_bits)
    return np.moveaxis(q, 0, axis), scales


def _asks_an_array_whether_it_is_zero(x, axis, num_bits=8):
    scales = np.abs(x).max(axis=_others(x.ndim, axis), keepdims=True) / (2 ** (num_bits - 1) - 1)
    if scales == 0:
        scales = np.ones_like(scales)
    return quantize_per_channel(x, axis, num_bits)


def _scales_in_place(x, axis, num_bits=8):
    q, scales = quantize_per_channel(x, axis, num_bits)
    x /= _along(scales, x.ndim, axis)
    return q, scales


NO_SUCH_AXIS = (
    "Among the numbers of the axes, from 0 on, there is no -1: a comparison such as `i != axis` lets every axis "
    "through, and removing it from a list fails. Make the axis positive first: remainder by the number of axes."
)


QUANTIZE_PER_CHANNEL = (
    Misconception(
        "the axis is reduced, and should be kept",
        _reduces_the_axis,
        "NumPy's `max(axis=0)` makes axis 0 disappear. Here `axis` is where the channels are: it stays, "
        "and the maximum runs over all the others.",
    ),
    Misconception(
        "one scale for all channels",
        _channels(
            span=lambda x, others: np.abs(x).max() * np.ones_like(np.abs(x).max(axis=others, keepdims=True)),
        ),
        "All channels got the scale of the loudest. Each has a largest magnitude of its own.",
    ),
    Misconception(
        "one number for the scale",
        lambda x, axis, num_bits=8: answers.quantize_symmetric(x, num_bits),
        "That is lab 01: one scale for the whole tensor. Here there is one for each channel.",
    ),
    Misconception(
        "the scales keep their reduced axes",
        _channels(shape=lambda scales, axis: scales),
        "`keepdims=True` is what you want for dividing, but the contract asks for one axis. Flatten them at the end.",
    ),
    Misconception(
        "a squeeze that takes too much",
        _channels(shape=lambda scales, axis: scales.squeeze()),
        "`squeeze()` removes every axis of length 1, and with one channel that is the channel axis too. "
        "Flatten the scales instead: one channel, one scale, shape (1,).",
    ),
    Misconception("a negative axis is not found", _channels(axis_of=lambda x, axis: axis), NO_SUCH_AXIS),
    Misconception(
        "a negative axis is not found",
        _channels(axis_of=lambda x, axis: axis, shape=lambda scales, axis: scales.squeeze()),
        NO_SUCH_AXIS,
    ),
    Misconception("a negative axis is not found", _removes_from_a_list, NO_SUCH_AXIS),
    Misconception(
        "written for the rows of a matrix",
        _rows_of_a_matrix,
        "`axis=1` and `[:, None]` are right for the rows of a matrix, and for nothing else. Use `axis`, and expect "
        "any number of axes.",
    ),
    Misconception(
        "only the last axis is reduced",
        _channels(span=lambda x, others: np.abs(x).max(axis=-1, keepdims=True)),
        "That is right for the rows of a matrix. In general everything but `axis` is reduced: three axes of a "
        "convolution's four.",
    ),
    Misconception(
        "always along axis 0",
        _channels(axis_of=lambda x, axis: 0),
        "`axis` is not used: the channels were taken along axis 0.",
    ),
    Misconception(
        "always along the last axis",
        _channels(axis_of=lambda x, axis: x.ndim - 1),
        "`axis` is not used: the channels were taken along the last axis.",
    ),
    Misconception(
        "scales spread along the wrong axis",
        _broadcasts_along_the_last,
        "Scales of shape (C,) line up with the last axis of x. For any other axis they need axes of length 1 behind "
        "them, as `keepdims=True` leaves them. A square matrix hides this: the shapes fit, the values do not.",
    ),
    Misconception(
        "the channel axis is moved to the front, and not back",
        _channel_first_and_not_back,
        "After `moveaxis` or a transpose the codes lie in another order. Move the axis back at the end.",
    ),
    Misconception(
        "reshaped without moving the axis",
        _reshapes_without_moving,
        "`reshape(C, -1)` cuts the memory into C pieces, and these are the channels only if the channel axis comes "
        "first. Move it there first, or reduce over the other axes and reshape nothing.",
    ),
    Misconception(
        "the loop ends one channel early",
        _loop_without_the_last,
        "The last channel was never done: `range(n)` ends at n - 1 by itself.",
    ),
    Misconception(
        "a channel of zeros divides by zero",
        _channels(guard=lambda scales: scales),
        "One channel is all zero, so its scale is 0, and 0 / 0 is NaN. Replace that scale by 1, and leave the others.",
    ),
    Misconception(
        "an array where one number is asked for",
        _asks_an_array_whether_it_is_zero,
        "`if scales == 0` has no answer for many scales at once. `np.where` decides for each of them.",
    ),
    Misconception(
        "max(x) instead of max|x|",
        _channels(span=lambda x, others: x.max(axis=others, keepdims=True)),
        "The scale must cover the largest magnitude of its channel, which may be negative.",
    ),
    Misconception(
        "the mean magnitude instead of the largest",
        _channels(span=lambda x, others: np.abs(x).mean(axis=others, keepdims=True)),
        "With the mean, everything above it is cut off. The grid must reach the largest magnitude of the channel.",
    ),
    Misconception(
        "the whole range max - min for the span",
        _channels(
            span=lambda x, others: x.max(axis=others, keepdims=True) - x.min(axis=others, keepdims=True),
            divisor=lambda bits: 2**bits - 1,
        ),
        "`(max - min) / (2^b - 1)` belongs to asymmetric quantization. Here the grid reaches equally far both ways.",
    ),
    Misconception(
        "127 at every bit width",
        _channels(divisor=lambda bits: 127),
        "127 is the largest code at 8 bits only. Compute it from num_bits: 7 at 4 bits, 1 at 2 bits.",
    ),
    Misconception(
        "divides by 2^(b-1)",
        _channels(divisor=lambda bits: 2 ** (bits - 1)),
        "The largest code is 2^(b-1) - 1: 127 at 8 bits, not 128.",
    ),
    Misconception(
        "truncation instead of round",
        _channels(to_codes=np.trunc),
        "Casting to an integer cuts the fraction off. Round before you cast.",
    ),
    Misconception(
        "floor instead of round",
        _channels(to_codes=np.floor),
        "`np.floor` always goes down, so the error reaches a whole step. Go to the nearest integer.",
    ),
    Misconception(
        "int8 at every bit width",
        _channels(dtype=lambda bits: np.int8),
        "Codes of more than 8 bits do not fit into int8: they wrap around. Use int16 above 8 bits.",
    ),
    Misconception(
        "codes left as floats",
        _channels(dtype=lambda bits: None),
        "The values are whole numbers, but still stored as floats: nothing got smaller. Cast them to an integer dtype.",
    ),
    Misconception(
        "a floor under the scales",
        _channels(guard=lambda scales: np.maximum(scales, np.float32(1e-8))),
        "A smallest scale such as 1e-8 rounds a quiet channel to zero. Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "an epsilon added to the scales",
        _channels(guard=lambda scales: scales + np.float32(1e-8)),
        "Adding 1e-8 wipes out channels whose scale is smaller than that. Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "returns scales and codes in the wrong order",
        _channels_returning(lambda q, scales, x, axis: (scales, q)),
        "The contract asks for the codes first, then the scales.",
    ),
    Misconception(
        "the scales are upside down",
        _channels_returning(lambda q, scales, x, axis: (q, 1 / scales)),
        "quant_max / max|x| is how many steps fit into one unit. A scale is how long a step is.",
    ),
    Misconception(
        "returns the reconstruction instead of the codes",
        _channels_returning(lambda q, scales, x, axis: (q * _along(scales, x.ndim, axis), scales)),
        "Quantizing ends with integers. Multiplying by the scales again is for `dequantize_per_channel`.",
    ),
    Misconception(
        "the input is changed",
        _scales_in_place,
        "`x /= scales` writes into the caller's array. `x / scales` makes a new one.",
    ),
)


EXERCISE = Exercise(
    name="quantize_per_channel",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_per_channel,
    cases=_channel_cases,
    read=read_scaled,
    judge=_judge_channels,
    misconceptions=QUANTIZE_PER_CHANNEL,
)
