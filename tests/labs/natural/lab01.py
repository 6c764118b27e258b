"""Lab 01: the symmetric quantizer, its inverse, its error, clipping, chance."""

import numpy as np

from tests.labs.natural import mistake

DTYPES = {True: np.int8, False: np.int16}


def codes(steps, num_bits):
    q_max = 2 ** (num_bits - 1) - 1
    return np.clip(np.round(steps), -q_max - 1, q_max).astype(DTYPES[num_bits <= 8])


# quantize_symmetric


@mistake("quantize_symmetric", "floor under the scale")
def smallest_scale_of_1e_5(x, num_bits=8):
    scale = max(np.abs(x).max() / (2 ** (num_bits - 1) - 1), 1e-5)
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric", "floor under the scale|epsilon")
def smallest_scale_of_eps(x, num_bits=8):
    scale = max(np.abs(x).max() / (2 ** (num_bits - 1) - 1), np.finfo(np.float32).eps)
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric", "floor under the scale|epsilon")
def smallest_magnitude_of_1e_5(x, num_bits=8):
    scale = max(np.abs(x).max(), 1e-5) / (2 ** (num_bits - 1) - 1)
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric", "epsilon")
def epsilon_added_to_the_scale(x, num_bits=8):
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1) + 1e-6
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric", "epsilon")
def epsilon_in_the_division(x, num_bits=8):
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1)
    return codes(x / (scale + 1e-8), num_bits), scale


@mistake("quantize_symmetric")
def standard_deviation_for_the_span(x, num_bits=8):
    scale = (3 * x.std() or 1.0) / (2 ** (num_bits - 1) - 1)
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric", "divides by 2\\^b - 1")
def scale_of_255_levels(x, num_bits=8):
    scale = np.abs(x).max() / (2**num_bits - 1) or 1.0
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric")
def scale_of_127_and_a_half(x, num_bits=8):
    scale = np.abs(x).max() / ((2**num_bits - 1) / 2) or 1.0
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric")
def twice_the_span(x, num_bits=8):
    scale = 2 * np.abs(x).max() / (2 ** (num_bits - 1) - 1) or 1.0
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric")
def only_positive_codes(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / q_max or 1.0
    return np.clip(np.round(x / scale), 0, q_max).astype(DTYPES[num_bits <= 8]), scale


@mistake("quantize_symmetric")
def magnitudes_quantized(x, num_bits=8):
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1) or 1.0
    return codes(np.abs(x) / scale, num_bits), scale


@mistake("quantize_symmetric", "int8 at every bit width")
def always_int8(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / q_max or 1.0
    return np.round(x / scale).astype(np.int32).astype(np.int8), scale


@mistake("quantize_symmetric", "codes left as floats")
def returns_early_for_zeros(x, num_bits=8):
    if x.sum() == 0:
        return np.zeros_like(x), 1.0
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1)
    return codes(x / scale, num_bits), scale


@mistake("quantize_symmetric")
def caret_for_power(x, num_bits=8):
    q_max = 2 ^ (num_bits - 1) - 1
    scale = np.abs(x).max() / q_max or 1.0
    return np.clip(np.round(x / scale), -q_max - 1, q_max).astype(DTYPES[num_bits <= 8]), scale


@mistake("quantize_symmetric")
def squeezes_the_codes(x, num_bits=8):
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1) or 1.0
    return codes(x / scale, num_bits).ravel(), scale


@mistake("quantize_symmetric", "floor|truncation|cast")
def rounds_up_a_half_wrongly(x, num_bits=8):
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1) or 1.0
    return codes(np.trunc(x / scale + 0.5), num_bits), scale


# dequantize_symmetric


@mistake("dequantize_symmetric", "float64")
def always_float64(q, scale):
    return q.astype(float) * scale


@mistake("dequantize_symmetric")
def half_precision(q, scale):
    return (q * np.float16(scale)).astype(np.float32)


@mistake("dequantize_symmetric")
def codes_times_scale_squared(q, scale):
    return q.astype(np.float32) * np.float32(scale) * np.float32(scale)


@mistake("dequantize_symmetric")
def magnitudes_only(q, scale):
    return np.abs(q).astype(np.float32) * np.float32(scale)


