"""quantize_symmetric: one line of NumPy, and the numbers worked in the lab."""

import numpy as np
import pytest
from hypothesis import given

from labutils.arrays.affine import QuantizedArray, quantize
from labutils.arrays.scheme import Scheme
from labutils.course import engine
from labutils.labs.answers import dequantize_symmetric, quantize_symmetric
from labutils.labs.catalogue import EXERCISES
from labutils.labs.recipes import Symmetric
from tests.labs.right_answers import passes, variants
from tests.labs.strategies import any_width, arrays


def quant_max(num_bits):
    return 2 ** (num_bits - 1) - 1


def code_dtype(num_bits):
    return np.int8 if num_bits <= 8 else np.int16


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


@given(arrays, any_width)
def test_there_and_back_is_within_half_a_step(x, num_bits):
    q, scale = quantize_symmetric(x, num_bits)
    lost = np.abs(x.astype(float) - dequantize_symmetric(q, scale))
    # Scale, quotient and product round to 2^-24 of the range; the least float is the finest step there is.
    assert np.all(lost <= scale / 2 + 3 * 2.0**-24 * np.max(np.abs(x)) + np.finfo(np.float32).smallest_subnormal)


def test_tensors_get_the_same_codes_and_scale():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(6).normal(size=(20, 30)).astype(np.float32)
    ours, theirs = quantize_symmetric(x, 4), quantize_symmetric(torch.from_numpy(x), 4)
    assert all(isinstance(part, torch.Tensor) for part in theirs)
    assert np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]


def test_a_reference_is_the_package_seen_from_the_lab():
    x = np.random.default_rng(7).normal(size=100).astype(np.float32)
    quantized = quantize(x, Scheme(5))
    q, scale = quantize_symmetric(x, 5)
    assert isinstance(quantized, QuantizedArray)
    assert np.array_equal(q, quantized.codes) and scale == quantized.scale


# Mistakes as people write them: not copies of the tables, often two at a time, in other words.


def int8_cast_first(x, num_bits=8):
    scale = np.max(np.abs(x)) / 127
    return np.clip((x / scale).astype(np.int8), -128, 127), scale


def no_guard_no_round(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    s = np.abs(x).max() / q_max
    return (x // s).astype("int8"), s


def max_only(x, num_bits=8):
    s = x.max() / (2 ** (num_bits - 1) - 1)
    q = np.clip(np.rint(x / s), -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)
    return q.astype("i1" if num_bits < 9 else "i2"), s


def floats(x, num_bits=8):
    largest = max(abs(x.min()), abs(x.max())) or 1
    s = largest / (2 ** (num_bits - 1) - 1)
    return np.round(x / s), s


def epsilon(x, num_bits=8):
    s = np.abs(x).max() / (2 ** (num_bits - 1) - 1) + 1e-8
    return np.round(x / s).astype(np.int16 if num_bits > 8 else np.int8), s


@pytest.mark.parametrize(
    ("submission", "diagnosis"),
    [
        (int8_cast_first, "truncation instead of round"),
        (no_guard_no_round, "floor instead of round"),
        (max_only, "max(x) instead of max|x|"),
        (floats, "codes left as floats"),
        (epsilon, "an epsilon added to the scale"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mistakes_in_other_words_are_recognised(submission, diagnosis):
    report = engine.examine(submission, EXERCISES["quantize_symmetric"])
    assert not report.passed
    assert report.diagnosis == diagnosis


# Right answers, however they are written.


def plain(x, num_bits=8):
    scale = np.abs(x).max() / quant_max(num_bits)
    if scale == 0:
        return np.zeros(x.shape, code_dtype(num_bits)), 1.0
    q = np.clip(np.round(x / scale), -quant_max(num_bits) - 1, quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale


def by_loops(x, num_bits=8):
    largest = 0.0
    for value in x.flat:
        largest = max(largest, abs(float(value)))
    scale = largest / quant_max(num_bits) if largest else 1.0
    q = np.empty(x.shape, code_dtype(num_bits))
    for index, value in np.ndenumerate(x):
        q[index] = max(-quant_max(num_bits) - 1, min(quant_max(num_bits), round(float(value) / scale)))
    return q, scale


def by_reciprocal(x, num_bits=8):
    largest = max(-x.min(), x.max())
    scale = np.float64(largest) / quant_max(num_bits) if largest > 0 else 1
    q = np.rint(x * (1 / np.float64(scale))).clip(-quant_max(num_bits), quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale


def with_torch(x, num_bits=8):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    scale = t.abs().amax() / quant_max(num_bits)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    q = torch.clamp(torch.round(t / scale), -quant_max(num_bits) - 1, quant_max(num_bits))
    return q.to(torch.int8 if num_bits <= 8 else torch.int16), scale


def as_a_list(x, num_bits=8):
    return list(plain(x, num_bits))


RIGHT = [plain, by_loops, by_reciprocal, with_torch, as_a_list, *variants(Symmetric())]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_symmetric", answer)
