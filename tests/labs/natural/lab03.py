"""Lab 03: scales for channels and tokens."""

import numpy as np

from labutils.labs.answers import compare_quantization_methods as reference_comparison
from tests.labs.natural import mistake

DTYPES = {True: np.int8, False: np.int16}


def per_channel(x, axis, num_bits, span=lambda x, axes: np.abs(x).max(axis=axes, keepdims=True)):
    q_max = 2 ** (num_bits - 1) - 1
    axes = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    scales = span(x, axes) / q_max
    scales = np.where(scales == 0, 1, scales).astype(x.dtype)
    q = np.clip(np.round(x / scales), -q_max - 1, q_max).astype(DTYPES[num_bits <= 8])
    return q, scales


@mistake("quantize_per_channel", "axis itself|wrong axis|along the axis|other axis|a scale for each|reduced")
def reduces_the_axis_itself(x, axis, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    scales = np.abs(x).max(axis=axis) / q_max
    q = np.clip(np.round(x / np.expand_dims(scales, axis)), -q_max - 1, q_max)
    return q.astype(DTYPES[num_bits <= 8]), scales.reshape(-1)


@mistake("quantize_per_channel", "keepdims|axes of length 1|length 1|keep")
def scales_keep_their_axes(x, axis, num_bits=8):
    return per_channel(x, axis, num_bits)


@mistake("quantize_per_channel", "scales spread along the wrong axis")
def scales_of_shape_c_divide(x, axis, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    axes = tuple(i for i in range(x.ndim) if i != axis)
    scales = np.abs(x).max(axis=axes) / q_max
    return np.round(x / scales).astype(np.int8), scales


@mistake("quantize_per_channel", "axis 0")
def axis_is_always_0(x, axis, num_bits=8):
    q, scales = per_channel(x, 0, num_bits)
    return q, scales.reshape(-1)


@mistake("quantize_per_channel", "floor|epsilon")
def smallest_scales_of_1e_5(x, axis, num_bits=8):
    q, scales = per_channel(
        x, axis, num_bits, lambda x, axes: np.maximum(np.abs(x).max(axis=axes, keepdims=True), 1e-5)
    )
    return q, scales.reshape(-1)


@mistake("quantize_per_channel")
def root_mean_square_of_the_channel(x, axis, num_bits=8):
    q, scales = per_channel(x, axis, num_bits, lambda x, axes: np.sqrt((x**2).mean(axis=axes, keepdims=True)))
    return q, scales.reshape(-1)


@mistake("quantize_per_channel", "max\\(x\\)")
def maximum_without_magnitude(x, axis, num_bits=8):
    q, scales = per_channel(x, axis, num_bits, lambda x, axes: x.max(axis=axes, keepdims=True))
    return q, scales.reshape(-1)


@mistake("dequantize_per_channel")
def axis_lost_in_the_reshape(q, scales, axis):
    shape = list(q.shape)
    shape[axis] = -1
    return q.astype(np.float32) * scales.reshape(shape)


@mistake("dequantize_per_channel", "last axis|broadcast|line up")
def scales_along_the_last_axis(q, scales, axis):
    return q.astype(np.float32) * scales


@mistake("dequantize_per_channel", "first axis|axis 0|line up")
def scales_along_the_first_axis(q, scales, axis):
    return q.astype(np.float32) * scales.reshape(-1, *[1] * (q.ndim - 1))


@mistake("dequantize_per_channel", "the loop ends one channel early")
def loop_that_forgets_the_last_channel(q, scales, axis):
    x = np.moveaxis(q, axis, 0).astype(np.float32)
    for i in range(len(scales) - 1):
        x[i] = x[i] * scales[i]
    return np.moveaxis(x, 0, axis)


@mistake("dequantize_per_channel")
def axes_not_moved_back(q, scales, axis):
    x = np.moveaxis(q, axis, -1)
    return x.astype(np.float32) * scales


@mistake("compare_quantization_methods")
def decibels_for_dicts(x, num_bits=8):
    return {name: error["sqnr_db"] for name, error in reference_comparison(x, num_bits).items()}


@mistake("compare_quantization_methods", "num_bits|bits|8")
def bits_left_out(x, num_bits=8):
    return reference_comparison(x)


@mistake("compare_quantization_methods", "channels along the last axis")
def measures_the_transposed(x, num_bits=8):
    return reference_comparison(x.T, num_bits)


@mistake("compare_quantization_methods", "symmetric twice|exchanged")
def copies_a_line(x, num_bits=8):
    errors = reference_comparison(x, num_bits)
    return errors | {"asymmetric_per_channel": errors["symmetric_per_channel"]}


@mistake("quantize_per_token", "channel|axis|feature|column")
def along_the_tokens(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    scales = np.abs(x).max(axis=0, keepdims=True) / q_max
    return np.round(x / scales).astype(np.int8), scales


@mistake("quantize_per_token", "keepdims|last axis|shape|length 1")
def scales_without_their_axis(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    scales = np.abs(x).max(axis=-1) / q_max
    return np.round(x / scales[..., None]).astype(np.int8), scales


@mistake("quantize_per_token", "a scale for each sequence")
def one_scale_a_sequence(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    scales = np.abs(x).max(axis=(-1, -2), keepdims=True) / q_max
    return np.round(x / scales).astype(np.int8), scales


@mistake("quantize_per_token")
def a_scale_for_every_value(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    scales = np.abs(x) / q_max
    return np.round(x / np.where(scales == 0, 1, scales)).astype(np.int8), scales
