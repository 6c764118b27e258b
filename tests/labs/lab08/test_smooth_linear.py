"""smooth_linear: the same function, with outliers that cost less."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
nn = torch.nn

from labutils import sqnr_db
from labutils.labs.answers import smooth_linear, smooth_scales
from labutils.labs.lab08.smooth_linear import right
from labutils.models.outliers import Divide, StaticInt8Linear
from tests.arrays.bad_inputs import refuses, table
from tests.labs.lab08.layers import BAD_SCALES, activations, layer
from tests.labs.right_answers import passes


@given(st.integers(0, 1000), st.floats(0, 1), st.booleans())
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
    plain = sqnr_db(linear(x), StaticInt8Linear(linear, peaks)(x))
    smooth = sqnr_db(linear(x), StaticInt8Linear(inner, peaks / scales)(divide(x)))
    assert smooth > plain + 6


@pytest.mark.parametrize("scales, kind, words", **table(BAD_SCALES))
def test_what_are_no_scales_is_refused(scales, kind, words):
    refuses(kind, words, smooth_linear, layer(), scales)


def test_what_is_no_linear_layer_is_refused():
    refuses(TypeError, ("expected an nn.Linear, got LayerNorm",), smooth_linear, nn.LayerNorm(24), torch.ones(24))


def copied_and_multiplied(linear, scales):
    new = copy.deepcopy(linear)
    new.weight.data *= scales
    return torch.nn.Sequential(Divide(scales), new)


def a_new_layer(linear, scales):
    new = torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    with torch.no_grad():
        new.weight.copy_(linear.weight * scales)
        if linear.bias is not None:
            new.bias.copy_(linear.bias)
    return torch.nn.Sequential(Divide(scales), new)


def own_module(linear, scales):
    class Smoothed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(linear)
            self.inner.weight = torch.nn.Parameter(linear.weight.detach() @ torch.diag(scales))
            self.register_buffer("scales", scales)

        def forward(self, x):
            return self.inner(x / self.scales)

    return Smoothed()


def reciprocal_beforehand(linear, scales):
    class Times(torch.nn.Module):
        def forward(self, x):
            return x * (1 / scales)

    new = copy.deepcopy(linear)
    new.weight = torch.nn.Parameter(torch.einsum("ij,j->ij", linear.weight, scales).detach())
    return torch.nn.Sequential(Times(), new)


def by_state_dict(linear, scales):
    new = torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    new.load_state_dict(linear.state_dict() | {"weight": linear.weight.detach() * scales.unsqueeze(0)})
    return torch.nn.Sequential(Divide(scales), new).eval()


def the_recipe(linear, scales):
    return right(linear, scales)


RIGHT = [copied_and_multiplied, a_new_layer, own_module, reciprocal_beforehand, by_state_dict, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("smooth_linear", answer)
