"""Lab 02: the asymmetric quantizer, its inverse, and a given range."""

import numpy as np

from tests.labs.natural import mistake


def codes(steps, num_bits):
    return np.clip(steps, 0, 2**num_bits - 1).astype(np.uint8 if num_bits <= 8 else np.uint16)


def on_range(x, low, high, num_bits):
    scale = (high - low) / (2**num_bits - 1) or 1.0
    zero_point = int(np.round(-low / scale))
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


@mistake("quantize_asymmetric", "a range from 0 to the maximum")
def low_is_at_least_zero(x, num_bits=8):
    return on_range(x, max(x.min(), 0), max(x.max(), 0), num_bits)


@mistake("quantize_asymmetric", "clamp")
def zero_point_added_after_the_clamp(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale), 0, 2**num_bits - 1) + zero_point
    return q.astype(np.int64).astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_asymmetric", "divides by zero")
def no_guard_for_zeros(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1)
    zero_point = int(np.round(-low / scale))
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


@mistake("quantize_asymmetric", "range leaves 0 out")
def no_guard_for_a_constant(x, num_bits=8):
    low, high = x.min(), x.max()
    scale = (high - low) / (2**num_bits - 1)
    zero_point = np.round(-low / scale)
    return codes(np.round(x / scale) + zero_point, num_bits), scale, int(zero_point)


@mistake("quantize_asymmetric", "wrong order|order")
def zero_point_before_scale(x, num_bits=8):
    q, scale, zero_point = on_range(x, min(x.min(), 0), max(x.max(), 0), num_bits)
    return q, zero_point, scale


