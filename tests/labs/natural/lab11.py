"""Lab 11: small floats, rounding to a grid, block formats, tables of values."""

from statistics import NormalDist

import numpy as np

from tests.labs.natural import mistake

FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
INVERSE = NormalDist().inv_cdf


@mistake("float_grid", "subnormal")
def every_code_by_the_first_formula(exponent_bits, mantissa_bits, specials="none"):
    bias = 2 ** (exponent_bits - 1) - 1
    values = [
        (1 + m / 2**mantissa_bits) * 2.0 ** (e - bias) for e in range(2**exponent_bits) for m in range(2**mantissa_bits)
    ]
    last = {"none": 0, "nan": 1, "ieee": 2**mantissa_bits}[specials]
    return np.array(values[: len(values) - last])


@mistake("float_grid")
def integers_to_negative_powers(exponent_bits, mantissa_bits, specials="none"):
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    e, m = codes >> mantissa_bits, codes % 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    return np.where(e > 0, (1 + m / 2**mantissa_bits) * 2 ** (e - bias), m / 2**mantissa_bits * 2 ** (1 - bias))


@mistake("float_grid", "subnormal")
def subnormal_numbers_without_the_one_in_the_exponent(exponent_bits, mantissa_bits, specials="none"):
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    e, m = codes >> mantissa_bits, codes % 2**mantissa_bits / 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    values = np.where(e == 0, m * 2.0**-bias, (1 + m) * 2.0 ** (e - bias))
    return values[: len(values) - {"none": 0, "nan": 1, "ieee": 2**mantissa_bits}[specials]]


@mistake("float_grid", "specials|last code")
def nan_forgotten(exponent_bits, mantissa_bits, specials="none"):
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    e, m = codes >> mantissa_bits, codes % 2**mantissa_bits / 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    return np.where(e == 0, m * 2.0 ** (1 - bias), (1 + m) * 2.0 ** (e - bias))


@mistake("float_grid", "largest exponent|infinity")
def every_format_is_ieee(exponent_bits, mantissa_bits, specials="none"):
    bias = 2 ** (exponent_bits - 1) - 1
    values = [m / 2**mantissa_bits * 2.0 ** (1 - bias) for m in range(2**mantissa_bits)]
    top = 2**exponent_bits - (specials != "none")
    for e in range(1, top):
        values += [(1 + m / 2**mantissa_bits) * 2.0 ** (e - bias) for m in range(2**mantissa_bits)]
    return np.array(values)


@mistake("float_grid", "sign|negative")
def both_signs_sorted(exponent_bits, mantissa_bits, specials="none"):
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    e, m = codes >> mantissa_bits, codes % 2**mantissa_bits / 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    values = np.where(e == 0, m * 2.0 ** (1 - bias), (1 + m) * 2.0 ** (e - bias))
    values = values[: len(values) - {"none": 0, "nan": 1, "ieee": 2**mantissa_bits}[specials]]
    return np.unique(np.concatenate([-values, values]))


@mistake("float_grid", "bias")
def bias_of_half_the_codes(exponent_bits, mantissa_bits, specials="none"):
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    e, m = codes >> mantissa_bits, codes % 2**mantissa_bits / 2**mantissa_bits
    bias = 2**exponent_bits // 2
    values = np.where(e == 0, m * 2.0 ** (1 - bias), (1 + m) * 2.0 ** (e - bias))
    return values[: len(values) - {"none": 0, "nan": 1, "ieee": 2**mantissa_bits}[specials]]


@mistake("round_to_grid", "tie")
def nearest_by_argmin(x, levels):
    code = np.abs(np.abs(x)[..., None] - levels).argmin(axis=-1)
    return np.sign(x) * levels[code]


@mistake("round_to_grid", "tie")
def digitize_with_borders(x, levels):
    code = np.digitize(np.abs(x), (levels[1:] + levels[:-1]) / 2)
    return np.sign(x) * levels[code]


@mistake("round_to_grid", "down|up")
def searchsorted_on_the_levels(x, levels):
    code = np.searchsorted(levels, np.abs(x))
    return np.sign(x) * levels[np.minimum(code, len(levels) - 1)]


