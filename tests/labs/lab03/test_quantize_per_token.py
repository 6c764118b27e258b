"""quantize_per_token: every vector along the last axis as a channel of its own."""

import numpy as np
import pytest
from hypothesis import given

from labutils.labs.answers import quantize_per_channel, quantize_per_token
from labutils.labs.lab03.quantize_per_token import right
from tests.arrays.bad_inputs import BAD_WIDTHS, FINE, REFUSED, refuses, slack, table
from tests.labs.right_answers import passes, variants
from tests.labs.strategies import any_width, arrays_with_axes

pytestmark = pytest.mark.filterwarnings("error")


def quant_max(num_bits):
    return 2 ** (num_bits - 1) - 1


def code_dtype(num_bits):
    return np.int8 if num_bits <= 8 else np.int16


@given(arrays_with_axes, any_width)
def test_a_token_is_a_channel_of_the_tensor_made_flat(x, num_bits):
    q, scales = quantize_per_token(x, num_bits)
    rows, row_scales = quantize_per_channel(x.reshape(-1, x.shape[-1]), 0, num_bits)
    assert np.array_equal(q.reshape(rows.shape), rows) and np.array_equal(scales.ravel(), row_scales)
    assert scales.shape == (*x.shape[:-1], 1)


def test_tensors_get_the_same_codes_and_scales():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(5).normal(size=(6, 5, 4)).astype(np.float32)
    for ours, theirs in zip(quantize_per_token(x), quantize_per_token(torch.from_numpy(x))):
        assert np.array_equal(ours, theirs)


# Bad input, and unusual input that is fine.


@pytest.mark.parametrize("x, kind, words", **table(REFUSED))
def test_what_is_no_array_of_finite_floats_is_refused(x, kind, words):
    refuses(kind, words, quantize_per_token, x)


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    refuses(kind, words, quantize_per_token, np.ones((2, 3), np.float32), num_bits)


def test_a_number_has_no_features():
    refuses(ValueError, ("needs at least one axis", "shape ()"), quantize_per_token, np.array(0.5))


@pytest.mark.parametrize("make", **table({name: make for name, make in FINE.items() if np.asarray(make()).ndim}))
def test_unusual_arrays_come_back_within_half_a_step_of_their_token(make):
    x = np.asarray(make())
    q, scales = quantize_per_token(make())
    assert np.all(np.abs(x.astype(float) - q * scales.astype(float)) <= scales.astype(float) / 2 + slack(x))


# Right answers, however they are written.


def over_the_last_axis(x, num_bits=8):
    scales = np.abs(x).max(-1, keepdims=True) / quant_max(num_bits)
    scales = np.where(scales == 0, 1, scales)
    return np.round(x / scales).astype(code_dtype(num_bits)), scales


def token_after_token(x, num_bits=8):
    flat = x.reshape(-1, x.shape[-1])
    q, scales = np.zeros(flat.shape, code_dtype(num_bits)), np.ones(len(flat))
    for t in range(len(flat)):
        largest = max(abs(float(value)) for value in flat[t])
        if largest:
            scales[t] = largest / quant_max(num_bits)
            q[t] = [round(float(value) / scales[t]) for value in flat[t]]
    return q.reshape(x.shape), scales.reshape(*x.shape[:-1], 1)


def tokens_are_channels(x, num_bits=8):
    q, scales = quantize_per_channel(x.reshape(-1, x.shape[-1]), 0, num_bits)
    return q.reshape(x.shape), scales.reshape((*x.shape[:-1], 1))


def new_axis(x, num_bits=8):
    largest = np.maximum(x.max(axis=-1), -x.min(axis=-1))
    scales = np.asarray(np.where(largest > 0, largest / quant_max(num_bits), 1.0))[..., np.newaxis]
    return np.rint(x / scales).clip(-quant_max(num_bits), quant_max(num_bits)).astype(code_dtype(num_bits)), scales


def apply_along(x, num_bits=8):
    scales = np.apply_along_axis(lambda token: [np.abs(token).max() / quant_max(num_bits) or 1.0], -1, x)
    return np.round(x / scales).astype(code_dtype(num_bits)), scales


def torch_tokens(x, num_bits=8):
    import torch

    t = torch.tensor(x)
    scales = t.abs().amax(-1, keepdim=True) / quant_max(num_bits)
    scales[scales == 0] = 1
    return torch.round(t / scales).to(torch.int8 if num_bits <= 8 else torch.int16), scales


RIGHT = [
    over_the_last_axis,
    token_after_token,
    tokens_are_channels,
    new_axis,
    apply_along,
    torch_tokens,
    *variants(right),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_per_token", answer)
