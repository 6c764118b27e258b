"""A rotated layer computes what it did; behind a rotation, integers lose less."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from labutils import PerAxis, PerTensor, Scheme, fake_quantize, sqnr_db
from labutils.data import calibration_sentences
from labutils.models import mean_cosine, quantize_model
from labutils.models.outliers import StaticInt8Linear, observe, replace_linears
from labutils.models.rotation import Rotation, rotate_linear, rotate_model
from tests.arrays.bad_inputs import refuses


def inputs(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(n=48, out=20, bias=True):
    torch.manual_seed(0)
    return nn.Linear(n, out, bias=bias)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 36), nn.GELU(), nn.Sequential(nn.LayerNorm(36), nn.Linear(36, 8))).eval()


@pytest.mark.parametrize("n, blocks", [(48, False), (576, False), (1536, False), (10, True)])
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("bias", [True, False])
def test_rotating_does_not_change_what_a_layer_computes(n, blocks, seed, bias):
    linear, x = layer(n, bias=bias), inputs(7, n)
    weight = linear.weight.clone()
    rotated = rotate_linear(linear, seed, blocks)
    assert (rotated(x) - linear(x)).abs().max() <= 1e-5 * linear(x).abs().max()
    assert (rotated[1].weight - weight).abs().max() > 0.01
    assert torch.equal(linear.weight, weight)
    torch.testing.assert_close(rotated.weight, weight, rtol=1e-5, atol=1e-5)  # what the two multiply with
    assert (rotated[1](x) - linear(x)).abs().max() > 0.1  # on one side only, it is another layer


def test_16_bit_layers_keep_their_dtype():
    linear, x = layer().bfloat16(), inputs(7, 48).bfloat16()
    rotated = rotate_linear(linear)
    assert rotated[1].weight.dtype == rotated.weight.dtype == rotated(x).dtype == torch.bfloat16
    torch.testing.assert_close(rotated(x), linear(x), rtol=0.05, atol=0.05)


def test_a_model_is_rotated_in_a_copy():
    model, x = network(), inputs(5, 24)
    rotated = rotate_model(model, seed=1)
    assert (rotated(x) - model(x)).abs().max() <= 1e-5 * model(x).abs().max()
    assert [type(module) for module in model.modules() if isinstance(module, Rotation)] == []
    assert [module.n for module in rotated.modules() if isinstance(module, Rotation)] == [24, 36]
    skipped = rotate_model(model, skip="2.*")
    assert [module.n for module in skipped.modules() if isinstance(module, Rotation)] == [24]


def test_an_outlier_channel_costs_less_behind_a_rotation():
    linear, x = layer(384, 64), inputs(200, 384)
    x[:, 11] *= 50
    rotation, inner = rotate_linear(linear)
    plain = sqnr_db(linear(x), StaticInt8Linear(linear, x.abs().amax(0))(x))
    rotated = sqnr_db(linear(x), StaticInt8Linear(inner, rotation(x).abs().amax(0))(rotation(x)))
    assert rotated > plain + 6


def test_a_pruned_weight_is_rotated_as_it_is_used():
    linear = prune.l1_unstructured(layer(), "weight", amount=0.5)
    x = inputs(7, 48)
    assert (rotate_linear(linear)(x) - linear(x)).abs().max() <= 1e-5 * linear(x).abs().max()


def test_what_cannot_be_rotated_is_named():
    refuses(TypeError, ("expected an nn.Linear, got LayerNorm",), rotate_linear, nn.LayerNorm(4))
    refuses(ValueError, ("order 10", "blocks=True"), rotate_linear, layer(10))
    odd = nn.Sequential(nn.Linear(8, 7), nn.Linear(7, 2))
    refuses(ValueError, ("1: there is no Hadamard matrix of order 7",), rotate_model, odd)
    refuses(ValueError, ("no nn.Linear",), rotate_model, nn.ReLU())


# --- MiniLM -----------------------------------------------------------------------------------------------------------


class FakeQuantizedLinear(nn.Module):
    """Weights on a symmetric grid for each output; activations on an asymmetric one for each token."""

    def __init__(self, linear, weight_bits, activation_bits):
        super().__init__()
        weight = fake_quantize(linear.weight.detach(), Scheme(weight_bits, granularity=PerAxis(0)))
        self.linear = copy.deepcopy(linear)
        self.linear.weight.data = weight
        self.scheme = Scheme(activation_bits, symmetric=False, granularity=PerAxis(0))

    def forward(self, x):
        return self.linear(fake_quantize(x.flatten(0, -2), self.scheme).reshape(x.shape))


@pytest.fixture(scope="module")
def encoders(trained):
    """Whether rotated -> the encoder, and the largest inputs of its layers over other sentences."""
    found = {}
    for rotated in (False, True):
        encoder = trained.with_model(rotate_model(trained.model, seed=0) if rotated else trained.model)
        with observe(encoder.model) as seen:
            encoder.encode(calibration_sentences()[128:])
        found[rotated] = encoder, seen.maxima
    return found


@pytest.fixture(scope="module")
def exact(trained):
    return trained.encode(calibration_sentences()[:128])


# The numbers were measured before with another implementation, over 256 sentences.
STATIC = {
    (False, PerAxis(0)): 0.983,
    (True, PerAxis(0)): 0.9993,
    (False, PerTensor()): 0.954,
    (True, PerTensor()): 0.998,
}


@pytest.mark.slow
@pytest.mark.parametrize("rotated, granularity", STATIC, ids=str)
def test_minilm_in_static_integers_gains_from_rotations(rotated, granularity, encoders, exact):
    encoder, maxima = encoders[rotated]
    make = partial(StaticInt8Linear, scheme=Scheme(8, granularity=granularity))
    static = encoder.with_model(replace_linears(encoder.model, maxima, make))
    found = mean_cosine(static.encode(calibration_sentences()[:128]), exact)
    assert found == pytest.approx(STATIC[rotated, granularity], abs=0.01)
    assert not rotated or found > 0.997


@pytest.mark.slow
@pytest.mark.parametrize("rotated, cosine", [(False, 0.856), (True, 0.912)])
def test_minilm_in_4_bits_throughout_gains_from_rotations(rotated, cosine, encoders, exact):
    encoder, _ = encoders[rotated]
    four = quantize_model(encoder.model, partial(FakeQuantizedLinear, weight_bits=4, activation_bits=4))
    found = mean_cosine(encoder.with_model(four).encode(calibration_sentences()[:128]), exact)
    assert found == pytest.approx(cosine, abs=0.01)