@mistake("round_to_grid")
def searchsorted_without_a_clip(x, levels):
    code = np.searchsorted(levels, np.abs(x), side="right") - 1
    nearer_up = np.abs(x) - levels[code] > levels[code + 1] - np.abs(x)
    return np.sign(x) * levels[code + nearer_up]


@mistake("round_to_grid", "negative|sign")
def signed_values_among_unsigned_levels(x, levels):
    return levels[np.abs(x[..., None] - levels).argmin(axis=-1)]


@mistake("round_to_grid", "sign is lost|sign")
def magnitudes_only(x, levels):
    middles = (levels[1:] + levels[:-1]) / 2
    code = np.searchsorted(middles, np.abs(x))
    code = code + (np.isin(np.abs(x), middles) & (code % 2 == 1))
    return levels[code]


@mistake("round_to_grid", "whole|even")
def np_round(x, levels):
    return np.clip(np.round(x), -levels[-1], levels[-1])


@mistake("round_to_grid", "code")
def code_instead_of_level(x, levels):
    middles = (levels[1:] + levels[:-1]) / 2
    code = np.searchsorted(middles, np.abs(x))
    code = code + (np.isin(np.abs(x), middles) & (code % 2 == 1))
    return np.sign(x) * code


@mistake("round_to_grid", "tie")
def ties_by_the_even_value(x, levels):
    middles = (levels[1:] + levels[:-1]) / 2
    code = np.searchsorted(middles, np.abs(x))
    tie = np.isin(np.abs(x), middles)
    code = np.where(tie & (levels[code] % 2 != 0), code + 1, code)
    return np.sign(x) * levels[code]


@mistake("mxfp4_scales", "power of two")
def as_in_lab_04(x, block_size=32):
    peaks = np.abs(x.reshape(*x.shape[:-1], -1, block_size)).max(axis=-1)
    return np.where(peaks == 0, 1, peaks / 6)


@mistake("mxfp4_scales", "rounded to the nearest|nearest")
def nearest_power(x, block_size=32):
    peaks = np.abs(x.reshape(*x.shape[:-1], -1, block_size)).max(axis=-1)
    safe = np.where(peaks == 0, 1, peaks).astype(np.float64)
    return np.where(peaks == 0, 1, np.maximum(2.0 ** (np.round(np.log2(safe)) - 2), 2.0**-127))


@mistake("mxfp4_scales", "rounded up")
def ceil_of_max_over_6(x, block_size=32):
    peaks = np.abs(x.reshape(*x.shape[:-1], -1, block_size)).max(axis=-1)
    safe = np.where(peaks == 0, 1, peaks).astype(np.float64)
    return np.where(peaks == 0, 1, np.maximum(2.0 ** np.ceil(np.log2(safe / 6)), 2.0**-127))


@mistake("mxfp4_scales", "3 is subtracted|subtract|exponent")
def frexp_is_one_higher(x, block_size=32):
    peaks = np.abs(x.reshape(*x.shape[:-1], -1, block_size)).max(axis=-1)
    _, exponent = np.frexp(peaks)
    return np.where(peaks == 0, 1, np.maximum(2.0 ** (exponent - 2), 2.0**-127))


@mistake("mxfp4_scales", "zeros|0")
def logarithm_of_zero(x, block_size=32):
    peaks = np.abs(x.reshape(*x.shape[:-1], -1, block_size)).max(axis=-1)
    with np.errstate(divide="ignore"):
        return 2.0 ** (np.floor(np.log2(peaks.astype(np.float64))) - 2)


@mistake("mxfp4_scales", "towards zero|cut")
def int_of_the_logarithm(x, block_size=32):
    peaks = np.abs(x.reshape(*x.shape[:-1], -1, block_size)).max(axis=-1)
    safe = np.where(peaks == 0, 4, peaks).astype(np.float64)
    return np.maximum(2.0 ** (np.log2(safe).astype(int) - 2), 2.0**-127)


@mistake("mxfp4_scales", "E8M0|smaller")
def no_smallest(x, block_size=32):
    peaks = np.abs(x.reshape(*x.shape[:-1], -1, block_size)).max(axis=-1)
    safe = np.where(peaks == 0, 4, peaks).astype(np.float64)
    return 2.0 ** (np.floor(np.log2(safe)) - 2)


