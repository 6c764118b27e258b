"""dequantize_group: the inverse of quantize_group, in float32."""

import numpy as np
import pytest

from labutils.labs.answers import dequantize_group, quantize_group
from tests.arrays.bad_inputs import BAD_CODES, refuses, table
from tests.labs.lab04.group_sizes import NO_GROUP_SIZES
from tests.labs.right_answers import passes

pytestmark = pytest.mark.filterwarnings("error")

Q = np.array([[3, -7, 1, 5, 3, -7]], dtype=np.int8)
SCALES = np.array([[0.1, 1.0]], dtype=np.float32)


def test_the_result_is_float32_whatever_the_scales_are():
    for dtype, off in ((np.float16, 2**-11), (np.float64, 2**-23)):
        back = dequantize_group(Q, SCALES.astype(dtype), 4)
        assert back.dtype == np.float32
        assert np.allclose(back, dequantize_group(Q, SCALES, 4), rtol=off)


@pytest.mark.parametrize("group_size", [4, 7, 64])
def test_tensors_come_back_as_arrays_do(group_size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(3, 5, 30)).astype(np.float32)
    ours, theirs = quantize_group(x, 4, group_size), quantize_group(torch.from_numpy(x), 4, group_size)
    assert np.array_equal(dequantize_group(*ours, group_size), dequantize_group(*theirs, group_size))


# Bad input.


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    refuses(kind, ("q ", *words), dequantize_group, codes, SCALES, 4)


@pytest.mark.parametrize("size, kind, words", **table(NO_GROUP_SIZES))
def test_what_is_no_group_size_is_refused(size, kind, words):
    refuses(kind, words, dequantize_group, Q, SCALES, size)


BAD_SCALES = {
    "a scale a row": (SCALES[:, :1], ValueError, ("scale must have shape (1, 2), got (1, 1)",)),
    "one too many": (np.ones((1, 3), np.float32), ValueError, ("must have shape (1, 2), got (1, 3)",)),
    "a row too many": (np.ones((2, 2), np.float32), ValueError, ("must have shape (1, 2), got (2, 2)",)),
    "flat": (SCALES[0], ValueError, ("must have shape (1, 2), got (2,)",)),
    "an axis too many": (SCALES[..., None], ValueError, ("must have shape (1, 2), got (1, 2, 1)",)),
    "0": (np.array([[0.1, 0]]), ValueError, ("scales must be positive and finite",)),
    "negative": (np.array([[0.1, -1]]), ValueError, ("scales must be positive and finite",)),
    "NaN": (np.array([[0.1, np.nan]]), ValueError, ("scales must be positive and finite",)),
    "beyond float32": (np.array([[0.1, 1e60]]), ValueError, ("finite in float32", "0.1 to 1e+60")),
    "Inf": (np.array([[0.1, np.inf]]), ValueError, ("scales must be positive and finite",)),
    "integers": (np.array([[1, 1]]), TypeError, ("scales must hold floats", "int64")),
    "a float": (0.1, TypeError, ("scales must be a NumPy array or a torch tensor, got float",)),
    "a list": ([[0.1, 1.0]], TypeError, ("scales must be", "got list")),
    "None": (None, TypeError, ("scales must be", "got NoneType")),
}


@pytest.mark.parametrize("scales, kind, words", **table(BAD_SCALES))
def test_scales_that_do_not_belong_to_the_codes_are_refused(scales, kind, words):
    refuses(kind, words, dequantize_group, Q, scales, 4)


def test_codes_and_scales_come_from_one_library():
    torch = pytest.importorskip("torch")
    refuses(TypeError, ("scales and q must come from one library",), dequantize_group, torch.from_numpy(Q), SCALES, 4)


# Right answers, however they are written.


def with_repeat(q, scales, group_size):
    return q.astype(np.float32) * np.repeat(np.float32(scales), group_size, axis=-1)[..., : q.shape[-1]]


def with_take(q, scales, group_size):
    return (q * np.take(scales, np.arange(q.shape[-1]) // group_size, axis=-1)).astype(np.float32)


def group_by_group(q, scales, group_size):
    x = q.astype(np.float32)
    for g in range(scales.shape[-1]):
        x[..., g * group_size : (g + 1) * group_size] *= scales[..., g : g + 1]
    return x


def with_einsum(q, scales, group_size):
    n = q.shape[-1]
    padded = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -n % group_size)]).astype(np.float32)
    groups = padded.reshape(*q.shape[:-1], -1, group_size)
    return np.einsum("...gk,...g->...gk", groups, scales).reshape(*q.shape[:-1], -1)[..., :n].astype("float32")


def with_kron(q, scales, group_size):
    each = np.kron(scales.astype(np.float64), np.ones(group_size))[..., : q.shape[-1]]
    return np.asarray(q * each, dtype=np.float32)


def torch_repeat_interleave(q, scales, group_size):
    import torch

    each = torch.tensor(scales).float().repeat_interleave(group_size, dim=-1)[..., : q.shape[-1]]
    return torch.tensor(q).float() * each


RIGHT = [with_repeat, with_take, group_by_group, with_einsum, with_kron, torch_repeat_interleave]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("dequantize_group", answer)
