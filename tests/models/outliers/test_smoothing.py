"""Smoothing moves the size of channels and changes no function; a planted factor adds nothing."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from labutils import sqnr_db
from labutils.labs.answers import fold_division, smooth_linear, smooth_scales
from labutils.models import outliers
from tests.arrays.bad_inputs import refuses, table
from tests.models.outliers.examples import activations, layer

alphas = st.floats(0, 1)
seeds = st.integers(0, 1000)
ONES, W = np.ones(3, np.float32), np.ones((2, 3), np.float32)


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


@given(seeds, alphas, st.booleans())
def test_smoothing_does_not_change_what_a_layer_computes(seed, alpha, bias):
    linear, x = layer(seed=seed, bias=bias), activations(seed=seed, loud=(2, 7))
    before = copy.deepcopy(linear.state_dict())
    smoothed = smooth_linear(linear, smooth_scales(x.abs().amax(0), linear.weight.detach(), alpha))
    y = linear(x)
    assert (smoothed(x) - y).abs().max() <= 1e-5 * y.abs().max()
    assert all(torch.equal(linear.state_dict()[name], value) for name, value in before.items())


def test_an_outlier_channel_costs_less_where_it_is_smoothed():
    linear, x = layer(64, 48), activations(200, 64, loud=(11,))
    peaks = x.abs().amax(0)
    scales = smooth_scales(peaks, linear.weight.detach(), 0.5)
    divide, inner = smooth_linear(linear, scales)
    plain = sqnr_db(linear(x), outliers.StaticInt8Linear(linear, peaks)(x))
    smooth = sqnr_db(linear(x), outliers.StaticInt8Linear(inner, peaks / scales)(divide(x)))
    assert smooth > plain + 6


NORMS = {
    "LayerNorm": lambda: nn.LayerNorm(24),
    "LayerNorm without bias": lambda: nn.LayerNorm(24, bias=False),
    "RMSNorm": lambda: nn.RMSNorm(24),
    "Linear": lambda: layer(24, 24),
    "Linear without bias": lambda: layer(10, 24, bias=False),
}


@pytest.mark.parametrize("make", **table(NORMS))
def test_a_folded_division_divides_the_outputs(make):
    before, scales = make(), torch.logspace(-2, 2, 24)
    x = activations(channels=before.weight.shape[-1])
    torch.testing.assert_close(fold_division(before, scales)(x), before(x) / scales, rtol=1e-4, atol=1e-4)


def test_a_factor_folds_through_a_pre_norm_and_not_through_a_post_norm():
    scales, x = torch.logspace(-1, 1, 32), torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    for norm, first in (("norm2", True), ("norm1", False)):
        block = nn.TransformerEncoderLayer(32, 4, 64, norm_first=first).eval()
        folded = copy.deepcopy(block)
        setattr(folded, norm, fold_division(getattr(folded, norm), scales))
        with torch.no_grad():
            folded.linear1.weight.mul_(scales)
            same = torch.allclose(folded(x), block(x), atol=1e-5)
        assert same == first


@given(seeds, st.integers(-8, 12))
def test_a_planted_power_of_two_changes_no_bit(seed, power):
    before, after, x = layer(24, 20, seed), layer(20, 8, seed + 1), activations(seed=seed)
    factors = torch.ones(20)
    factors[3] = 2.0**power
    louder, quieter = outliers.rescale(before, after, factors)
    assert torch.equal(quieter(louder(x)), after(before(x)))
    assert torch.equal(quieter(louder(x).relu()), after(before(x).relu()))
    assert torch.equal(louder(x)[:, 3], before(x)[:, 3] * 2.0**power)


BAD_SCALES = {
    "too few": (torch.ones(3), ValueError, ("scales must have shape (24,)", "got (3,)")),
    "two axes": (torch.ones(1, 24), ValueError, ("scales must have shape (24,)", "(1, 24)")),
    "0": (torch.zeros(24), ValueError, ("positive and finite",)),
    "negative": (-torch.ones(24), ValueError, ("positive and finite",)),
    "NaN": (torch.full((24,), math.nan), ValueError, ("positive and finite",)),
    "integers": (torch.ones(24, dtype=torch.int64), TypeError, ("float tensor, got a tensor of torch.int64",)),
    "an array": (np.ones(24), TypeError, ("float tensor, got ndarray",)),
    "None": (None, TypeError, ("got NoneType",)),
}


@pytest.mark.parametrize("scales, kind, words", **table(BAD_SCALES))
def test_what_are_no_scales_is_refused(scales, kind, words):
    refuses(kind, words, smooth_linear, layer(), scales)
    refuses(kind, words, fold_division, nn.LayerNorm(24), scales)


def test_where_nothing_can_be_folded_the_way_out_is_named():
    refuses(TypeError, ("not into GELU", "divide at the layer's input"), fold_division, nn.GELU(), torch.ones(24))
    bare = nn.LayerNorm(24, elementwise_affine=False)
    refuses(ValueError, ("no weight", "divide at the layer's input"), fold_division, bare, torch.ones(24))
    refuses(ValueError, ("last axis alone",), fold_division, nn.LayerNorm((2, 12)), torch.ones(2))
    refuses(TypeError, ("expected an nn.Linear, got LayerNorm",), smooth_linear, nn.LayerNorm(24), torch.ones(24))