def fp4(x):
    middles = (FP4[1:] + FP4[:-1]) / 2
    return np.sign(x) * FP4[np.searchsorted(middles, np.abs(x))]


def e4m3(x):
    exponent = np.maximum(np.frexp(np.asarray(x, np.float64))[1] - 1, -6)
    step = 2.0 ** (exponent - 3)
    return np.minimum(np.round(x / step) * step, 448.0)


@mistake("nvfp4_quantize", "one level")
def without_the_tensor(x):
    blocks = x.reshape(*x.shape[:-1], -1, 16).astype(np.float64)
    scales = np.maximum(e4m3(np.abs(blocks).max(axis=-1) / 6), 2.0**-9)
    return fp4(blocks / scales[..., None]).reshape(x.shape), scales, 1.0


@mistake("nvfp4_quantize", "float32")
def scales_not_rounded(x):
    blocks = x.reshape(*x.shape[:-1], -1, 16).astype(np.float64)
    tensor_scale = np.abs(x).max() / 2688 or 1.0
    scales = np.abs(blocks).max(axis=-1) / 6 / tensor_scale
    scales = np.where(scales == 0, 1, scales)
    return fp4(blocks / (scales[..., None] * tensor_scale)).reshape(x.shape), scales, tensor_scale


@mistake("nvfp4_quantize", "scale of 0|0")
def zero_scale(x):
    blocks = x.reshape(*x.shape[:-1], -1, 16).astype(np.float64)
    tensor_scale = np.abs(x).max() / 2688 or 1.0
    scales = e4m3(np.abs(blocks).max(axis=-1) / 6 / tensor_scale)
    with np.errstate(all="ignore"):
        steps = np.nan_to_num(blocks / (scales[..., None] * tensor_scale))
    return fp4(np.clip(steps, -6, 6)).reshape(x.shape), scales, tensor_scale


@mistake("nvfp4_quantize", "contain|unit|tensor")
def scales_multiplied(x):
    blocks = x.reshape(*x.shape[:-1], -1, 16).astype(np.float64)
    tensor_scale = np.abs(x).max() / 2688 or 1.0
    scales = np.maximum(e4m3(np.abs(blocks).max(axis=-1) / 6 / tensor_scale), 2.0**-9) * tensor_scale
    return fp4(blocks / scales[..., None]).reshape(x.shape), scales, tensor_scale


@mistake("nvfp4_quantize", "before rounding|divided")
def codes_by_the_exact_scale(x):
    blocks = x.reshape(*x.shape[:-1], -1, 16).astype(np.float64)
    tensor_scale = np.abs(x).max() / 2688 or 1.0
    exact = np.abs(blocks).max(axis=-1) / 6 / tensor_scale
    scales = np.maximum(e4m3(exact), 2.0**-9)
    exact = np.where(exact == 0, 1, exact)
    return fp4(blocks / (exact[..., None] * tensor_scale)).reshape(x.shape), scales, tensor_scale


@mistake("nvfp4_quantize", "axis")
def keepdims_left(x):
    blocks = x.reshape(*x.shape[:-1], -1, 16).astype(np.float64)
    tensor_scale = np.abs(x).max() / 2688 or 1.0
    scales = np.maximum(e4m3(np.abs(blocks).max(axis=-1, keepdims=True) / 6 / tensor_scale), 2.0**-9)
    return fp4(blocks / (scales * tensor_scale)).reshape(x.shape), scales, tensor_scale


@mistake("nvfp4_quantize")
def left_in_blocks(x):
    blocks = x.reshape(*x.shape[:-1], -1, 16).astype(np.float64)
    tensor_scale = np.abs(x).max() / 2688 or 1.0
    scales = np.maximum(e4m3(np.abs(blocks).max(axis=-1) / 6 / tensor_scale), 2.0**-9)
    return fp4(blocks / (scales[..., None] * tensor_scale)), scales, tensor_scale


@mistake("nvfp4_quantize", "448")
def divided_by_6_only(x):
    blocks = x.reshape(*x.shape[:-1], -1, 16).astype(np.float64)
    tensor_scale = np.abs(x).max() / 6 or 1.0
    scales = np.maximum(e4m3(np.abs(blocks).max(axis=-1) / 6 / tensor_scale), 2.0**-9)
    return fp4(blocks / (scales[..., None] * tensor_scale)).reshape(x.shape), scales, tensor_scale


