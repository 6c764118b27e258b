"""The references of what learners write agree with one line of NumPy each, and with the numbers worked in the labs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays import theory
from labutils.arrays.affine import QuantizedArray, quantize
from labutils.arrays.metrics import sqnr_db
from labutils.arrays.scheme import Scheme
from labutils.labs.answers import (
    best_clip,
    dequantize_symmetric,
    quantize_clipped,
    quantize_stochastic,
    quantize_symmetric,
    storage_bytes,
)

arrays = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=3, max_side=6), elements=st.floats(-100, 100, width=32)
)
any_width = st.integers(2, 16)


def quant_max(num_bits):
    return 2 ** (num_bits - 1) - 1


# --- lab 00 ---


@given(st.integers(0, 10**12), st.integers(1, 64))
def test_packed_bits_fill_whole_bytes(num_values, num_bits):
    whole = storage_bytes(num_values, num_bits)
    assert 8 * (whole - 1) < num_values * num_bits <= 8 * whole


@pytest.mark.parametrize(
    "num_values, num_bits, expected",
    [(7 * 10**9, 16, 14 * 10**9), (7 * 10**9, 4, 3_500_000_000), (3, 3, 2), (1, 1, 1), (9, 1, 2), (0, 8, 0)],
    ids=["7B in 16 bits", "7B in 4 bits", "3 of 3 bits", "a bit", "9 bits", "nothing"],
)
def test_bytes_by_hand(num_values, num_bits, expected):
    assert storage_bytes(num_values, num_bits) == expected


# --- quantize_symmetric ---


@given(arrays, any_width)
def test_quantize_symmetric_is_one_line_of_numpy(x, num_bits):
    q, scale = quantize_symmetric(x, num_bits)
    expected = np.max(np.abs(x)) / np.float32(quant_max(num_bits)) if np.any(x) else np.float32(1)
    if expected >= np.finfo(np.float32).smallest_normal:  # below, the range must not be lost to rounding
        assert scale == expected
    assert np.array_equal(q, np.clip(np.rint(x / scale), -quant_max(num_bits) - 1, quant_max(num_bits)))
    assert q.dtype == (np.int8 if num_bits <= 8 else np.int16)


def test_the_worked_example_of_the_lab():
    x = np.array([-1.013, 0.3, 0.786, 2.54], dtype=np.float32)
    q, scale = quantize_symmetric(x)
    assert scale == pytest.approx(0.02, rel=1e-6)
    assert q.tolist() == [-51, 15, 39, 127]  # -50.65, 15, 39.3 and 127 steps
    assert dequantize_symmetric(q, scale) == pytest.approx([-1.02, 0.3, 0.78, 2.54], rel=1e-6)


def test_the_smallest_code_is_not_used():
    q, _ = quantize_symmetric(np.array([-3.0, 1.0, 2.9]), 4)
    assert q.tolist() == [-7, 2, 7]


# --- dequantize_symmetric ---


@given(hnp.arrays(np.int16, hnp.array_shapes(min_dims=0, max_dims=3)), st.floats(2.0**-20, 2.0**20, width=32))
def test_dequantize_symmetric_is_a_product(q, scale):
    x = dequantize_symmetric(q, scale)
    assert x.dtype == np.float32 and x.shape == q.shape
    assert np.array_equal(x, q * np.float32(scale))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64"])
def test_codes_of_every_integer_dtype_are_read(dtype):
    assert dequantize_symmetric(np.array([0, 1, 127], dtype), 0.5).tolist() == [0, 0.5, 63.5]


@pytest.mark.parametrize(
    "scale, dtype",
    [(0.5, "float32"), (np.float32(0.5), "float32"), (np.float16(0.5), "float32"), (np.array(0.5), "float64")],
    ids=["a Python float", "float32", "float16", "float64"],
)
def test_the_scale_decides_the_precision(scale, dtype):
    x = dequantize_symmetric(np.array([1, 2], np.int8), scale)
    assert (x.dtype, x.tolist()) == (np.dtype(dtype), [0.5, 1.0])


@given(arrays, any_width)
def test_there_and_back_is_within_half_a_step(x, num_bits):
    q, scale = quantize_symmetric(x, num_bits)
    lost = np.abs(x.astype(float) - dequantize_symmetric(q, scale))
    # Scale, quotient and product round to 2^-24 of the range; the least float is the finest step there is.
    assert np.all(lost <= scale / 2 + 3 * 2.0**-24 * np.max(np.abs(x)) + np.finfo(np.float32).smallest_subnormal)


def test_a_scale_that_float32_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"scale must be at most 3.40282e\+38, got 1e\+60"):
        dequantize_symmetric(np.array([1], np.int8), 1e60)
    assert dequantize_symmetric(np.array([1], np.int8), np.array(1e60)).tolist() == [1e60]


# --- quantize_clipped ---


@given(arrays, st.floats(0.01, 200), any_width)
def test_quantize_clipped_is_one_line_of_numpy(x, clip, num_bits):
    q, scale = quantize_clipped(x, clip, num_bits)
    assert scale == np.float32(clip / quant_max(num_bits))
    assert np.array_equal(q, np.clip(np.rint(x / scale), -quant_max(num_bits) - 1, quant_max(num_bits)))


def test_clipped_by_hand():
    q, scale = quantize_clipped(np.array([-9.0, -1.0, 0.5, 9.0], np.float32), 1.27)
    assert scale == pytest.approx(0.01, rel=1e-6)
    assert q.tolist() == [-128, -100, 50, 127]


@given(arrays, any_width)
def test_clipping_at_the_largest_value_clips_nothing(x, num_bits):
    x = np.append(x, np.float32(1))
    q, scale = quantize_clipped(x, float(np.max(np.abs(x))), num_bits)
    plain, plain_scale = quantize_symmetric(x, num_bits)
    assert scale == pytest.approx(float(plain_scale), rel=2.0**-23)
    # A quotient next to a tie may go either way, when the scale was rounded another way.
    assert np.max(np.abs(q.astype(int) - plain)) <= (0 if scale == plain_scale else 1)


@pytest.mark.parametrize("clip, words", [(1e60, "at most"), (1e-60, "positive and finite")], ids=["huge", "tiny"])
def test_a_clip_whose_scale_float32_cannot_hold_is_refused(clip, words):
    with pytest.raises(ValueError, match=f"scale must be {words}"):
        quantize_clipped(np.ones(2, np.float32), clip)


# --- best_clip ---


def loss(x, clip, num_bits):
    scale = np.float32(clip) / np.float32(quant_max(num_bits))
    return np.mean((x - scale * np.clip(np.rint(x / scale), -quant_max(num_bits) - 1, quant_max(num_bits))) ** 2)


@pytest.mark.parametrize("num_bits", [2, 3, 4, 8], ids=lambda b: f"{b} bits")
@pytest.mark.parametrize("source", ["normal", "laplace", "uniform"])
def test_best_clip_is_the_best_of_a_scan(source, num_bits):
    x = getattr(np.random.default_rng(0), source)(size=20_000).astype(np.float32)
    best, largest = best_clip(x, num_bits), float(np.max(np.abs(x)))
    scan = [largest * part / 200 for part in range(1, 201)]
    assert loss(x, best, num_bits) <= min(loss(x, clip, num_bits) for clip in scan) * (1 + 1e-6)
    assert min(abs(best - clip) for clip in scan) < 1e-6 * largest


def test_the_best_clip_of_a_gaussian_is_a_little_below_that_of_theory():
    # Theory's grid ends at -c. The quantizer has one more code beyond it, with which a smaller c will do.
    x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    for num_bits in (3, 4, 6):
        assert 0.85 < best_clip(x, num_bits) / theory.gaussian_best_clip(num_bits) < 1.02


def test_a_uniform_source_is_best_left_unclipped_at_8_bits():
    x = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32)
    assert best_clip(x, 8) > 0.98


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e30], ids=lambda factor: f"times {factor:g}")
def test_the_best_clip_grows_with_the_values(factor):
    x = np.random.default_rng(1).normal(size=5_000)
    assert best_clip(x * factor, 4) == pytest.approx(best_clip(x, 4) * factor, rel=1e-9, abs=0)


def test_zeros_have_nothing_to_clip():
    assert best_clip(np.zeros((2, 3), np.float32), 4) == 0.0


# --- quantize_stochastic ---


@given(arrays, any_width, st.integers(0, 2**32))
def test_quantize_stochastic_is_one_line_of_numpy(x, num_bits, seed):
    q, scale = quantize_stochastic(x, num_bits, np.random.default_rng(seed))
    noise = np.random.default_rng(seed).random(x.shape)
    assert scale == quantize_symmetric(x, num_bits)[1]
    assert np.array_equal(q, np.clip(np.floor(x / scale + noise), -quant_max(num_bits) - 1, quant_max(num_bits)))


@given(arrays, any_width, st.integers(0, 2**32))
def test_it_rounds_to_one_of_the_two_neighbours(x, num_bits, seed):
    q, scale = quantize_stochastic(x, num_bits, np.random.default_rng(seed))
    steps = x / scale  # in float32, as the quantizer has it
    assert np.all((np.floor(steps) <= q) & (q <= np.ceil(steps)))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.77], ids=lambda part: f"{part:g} of a step")
def test_the_mean_of_the_codes_is_the_value(part):
    count, steps = 100_000, 3 + part
    x = np.append(np.full(count, steps), 7.0)  # the scale is 1 at 4 bits
    q, scale = quantize_stochastic(x, 4, np.random.default_rng(2))
    assert scale == 1 and set(q[:-1].tolist()) <= {3, 4}
    standard_error = math.sqrt(part * (1 - part) / count)  # of the mean of yes-or-no draws
    assert np.mean(q[:-1]) == pytest.approx(steps, abs=5 * standard_error)


def test_one_generator_goes_on_and_another_repeats():
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    rng = np.random.default_rng(3)
    first, second = quantize_stochastic(x, 4, rng)[0], quantize_stochastic(x, 4, rng)[0]
    assert np.any(first != second)
    assert np.array_equal(first, quantize_stochastic(x, 4, np.random.default_rng(3))[0])


def test_stochastic_rounding_loses_three_decibels_to_rounding():
    # Its error has variance f (1 - f) scale^2 for a fraction f: 1/6 on average, twice 1/12, which is 3.01 dB.
    x = np.random.default_rng(4).uniform(-1, 1, 200_000)
    q, scale = quantize_stochastic(x, 8, np.random.default_rng(5))
    plain = dequantize_symmetric(*quantize_symmetric(x, 8))
    lost = sqnr_db(x, plain) - sqnr_db(x, q * scale)
    assert lost == pytest.approx(10 * math.log10(2), abs=0.05)  # ten standard errors


@pytest.mark.parametrize(
    "rng", [None, 0, np.random, np.random.RandomState(0)], ids=["None", "a seed", "a module", "RandomState"]
)  # fmt: skip
def test_the_generator_is_asked_for_by_name(rng):
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, got"):
        quantize_stochastic(np.ones(3), 8, rng)


def test_stochastic_rounding_is_for_numpy():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="x must be a NumPy array, got Tensor"):
        quantize_stochastic(torch.ones(3), 8, np.random.default_rng(0))


# --- torch ---


def test_tensors_get_the_same_answers():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(6).normal(size=(20, 30)).astype(np.float32)
    tensor = torch.from_numpy(x)
    for ours, theirs in [
        (quantize_symmetric(x, 4), quantize_symmetric(tensor, 4)),
        (quantize_clipped(x, 1.5, 4), quantize_clipped(tensor, 1.5, 4)),
    ]:
        assert all(isinstance(part, torch.Tensor) for part in theirs)
        assert np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]
        assert np.array_equal(dequantize_symmetric(*ours), dequantize_symmetric(*theirs))
    assert best_clip(tensor, 4) == pytest.approx(best_clip(x, 4))


def test_a_reference_is_the_package_seen_from_the_lab():
    x = np.random.default_rng(7).normal(size=100).astype(np.float32)
    quantized = quantize(x, Scheme(5))
    q, scale = quantize_symmetric(x, 5)
    assert isinstance(quantized, QuantizedArray)
    assert np.array_equal(q, quantized.codes) and scale == quantized.scale
