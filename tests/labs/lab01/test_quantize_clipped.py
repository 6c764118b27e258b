"""quantize_clipped: one line of NumPy, and saturation beyond the clip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.labs.answers import dequantize_symmetric, quantize_clipped, quantize_symmetric
from labutils.labs.lab01.quantize_clipped import Clipped
from tests.labs.right_answers import passes, variants
from tests.labs.strategies import any_width, arrays


def quant_max(num_bits):
    return 2 ** (num_bits - 1) - 1


def code_dtype(num_bits):
    return np.int8 if num_bits <= 8 else np.int16


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


def test_tensors_get_the_same_answers():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(6).normal(size=(20, 30)).astype(np.float32)
    ours, theirs = quantize_clipped(x, 1.5, 4), quantize_clipped(torch.from_numpy(x), 1.5, 4)
    assert all(isinstance(part, torch.Tensor) for part in theirs)
    assert np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]
    assert np.array_equal(dequantize_symmetric(*ours), dequantize_symmetric(*theirs))


# Right answers, however they are written.


def clip_codes(x, clip, num_bits=8):
    scale = clip / quant_max(num_bits)
    q = np.clip(np.round(x / scale), -quant_max(num_bits) - 1, quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale


def clip_values_first(x, clip, num_bits=8):
    scale = np.float32(clip / quant_max(num_bits))
    return np.rint(np.clip(x, -clip, clip) / scale).astype(code_dtype(num_bits)), scale


def clip_by_where(x, clip, num_bits=8):
    scale = clip / quant_max(num_bits)
    inside = np.where(np.abs(x) > clip, np.sign(x) * clip, x)
    return np.round(inside / scale).astype(code_dtype(num_bits)), np.asarray(scale)


def clip_with_torch(x, clip, num_bits=8):
    import torch

    scale = clip / quant_max(num_bits)
    q = (torch.tensor(x) / scale).round().clamp(-quant_max(num_bits) - 1, quant_max(num_bits))
    return q.to(torch.int8 if num_bits <= 8 else torch.int16), scale


RIGHT = [clip_codes, clip_values_first, clip_by_where, clip_with_torch, *variants(Clipped())]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_clipped", answer)
