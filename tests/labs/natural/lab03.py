"""Lab 03: scales for channels and tokens."""

import numpy as np

from labutils import PerAxis, PerTensor, Scheme, dequantize, quantization_error, quantize
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


# Written without a look at the tables of misconceptions.


def _codes(x, scale, num_bits):
    """The clamp and the cast, which the versions below have right."""
    qmax = 2 ** (num_bits - 1) - 1
    return np.clip(np.round(x / scale), -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16)


@mistake("quantize_per_channel")
def channel_any_zero(x, axis, num_bits=8):
    """if (peak == 0).any(): all scales become 1 as soon as one channel is zero."""
    axes = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    scale = np.abs(x).max(axis=axes, keepdims=True) / (2 ** (num_bits - 1) - 1)
    if (scale == 0).any():
        scale = np.ones_like(scale)
    return _codes(x, scale, num_bits), scale.reshape(-1)


@mistake("quantize_per_channel")
def channel_floor(x, axis, num_bits=8):
    """np.maximum(peak, 1e-5): quiet channels lose their codes."""
    axes = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    scale = np.maximum(np.abs(x).max(axis=axes, keepdims=True), 1e-5) / (2 ** (num_bits - 1) - 1)
    return _codes(x, scale, num_bits), scale.reshape(-1)


@mistake("quantize_per_channel")
def channel_int_scales(x, axis, num_bits=8):
    """np.zeros_like(..., dtype=int) for the scales: they are cut to whole numbers in the result."""
    moved = np.moveaxis(x, axis, 0)
    scales = np.zeros(len(moved), dtype=int)
    q = np.zeros(moved.shape, np.int8 if num_bits <= 8 else np.int16)
    for i, c in enumerate(moved):
        scale = np.abs(c).max() / (2 ** (num_bits - 1) - 1) or 1.0
        q[i] = _codes(c, scale, num_bits)
        scales[i] = scale
    return np.moveaxis(q, 0, axis), scales


@mistake("quantize_per_channel", "the axis is reduced, and should be kept")
def channel_reduces_axis(x, axis, num_bits=8):
    """Takes the maximum over axis itself, NumPy's meaning of the word, with keepdims."""
    peak = np.abs(x).max(axis=axis, keepdims=True)
    scale = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
    return _codes(x, scale, num_bits), scale.reshape(-1)


@mistake("quantize_per_channel", "scales spread along the wrong axis")
def channel_no_keepdims(x, axis, num_bits=8):
    """Reduces the right axes, but without keepdims: the scales line up with the last axis, or with none."""
    axes = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    peak = np.abs(x).max(axis=axes)
    scale = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
    return _codes(x, scale, num_bits), scale


@mistake("dequantize_per_channel")
def dechannel_not_moved_back(q, scales, axis):
    """Moves the channels to the end and does not move them back."""
    return np.moveaxis(q, axis, -1).astype(np.float32) * scales


