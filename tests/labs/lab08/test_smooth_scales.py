"""smooth_scales: how alpha shares the size of a channel between activations and weights."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labutils.labs.answers import smooth_scales
from labutils.labs.lab08.smooth_scales import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes
from tests.models.outliers.examples import activations, layer

alphas = st.floats(0, 1)
seeds = st.integers(0, 1000)


@given(seeds, alphas)
def test_alpha_shares_the_size_of_a_channel_between_the_two_sides(seed, alpha):
    linear, peaks = layer(seed=seed), activations(seed=seed + 1, loud=(3,)).abs().amax(0)
    weight = linear.weight.detach()
    scales = smooth_scales(peaks, weight, alpha)
    both = (peaks / scales).double() * (weight.abs().amax(0) * scales).double()
    torch.testing.assert_close(both, (peaks.double() * weight.abs().amax(0).double()), rtol=1e-5, atol=0)
    expected = peaks ** (1 - alpha) * weight.abs().amax(0) ** (1 - alpha)
    torch.testing.assert_close(peaks / scales, expected, rtol=1e-4, atol=0)


def test_the_ends_of_alpha_flatten_one_side_each():
    peaks, weight = activations(loud=(3,)).abs().amax(0), layer().weight.detach()
    torch.testing.assert_close(peaks / smooth_scales(peaks, weight, 1.0), torch.ones(24))
    torch.testing.assert_close((weight * smooth_scales(peaks, weight, 0.0)).abs().amax(0), torch.ones(24))


@given(seeds, alphas, st.integers(1, 12))
def test_a_planted_factor_is_found_and_undone_at_every_alpha(seed, alpha, power):
    peaks, weight = activations(seed=seed).abs().amax(0), layer(seed=seed).weight.detach()
    factors = torch.ones(24)
    factors[5] = 2.0**power
    before, after = smooth_scales(peaks, weight, alpha), smooth_scales(peaks * factors, weight / factors, alpha)
    torch.testing.assert_close(after, before * factors, rtol=1e-5, atol=0)


def test_numpy_and_torch_agree_and_silent_channels_have_nothing_to_move():
    peaks, weight = activations().abs().amax(0), layer().weight.detach().clone()
    peaks[[1, 9]], weight[:, 4] = 0, 0
    scales = smooth_scales(peaks, weight, 0.7)
    assert scales.dtype == torch.float32
    assert scales[[1, 4, 9]].tolist() == [1, 1, 1]
    assert np.allclose(smooth_scales(peaks.numpy(), weight.numpy(), 0.7), scales, rtol=1e-6)
    assert smooth_scales(peaks.half(), weight.half()).dtype == torch.float32
    assert smooth_scales(peaks.double(), weight.double()).dtype == torch.float64


ONES, W = np.ones(3, np.float32), np.ones((2, 3), np.float32)
BAD_SMOOTHING = {
    "alpha below 0": ((ONES, W, -0.1), ValueError, ("alpha must be between 0 and 1, got -0.1",)),
    "alpha above 1": ((ONES, W, 1.5), ValueError, ("alpha must be between 0 and 1, got 1.5",)),
    "alpha NaN": ((ONES, W, math.nan), ValueError, ("alpha must be finite",)),
    "alpha a string": ((ONES, W, "0.5"), TypeError, ("alpha must be a number",)),
    "NaN in the activations": ((ONES * np.nan, W), ValueError, ("activation_max must be finite",)),
    "Inf in the activations": ((ONES * np.inf, W), ValueError, ("activation_max must be finite",)),
    "NaN in the weight": ((ONES, W * np.nan), ValueError, ("weight must be finite",)),
    "a negative maximum": ((-ONES, W), ValueError, ("magnitudes, from 0 on, got -1",)),
    "one channel too few": ((ONES[:2], W), ValueError, ("activation_max must have shape (3,)", "got (2,)")),
    "a weight of one axis": ((ONES, ONES), ValueError, ("weight must have two axes", "(3,)")),
    "a list": (([1.0], W), TypeError, ("activation_max must be a NumPy array or a torch tensor, got list",)),
    "integers": ((np.ones(3, int), W), TypeError, ("activation_max must hold floats",)),
    "two libraries": ((ONES, torch.ones(2, 3)), TypeError, ("one library",)),
    "no channels": ((ONES[:0], W[:, :0]), ValueError, ("must not be empty",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD_SMOOTHING))
def test_what_cannot_be_smoothed_is_refused(args, kind, words):
    refuses(kind, words, smooth_scales, *args)


def torch_where(activation_max, weight, alpha=0.5):
    weight_max = weight.abs().amax(0)
    scales = activation_max**alpha / weight_max ** (1 - alpha)
    return torch.where((activation_max > 0) & (weight_max > 0), scales, torch.ones_like(scales))


def masked_fill(activation_max, weight, alpha=0.5):
    weight_max = weight.abs().max(dim=0).values
    scales = activation_max.pow(alpha).div(weight_max.pow(1 - alpha))
    return scales.masked_fill((activation_max == 0) | (weight_max == 0), 1)


def by_logarithms(activation_max, weight, alpha=0.5):
    logs = alpha * activation_max.log() - (1 - alpha) * weight.abs().amax(0).log()
    scales = logs.exp()
    scales[~scales.isfinite() | (scales == 0)] = 1
    return scales


def channel_by_channel(activation_max, weight, alpha=0.5):
    scales = []
    for a, column in zip(activation_max.tolist(), weight.T):
        w = max(abs(v) for v in column.tolist())
        scales.append(a**alpha * w ** (alpha - 1) if a and w else 1.0)
    return torch.tensor(scales)


def scales_in_numpy(activation_max, weight, alpha=0.5):
    a, w = activation_max.numpy().astype(float), np.abs(weight.numpy()).max(axis=0).astype(float)
    with np.errstate(all="ignore"):
        scales = a**alpha / w ** (1 - alpha)
    return np.where((a == 0) | (w == 0), 1.0, scales)


def nan_to_one(activation_max, weight, alpha=0.5):
    weight_max = torch.linalg.vector_norm(weight, ord=float("inf"), dim=0)
    ratio = (activation_max / weight_max) ** alpha * weight_max ** (2 * alpha - 1)
    return torch.nan_to_num(ratio, nan=1.0, posinf=1.0).masked_fill((activation_max == 0) | (weight_max == 0), 1.0)


def the_recipe(activation_max, weight, alpha=0.5):
    return right(activation_max, weight, alpha)


RIGHT = [torch_where, masked_fill, by_logarithms, channel_by_channel, scales_in_numpy, nan_to_one, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("smooth_scales", answer)