@mistake("quantize_asymmetric", "the zero point is not rounded")
def zero_point_not_rounded(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    zero_point = -low / scale
    return codes(np.round(x / scale + zero_point), num_bits), scale, zero_point


@mistake("quantize_asymmetric")
def zero_point_from_the_top(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    zero_point = int(np.round(high / scale))
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


@mistake("quantize_asymmetric", "zero point in the middle of the codes")
def always_128(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    return codes(np.round(x / scale) + 128, num_bits), scale, 128


@mistake("quantize_asymmetric", "floor under|epsilon")
def smallest_range_of_1e_5(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = max(high - low, 1e-5) / (2**num_bits - 1)
    zero_point = int(np.round(-low / scale))
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


@mistake("dequantize_asymmetric", "wrap|uint8|unsigned")
def subtracts_in_uint8(q, scale, zero_point):
    return (q - np.asarray(zero_point).astype(q.dtype)).astype(np.float32) * np.float32(scale)


@mistake("dequantize_asymmetric", "after|outside|scale")
def zero_point_subtracted_last(q, scale, zero_point):
    return q.astype(np.float32) * np.float32(scale) - np.float32(zero_point)


@mistake("dequantize_asymmetric", "added|sign")
def zero_point_added(q, scale, zero_point):
    return (q.astype(np.float32) + zero_point) * np.float32(scale)


@mistake("dequantize_asymmetric", "the codes are read as signed")
def through_int8(q, scale, zero_point):
    return (q.astype(np.int8).astype(np.float32) - zero_point).astype(np.float32) * np.float32(scale)


@mistake("dequantize_asymmetric", "float64")
def all_in_float64(q, scale, zero_point):
    return (q.astype(np.float64) - zero_point) * scale


@mistake("quantize_in_range", "widened")
def range_as_it_is(x, low, high, num_bits=8):
    scale = (high - low) / (2**num_bits - 1)
    zero_point = int(np.round(-low / scale))
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


@mistake("quantize_in_range", "zero point in the middle of the codes")
def symmetric_about_the_middle(x, low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / (2**num_bits - 1)
    zero_point = 2 ** (num_bits - 1)
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


@mistake("quantize_in_range", "range of the (clipped )?values")
def clips_and_takes_the_range_of_the_values(x, low, high, num_bits=8):
    x = np.clip(x, low, high)
    return on_range(x, min(x.min(), 0), max(x.max(), 0), num_bits)


@mistake("quantize_in_range")
def low_and_high_exchanged(x, low, high, num_bits=8):
    return on_range(x, min(-high, 0), max(-low, 0), num_bits)


@mistake("quantize_in_range", "2\\^b")
def one_level_too_many(x, low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / 2**num_bits
    zero_point = int(np.round(-low / scale))
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


# Written without a look at the tables of misconceptions.


@mistake("quantize_asymmetric")
def asymmetric_eps(x, num_bits=8):
    """max(high - low, 1e-8): a floor of the range for tiny values."""
    qmax = 2**num_bits - 1
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = max(high - low, 1e-8) / qmax
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_asymmetric")
def asymmetric_no_zero_case(x, num_bits=8):
    """Forgets the all-zero array: int(nan) is a ValueError in its own line."""
    qmax = 2**num_bits - 1
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / qmax
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_asymmetric")
def asymmetric_max_from_abs(x, num_bits=8):
    """Uses max|x| at both ends: the symmetric range on an unsigned grid."""
    qmax = 2**num_bits - 1
    peak = np.abs(x).max()
    scale = 2 * peak / qmax or 1.0
    zero_point = int(np.round(peak / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_asymmetric", "the range leaves 0 out, and the zero point is not a code")
def asymmetric_not_widened_free(x, num_bits=8):
    """Does not widen the range to 0: the zero point may lie beyond the codes."""
    qmax = 2**num_bits - 1
    low, high = x.min(), x.max()
    scale = (high - low) / qmax if high > low else 1.0
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_asymmetric", "0 is included from below only")
def asymmetric_only_min_widened(x, num_bits=8):
    """Widens only the low end: all-negative data still has a range without 0."""
    qmax = 2**num_bits - 1
    low, high = min(x.min(), 0), x.max()
    scale = (high - low) / qmax or 1.0
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("dequantize_asymmetric")
def dequantize_precedence(q, scale, zero_point):
    """Precedence: q - zero_point * scale, without parentheses."""
    return (q.astype(np.float32) - np.float32(zero_point) * np.float32(scale)).astype(np.float32)


@mistake("dequantize_asymmetric")
def dequantize_int16_difference(q, scale, zero_point):
    """Subtracts in int16: right up to 15 bits, but 16-bit codes wrap."""
    return (q.astype(np.int16) - np.int64(zero_point).astype(np.int16)).astype(np.float32) * np.float32(scale)


@mistake("dequantize_asymmetric", "the difference wraps around in an unsigned dtype")
def dequantize_unsigned_wrap(q, scale, zero_point):
    """Subtracts in the unsigned dtype of the codes: below the zero point it wraps."""
    return ((q - q.dtype.type(zero_point)) * scale).astype(np.float32)


@mistake("dequantize_asymmetric", "the zero point is added")
def dequantize_adds_zero_point(q, scale, zero_point):
    """Adds the zero point in place of subtracting it."""
    return (q.astype(np.float32) + np.float32(zero_point)) * np.float32(scale)


@mistake("dequantize_asymmetric", "q \\* scale - zero_point")
def dequantize_scaled_then_minus(q, scale, zero_point):
    """Multiplies the codes and then subtracts the zero point in codes."""
    return q.astype(np.float32) * np.float32(scale) - np.float32(zero_point)


@mistake("quantize_in_range")
def in_range_clamp_before_zero_point(x, low, high, num_bits=8):
    """Clamps the steps before the zero point is added."""
    qmax = 2**num_bits - 1
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / qmax
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale), 0, qmax) + zero_point
    return q.astype(np.int64).astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_in_range")
def in_range_zero_point_from_x(x, low, high, num_bits=8):
    """The scale from the range, the zero point from the minimum of x."""
    qmax = 2**num_bits - 1
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / qmax
    zero_point = int(np.clip(np.round(-x.min() / scale), 0, qmax))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_in_range", "the range of the clipped values")
def in_range_from_clipped_x(x, low, high, num_bits=8):
    """Clips x to the range and then takes the range from the clipped x."""
    qmax = 2**num_bits - 1
    x = np.clip(x, low, high)
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / qmax or 1.0
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_in_range", "the range is not widened to include 0")
def in_range_not_widened(x, low, high, num_bits=8):
    """Does not widen the given range to include 0."""
    qmax = 2**num_bits - 1
    scale = (high - low) / qmax if high > low else 1.0
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_in_range", "clips to the range before it was widened")
def in_range_clips_x_before_widening(x, low, high, num_bits=8):
    """Clips x to [low, high] before the range is widened: values between 0 and low are lost."""
    qmax = 2**num_bits - 1
    x = np.clip(x, low, high)
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / qmax
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, qmax)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("asymmetric_gain", "10 log10")
def gain_of_scales_as_if_they_were_powers(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = max(-low, high) / (2 ** (num_bits - 1) - 1)
    return 10 * np.log10(symmetric / ((high - low) / (2**num_bits - 1)))


@mistake("asymmetric_gain", "widened")
def gain_without_zero(low, high, num_bits=8):
    symmetric = max(abs(low), abs(high)) / (2 ** (num_bits - 1) - 1)
    asymmetric = (high - low) / (2**num_bits - 1) or 1.0
    return 20 * np.log10(symmetric / asymmetric)


@mistake("asymmetric_gain", "unused code")
def gain_of_the_imbalance_only(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    return 20 * np.log10(1 + abs(high + low) / (high - low))


@mistake("asymmetric_gain", "largest value only")
def gain_over_the_largest_value(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = high / (2 ** (num_bits - 1) - 1)
    asymmetric = (high - low) / (2**num_bits - 1)
    return 20 * np.log10(symmetric / asymmetric)


@mistake("asymmetric_gain", "upside down")
def gain_with_the_ratio_turned(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = max(-low, high) / (2 ** (num_bits - 1) - 1)
    asymmetric = (high - low) / (2**num_bits - 1)
    return 20 * np.log10(asymmetric / symmetric)


@mistake("asymmetric_gain", "natural logarithm")
def gain_with_np_log(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = max(-low, high) / (2 ** (num_bits - 1) - 1)
    return 20 * np.log(symmetric * (2**num_bits - 1) / (high - low))


@mistake("quantize_asymmetric", "uint8 at every bit width")
def zero_point_that_uint8_cannot_hold(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    zero_point = np.round(-low / scale).astype(np.int64).astype(np.uint8)
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


@mistake("quantize_asymmetric", "int16")
def zero_point_that_int16_cannot_hold(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    zero_point = np.round(-low / scale).astype(np.int64).astype(np.int16)
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


@mistake("quantize_asymmetric", "not added")
def zero_point_only_returned(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    return codes(np.round(x / scale), num_bits), scale, int(np.round(-low / scale))


@mistake("quantize_asymmetric", "ends at 2\\^b")
def clamp_to_256(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    zero_point = int(np.round(-low / scale))
    q = np.clip(np.round(x / scale) + zero_point, 0, 2**num_bits).astype(np.int64)
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scale, zero_point


@mistake("quantize_asymmetric")
def scale_of_1e_12_at_least(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = max((high - low) / (2**num_bits - 1), 1e-12)
    zero_point = int(np.round(-low / scale))
    return codes(np.round(x / scale) + zero_point, num_bits), scale, zero_point


def steps_of_both(low, high, num_bits):
    low, high = min(low, 0), max(high, 0)
    return max(-low, high) / (2 ** (num_bits - 1) - 1), (high - low) / (2**num_bits - 1)


@mistake("asymmetric_gain")
def gain_in_an_array_of_one(low, high, num_bits=8):
    symmetric, asymmetric = steps_of_both(low, high, num_bits)
    return np.array([20 * np.log10(symmetric / asymmetric)])


@mistake("asymmetric_gain")
def gain_that_is_printed(low, high, num_bits=8):
    symmetric, asymmetric = steps_of_both(low, high, num_bits)
    print(20 * np.log10(symmetric / asymmetric))


@mistake("asymmetric_gain", "capped")
def gain_of_one_bit_at_most(low, high, num_bits=8):
    symmetric, asymmetric = steps_of_both(low, high, num_bits)
    return min(6.02, 20 * np.log10(symmetric / asymmetric))


@mistake("asymmetric_gain", "same gain for every range")
def gain_of_a_range_from_0(low, high, num_bits=8):
    low, high = 0, max(abs(low), abs(high))
    return 20 * np.log10(high / (2 ** (num_bits - 1) - 1) / ((high - low) / (2**num_bits - 1)))


@mistake("asymmetric_gain", "20 log2")
def gain_with_log2(low, high, num_bits=8):
    symmetric, asymmetric = steps_of_both(low, high, num_bits)
    return 20 * np.log2(symmetric / asymmetric)


@mistake("asymmetric_gain", "ratio of noises")
def gain_of_squared_steps_with_20(low, high, num_bits=8):
    symmetric, asymmetric = steps_of_both(low, high, num_bits)
    return 20 * np.log10(symmetric**2 / asymmetric**2)


@mistake("asymmetric_gain", "2\\^b - 2")
def gain_without_brackets(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = max(-low, high) / (2**num_bits - 1 - 1)
    return 20 * np.log10(symmetric / ((high - low) / (2**num_bits - 1)))


@mistake("asymmetric_gain", "2\\^\\(b-2\\)")
def gain_with_a_quarter_of_the_codes(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = max(-low, high) / 2 ** (num_bits - 2)
    return 20 * np.log10(symmetric / ((high - low) / (2**num_bits - 1)))


@mistake("asymmetric_gain", "half the range")
def gain_over_half_the_range(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = (high - low) / 2 / (2 ** (num_bits - 1) - 1)
    return 20 * np.log10(symmetric / ((high - low) / (2**num_bits - 1)))


@mistake("asymmetric_gain", "smaller of the two")
def gain_over_the_smaller_magnitude(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = min(abs(low), abs(high)) / (2 ** (num_bits - 1) - 1)
    with np.errstate(all="ignore"):
        return 20 * np.log10(symmetric / ((high - low) / (2**num_bits - 1)))


@mistake("asymmetric_gain", "largest value only")  # the same: 1 + r is 2 max / (max - min) then
def gain_without_an_absolute_value(low, high, num_bits=8):
    """r without |...|: a range that is mostly negative gains less than nothing."""
    low, high = min(low, 0), max(high, 0)
    r = (high + low) / (high - low)
    return 20 * np.log10((1 + r) * (2**num_bits - 1) / (2**num_bits - 2))