@mistake("dequantize_per_channel")
def dechannel_repeat_flat(q, scales, axis):
    """np.repeat over the flat codes: right along axis 0 only."""
    return (q.ravel() * np.repeat(scales, q.size // len(scales))).reshape(q.shape).astype(np.float32)


@mistake("dequantize_per_channel", "scales spread along the last axis")
def dechannel_plain_product(q, scales, axis):
    """q * scales: the scales line up with the last axis, or with none."""
    return q.astype(np.float32) * scales


@mistake("dequantize_per_channel", "one new axis, however many there are")
def dechannel_column_always(q, scales, axis):
    """scales[:, None]: right for the first axis of a matrix only."""
    return q.astype(np.float32) * scales[:, None]


@mistake("dequantize_per_channel", "the axis is counted from the wrong end")
def dechannel_insert_axis(q, scales, axis):
    """np.expand_dims(scales, axis): the ones come on the wrong side."""
    return (q * np.expand_dims(scales, axis)).astype(np.float32)


def _four(x, num_bits, error=None, axis=0, symmetric=lambda s: s, label=lambda s, g: f"{s}_{g}"):
    results = {}
    for name, flag in (("symmetric", True), ("asymmetric", False)):
        for where, granularity in (("per_tensor", PerTensor()), ("per_channel", PerAxis(axis))):
            quantized = quantize(x, Scheme(num_bits, symmetric=symmetric(flag), granularity=granularity))
            back = dequantize(quantized)
            measure = error or (lambda x, quantized, back: quantization_error(x, quantized.codes, back))
            results[label(name, where)] = measure(x, quantized, back)
    return results


@mistake("compare_quantization_methods")
def compare_whole_quantized(x, num_bits=8):
    """Passes the QuantizedArray itself where the codes are due."""
    return _four(x, num_bits, lambda x, q, back: quantization_error(x, q, back))


@mistake("compare_quantization_methods", "channels along the last axis")
def compare_last_axis(x, num_bits=8):
    """Channels along the last axis, PerAxis(-1), in place of axis 0."""
    return _four(x, num_bits, axis=-1)


@mistake("compare_quantization_methods", "symmetric and asymmetric exchanged")
def compare_flags_swapped(x, num_bits=8):
    """Symmetric and asymmetric are exchanged."""
    return _four(x, num_bits, symmetric=lambda flag: not flag)


@mistake("compare_quantization_methods", "original and reconstruction exchanged")
def compare_arguments_swapped(x, num_bits=8):
    """Calls quantization_error with original and dequantized exchanged."""
    return _four(x, num_bits, lambda x, q, back: quantization_error(back, q.codes, x))


@mistake("compare_quantization_methods", "the bits are not passed on")
def compare_num_bits_forgotten(x, num_bits=8):
    """Does not hand num_bits on to Scheme: always 8 bits."""
    return _four(x, 8)


@mistake("quantize_per_token")
def token_eps_added(x, num_bits=8):
    """scale + 1e-6 against division by zero: quiet tokens change."""
    scale = np.abs(x).max(axis=-1, keepdims=True) / (2 ** (num_bits - 1) - 1) + 1e-6
    return _codes(x, scale, num_bits), scale


@mistake("quantize_per_token")
def token_one_scale(x, num_bits=8):
    """One scale for the whole tensor, spread over the tokens."""
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1) or 1.0
    return _codes(x, scale, num_bits), np.full((*x.shape[:-1], 1), scale)


@mistake("quantize_per_token")
def token_axis_0(x, num_bits=8):
    """Takes the maximum along axis 0: a scale for each feature and place, not for each token."""
    peak = np.abs(x).max(axis=0, keepdims=True)
    scale = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
    return _codes(x, scale, num_bits), scale


@mistake("quantize_per_token")
def token_shared_by_batch(x, num_bits=8):
    """Takes the maximum over all axes but the second to last: tokens of all batches share a scale."""
    axes = tuple(i for i in range(x.ndim) if i != x.ndim - 2)
    peak = np.abs(x).max(axis=axes, keepdims=True)
    scale = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
    return _codes(x, scale, num_bits), np.broadcast_to(scale, (*x.shape[:-1], 1))


@mistake("quantize_per_token", "the last axis is lost")
def token_no_keepdims(x, num_bits=8):
    """Returns the scales without the last axis of length 1."""
    peak = np.abs(x).max(axis=-1, keepdims=True)
    scale = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
    return _codes(x, scale, num_bits), scale[..., 0]


@mistake("sqnr_per_channel", "axis is reduced")
def sqnr_with_the_axis_handed_to_mean(original, dequantized, axis):
    noise = np.mean((original - dequantized) ** 2, axis=axis)
    return 10 * np.log10(np.mean(original**2, axis=axis) / noise)


@mistake("sqnr_per_channel", "0 / 0|floor")
def sqnr_with_an_epsilon(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    noise = np.mean((original - dequantized) ** 2, axis=others)
    return 10 * np.log10(np.mean(original**2, axis=others) / (noise + 1e-12))


@mistake("sqnr_per_channel", "20 log10")
def sqnr_with_20_log10(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    noise = np.mean((original - dequantized) ** 2, axis=others)
    return 20 * np.log10(np.mean(original**2, axis=others) / noise)


@mistake("sqnr_per_channel", "negative axis")
def sqnr_where_minus_one_is_no_axis(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis)
    noise = np.mean((original - dequantized) ** 2, axis=others)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 10 * np.log10(np.mean(original**2, axis=others) / noise)
    return np.where(noise == 0, np.inf, found)


@mistake("sqnr_per_channel", "signal of all channels")
def sqnr_with_the_power_of_the_tensor(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    noise = np.mean((original - dequantized) ** 2, axis=others)
    return 10 * np.log10(np.mean(original**2) / np.where(noise == 0, np.nan, noise))


@mistake("sqnr_per_channel", "variance")
def sqnr_with_np_var(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    noise = np.mean((original - dequantized) ** 2, axis=others)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 10 * np.log10(np.var(original, axis=others) / noise)
    return np.where(noise == 0, np.inf, found)


@mistake("sqnr_per_channel", "0 / 0")
def sqnr_without_a_thought_of_zeros(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10(np.mean(original**2, axis=others) / np.mean((original - dequantized) ** 2, axis=others))


def powers(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    x = original.astype(np.float64)
    return np.mean(x**2, axis=others), np.mean((x - dequantized) ** 2, axis=others)


def decibels(signal, noise, exact):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(exact, np.inf, 10 * np.log10(signal / noise))


@mistake("sqnr_per_channel", "tolerance")
def sqnr_with_noise_close_to_0(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    return decibels(signal, noise, np.isclose(noise, 0))


@mistake("sqnr_per_channel", "tolerance")
def sqnr_with_noise_below_1e_12(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    return decibels(signal, noise, noise < 1e-12)


@mistake("sqnr_per_channel", "tolerance")
def sqnr_with_noise_below_1e_6(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    return decibels(signal, noise, noise < 1e-6)


@mistake("sqnr_per_channel", "tolerance")
def sqnr_where_values_are_close(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    signal, noise = powers(original, dequantized, axis)
    return decibels(signal, noise, np.isclose(original, dequantized).all(axis=others))


@mistake("sqnr_per_channel", "epsilon")
def sqnr_with_1e_12_under_the_noise_that_is_not_0(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    return decibels(signal, noise + 1e-12, noise == 0)


@mistake("sqnr_per_channel")
def sqnr_with_1e_30_under_the_noise_that_is_not_0(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    return decibels(signal, noise + 1e-30, noise == 0)


@mistake("sqnr_per_channel", "sign of the decibels")
def sqnr_never_negative_by_abs(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    return np.abs(decibels(signal, noise, noise == 0))


@mistake("sqnr_per_channel", "cut at 0")
def sqnr_never_negative_by_maximum(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    return np.maximum(0, decibels(signal, noise, noise == 0))


@mistake("sqnr_per_channel", "only -1")
def sqnr_where_minus_one_is_the_only_negative_axis(original, dequantized, axis):
    if axis == -1:
        axis = original.ndim - 1
    others = tuple(i for i in range(original.ndim) if i != axis)
    noise = np.mean((original - dequantized) ** 2, axis=others)
    return decibels(np.mean(original**2, axis=others), noise, noise == 0)


@mistake("sqnr_per_channel", "one inf")
def sqnr_that_leaves_early(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    if not noise.any():
        return np.inf
    return decibels(signal, noise, noise == 0)


@mistake("sqnr_per_channel", "one exact channel")
def sqnr_that_leaves_at_any_exact_channel(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    if (noise == 0).any():
        return np.full(noise.shape, np.inf)
    return decibels(signal, noise, False)


@mistake("sqnr_per_channel", "squeeze")
def sqnr_squeezed(original, dequantized, axis):
    signal, noise = powers(original, dequantized, axis)
    return decibels(signal, noise, noise == 0).squeeze()


@mistake("sqnr_per_channel", "ratios of each value")
def sqnr_of_ratios_of_values(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    x = original.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10(np.mean(x**2 / (x - dequantized) ** 2, axis=others))


@mistake("sqnr_per_channel", "without moving the axis")
def sqnr_of_rows_of_a_reshape(original, dequantized, axis):
    x = original.reshape(original.shape[axis], -1).astype(np.float64)
    noise = np.mean((x - dequantized.reshape(x.shape)) ** 2, axis=1)
    return decibels(np.mean(x**2, axis=1), noise, noise == 0)


@mistake("sqnr_per_channel", "ratio of variances")
def sqnr_of_two_variances(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    x = original.astype(np.float64)
    noise = np.var(x - dequantized, axis=others)
    return decibels(np.var(x, axis=others), noise, noise == 0)


@mistake("sqnr_per_channel", "median")
def sqnr_of_medians(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    x = original.astype(np.float64)
    noise = np.median((x - dequantized) ** 2, axis=others)
    return decibels(np.median(x**2, axis=others), noise, noise == 0)
