"""Mistakes that many quantizers share, as rows for the tables of their exercises.

Each family takes the right recipe and returns one misconception for each way of getting one step wrong:

>>> [mistake.name for mistake in rounding(Symmetric())]
['floor instead of round', 'truncation instead of round', 'ceil instead of round']
"""

from __future__ import annotations

import numpy as np

from labutils.course.exercise import Misconception
from labutils.labs.recipes import (
    Asymmetric,
    Recipe,
    Symmetric,
    clamped_unsigned,
    shifted_first,
    smallest_unsigned_dtype,
    wrapping,
)

Rows = tuple[Misconception, ...]


def unclamped(steps: np.ndarray, num_bits: int) -> np.ndarray:
    return steps


def rounding(right: Recipe) -> Rows:
    """Other ways from steps to whole steps."""
    return (
        Misconception("floor instead of round", right.but(round=np.floor),
            "`np.floor` always goes down, so the error reaches a whole step, and its mean is not zero. "
            "Go to the nearest integer."),
        Misconception("truncation instead of round", right.but(round=np.trunc),
            "Casting to an integer cuts the fraction off: 1.9 becomes 1 and -1.9 becomes -1. Round before you cast."),
        Misconception("ceil instead of round", right.but(round=np.ceil),
            "`np.ceil` always goes up, so the error reaches a whole step. Go to the nearest integer."),
    )  # fmt: skip


def units(right: Recipe) -> Rows:
    """Other ways from values to steps of the scale."""
    return (
        Misconception("multiplies by the scale", right.but(steps=np.multiply),
            "scale is the size of one step, so x / scale says how many steps x is away from 0."),
        Misconception("x is not divided by the scale", right.but(steps=lambda x, scale: x),
            "A code counts steps, and scale is the size of one: round x / scale, how many steps x is away from 0."),
    )  # fmt: skip


def divisors(right: Symmetric, reach: str = "max|x|") -> Rows:
    """Other numbers of steps between 0 and `reach`, with the clamp and without it."""
    half = "The largest code is 2^(b-1) - 1: 127 at 8 bits, not 128."
    positive = f"of the whole grid, but {reach} spans only the positive half of it: 127 steps."
    whole = f"2^b - 1 = 255 counts the steps {positive}"
    return (
        Misconception("divides by 2^(b-1)", right.but(divisor=lambda bits: 2 ** (bits - 1)),
            f"{half} With 128 the largest value has no code of its own."),
        Misconception("divides by 2^(b-1), and the cast wraps around",
            right.but(divisor=lambda bits: 2 ** (bits - 1), clamp=unclamped),
            "The largest value got code 128, which int8 cannot hold: it wrapped to -128 and came back with the wrong "
            "sign. The largest code is 2^(b-1) - 1, and a clamp before the cast keeps codes in range."),
        Misconception("divides by 2^b - 1", right.but(divisor=lambda bits: 2**bits - 1), whole),
        Misconception("divides by 2^b - 1, and the cast wraps around",
            right.but(divisor=lambda bits: 2**bits - 1, clamp=unclamped),
            f"{whole} The codes went beyond 127 and wrapped around in the cast."),
        Misconception("divides by 2^b", right.but(divisor=lambda bits: 2**bits),
            f"2^b = 256 counts the codes {positive}"),
        Misconception("127 at every bit width",
            right.but(divisor=lambda bits: 127, clamp=lambda steps, bits: np.clip(steps, -128, 127)),
            "127 is the largest code at 8 bits only. Compute it from num_bits: 7 at 4 bits, 1 at 2 bits."),
        Misconception("the scale uses 127 at every bit width", right.but(divisor=lambda bits: 127),
            "The codes are clamped to num_bits, but the scale still divides by 127, so all but the smallest values are "
            "cut off. The scale must use the same largest code as the clamp."),
    )  # fmt: skip