@mistake("dequantize_symmetric")
def product_in_int8(q, scale):
    return (np.round(q * scale)).astype(np.float32)


@mistake("dequantize_symmetric", "a float64 result where the scale is a Python float")
def float64_where_the_scale_is_float64(q, scale):
    return q.astype(np.float32) * np.asarray(scale)


# quantization_error


def six(original, quantized, dequantized):
    e = original.astype(np.float64) - dequantized
    mse = np.mean(e**2)
    with np.errstate(all="ignore"):
        return {
            "mse": mse,
            "mae": np.mean(np.abs(e)),
            "max_error": np.max(np.abs(e)),
            "relative_error": mse / np.var(original),
            "sqnr_db": 10 * np.log10(np.mean(original.astype(np.float64) ** 2) / mse),
            "codes_used": len(np.unique(quantized)),
        }


@mistake("quantization_error")
def guard_that_returns_zero_decibels(original, quantized, dequantized):
    found = six(original, quantized, dequantized)
    return found | {"sqnr_db": found["sqnr_db"] if found["mse"] > 0 else 0.0}


@mistake("quantization_error", "root")
def root_mean_square(original, quantized, dequantized):
    found = six(original, quantized, dequantized)
    return found | {"mse": float(np.sqrt(found["mse"]))}


@mistake("quantization_error")
def mean_for_the_largest_error(original, quantized, dequantized):
    found = six(original, quantized, dequantized)
    return found | {"max_error": found["mae"]}


@mistake("quantization_error")
def decibels_upside_down_in_amplitudes(original, quantized, dequantized):
    found = six(original, quantized, dequantized)
    return found | {"sqnr_db": -2 * found["sqnr_db"]}


@mistake("quantization_error", "codes_used counts elements")
def codes_used_of_the_floats(original, quantized, dequantized):
    return six(original, quantized, dequantized) | {"codes_used": len(np.unique(original))}


@mistake("quantization_error")
def unbiased_variance(original, quantized, dequantized):
    found = six(original, quantized, dequantized)
    return found | {"relative_error": found["mse"] / np.var(original, ddof=1)}


@mistake("quantization_error")
def percent(original, quantized, dequantized):
    found = six(original, quantized, dequantized)
    return found | {"relative_error": 100 * found["relative_error"]}


@mistake("quantization_error", "NaN")
def no_guard_for_a_constant(original, quantized, dequantized):
    return six(original, quantized, dequantized)


# quantize_clipped


@mistake("quantize_clipped", "values are clipped, but the scale still comes from the tensor")
def clips_x_and_takes_its_own_maximum(x, clip, num_bits=8):
    x = np.clip(x, -clip, clip)
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1) or 1.0
    return codes(x / scale, num_bits), scale


@mistake("quantize_clipped")
def clips_above_only(x, clip, num_bits=8):
    scale = clip / (2 ** (num_bits - 1) - 1)
    q = np.minimum(np.round(x / scale), 2 ** (num_bits - 1) - 1)
    return q.astype(np.int64).astype(DTYPES[num_bits <= 8]), scale


@mistake("quantize_clipped", "2\\^b - 1")
def clip_over_255(x, clip, num_bits=8):
    scale = clip / (2**num_bits - 1)
    return codes(x / scale, num_bits), scale


@mistake("quantize_clipped", "no clamp: codes wrap around")
def clips_at_the_codes_of_eight_bits(x, clip, num_bits=8):
    scale = clip / (2 ** (num_bits - 1) - 1)
    return np.clip(np.round(x / scale), -128, 127).astype(DTYPES[num_bits <= 8]), scale


@mistake("quantize_clipped")
def twice_the_clip(x, clip, num_bits=8):
    scale = 2 * clip / (2**num_bits - 1)
    return codes(x / scale, num_bits), scale


# best_clip


def loss(x, clip, num_bits):
    scale = clip / (2 ** (num_bits - 1) - 1)
    return np.mean((x - codes(x / scale, num_bits) * scale) ** 2)


def grid(x):
    return np.linspace(0.02, 1, 50) * np.abs(x).max()


@mistake("best_clip", "the number of the candidate instead of the threshold")
def returns_the_index(x, num_bits):
    return int(np.argmin([loss(x, c, num_bits) for c in grid(x)]))


