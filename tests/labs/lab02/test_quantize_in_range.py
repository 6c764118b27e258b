"""quantize_in_range: half a step within the range, and saturation beyond it."""

import math

import numpy as np
import pytest
from hypothesis import given

from labutils.labs.answers import dequantize_asymmetric, quantize_asymmetric, quantize_in_range
from labutils.labs.lab02.quantize_in_range import InRange
from tests.labs.right_answers import asymmetric_variants, passes
from tests.labs.strategies import any_width, arrays, numbers, slack


def quant_max(num_bits):
    return 2**num_bits - 1


def code_dtype(num_bits):
    return np.uint8 if num_bits <= 8 else np.uint16


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


@pytest.mark.parametrize("num_bits", [2, 4, 8, 16])
def test_tensors_get_the_same_codes_scale_and_zero_point(num_bits):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(0.5, 1, (7, 9)).astype(np.float32)
    for ours, theirs in zip(
        quantize_in_range(x, -0.5, 1, num_bits), quantize_in_range(torch.tensor(x), -0.5, 1, num_bits)
    ):
        assert np.array_equal(ours, theirs.numpy())


# Right answers, however they are written.


def clip_codes(x, low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / quant_max(num_bits)
    zero_point = round(-low / scale)
    return (
        np.clip(np.round(x / scale) + zero_point, 0, quant_max(num_bits)).astype(code_dtype(num_bits)),
        scale,
        zero_point,
    )


def clip_values(x, low, high, num_bits=8):
    """Clips the values to the widened range; codes still need a clamp, for the zero point was rounded."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / quant_max(num_bits))
    zero_point = int(np.rint(-low / scale))
    q = np.rint(np.clip(x, low, high) / scale) + zero_point
    return q.clip(0, quant_max(num_bits)).astype(code_dtype(num_bits)), scale, zero_point


def ends_as_a_tensor(x, low, high, num_bits=8):
    """The range is that of a tensor with two values."""
    ends = np.array([low, high, 0.0])
    scale = np.ptp(ends) / quant_max(num_bits)
    zero_point = round(-ends.min() / scale)
    q = np.clip(np.round(x / scale) + zero_point, 0, quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale, zero_point


def by_where(x, low, high, num_bits=8):
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = (high - low) / quant_max(num_bits)
    zero_point = np.int64(np.round(-low / scale))
    q = np.round(x / scale + zero_point)
    q = np.where(q < 0, 0, np.where(q > quant_max(num_bits), quant_max(num_bits), q))
    return q.astype(code_dtype(num_bits)), scale, zero_point


def in_range_with_torch(x, low, high, num_bits=8):
    import torch

    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / quant_max(num_bits)
    zero_point = round(-low / scale)
    q = torch.clamp(torch.round(torch.tensor(x) / scale) + zero_point, 0, quant_max(num_bits))
    return q.to(torch.uint8 if num_bits <= 8 else torch.uint16), torch.tensor(scale), torch.tensor(zero_point)


RIGHT = [clip_codes, clip_values, ends_as_a_tensor, by_where, in_range_with_torch, *asymmetric_variants(InRange())]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_in_range", answer)
