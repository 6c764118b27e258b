"""dequantize_per_channel: a product along the axis, in the precision of the scales."""

import numpy as np
import pytest
from hypothesis import given

from labutils import PerAxis, Scheme, fake_quantize
from labutils.labs.answers import dequantize_per_channel, quantize_per_channel
from tests.arrays.bad_inputs import BAD_CODES, NOT_WHOLE, refuses, table
from tests.labs.right_answers import passes
from tests.labs.strategies import any_width, arrays_and_axes

pytestmark = pytest.mark.filterwarnings("error")

CODES, SCALES = np.ones((2, 3), np.int8), np.array([0.1, 0.2], np.float32)


@given(arrays_and_axes(), any_width)
def test_dequantize_per_channel_is_a_product_along_the_axis(given_, num_bits):
    x, axis = given_
    q, scales = quantize_per_channel(x, axis, num_bits)
    back = dequantize_per_channel(q, scales, axis)
    assert back.dtype == np.float32
    assert np.array_equal(np.moveaxis(back, axis, -1), np.moveaxis(q, axis, -1) * scales)


@pytest.mark.parametrize("held", ["float16", "float32", "float64"])
def test_the_result_is_float32_whatever_the_scales_are(held):
    x = dequantize_per_channel(np.array([[1, 2]], np.int8), np.array([0.5, 0.25], held), 1)
    assert (x.dtype, x.tolist()) == (np.float32, [[0.5, 0.5]])


def test_a_reference_is_the_package_seen_from_the_lab():
    x = np.random.default_rng(7).normal(size=(5, 8)).astype(np.float32)
    q, scales = quantize_per_channel(x, 1, 5)
    assert np.array_equal(dequantize_per_channel(q, scales, 1), fake_quantize(x, Scheme(5, granularity=PerAxis(1))))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_tensors_come_back_as_arrays_do(axis):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(5).normal(size=(6, 5, 4)).astype(np.float32)
    ours, theirs = quantize_per_channel(x, axis, 4), quantize_per_channel(torch.from_numpy(x), axis, 4)
    assert np.array_equal(dequantize_per_channel(*ours, axis), dequantize_per_channel(*theirs, axis))


# Bad input.


@pytest.mark.parametrize("axis", **table(NOT_WHOLE))
def test_an_axis_is_a_whole_number(axis):
    refuses(TypeError, ("axis must be a whole number", repr(axis)), dequantize_per_channel, CODES, SCALES, axis)


@pytest.mark.parametrize("axis", [2, -3, 10**30], ids=repr)
def test_an_axis_that_is_not_there_is_refused(axis):
    words = f"axis {axis} is not there", "shape (2, 3)", "axes 0 to 1"
    refuses(ValueError, words, dequantize_per_channel, CODES, SCALES, axis)


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    refuses(kind, ("q ", *words), dequantize_per_channel, codes, SCALES, 0)


NO_SCALES = "scales must be a NumPy array or a torch tensor, got"
BAD_SCALES = {
    "None": (None, TypeError, (NO_SCALES, "NoneType")),
    "a list": ([0.1, 0.2], TypeError, (NO_SCALES, "list")),
    "a float": (0.1, TypeError, (NO_SCALES, "float")),
    "integers": (np.array([1, 2]), TypeError, ("scales must hold floats", "int64")),
    "one number": (np.array(0.1), ValueError, ("scales must have shape (2,), got ()",)),
    "too few": (np.array([0.1]), ValueError, ("scales must have shape (2,), got (1,)",)),
    "as many as the other axis": (np.array([0.1, 0.2, 0.3]), ValueError, ("scales must have shape (2,), got (3,)",)),
    "with their reduced axis": (np.array([[0.1], [0.2]]), ValueError, ("scales must have shape (2,), got (2, 1)",)),
    "one is 0": (np.array([0.1, 0.0]), ValueError, ("scales must be positive and finite", "0.0 to 0.1")),
    "one is negative": (np.array([0.1, -0.5]), ValueError, ("scales must be positive and finite", "-0.5 to 0.1")),
    "one is NaN": (np.array([0.1, np.nan]), ValueError, ("scales must be positive and finite", "nan")),
    "one is Inf": (np.array([0.1, np.inf]), ValueError, ("scales must be positive and finite", "inf")),
    "empty": (np.zeros(0), ValueError, ("scales must not be empty",)),
}


@pytest.mark.parametrize("scales, kind, words", **table(BAD_SCALES))
def test_what_are_no_scales_is_refused(scales, kind, words):
    refuses(kind, words, dequantize_per_channel, CODES, scales, 0)


def test_codes_and_scales_come_from_one_library():
    torch = pytest.importorskip("torch")
    words = "one library", "numpy", "torch"
    refuses(TypeError, words, dequantize_per_channel, CODES, torch.tensor([0.1, 0.2]), 0)


# Right answers, however they are written.


def along(values, ndim, axis):
    shape = [1] * ndim
    shape[axis] = -1
    return np.reshape(values, shape)


def by_reshape(q, scales, axis):
    return q.astype(np.float32) * along(scales, q.ndim, axis)


def by_a_loop(q, scales, axis):
    x = q.astype(np.float32)
    for c in range(len(scales)):
        index = [slice(None)] * q.ndim
        index[axis] = c
        x[tuple(index)] *= scales[c]
    return x


def axis_to_the_end(q, scales, axis):
    return np.moveaxis(np.moveaxis(q, axis, -1) * scales, -1, axis).astype("float32")


def by_expand_dims(q, scales, axis):
    others = tuple(i for i in range(q.ndim) if i != axis % q.ndim)
    return np.multiply(q, np.expand_dims(scales, others), dtype=np.float32)


def by_einsum(q, scales, axis):
    letters = "abcdefgh"[: q.ndim]
    return np.einsum(f"{letters},{letters[axis]}->{letters}", q.astype(np.float64), scales).astype(np.float32)


def by_take(q, scales, axis):
    return q * np.take(scales, np.indices(q.shape)[axis]).astype(np.float32)


def torch_view(q, scales, axis):
    import torch

    shape = [1] * q.ndim
    shape[axis] = -1
    return torch.tensor(q).float() * torch.tensor(scales).view(shape)


RIGHT = [by_reshape, by_a_loop, axis_to_the_end, by_expand_dims, by_einsum, by_take, torch_view]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("dequantize_per_channel", answer)