def signed_dtypes(right: Recipe) -> Rows:
    """Other dtypes than the smallest signed one that holds the codes."""
    wide = "int8 holds codes of up to 8 bits, int16 of up to 16."
    return (
        Misconception("int8 at every bit width", right.but(dtype=lambda bits: np.int8),
            "Codes of more than 8 bits do not fit into int8: they wrap around. Use int16 above 8 bits."),
        Misconception("codes left as floats", right.but(dtype=lambda bits: None),
            "The values are whole numbers, but still stored as floats: nothing got smaller. "
            "Cast them to an integer dtype."),
        Misconception("codes wider than they need to be", right.but(dtype=lambda bits: np.int32),
            f"int32 takes 4 bytes a code, as many as float32. {wide}"),
        Misconception("codes wider than they need to be", right.but(dtype=lambda bits: np.int64),
            f"int64 takes 8 bytes a code, twice as many as float32. {wide}"),
        Misconception("unsigned codes", right.but(dtype=lambda bits: np.uint8 if bits <= 8 else np.uint16),
            "Negative values need negative codes, and uint8 wraps -1 around to 255. Use a signed integer."),
    )  # fmt: skip


def scale_floors(right: Recipe, zero: str = "max|x|", of: str = "tensor") -> Rows:
    """No guard against a scale of 0, or one that changes others too: `zero` is what is 0, `of` what shares a scale."""
    tiny, only = np.float32(1e-8), "Only a scale of exactly 0 needs replacing."
    return (
        Misconception(f"an all-zero {of} divides by zero", right.but(floor=lambda scale: scale),
            f"{zero} is 0 here, so the scale is 0, and 0 / 0 is NaN. Any positive scale will do for zeros: use 1."),
        Misconception("a floor under the scale", right.but(floor=lambda scale: np.maximum(scale, tiny)),
            f"A smallest scale such as 1e-8 rounds {of}s of small values to zero. {only}"),
        Misconception("an epsilon added to the scale", right.but(floor=lambda scale: scale + tiny),
            f"Adding 1e-8 wipes out {of}s whose scale is smaller than that. {only}"),
    )  # fmt: skip


def results(right: Recipe) -> Rows:
    """The right codes and scale, returned in another form."""
    return (
        Misconception("returns the reconstruction instead of the codes",
            right.but(result=lambda q, scale, x: (q * scale, scale)),
            "Quantizing ends with integers. Multiplying by the scale again is what `dequantize_symmetric` is for."),
        Misconception("returns scale and codes in the wrong order", right.but(result=lambda q, scale, x: (scale, q)),
            "The contract is `return q, scale`: codes first."),
        Misconception("the scale is upside down", right.but(result=lambda q, scale, x: (q, 1 / scale)),
            "quant_max / max|x| is how many steps fit into one unit. "
            "The scale is how long a step is: max|x| / quant_max."),
    )  # fmt: skip


# For codes from 0 to 2^b - 1 with a zero point.


def unsigned_rounding(right: Asymmetric) -> Rows:
    """Other ways from steps to codes, before the zero point is added or after."""
    return (
        Misconception("floor or a cast instead of round", right.but(**shifted_first(np.floor)),
            "`np.floor` and a cast of positive numbers go down, so the error reaches a whole step. "
            "Go to the nearest integer before you cast."),
        Misconception("truncation before the zero point is added", right.but(round=np.trunc),
            "Truncation moves everything towards 0: 1.9 becomes 1 and -1.9 becomes -1. Go to the nearest integer."),
        Misconception("ceil instead of round", right.but(**shifted_first(np.ceil)),
            "`np.ceil` always goes up, so the error reaches a whole step. Go to the nearest integer."),
    )  # fmt: skip


