"""A model is replaced layer by layer by layers that know the range of their inputs."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from labutils import sqnr_db
from labutils.labs.answers import smooth_linear, smooth_scales
from labutils.models import outliers
from labutils.models.conversion import quantize_model
from tests.models.outliers.examples import activations, layer, mlp

alphas = st.floats(0, 1)
seeds = st.integers(0, 1000)
ONES, W = np.ones(3, np.float32), np.ones((2, 3), np.float32)


def test_a_layer_that_was_not_observed_is_not_quantized_on_a_guess():
    model = mlp()
    with pytest.raises(ValueError, match=r"2\.1: never observed"):
        outliers.replace_linears(model, {"0": torch.ones(24)}, outliers.StaticInt8Linear)


def test_a_model_is_replaced_layer_by_layer_and_left_as_it_is():
    model, x = mlp(), activations(loud=(3,))
    before = copy.deepcopy(model.state_dict())
    with outliers.observe(model) as seen:
        y = model(x)

    def smoothed(linear, input_max):
        scales = smooth_scales(input_max, linear.weight.detach(), 0.5)
        return quantize_model(
            smooth_linear(linear, scales), lambda inner: outliers.StaticInt8Linear(inner, input_max / scales)
        )

    plain = outliers.replace_linears(model, seen.maxima, outliers.StaticInt8Linear)
    smooth = outliers.replace_linears(model, seen.maxima, smoothed)
    assert sqnr_db(y, smooth(x)) > sqnr_db(y, plain(x)) > 10
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_layer_used_twice_is_replaced_once():
    shared = layer(24, 24)
    model = nn.ModuleDict({"a": shared, "b": shared})
    with outliers.observe(model) as seen:
        model["a"](activations())
    replaced = outliers.replace_linears(model, seen.maxima, outliers.StaticInt8Linear)
    assert replaced["a"] is replaced["b"]
