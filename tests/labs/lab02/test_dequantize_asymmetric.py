"""dequantize_asymmetric: a difference times the scale, for a zero point that is a code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.course import engine
from labutils.labs.answers import dequantize_asymmetric, quantize_asymmetric, quantize_in_range
from labutils.labs.catalogue import EXERCISES
from tests.labs.right_answers import passes


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


@pytest.mark.parametrize("num_bits", [2, 4, 8, 16])
def test_tensors_get_the_same_floats(num_bits):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(0.5, 1, (7, 9)).astype(np.float32)
    tensor = torch.tensor(x)
    for ours, theirs in (
        (quantize_asymmetric(x, num_bits), quantize_asymmetric(tensor, num_bits)),
        (quantize_in_range(x, -0.5, 1, num_bits), quantize_in_range(tensor, -0.5, 1, num_bits)),
    ):
        assert np.array_equal(dequantize_asymmetric(*ours), dequantize_asymmetric(*theirs).numpy())


def test_the_most_natural_way_back_is_told_why_it_is_float64():
    def natural(q, scale, zero_point):
        return (q.astype(np.float32) - zero_point) * scale

    report = engine.examine(natural, EXERCISES["dequantize_asymmetric"])
    assert report.diagnosis == "a float64 result where the zero point is an int32"


# Right answers, however they are written.


def cast_all(q, scale, zero_point):
    return (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def through_int32(q, scale, zero_point):
    return ((q.astype(np.int32) - int(zero_point)) * float(scale)).astype(np.float32)


def multiplied_out(q, scale, zero_point):
    return (q * np.float64(scale) - int(zero_point) * np.float64(scale)).astype("float32")


def into_out(q, scale, zero_point):
    out = q.astype(np.float32)
    out -= zero_point
    out *= scale
    return out


def by_table(q, scale, zero_point):
    """Every code looked up."""
    values = (np.arange(2 ** (8 * q.itemsize)) - int(zero_point)) * float(scale)
    return values.astype(np.float32)[q]


def torch_product(q, scale, zero_point):
    import torch

    return (torch.tensor(q.astype(np.int32)).float() - int(zero_point)) * float(scale)


RIGHT = [cast_all, through_int32, multiplied_out, into_out, by_table, torch_product]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("dequantize_asymmetric", answer)