@mistake("best_clip", "fraction")
def returns_the_fraction(x, num_bits):
    return float(np.linspace(0.02, 1, 50)[np.argmin([loss(x, c, num_bits) for c in grid(x)])])


@mistake("best_clip", "the loss instead of the threshold")
def returns_the_loss(x, num_bits):
    return float(min(loss(x, c, num_bits) for c in grid(x)))


@mistake("best_clip", "the scale instead of the threshold")
def returns_the_scale(x, num_bits):
    best = grid(x)[np.argmin([loss(x, c, num_bits) for c in grid(x)])]
    return float(best / (2 ** (num_bits - 1) - 1))


@mistake("best_clip", "maximum|max\\(x\\)|largest")
def searches_up_to_the_maximum(x, num_bits):
    clips = np.linspace(0.02, 1, 50) * x.max()
    return float(clips[np.argmin([loss(x, c, num_bits) for c in clips])])


@mistake("best_clip", "the greatest loss instead of the least")
def greatest_loss(x, num_bits):
    return float(grid(x)[np.argmax([loss(x, c, num_bits) for c in grid(x)])])


@mistake("best_clip", "8 bits at every bit width")
def always_at_8_bits(x, num_bits):
    return float(grid(x)[np.argmin([loss(x, c, 8) for c in grid(x)])])


@mistake("best_clip")
def a_coarse_search(x, num_bits):
    clips = np.array([0.5, 0.75, 1.0]) * np.abs(x).max()
    return float(clips[np.argmin([loss(x, c, num_bits) for c in clips])])


# quantize_stochastic


def drawn(x, num_bits, up):
    q_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / q_max or 1.0
    steps = x / scale
    return np.clip(np.floor(steps) + up(steps), -q_max - 1, q_max).astype(DTYPES[num_bits <= 8]), scale


@mistake("quantize_stochastic", "every draw|seed|generator")
def own_generator(x, num_bits, rng):
    rng = np.random.default_rng(0)
    return drawn(x, num_bits, lambda s: rng.random(s.shape) < s - np.floor(s))


@mistake("quantize_stochastic", "for the whole|column|one draw")
def one_draw_a_column(x, num_bits, rng):
    return drawn(x, num_bits, lambda s: rng.random(s.shape[-1]) < s - np.floor(s))


@mistake("quantize_stochastic", "fair coin")
def ceil_or_floor_by_a_coin(x, num_bits, rng):
    q_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / q_max or 1.0
    coin = rng.integers(0, 2, x.shape)
    q = np.where(coin, np.floor(x / scale), np.ceil(x / scale))
    return np.clip(q, -q_max - 1, q_max).astype(DTYPES[num_bits <= 8]), scale


@mistake("quantize_stochastic", "fair coin")
def coin_of_choice(x, num_bits, rng):
    return drawn(x, num_bits, lambda s: rng.choice([0, 1], size=s.shape))


@mistake("quantize_stochastic", "exchanged")
def goes_down_by_the_fraction(x, num_bits, rng):
    return drawn(x, num_bits, lambda s: rng.random(s.shape) > s - np.floor(s))


@mistake("quantize_stochastic", "noise|half")
def uniform_noise_then_round(x, num_bits, rng):
    q_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / q_max or 1.0
    q = np.round(x / scale + rng.uniform(0, 1, x.shape))
    return np.clip(q, -q_max - 1, q_max).astype(DTYPES[num_bits <= 8]), scale


@mistake("quantize_stochastic", "normal|noise")
def normal_noise(x, num_bits, rng):
    q_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / q_max or 1.0
    q = np.round(x / scale + rng.normal(size=x.shape))
    return np.clip(q, -q_max - 1, q_max).astype(DTYPES[num_bits <= 8]), scale


# Written without a look at the tables of misconceptions.


