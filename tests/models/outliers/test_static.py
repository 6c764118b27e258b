"""One activation scale for all: what fake quantization says, saturated beyond the range."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from labutils.arrays.scheme import PerGroup, PerTensor, Scheme
from labutils.models import outliers
from tests.arrays.bad_inputs import refuses, table
from tests.models.outliers.examples import activations, layer

alphas = st.floats(0, 1)
seeds = st.integers(0, 1000)
ONES, W = np.ones(3, np.float32), np.ones((2, 3), np.float32)


@pytest.mark.parametrize("num_bits", [2, 4, 8])
@pytest.mark.parametrize("granularity", [PerTensor(), Scheme(granularity=PerTensor()).granularity])
def test_integers_by_integers_are_what_fake_quantization_says(num_bits, granularity):
    linear, x, scheme = layer(), activations(), Scheme(num_bits, granularity=granularity)
    static = outliers.StaticInt8Linear(linear, x.abs().amax(0), scheme)
    limit = scheme.quant_max
    codes = (x / static.input_scale).round().clamp(-limit, limit).double()
    expected = codes @ static.weight.double().T * static.input_scale.double() + linear.bias
    torch.testing.assert_close(static(x), expected.float(), rtol=1e-5, atol=1e-5)


def test_what_comes_beyond_the_calibrated_range_saturates():
    linear = layer(1, 1, bias=False)
    static = outliers.StaticInt8Linear(linear, torch.tensor(1.0))
    assert torch.equal(static(torch.tensor([[5.0]])), static(torch.tensor([[1.0]])))


def test_a_row_with_nan_comes_out_nan_and_alone():
    static, x = outliers.StaticInt8Linear(layer(), torch.tensor(3.0)), activations()
    clean = static(x)
    x[2, 5], x[4, 0] = math.nan, math.inf
    spoilt = static(x)
    assert spoilt[[2, 4]].isnan().all()
    others = [row for row in range(len(x)) if row not in (2, 4)]
    assert torch.equal(spoilt[others], clean[others])


def test_a_static_layer_survives_being_copied_saved_and_halved():
    static, x = outliers.StaticInt8Linear(layer(), torch.tensor(3.0)), activations()
    y = static(x)
    file = io.BytesIO()
    torch.save(static.state_dict(), file)
    file.seek(0)
    other = outliers.StaticInt8Linear(layer(seed=9), torch.tensor(1.0))
    other.load_state_dict(torch.load(file))
    for same in (copy.deepcopy(static), other, copy.deepcopy(static).half()):
        torch.testing.assert_close(same(x), y, rtol=1e-3, atol=2e-2 if same.bias.dtype == torch.float16 else 1e-6)
    assert static.half().input_scale.dtype == torch.float32


def test_a_silent_layer_gives_its_bias():
    linear = layer()
    static = outliers.StaticInt8Linear(linear, torch.zeros(24))
    assert torch.equal(static(torch.zeros(3, 24)), linear.bias.detach().expand(3, 16))


BAD_STATIC = {
    "NaN": ((torch.tensor(math.nan),), ValueError, ("finite magnitudes",)),
    "negative": ((torch.tensor(-1.0),), ValueError, ("finite magnitudes",)),
    "a shape": ((torch.ones(3),), ValueError, ("have shape (24,), got (3,)",)),
    "a float": ((3.0,), TypeError, ("input_max must be a float tensor, got float",)),
    "16 bits": ((torch.tensor(1.0), Scheme(16)), ValueError, ("2 to 8 bits",)),
    "a zero point": ((torch.tensor(1.0), Scheme(8, symmetric=False)), ValueError, ("symmetric",)),
    "groups": ((torch.tensor(1.0), Scheme(8, granularity=PerGroup(8))), ValueError, ("PerAxis(0) or PerTensor()",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD_STATIC))
def test_a_range_or_scheme_that_does_not_fit_is_refused(args, kind, words):
    refuses(kind, words, outliers.StaticInt8Linear, layer(), *args)
