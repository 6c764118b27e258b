"""sqnr_per_channel: what each channel gets, whatever the others are."""

import math

import numpy as np
import pytest

from labutils import PerAxis, Scheme, fake_quantize, sqnr_db
from labutils.labs.answers import sqnr_per_channel
from labutils.labs.lab03.sqnr_per_channel import right
from tests.labs.right_answers import passes

X = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_each_channel_is_measured_alone(axis):
    back = fake_quantize(X, Scheme(4))
    expected = [sqnr_db(np.take(X, c, axis), np.take(back, c, axis)) for c in range(X.shape[axis])]
    assert sqnr_per_channel(X, back, axis) == pytest.approx(expected)


def test_a_quiet_channel_shows_what_the_average_hides():
    x = X[0] * np.array([1, 1, 1, 1, 1, 0.01], np.float32)[:, None]
    one_scale, each = (fake_quantize(x, Scheme(8, granularity=g)) for g in (Scheme().granularity, PerAxis(0)))
    assert sqnr_db(x, one_scale) > 35
    assert sqnr_per_channel(x, one_scale, 0)[-1] < 10
    assert sqnr_per_channel(x, each, 0).min() > 35


def test_an_exact_channel_is_infinitely_good_and_a_lost_one_is_0_db():
    x = np.array([[1.0, 2.0], [0.1, 0.0], [0.0, 0.0]])
    assert sqnr_per_channel(x, x * np.array([[1], [0], [1]]), 0).tolist() == [math.inf, 0, math.inf]


def test_tensors_are_measured_like_arrays():
    torch = pytest.importorskip("torch")
    back = fake_quantize(X, Scheme(4))
    assert np.array_equal(sqnr_per_channel(torch.tensor(X), torch.tensor(back), 1), sqnr_per_channel(X, back, 1))


@pytest.mark.parametrize(
    "back, axis, words",
    [(X[0], 0, "must have the shape of original, (5, 6, 7), got (6, 7)"), (X, 3, "one of the 3 axes"), (X, -4, "-4")],
)
def test_what_has_no_such_channels_is_refused(back, axis, words):
    with pytest.raises(ValueError) as raised:
        sqnr_per_channel(X, back, axis)
    assert words in str(raised.value)


# Right answers, however they are written.


def two_means(original, dequantized, axis):
    others = tuple(i for i in range(original.ndim) if i != axis % original.ndim)
    signal = np.mean(original.astype(np.float64) ** 2, axis=others)
    noise = np.mean((original.astype(np.float64) - dequantized) ** 2, axis=others)
    exact = noise == 0
    return np.where(exact, np.inf, 10 * np.log10(np.where(exact, 1, signal) / np.where(exact, 1, noise)))


def a_loop_over_channels(original, dequantized, axis):
    found = []
    for x, back in zip(np.moveaxis(original, axis, 0), np.moveaxis(dequantized, axis, 0)):
        noise = np.sum((x - back) ** 2)
        found.append(10 * np.log10(np.sum(x**2) / noise) if noise > 0 else np.inf)
    return np.array(found)


def with_the_metric_of_lab_01(original, dequantized, axis):
    pairs = zip(np.moveaxis(original, axis, 0), np.moveaxis(dequantized, axis, 0))
    return np.array([sqnr_db(x, back) for x, back in pairs], dtype=np.float32)


def in_float32_with_norms(original, dequantized, axis):
    x = np.moveaxis(original, axis, 0).reshape(original.shape[axis], -1)
    e = x - np.moveaxis(dequantized, axis, 0).reshape(x.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        decibels = 20 * np.log10(np.linalg.norm(x, axis=1) / np.linalg.norm(e, axis=1))
    return np.where(np.isnan(decibels), np.inf, decibels)


def with_einsum(original, dequantized, axis):
    x = np.moveaxis(original, axis, 0).reshape(original.shape[axis], -1).astype(np.float64)
    e = x - np.moveaxis(dequantized, axis, 0).reshape(x.shape)
    signal, noise = np.einsum("ck,ck->c", x, x), np.einsum("ck,ck->c", e, e)
    result = np.full(len(x), np.inf)
    lossy = noise > 0
    result[lossy] = 10 * (np.log10(signal[lossy]) - np.log10(noise[lossy]))
    return result


RIGHT = [
    two_means,
    a_loop_over_channels,
    with_the_metric_of_lab_01,
    in_float32_with_norms,
    with_einsum,
    pytest.param(right, id="the recipe"),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("sqnr_per_channel", answer)
