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
from labutils.labs.answers import smooth_scales
from labutils.models import outliers
from labutils.models.outliers import fold_division, smooth_linear
from tests.arrays.bad_inputs import refuses, table
from tests.models.outliers.examples import activations, layer

alphas = st.floats(0, 1)
seeds = st.integers(0, 1000)
ONES, W = np.ones(3, np.float32), np.ones((2, 3), np.float32)


@given(seeds, alphas, st.booleans())
def test_smoothing_does_not_change_what_a_layer_computes(seed, alpha, bias):
    linear, x = layer(seed=seed, bias=bias), activations(seed=seed, loud=(2, 7))
    before = copy.deepcopy(linear.state_dict())
    smoothed = smooth_linear(linear, smooth_scales(x.abs().amax(0), linear.weight.detach(), alpha))
    y = linear(x)
    assert (smoothed(x) - y).abs().max() <= 1e-5 * y.abs().max()
    assert all(torch.equal(linear.state_dict()[name], value) for name, value in before.items())
    torch.testing.assert_close(smoothed.weight, linear.weight)  # what the two steps multiply with
    assert smoothed.bias is smoothed[1].bias and smoothed.in_features == linear.in_features


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


def test_what_is_no_linear_layer_is_refused():
    refuses(TypeError, ("expected an nn.Linear, got LayerNorm",), smooth_linear, nn.LayerNorm(24), torch.ones(24))
