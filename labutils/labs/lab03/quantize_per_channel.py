"""quantize_per_channel: a scale for each index along one axis."""

from __future__ import annotations

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import families, slices
from labutils.labs.contract import judge_codes, judge_rounding, judge_scales, read_scaled, trained_weights
from labutils.labs.lab03 import LESSON
from labutils.labs.lab03._channels import convolution_weights, uneven
from labutils.labs.recipes import Symmetric
from labutils.labs.slices import Sliced, along_axis, channels, codes_of_channels, join_channels, largest_of_all

HAND = np.array([[0.05, -0.254, 0.1015], [2.54, 0.3, -1.013]], dtype=np.float32)  # the lesson's example


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


def cases() -> list[Case]:
    w, square = trained_weights(), uneven((12, 12), 0)
    silent = uneven((5, 8), 0, seed=1)
    silent[2] = 0
    negative = np.array([[0.4, -3.0, 1.1], [-0.2, 0.1, 0.05]], dtype=np.float32)
    far_apart = w[:4] * np.array([[1], [1e-9], [1e9], [1e-20]], dtype=np.float32)
    return [
        Case("the worked example", (HAND, 0)),
        Case("trained weights along axis 0", (w, 0), {"num_bits": 4}),
        Case("trained weights along axis 1", (w, 1), {"num_bits": 4}),
        Case("convolution weights, four axes", (convolution_weights(), 0), {"num_bits": 4}),
        Case("a square matrix along axis 0", (square, 0)),
        Case("a square matrix along axis 1", (square.T.copy(), 1)),
        Case("the middle one of three axes", (uneven((4, 6, 5), 1), 1)),
        Case("axis -1 is the last one", (uneven((3, 4, 6), 2), -1)),
        Case("axis -2 of three", (uneven((4, 6, 5), 1, seed=2), -2)),
        Case("a channel that is all zero", (silent, 0)),
        Case("the largest magnitudes are negative", (negative, 0)),
        Case("channels a billion times larger, and up to 1e20 times smaller", (far_apart, 0)),
        Case("one channel alone", (w[:1], 0)),
        Case("a single axis: a scale for each value", (HAND[1], 0)),
        Case("2 bits", (w, 0), {"num_bits": 2}),
        Case("16 bits", (w, 0), {"num_bits": 16}),
        Case("a strided view", (w[:, ::2], 1), {"num_bits": 6}),
        Case("float64 input", (w.astype(np.float64), 0)),
    ]


def judge(answer: dict, case: Case) -> None:
    (x, axis), num_bits = case.args, case.kwargs.get("num_bits", 8)
    q, scales = answer["q"], answer["scales"]
    judge_codes(q, x, num_bits)
    if scales.shape != (x.shape[axis],):
        count = "1 channel" if x.shape[axis] == 1 else f"{x.shape[axis]} channels"
        raise Wrong(
            f"x of shape {x.shape} has {count} along axis {axis}: "
            f"scales should have shape {(x.shape[axis],)}, but has {scales.shape}"
        )
    peaks = np.abs(channels(x.astype(np.float64), axis)).max(axis=-1)
    judge_scales(scales, peaks, num_bits, "the largest magnitude of that channel")
    judge_rounding(q, along_axis(scales, x.ndim, axis), x, num_bits)


right = Sliced(split=channels, join=join_channels)
one_scale = Symmetric()


def reducing(axes: int) -> Symmetric:
    """The quantizer whose scales are what is left of `x` when `axes` are reduced; they keep these with length 1."""
    return Symmetric(span=lambda x: np.abs(x).max(axis=axes, keepdims=True))


def reduces_the_axis(x, axis, num_bits=8):
    q, scales = reducing(axis)(x, num_bits)
    return q, scales.squeeze(axis)


def reduces_axis_1(x, axis, num_bits=8):
    q, scales = reducing(1)(x, num_bits)
    return q, scales.squeeze(1)


def reduces_the_last_axis(x, axis, num_bits=8):
    q, scales = reducing(-1)(x, num_bits)
    return q, scales.reshape(-1)


def reduces_all_axes_if_negative(x, axis, num_bits=8):
    """No i equals -1: `i != axis` is true of every axis."""
    q, scales = right(x, axis, num_bits) if axis >= 0 else one_scale(x, num_bits)
    return q, scales.reshape(-1)


def reduces_all_axes_if_negative_and_squeezes(x, axis, num_bits=8):
    q, scales = reduces_all_axes_if_negative(x, axis, num_bits)
    return q, scales.squeeze()


def removes_from_a_list(x, axis, num_bits=8):
    list(range(x.ndim)).remove(axis)  # raises for a negative axis
    return right(x, axis, num_bits)


def broadcasts_along_the_last(x, axis, num_bits=8):
    return Symmetric(span=lambda x: np.abs(channels(x, axis)).max(axis=-1))(x, num_bits)


