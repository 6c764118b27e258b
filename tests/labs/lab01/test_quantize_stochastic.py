"""quantize_stochastic: one of the two neighbours, and the value itself on average."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.metrics import sqnr_db
from labutils.labs.answers import dequantize_symmetric, quantize_stochastic, quantize_symmetric
from tests.labs.right_answers import passes
from tests.labs.strategies import any_width, arrays


def quant_max(num_bits):
    return 2 ** (num_bits - 1) - 1


def code_dtype(num_bits):
    return np.int8 if num_bits <= 8 else np.int16


@given(arrays, any_width, st.integers(0, 2**32))
def test_quantize_stochastic_is_one_line_of_numpy(x, num_bits, seed):
    q, scale = quantize_stochastic(x, num_bits, np.random.default_rng(seed))
    noise = np.random.default_rng(seed).random(x.shape)
    assert scale == quantize_symmetric(x, num_bits)[1]
    assert np.array_equal(q, np.clip(np.floor(x / scale + noise), -quant_max(num_bits) - 1, quant_max(num_bits)))


@given(arrays, any_width, st.integers(0, 2**32))
def test_it_rounds_to_one_of_the_two_neighbours(x, num_bits, seed):
    q, scale = quantize_stochastic(x, num_bits, np.random.default_rng(seed))
    steps = x / scale  # in float32, as the quantizer has it
    assert np.all((np.floor(steps) <= q) & (q <= np.ceil(steps)))


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.77], ids=lambda part: f"{part:g} of a step")
def test_the_mean_of_the_codes_is_the_value(part):
    count, steps = 100_000, 3 + part
    x = np.append(np.full(count, steps), 7.0)  # the scale is 1 at 4 bits
    q, scale = quantize_stochastic(x, 4, np.random.default_rng(2))
    assert scale == 1 and set(q[:-1].tolist()) <= {3, 4}
    standard_error = math.sqrt(part * (1 - part) / count)  # of the mean of yes-or-no draws
    assert np.mean(q[:-1]) == pytest.approx(steps, abs=5 * standard_error)


def test_one_generator_goes_on_and_another_repeats():
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    rng = np.random.default_rng(3)
    first, second = quantize_stochastic(x, 4, rng)[0], quantize_stochastic(x, 4, rng)[0]
    assert np.any(first != second)
    assert np.array_equal(first, quantize_stochastic(x, 4, np.random.default_rng(3))[0])


def test_stochastic_rounding_loses_three_decibels_to_rounding():
    # Its error has variance f (1 - f) scale^2 for a fraction f: 1/6 on average, twice 1/12, which is 3.01 dB.
    x = np.random.default_rng(4).uniform(-1, 1, 200_000)
    q, scale = quantize_stochastic(x, 8, np.random.default_rng(5))
    plain = dequantize_symmetric(*quantize_symmetric(x, 8))
    lost = sqnr_db(x, plain) - sqnr_db(x, q * scale)
    assert lost == pytest.approx(10 * math.log10(2), abs=0.05)  # ten standard errors


@pytest.mark.parametrize(
    "rng", [None, 0, np.random, np.random.RandomState(0)], ids=["None", "a seed", "a module", "RandomState"]
)  # fmt: skip
def test_the_generator_is_asked_for_by_name(rng):
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, got"):
        quantize_stochastic(np.ones(3), 8, rng)


def test_stochastic_rounding_is_for_numpy():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="x must be a NumPy array, got Tensor"):
        quantize_stochastic(torch.ones(3), 8, np.random.default_rng(0))


# Right answers, however they are written.


def scale_of(x, num_bits):
    return np.abs(x).max() / quant_max(num_bits) or 1.0


def floor_plus_noise(x, num_bits, rng):
    scale = scale_of(x, num_bits)
    q = np.floor(x / scale + rng.random(x.shape)).clip(-quant_max(num_bits), quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale


def coin_by_fraction(x, num_bits, rng):
    scale = scale_of(x, num_bits)
    steps = x / scale
    low = np.floor(steps)
    q = (low + (rng.uniform(size=x.shape) < steps - low)).clip(-quant_max(num_bits) - 1, quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale


def ceil_minus_noise(x, num_bits, rng):
    scale = scale_of(x, num_bits)
    q = np.ceil(x / scale - rng.random(x.shape)).clip(-quant_max(num_bits), quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale


def round_with_centred_noise(x, num_bits, rng):
    scale = scale_of(x, num_bits)
    q = np.rint(x / scale + rng.uniform(-0.5, 0.5, x.shape))
    return np.clip(q, -quant_max(num_bits), quant_max(num_bits)).astype(code_dtype(num_bits)), scale


def child_generator(x, num_bits, rng):
    scale = scale_of(x, num_bits)
    noise = np.random.default_rng(rng.integers(2**60)).random(x.shape)
    q = np.clip(np.floor(x / scale + noise), -quant_max(num_bits), quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scale


RIGHT = [floor_plus_noise, coin_by_fraction, ceil_minus_noise, round_with_centred_noise, child_generator]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_stochastic", answer)