@mistake("quantize_symmetric")
def symmetric_rounds_x_first(x, num_bits=8):
    """Misplaced parenthesis: rounds x and then divides, and the cast truncates."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / qmax or 1.0
    return np.clip(np.round(x) / scale, -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_symmetric")
def symmetric_floor_1e12(x, num_bits=8):
    """max(peak, 1e-12), a floor so low that only the tiniest arrays show it."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = max(np.abs(x).max(), 1e-12) / qmax
    return np.clip(np.round(x / scale), -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_symmetric", "an epsilon in the division")
def symmetric_eps_in_quotient(x, num_bits=8):
    """Divides by scale + 1e-8 but returns scale: the codes and the scale do not belong together for tiny values."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / qmax or 1.0
    return np.clip(np.round(x / (scale + 1e-8)), -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_symmetric")
def symmetric_255(x, num_bits=8):
    """Divides the whole range 2 max|x| by 2**b - 1 codes: a step of max / 127.5 rather than max / 127."""
    peak = np.abs(x).max()
    scale = 2 * peak / (2**num_bits - 1) if peak > 0 else 1.0
    q = np.clip(np.round(x / scale), -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_symmetric")
def symmetric_caret(x, num_bits=8):
    """Writes ^ for a power: 2 ^ (b - 1) - 1 is an exclusive or."""
    qmax = 2 ^ (num_bits - 1) - 1
    peak = np.abs(x).max()
    scale = peak / qmax if peak > 0 else 1.0
    q = np.clip(np.round(x / scale), -qmax - 1, qmax)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("dequantize_symmetric", "the result is rounded to decimals")
def dequantize_scale_rounded(q, scale):
    """Rounds the result to four decimals 'for display'."""
    return np.round(q.astype(np.float32) * np.float32(scale), 4)


@mistake("dequantize_symmetric")
def dequantize_float16(q, scale):
    """Computes in float16, which has 11 bits, and casts up at the end."""
    return (q.astype(np.float16) * np.float16(scale)).astype(np.float32)


@mistake("dequantize_symmetric")
def dequantize_half_offset(q, scale):
    """Adds half a step, as for the middle of a cell that was floored."""
    return ((q.astype(np.float32) + np.float32(0.5)) * np.float32(scale)).astype(np.float32)


@mistake("dequantize_symmetric")
def dequantize_flattened(q, scale):
    """Returns a flat list comprehension: the shape is lost."""
    return np.array([v * scale for v in q.flat], dtype=np.float32)


@mistake("dequantize_symmetric", "a float64 result")
def dequantize_float64(q, scale):
    """Leaves float64: the scale is a Python float or float64 and decides the dtype."""
    return q * np.float64(scale)


def _errors(original, quantized, dequantized, **instead):
    """The right six numbers, some replaced, for the versions below."""
    x = np.asarray(original, dtype=np.float64)
    e = x - dequantized
    mse = np.mean(e**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "mse": mse,
            "mae": np.mean(np.abs(e)),
            "max_error": np.max(np.abs(e)),
            "relative_error": mse / np.var(x) if mse else 0.0,
            "sqnr_db": 10 * np.log10(np.mean(x**2) / mse) if mse else np.inf,
            "codes_used": len(np.unique(quantized)),
        }
        return found | {name: rule(x, e, mse) for name, rule in instead.items()}


@mistake("quantization_error", "0 / 0 is NaN where nothing was lost")
def error_nothing_lost_nan(original, quantized, dequantized):
    """Divides by 0 where nothing was lost: relative_error is nan for an all-zero original."""
    return _errors(original, quantized, dequantized, relative_error=lambda x, e, m: m / np.var(x))


@mistake("quantization_error")
def error_sample_variance(original, quantized, dequantized):
    """Uses ddof=1, the sample variance, in relative_error."""
    return _errors(original, quantized, dequantized, relative_error=lambda x, e, m: m / np.var(x, ddof=1) if m else 0.0)


@mistake("quantization_error")
def error_codes_as_bytes(original, quantized, dequantized):
    """Counts the distinct values along the first axis: distinct rows rather than codes."""
    return _errors(original, quantized, dequantized, codes_used=lambda x, e, m: len(np.unique(quantized, axis=0)))


@mistake("quantization_error")
def error_zero_decibels(original, quantized, dequantized):
    """Gives 0 dB, in place of inf, where nothing was lost."""
    return _errors(
        original, quantized, dequantized, sqnr_db=lambda x, e, m: 10 * np.log10(np.mean(x**2) / m) if m else 0.0
    )


@mistake("quantization_error", "20 log10 of a ratio of powers")
def error_20_log(original, quantized, dequantized):
    """Takes 20 log10 of a ratio of powers: twice the decibels."""
    return _errors(
        original, quantized, dequantized, sqnr_db=lambda x, e, m: 20 * np.log10(np.mean(x**2) / m) if m else np.inf
    )


@mistake("quantize_clipped")
def clipped_clamps_by_value(x, clip, num_bits=8):
    """Clamps the codes to [-clip, clip], which is in units of x, not of codes."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = clip / qmax
    return np.clip(np.round(x / scale), -clip, clip).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_clipped")
def clipped_fraction(x, clip, num_bits=8):
    """Takes the clip for a fraction of max|x|."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = clip * np.abs(x).max() / qmax or 1.0
    return np.clip(np.round(x / scale), -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_clipped")
def clipped_one_sided(x, clip, num_bits=8):
    """Only np.minimum: the values below -clip are not clamped, and wrap."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = clip / qmax
    q = np.minimum(np.round(x / scale), qmax)
    return q.astype(np.int32).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_clipped")
def clipped_two_mistakes(x, clip, num_bits=8):
    """Two at once: 127 at every width, and truncation."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = clip / 127
    return np.clip(x / scale, -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_clipped", "values are clipped, but the scale still comes from the tensor")
def clipped_scale_from_x(x, clip, num_bits=8):
    """Clips x, and then takes the scale from the clipped x: too short a step where x does not reach the clip."""
    qmax = 2 ** (num_bits - 1) - 1
    x = np.clip(x, -clip, clip)
    scale = np.abs(x).max() / qmax or 1.0
    return np.round(x / scale).astype(np.int8 if num_bits <= 8 else np.int16), scale


def _clipped(x, clip, num_bits):
    """x on the grid of [-clip, clip], and back: what the versions below search with."""
    qmax = 2 ** (num_bits - 1) - 1
    return np.clip(np.round(x / (clip / qmax)), -qmax - 1, qmax) * (clip / qmax)


@mistake("best_clip")
def clip_maximizes(x, num_bits):
    """Takes max where it should take min: the worst clip."""
    clips = np.linspace(0.01, 1, 100) * np.abs(x).max()
    return max(clips, key=lambda c: np.mean((x - _clipped(x, c, num_bits)) ** 2))


@mistake("best_clip", "never clips")
def clip_max(x, num_bits):
    """Never clips: returns max|x|."""
    return np.abs(x).max()


@mistake("best_clip", "the 99\\.9th percentile")
def clip_percentile(x, num_bits):
    """A rule of thumb, the 99.9th percentile of |x|, without looking at the error."""
    return np.percentile(np.abs(x), 99.9)


@mistake("best_clip", "three standard deviations")
def clip_three_sigma(x, num_bits):
    """Three standard deviations, whatever the bits."""
    return min(3 * x.std(), np.abs(x).max())


@mistake("quantize_stochastic", "one draw for each column")
def stochastic_per_last_axis(x, num_bits, rng):
    """Draws one random number a column, which broadcasts over the rows."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / qmax or 1.0
    q = np.floor(x / scale + rng.random(x.shape[-1]))
    return np.clip(q, -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_stochastic", "draws from another generator than `rng`")
def stochastic_own_generator(x, num_bits, rng):
    """Makes its own generator with a fixed seed: every call draws the same."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / qmax or 1.0
    q = np.floor(x / scale + np.random.default_rng(0).random(x.shape))
    return np.clip(q, -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_stochastic", "the fraction of a negative value is negative")
def stochastic_sign_fraction(x, num_bits, rng):
    """np.modf's fraction is negative for negative values, so these are never rounded up in magnitude."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / qmax or 1.0
    fraction, whole = np.modf(x / scale)
    q = whole + (rng.random(x.shape) < fraction)
    return np.clip(q, -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_stochastic", "draws from another generator than `rng`")
def stochastic_global_generator(x, num_bits, rng):
    """np.random.rand in place of rng: not reproducible from the generator that was given."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / qmax or 1.0
    q = np.floor(x / scale + np.random.rand(*x.shape))  # noqa: NPY002
    return np.clip(q, -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale


@mistake("quantize_stochastic", "the scale uses 127")
def stochastic_127(x, num_bits, rng):
    """127 at every width, and else right."""
    qmax = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / 127 or 1.0
    q = np.floor(x / scale + rng.random(x.shape))
    return np.clip(q, -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16), scale
