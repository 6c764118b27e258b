"""What enters the layers is seen batch by batch, and nothing is left on the model."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from labutils.models import outliers
from tests.models.outliers.examples import activations, mlp

alphas = st.floats(0, 1)
seeds = st.integers(0, 1000)
ONES, W = np.ones(3, np.float32), np.ones((2, 3), np.float32)


def test_maxima_over_batches_are_those_of_all_rows_at_once():
    model, x = mlp(), activations()
    with outliers.observe(model) as once:
        model(x)
    with outliers.observe(model) as batches:
        for batch in x.split(7):
            model(batch.reshape(1, -1, 24))
    assert list(once.maxima) == ["0", "2.1"]
    for name in once.maxima:
        torch.testing.assert_close(batches.maxima[name], once.maxima[name], rtol=1e-6, atol=0)
    assert torch.equal(once.maxima["0"], x.abs().amax(0))


def test_only_the_layers_named_keep_their_inputs():
    model, x = mlp(), activations()
    with outliers.observe(model, keep="0") as seen:
        for batch in x.split(7):
            model(batch)
    assert list(seen.inputs) == ["0"]
    assert torch.equal(seen.inputs["0"], x)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_on_the_model_after_an_error(error):
    model = mlp()
    with pytest.raises(error), outliers.observe(model):
        raise error
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_activations_that_are_not_finite_are_named_by_their_layer(value):
    model, x = mlp(), activations()
    x[3, 5] = value
    with pytest.raises(ValueError, match="0: its input holds NaN or Inf"), outliers.observe(model):
        model(x)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_observing_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing was observed"), outliers.observe(mlp()):
        pass
    with pytest.raises(ValueError, match=r"no nn.Linear"), outliers.observe(nn.ReLU()):
        pass
    with pytest.raises(ValueError, match="no linear layer is called 'nope'"), outliers.observe(mlp(), keep="nope"):
        pass
