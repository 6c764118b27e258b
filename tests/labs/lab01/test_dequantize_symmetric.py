"""dequantize_symmetric: a product, in the precision of the scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.labs.answers import dequantize_symmetric, quantize_symmetric
from tests.labs.right_answers import passes


@given(hnp.arrays(np.int16, hnp.array_shapes(min_dims=0, max_dims=3)), st.floats(2.0**-20, 2.0**20, width=32))
def test_dequantize_symmetric_is_a_product(q, scale):
    x = dequantize_symmetric(q, scale)
    assert x.dtype == np.float32 and x.shape == q.shape
    assert np.array_equal(x, q * np.float32(scale))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64"])
def test_codes_of_every_integer_dtype_are_read(dtype):
    assert dequantize_symmetric(np.array([0, 1, 127], dtype), 0.5).tolist() == [0, 0.5, 63.5]


@pytest.mark.parametrize(
    "scale",
    [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5)],
    ids=["a Python float", "float32", "float16", "float64"],
)
def test_the_result_is_float32_whatever_the_scale_is(scale):
    x = dequantize_symmetric(np.array([1, 2], np.int8), scale)
    assert (x.dtype, x.tolist()) == (np.float32, [0.5, 1.0])


def test_a_scale_that_float32_cannot_hold_is_refused():
    for scale in (1e60, np.array(1e60)):
        with pytest.raises(ValueError, match=r"scale must be at most 3.40282e\+38, got 1e\+60"):
            dequantize_symmetric(np.array([1], np.int8), scale)


def test_tensors_get_the_same_answers():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(6).normal(size=(20, 30)).astype(np.float32)
    ours, theirs = quantize_symmetric(x, 4), quantize_symmetric(torch.from_numpy(x), 4)
    assert np.array_equal(dequantize_symmetric(*ours), dequantize_symmetric(*theirs))


# Right answers, however they are written.


def cast_both(q, scale):
    return q.astype(np.float32) * np.float32(scale)


def multiply_then_cast(q, scale):
    return (q * scale).astype("float32")


def with_dtype(q, scale):
    return np.multiply(q, scale, dtype=np.float32)


def into_out(q, scale):
    out = np.empty(q.shape, dtype=np.float32)
    out[...] = q
    out *= scale
    return out


def in_float64_inside(q, scale):
    return np.asarray(q.astype(float) * float(scale), dtype=np.float32)


def torch_product(q, scale):
    import torch

    return torch.tensor(q).float() * float(scale)


RIGHT = [cast_both, multiply_then_cast, with_dtype, into_out, in_float64_inside, torch_product]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("dequantize_symmetric", answer)