def levels(right: Asymmetric) -> Rows:
    """Other numbers of steps in the range."""
    return (
        Misconception("divides by 2^b", right.but(levels=lambda bits: 2**bits),
            "Between 2^b codes there are 2^b - 1 steps: 255 at 8 bits."),
        Misconception("divides by 2^(b-1) - 1", right.but(levels=lambda bits: 2 ** (bits - 1) - 1),
            "The whole range is spread over all codes, 0 to 2^b - 1: that is 2^b - 1 steps, 255 at 8 bits."),
        Misconception("255 at every bit width",
            right.but(levels=lambda bits: 255, clamp=lambda codes, bits: np.clip(codes, 0, 255)),
            "255 is the largest code at 8 bits only. Compute it from num_bits: 15 at 4 bits."),
        Misconception("the scale uses 255 at every bit width", right.but(levels=lambda bits: 255),
            "The codes are clamped to num_bits, but the scale still divides by 255. It must use the same largest code "
            "as the clamp."),
    )  # fmt: skip


def whole(number):
    """A whole number as an integer, or an array of them."""
    return int(number) if np.ndim(number) == 0 else number.astype(np.int64)


def cast_zero_point(low, scale, num_bits):
    """`steps_below_zero` by a cast of NumPy's, which makes some integer of NaN where `int` raises."""
    return np.asarray(np.round(-low / scale)).astype(np.int64)[()]


def zero_points(right: Asymmetric) -> Rows:
    """Zero points that are computed, rounded or applied in another way."""

    def subtracted(steps, zero_point):
        return steps - zero_point

    def turned(low, scale, bits):
        return whole(np.round(low / scale))

    return (
        Misconception("the zero point has the wrong sign", right.but(zero_point=turned),
            "The smallest value, which is negative, must get code 0: so what is added to its steps must be positive."),
        Misconception("the zero point is subtracted from the steps, with its sign turned",
            right.but(zero_point=turned, shift=subtracted),
            "The codes are right. But the zero point is the code of 0.0, so it is never negative, and it is added to "
            "the steps."),
        Misconception("the zero point is subtracted from the steps", right.but(shift=subtracted),
            "0.0 is 0 steps, and its code should be the zero point: add it. Subtracting it is the way back."),
        Misconception("the zero point is truncated", right.but(zero_point=lambda low, scale, bits: whole(-low / scale)),
            "`int(...)` cuts the fraction off: 60.8 becomes 60, and the grid is shifted by nearly a step. "
            "Round first."),
        Misconception("the zero point is rounded up",
            right.but(zero_point=lambda low, scale, bits: whole(np.ceil(-low / scale))),
            "`ceil` always goes up, and the grid is shifted by up to a step. Go to the nearest integer."),
        Misconception("the zero point is not rounded",
            right.but(zero_point=lambda low, scale, bits: np.float64(-low / scale), **shifted_first(np.round)),
            "The ends of the range are exact now, but 0.0 lies between two codes and comes back as something else. "
            "Round the zero point to a whole code."),
        Misconception("the zero point is a whole number, but stored as a float",
            right.but(zero_point=lambda low, scale, bits: np.float64(np.round(-low / scale))),
            "`np.round` returns a float. A code is an integer: turn it into one."),
        Misconception("the minimum stored as the zero point",
            right.but(zero_point=lambda low, scale, bits: np.float64(low),
                shift=lambda steps, low: steps - steps.min()),
            "The zero point is a code, not a value of x: how many steps of scale lie between the minimum and 0."),
        Misconception("the minimum without the scale as the zero point",
            right.but(zero_point=lambda low, scale, bits: whole(np.round(-low))),
            "The zero point counts steps, so the distance from the minimum to 0 must be divided by the scale."),
        Misconception("zero point in the middle of the codes",
            right.but(zero_point=lambda low, scale, bits: 2 ** (bits - 1)),
            "The middle is right only if the range is as long below 0 as above. Look where 0.0 lies in this one."),
        Misconception("no zero point: it is always 0", right.but(zero_point=lambda low, scale, bits: 0),
            "With the zero point 0, code 0 stands for 0.0, and all negative values are clamped to it. How many steps "
            "lie between the minimum and 0? That is the code of 0.0."),
        Misconception("the zero point is not added to the codes", right.but(shift=lambda steps, zero_point: steps),
            "The zero point is right, but the codes do not use it: they count from 0.0, and the values below it are "
            "clamped. Add it to the steps."),
    )  # fmt: skip