@mistake("normal_float", "exact 0|0")
def sixteen_quantiles(num_bits=4):
    d = (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    values = np.array([INVERSE(p) for p in np.linspace(d, 1 - d, 2**num_bits)])
    return values / values.max()


@mistake("normal_float", "twice|many|longer")
def zero_on_both_sides(num_bits=4):
    half, d = 2 ** (num_bits - 1), (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    below = [INVERSE(p) for p in np.linspace(d, 0.5, half)]
    above = [INVERSE(p) for p in np.linspace(0.5, 1 - d, half)]
    return np.array(below + above) / above[-1]


@mistake("normal_float", "longer|negative")
def sides_exchanged(num_bits=4):
    half, d = 2 ** (num_bits - 1), (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    below = [INVERSE(p) for p in np.linspace(d, 0.5, half + 1)[:-1]]
    above = [INVERSE(p) for p in np.linspace(0.5, 1 - d, half)[1:]]
    return np.array([*below, 0.0, *above]) / above[-1]


@mistake("normal_float", "not divided|largest")
def in_standard_deviations(num_bits=4):
    half, d = 2 ** (num_bits - 1), (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    below = [INVERSE(p) for p in np.linspace(d, 0.5, half)[:-1]]
    above = [INVERSE(p) for p in np.linspace(0.5, 1 - d, half + 1)[1:]]
    return np.array([*below, 0.0, *above])


@mistake("normal_float", "^d is")
def d_without_the_quarter(num_bits=4):
    half, d = 2 ** (num_bits - 1), (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 2
    below = [INVERSE(p) for p in np.linspace(d, 0.5, half)[:-1]]
    above = [INVERSE(p) for p in np.linspace(0.5, 1 - d, half + 1)[1:]]
    return np.array([*below, 0.0, *above]) / above[-1]


@mistake("normal_float")
def a_whole_array_at_once(num_bits=4):
    half, d = 2 ** (num_bits - 1), (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    return INVERSE(np.linspace(d, 0.5, half))


@mistake("kmeans_codebook", "one round")
def a_single_round(x, num_bits=4):
    flat = x.reshape(-1)
    values = np.linspace(flat.min(), flat.max(), 2**num_bits)
    place = np.abs(flat[:, None] - values).argmin(axis=1)
    return np.array([flat[place == k].mean() if (place == k).any() else v for k, v in enumerate(values)])


@mistake("kmeans_codebook", "nothing moves")
def quantiles(x, num_bits=4):
    return np.quantile(x, (np.arange(2**num_bits) + 0.5) / 2**num_bits)


@mistake("kmeans_codebook", "NaN|empty")
def mean_of_nothing(x, num_bits=4):
    flat = x.reshape(-1).astype(np.float64)
    values = np.linspace(2 * flat.min() - flat.max(), flat.max(), 2**num_bits)
    for _ in range(30):
        place = np.searchsorted((values[1:] + values[:-1]) / 2, flat)
        with np.errstate(all="ignore"):
            values = np.bincount(place, flat, len(values)) / np.bincount(place, minlength=len(values))
    return values


@mistake("kmeans_codebook", "median")
def with_medians(x, num_bits=4):
    flat = x.reshape(-1)
    values = np.quantile(flat, (np.arange(2**num_bits) + 0.5) / 2**num_bits)
    for _ in range(60):
        place = np.abs(flat[:, None] - values).argmin(axis=1)
        values = np.array([np.median(flat[place == k]) if (place == k).any() else v for k, v in enumerate(values)])
    return values


@mistake("kmeans_codebook", "unit")
def relative_to_the_largest(x, num_bits=4):
    flat = (x / np.abs(x).max()).reshape(-1).astype(np.float64)
    values = np.linspace(flat.min(), flat.max(), 2**num_bits)
    for _ in range(80):
        place = np.searchsorted((values[1:] + values[:-1]) / 2, flat)
        count = np.bincount(place, minlength=len(values))
        values = np.where(count, np.bincount(place, flat, len(values)) / np.maximum(count, 1), values)
    return values
