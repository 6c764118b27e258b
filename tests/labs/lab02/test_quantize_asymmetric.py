"""quantize_asymmetric: 0.0 is exact, the zero point is a code, no value moves by more than half a step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.affine import fake_quantize
from labutils.arrays.scheme import Scheme
from labutils.course import engine
from labutils.labs.answers import dequantize_asymmetric, quantize_asymmetric, quantize_symmetric
from labutils.labs.catalogue import EXERCISES
from labutils.labs.recipes import Asymmetric
from tests.labs.right_answers import asymmetric_variants, passes
from tests.labs.strategies import any_width, arrays, slack


def quant_max(num_bits):
    return 2**num_bits - 1


def code_dtype(num_bits):
    return np.uint8 if num_bits <= 8 else np.uint16


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


@pytest.mark.parametrize("num_bits", [2, 4, 8, 16])
def test_tensors_get_the_same_codes_scale_and_zero_point(num_bits):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(0.5, 1, (7, 9)).astype(np.float32)
    for ours, theirs in zip(quantize_asymmetric(x, num_bits), quantize_asymmetric(torch.tensor(x), num_bits)):
        assert np.array_equal(ours, theirs.numpy())


def test_there_and_back_is_fake_quantization():
    x = np.random.default_rng(1).normal(2, 1, 1000).astype(np.float32)
    back = dequantize_asymmetric(*quantize_asymmetric(x, 5))
    assert np.array_equal(back, fake_quantize(x, Scheme(5, symmetric=False)))


# Mistakes as people write them: in other words than the tables, often copied from a tutorial.


def from_a_tutorial(x, num_bits=8):
    scale = (x.max() - x.min()) / (2**num_bits - 1)
    zero_point = max(0, min(255, round(float(-x.min() / scale))))
    return np.round(x / scale + zero_point).clip(0, 255).astype(np.uint8), scale, zero_point


def unguarded(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1)
    zero_point = int(-low / scale)
    return (np.round(x / scale) + zero_point).astype(code_dtype(num_bits)), scale, zero_point


def torch_qint8(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1)
    zero_point = int(-(2 ** (num_bits - 1)) - np.round(low / scale))
    q = np.clip(np.round(x / scale) + zero_point, -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scale, zero_point


def hqq(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1)
    zero_point = -low / scale
    return np.clip(np.round(x / scale + zero_point), 0, 2**num_bits - 1).astype(code_dtype(num_bits)), scale, zero_point


@pytest.mark.parametrize(
    ("submission", "diagnosis"),
    [
        (from_a_tutorial, "the range leaves 0 out, and the clamp of the zero point flattens everything"),
        (unguarded, "the zero point is truncated"),
        (torch_qint8, "signed codes"),
        (hqq, "the zero point is not rounded"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mistakes_in_other_words_are_recognised(submission, diagnosis):
    report = engine.examine(submission, EXERCISES["quantize_asymmetric"])
    assert not report.passed
    assert report.diagnosis == diagnosis, (report.diagnosis, report.first_failure)


# Right answers, however they are written.


def plain(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / quant_max(num_bits) or 1.0
    zero_point = round(-low / scale)
    q = np.clip(np.round(x / scale) + zero_point, 0, quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale, zero_point


def zero_point_from_above(x, num_bits=8):
    """From the largest value down; half a step may go the other way."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / quant_max(num_bits) if high - low > 0 else 1.0
    zero_point = 0 if low == high else int(np.clip(quant_max(num_bits) - np.rint(high / scale), 0, quant_max(num_bits)))
    q = np.rint(x.astype(np.float64) / scale) + zero_point
    return np.maximum(np.minimum(q, quant_max(num_bits)), 0).astype(code_dtype(num_bits)), scale, zero_point


def half_up(x, num_bits=8):
    widened = np.append(x.ravel(), x.dtype.type(0))
    scale = np.float64(np.ptp(widened)) / quant_max(num_bits)
    if scale == 0:
        return np.zeros(x.shape, code_dtype(num_bits)), np.float32(1), np.uint8(0)
    zero_point = int(np.floor(-widened.min() / scale + 0.5))
    q = np.floor(x / scale + 0.5) + zero_point
    return np.clip(q, 0, quant_max(num_bits)).astype(code_dtype(num_bits)), scale, code_dtype(num_bits)(zero_point)


def by_loops(x, num_bits=8):
    low = high = 0.0
    for value in x.flat:
        low, high = min(low, float(value)), max(high, float(value))
    scale = (high - low) / quant_max(num_bits) if high > low else 1.0
    zero_point = round(-low / scale)
    q = np.empty(x.shape, code_dtype(num_bits))
    for index, value in np.ndenumerate(x):
        q[index] = max(0, min(quant_max(num_bits), round(float(value) / scale) + zero_point))
    return [q, scale, zero_point]


def clamp_values_first(x, num_bits=8):
    """Values are clipped to the ends of the rounded grid, so that codes need no clamp."""
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = np.float64(high - low) / quant_max(num_bits) if high > low else np.float64(1)
    zero_point = int(np.round(-low / scale))
    inside = np.clip(x, -zero_point * scale, (quant_max(num_bits) - zero_point) * scale)
    return (np.round(inside / scale) + zero_point).astype(code_dtype(num_bits)), scale, zero_point


def with_torch(x, num_bits=8):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    low, high = t.amin().clamp(max=0), t.amax().clamp(min=0)
    scale = (high - low) / quant_max(num_bits)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero_point = torch.round(-low / scale).to(torch.int32)
    q = torch.clamp(torch.round(t / scale) + zero_point, 0, quant_max(num_bits))
    return q.to(torch.uint8 if num_bits <= 8 else torch.uint16), scale, zero_point


RIGHT = [
    plain,
    zero_point_from_above,
    half_up,
    by_loops,
    clamp_values_first,
    with_torch,
    *asymmetric_variants(Asymmetric()),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_asymmetric", answer)
