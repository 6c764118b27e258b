"""Asymmetric quantization: 0.0 is exact, the zero point is a code, no value moves by more than half a step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays.affine import fake_quantize
from labutils.arrays.scheme import Scheme
from labutils.labs.answers import dequantize_asymmetric, quantize_asymmetric, quantize_in_range, quantize_symmetric

numbers = st.floats(-100, 100, width=32)
arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, max_side=6), elements=numbers)
any_width = st.integers(2, 16)


def quant_max(num_bits):
    return 2**num_bits - 1


def slack(peak):
    """Scale, quotient and product round to 2^-24 of the range each; the least float is the finest step there is."""
    return 6 * 2.0**-24 * peak + np.finfo(np.float32).smallest_subnormal


# --- quantize_asymmetric and back ---


@given(arrays, any_width)
def test_there_and_back_is_within_half_a_step(x, num_bits):
    q, scale, zero_point = quantize_asymmetric(x, num_bits)
    lost = np.abs(x.astype(float) - dequantize_asymmetric(q, scale, zero_point))
    assert np.all(lost <= scale / 2 + slack(np.max(np.abs(x))))


@given(arrays, any_width)
def test_the_zero_point_is_a_code_and_zero_comes_back_as_zero(x, num_bits):
    x = np.append(x, np.float32(0))
    q, scale, zero_point = quantize_asymmetric(x, num_bits)
    assert q.dtype == (np.uint8 if num_bits <= 8 else np.uint16)
    assert zero_point.dtype == np.int32 and 0 <= zero_point <= quant_max(num_bits)
    assert q.max() <= quant_max(num_bits)
    assert np.all(q[x == 0] == zero_point)
    assert np.all(dequantize_asymmetric(q, scale, zero_point)[x == 0] == 0)


@given(arrays, any_width)
def test_the_grid_spans_the_range_with_zero_in_it(x, num_bits):
    _, scale, zero_point = quantize_asymmetric(x, num_bits)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    if high - low < 1e-30:  # subnormal steps are rounded up, so that the range stays covered
        return
    assert scale == pytest.approx((high - low) / quant_max(num_bits), rel=1e-6)
    assert abs(zero_point + low / scale) <= 0.5 + 1e-6 * quant_max(num_bits)


@given(arrays, st.integers(2, 15))
def test_without_negative_values_it_is_symmetric_with_one_bit_more(x, num_bits):
    x = np.abs(x)
    q, scale, zero_point = quantize_asymmetric(x, num_bits)
    more, more_scale = quantize_symmetric(x, num_bits + 1)
    assert zero_point == 0
    assert scale == more_scale and np.array_equal(q, more)


def test_the_worked_example_of_the_lab():
    x = np.array([-0.6, -0.127, 0.0, 0.444, 1.95], dtype=np.float32)
    q, scale, zero_point = quantize_asymmetric(x)
    assert (q.tolist(), int(zero_point)) == ([0, 47, 60, 104, 255], 60)
    assert scale == pytest.approx(0.01, rel=1e-6)
    assert dequantize_asymmetric(q, scale, zero_point) == pytest.approx([-0.6, -0.13, 0, 0.44, 1.95], abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
def test_values_on_one_side_of_zero_are_not_flattened(sign):
    x = sign * np.array([10.0, 11.0, 12.0], dtype=np.float32)
    q, scale, zero_point = quantize_asymmetric(x)
    assert zero_point == (0 if sign > 0 else 255)
    assert dequantize_asymmetric(q, scale, zero_point) == pytest.approx(x, abs=12 / 255 / 2 * 1.0001)


def test_a_largest_value_half_a_step_beyond_the_last_code_is_clamped():
    q, scale, zero_point = quantize_asymmetric(np.array([-3.5, 11.5], dtype=np.float32), 4)
    assert (q.tolist(), float(scale), int(zero_point)) == ([0, 15], 1.0, 4)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=0)), st.floats(2.0**-20, 2.0**20, width=32), st.integers(0, 255))
def test_dequantize_asymmetric_is_a_difference_times_the_scale(q, scale, zero_point):
    x = dequantize_asymmetric(q, scale, zero_point)
    assert x.dtype == np.float32 and x.shape == q.shape
    assert np.array_equal(x, (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale))


@pytest.mark.parametrize("zero_point", [60, np.uint8(60), np.int32(60), np.array(60)], ids=lambda z: type(z).__name__)
def test_every_integer_is_a_zero_point(zero_point):
    assert dequantize_asymmetric(np.array([47, 60], np.uint8), 0.5, zero_point).tolist() == [-6.5, 0.0]


@pytest.mark.parametrize(
    "zero_point, error, words",
    [
        (-1275, ValueError, "zero_point must be a code, 0 to 255 for uint8, got -1275"),
        (256, ValueError, "zero_point must be a code, 0 to 255 for uint8, got 256"),
        (60.0, TypeError, "zero_point must be a whole number, got 60.0 of type float"),
        (None, TypeError, "zero_point must be a whole number, got None"),
        ("60", TypeError, "zero_point must be a whole number, got '60'"),
        (True, TypeError, "zero_point must be a whole number, got True"),
        (np.array([1, 2]), TypeError, "zero_point must be a whole number, got array"),
    ],
    ids=str,
)
def test_what_is_no_code_is_no_zero_point(zero_point, error, words):
    with pytest.raises(error) as told:
        dequantize_asymmetric(np.array([0, 255], np.uint8), 0.1, zero_point)
    assert words in str(told.value)


# --- quantize_in_range ---


@given(arrays, numbers, numbers, any_width)
def test_values_within_the_range_lose_half_a_step_and_the_others_saturate(x, one, other, num_bits):
    low, high = sorted((one, other))
    if max(-low, high) < 1e-30:
        return
    q, scale, zero_point = quantize_in_range(x, low, high, num_bits)
    low, high = min(low, 0.0), max(high, 0.0)
    back = dequantize_asymmetric(q, scale, zero_point)
    assert np.all(np.abs(np.clip(x.astype(float), low, high) - back) <= scale / 2 + slack(max(-low, high)))
    assert np.all(q[x > high + scale] == quant_max(num_bits)) and np.all(q[x < low - scale] == 0)


@given(arrays, any_width)
def test_the_range_of_the_values_gives_quantize_asymmetric(x, num_bits):
    if np.max(np.abs(x)) < 1e-30:
        return
    given_range = quantize_in_range(x, float(x.min()), float(x.max()), num_bits)
    for ours, theirs in zip(given_range, quantize_asymmetric(x, num_bits), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "low, high, error, words",
    [
        (1.0, -1.0, ValueError, "the range must reach from low up to high, and be more than 0, got [1, -1]"),
        (0.0, 0.0, ValueError, "more than 0, got [0, 0]"),
        (0.0, 1e-60, ValueError, "more than 0, got [0, 1e-60]"),
        (-1e60, 1.0, ValueError, "low and high must lie within 3.40282e+38 of 0, got [-1e+60, 1]"),
        (math.nan, 1.0, ValueError, "low must be finite, got nan"),
        (0.0, math.inf, ValueError, "high must be finite, got inf"),
        (None, 1.0, TypeError, "low must be a number, got None"),
        (0.0, "1", TypeError, "high must be a number, got '1'"),
        (0.0, True, TypeError, "high must be a number, got True"),
        (np.zeros(2), 1.0, TypeError, "low must be a number"),
    ],
    ids=str,
)
def test_what_is_no_range_is_refused(low, high, error, words):
    with pytest.raises(error) as told:
        quantize_in_range(np.ones(3, np.float32), low, high)
    assert words in str(told.value)


# --- torch ---


@pytest.mark.parametrize("num_bits", [2, 4, 8, 16])
def test_torch_tensors_give_what_arrays_give(num_bits):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(0.5, 1, (7, 9)).astype(np.float32)
    tensor = torch.tensor(x)
    for ours, theirs in (
        (quantize_asymmetric(x, num_bits), quantize_asymmetric(tensor, num_bits)),
        (quantize_in_range(x, -0.5, 1, num_bits), quantize_in_range(tensor, -0.5, 1, num_bits)),
    ):
        for array, other in zip(ours, theirs, strict=True):
            assert np.array_equal(array, other.numpy())
        assert np.array_equal(dequantize_asymmetric(*ours), dequantize_asymmetric(*theirs).numpy())


def test_there_and_back_is_fake_quantization():
    x = np.random.default_rng(1).normal(2, 1, 1000).astype(np.float32)
    back = dequantize_asymmetric(*quantize_asymmetric(x, 5))
    assert np.array_equal(back, fake_quantize(x, Scheme(5, symmetric=False)))