def narrow_zero_points(right: Asymmetric) -> Rows:
    """The right range, and zero points in a dtype that ends below the largest code."""

    def stored_in(dtype):
        def zero_point(low, scale, bits):
            return wrapping(np.round(-low / scale), dtype).astype(np.int64)[()]

        return right.but(zero_point=zero_point)

    return (
        Misconception("a zero point in uint8 at every bit width", stored_in(np.uint8),
            "A zero point is a code: above 8 bits it goes beyond 255, where uint8 wraps around. Take a wider integer."),
        Misconception("a zero point in int8", stored_in(np.int8),
            "8-bit codes, and so zero points, go up to 255. int8 ends at 127 and wraps around. Take a wider integer."),
        Misconception("a zero point in int16", stored_in(np.int16),
            "16-bit codes, and so zero points, go up to 65535. int16 ends at 32767 and wraps around. Take int32."),
    )  # fmt: skip


def unsigned_clamps(right: Asymmetric) -> Rows:
    """A clamp that is missing, ends one code too late, or comes too late; the range includes 0, so no code is < 0."""

    def after_the_cast(codes, num_bits):
        return clamped_unsigned(wrapping(codes, smallest_unsigned_dtype(num_bits)), num_bits)

    return (
        Misconception("no clamp, or one that ends at 2^b", right.but(clamp=unclamped),
            "Scale and zero point are both rounded, so the largest value can land half a step beyond the last code, "
            "2^b - 1, and the cast wraps 256 around to 0. Clamp to [0, 2^b - 1] before you cast."),
        Misconception("the cast comes before the clamp", right.but(clamp=after_the_cast),
            "After the cast everything fits into the dtype, and 256 has become 0: there is nothing left to clamp. "
            "Clamp while the codes are floats, then cast."),
    )  # fmt: skip


def unsigned_dtypes(right: Asymmetric) -> Rows:
    """Other dtypes than the smallest unsigned one that holds the codes."""
    narrow = "uint8 holds codes of up to 8 bits"
    return (
        Misconception("uint8 at every bit width", right.but(dtype=lambda bits: np.uint8),
            "Codes of more than 8 bits do not fit into uint8: they wrap around. Use uint16 above 8 bits."),
        Misconception("codes in a signed dtype", right.but(dtype=lambda bits: np.int8 if bits <= 8 else np.int16),
            "Codes go up to 255, and int8 ends at 127: what is above wraps around. Use an unsigned integer."),
        Misconception("codes left as floats", right.but(dtype=lambda bits: None),
            "The values are whole numbers, but still stored as floats: nothing got smaller. "
            "Cast them to unsigned ones."),
        Misconception("codes wider than they need to be", right.but(dtype=lambda bits: np.uint16),
            f"uint16 takes 2 bytes a code. {narrow}."),
        Misconception("codes wider than they need to be", right.but(dtype=lambda bits: np.int32),
            f"int32 takes 4 bytes a code, as many as float32. {narrow}, uint16 of up to 16."),
        Misconception("codes wider than they need to be", right.but(dtype=lambda bits: np.int64),
            f"int64 takes 8 bytes a code, twice as many as float32. {narrow}, uint16 of up to 16."),
    )  # fmt: skip


def copied_wrongly(right: Recipe) -> Rows:
    """Other layers than a copy of the one that was given: the step `layer` of a recipe, linear -> its copy."""
    return (
        Misconception("the bias is left at random", right.but(layer=_new_layer),
            "A new nn.Linear starts with random numbers in its weight *and* in its bias. Copy both."),
        Misconception("the bias is lost", right.but(layer=lambda linear: _new_layer(linear, bias=False)),
            "The new layer has no bias, the old one has. Copy it as it is."),
        Misconception("the float layer is changed", right.but(layer=lambda linear: linear),
            "The layer that was given is part of a model that is still needed, to compare with. Make a copy, or a new "
            "layer."),
    )  # fmt: skip


def _new_layer(linear, bias=True):
    from torch import nn

    return nn.Linear(linear.in_features, linear.out_features, bias=bias and linear.bias is not None)