def ends_one_channel_early(x, axis, num_bits=8):
    q, scales = right(x, axis, num_bits)
    np.moveaxis(q, axis, 0)[-1], scales[-1] = 0, 1
    return q, scales


def asks_an_array_whether_it_is_zero(x, axis, num_bits=8):
    q, scales = right(x, axis, num_bits)
    return (q, scales) if scales != 0 else (q, np.ones_like(scales))  # raises for more than one scale


def in_place(x, axis, num_bits=8):
    q, scales = right(x, axis, num_bits)
    x /= along_axis(scales, x.ndim, axis)
    return q, scales


NO_SUCH_AXIS = (
    "Among the numbers of the axes, from 0 on, there is no -1: a comparison such as `i != axis` lets every axis "
    "through, and removing it from a list fails. Make the axis positive first: remainder by the number of axes."
)

MISCONCEPTIONS = (
    Misconception("the axis is reduced, and should be kept", reduces_the_axis,
        "NumPy's `max(axis=0)` makes axis 0 disappear. Here `axis` is where the channels are: it stays, "
        "and the maximum runs over all the others."),
    Misconception("one scale for all channels", right.but(span=largest_of_all),
        "All channels got the scale of the loudest. Each has a largest magnitude of its own."),
    Misconception("one number for the scale", lambda x, axis, num_bits=8: one_scale(x, num_bits),
        "That is lab 01: one scale for the whole tensor. Here there is one for each channel."),
    Misconception("the scales keep their reduced axes",
        right.but(join=lambda q, s, x, axis: (codes_of_channels(q, x, axis), along_axis(s, x.ndim, axis))),
        "`keepdims=True` is what you want for dividing, but the contract asks for one axis. Flatten them at the end."),
    Misconception("a squeeze that takes too much",
        right.but(join=lambda q, s, x, axis: (codes_of_channels(q, x, axis), s.squeeze())),
        "`squeeze()` removes every axis of length 1, and with one channel that is the channel axis too. "
        "Flatten the scales instead: one channel, one scale, shape (1,)."),
    Misconception("a negative axis is not found", reduces_all_axes_if_negative, NO_SUCH_AXIS),
    Misconception("a negative axis is not found", reduces_all_axes_if_negative_and_squeezes, NO_SUCH_AXIS),
    Misconception("a negative axis is not found", removes_from_a_list, NO_SUCH_AXIS),
    Misconception("written for the rows of a matrix", reduces_axis_1,
        "`axis=1` and `[:, None]` are right for the rows of a matrix, and for nothing else. Use `axis`, and expect "
        "any number of axes."),
    Misconception("only the last axis is reduced", reduces_the_last_axis,
        "That is right for the rows of a matrix. In general everything but `axis` is reduced: three axes of a "
        "convolution's four."),
    Misconception("always along axis 0", lambda x, axis, num_bits=8: right(x, 0, num_bits),
        "`axis` is not used: the channels were taken along axis 0."),
    Misconception("always along the last axis", lambda x, axis, num_bits=8: right(x, -1, num_bits),
        "`axis` is not used: the channels were taken along the last axis."),
    Misconception("scales spread along the wrong axis", broadcasts_along_the_last,
        "Scales of shape (C,) line up with the last axis of x. For any other axis they need axes of length 1 behind "
        "them, as `keepdims=True` leaves them. A square matrix hides this: the shapes fit, the values do not."),
    Misconception("the channel axis is moved to the front, and not back",
        lambda x, axis, num_bits=8: right(np.moveaxis(x, axis, 0), 0, num_bits),
        "After `moveaxis` or a transpose the codes lie in another order. Move the axis back at the end."),
    Misconception("reshaped without moving the axis",
        right.but(split=lambda x, axis: x.reshape(x.shape[axis], -1),
            join=lambda q, s, x, axis: (q.reshape(x.shape), s.reshape(-1))),
        "`reshape(C, -1)` cuts the memory into C pieces, and these are the channels only if the channel axis comes "
        "first. Move it there first, or reduce over the other axes and reshape nothing."),
    Misconception("the loop ends one channel early", ends_one_channel_early,
        "The last channel was never done: `range(n)` ends at n - 1 by itself."),
    Misconception("an array where one number is asked for", asks_an_array_whether_it_is_zero,
        "`if scales == 0` has no answer for many scales at once. `np.where` decides for each of them."),
    *slices.spans(right, "channel"),
    *families.divisors(right, reach="max|channel|"),
    *families.rounding(right),
    *families.units(right),
    *families.signed_dtypes(right),
    *slices.floors(right, "channel"),
    *slices.results(right, inverse="dequantize_per_channel"),
    Misconception("the input is changed", in_place,
        "`x /= scales` writes into the caller's array. `x / scales` makes a new one."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_per_channel",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_per_channel,
    cases=cases,
    read=read_scaled,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
