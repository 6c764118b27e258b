"""The parts of a split layer add up."""

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from labutils.labs.answers import split_outliers
from labutils.models import outliers
from tests.models.outliers.examples import activations, layer

alphas = st.floats(0, 1)
seeds = st.integers(0, 1000)
ONES, W = np.ones(3, np.float32), np.ones((2, 3), np.float32)


@pytest.mark.parametrize("threshold", [0.01, 6.0, 1e6], ids=["all in float", "some", "all in integers"])
def test_a_split_layer_is_the_sum_of_its_parts(threshold):
    linear, x = layer(), activations(loud=(4, 17))
    peaks = x.abs().amax(0)
    split = outliers.SplitLinear(linear, peaks, threshold)
    assert split.channels.tolist() == [c for c in range(24) if peaks[c] > threshold]
    regular, loud = split_outliers(x, threshold)
    without = nn.Linear(24, 16, bias=False)
    without.weight = linear.weight
    expected = loud @ linear.weight.T + linear.bias
    if split.regular is not None:
        expected = expected + outliers.StaticInt8Linear(_columns(without, split.others), peaks[split.others])(
            regular[:, split.others]
        )
    torch.testing.assert_close(split(x), expected)


def _columns(linear, chosen):
    fewer = nn.Linear(len(chosen), linear.out_features, bias=False)
    fewer.weight = nn.Parameter(linear.weight.detach()[:, chosen])
    return fewer
