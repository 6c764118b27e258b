"""Layers are called in all the ways in which nn.Linear is: strided, empty, by keyword, exported, under autocast."""

import pytest
import torch
from torch import nn

import labutils
from labutils.models import outliers, training
from labutils.models.conversion import quantize_model
from tests.models.examples import encoder_layer, every_convert, inputs, layer, model, relative_error

# --- inputs ---


@every_convert
def test_strided_inputs_are_read_as_they_lie(convert):
    quantized = quantize_model(layer(64, 16), convert)
    for x in (inputs(1, 64, 9).transpose(1, 2), inputs(9, 128)[:, ::2], inputs(1, 64).expand(5, 64)):
        torch.testing.assert_close(quantized(x), quantized(x.contiguous()))


@every_convert
def test_inputs_may_come_by_keyword(convert):
    quantized, x = quantize_model(layer(), convert), inputs(3, 64)
    assert torch.equal(quantized(input=x), quantized(x))


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(input=self.first(input=x))


def test_training_sees_inputs_by_keyword_and_empty_ones():
    x = inputs(5, 6)
    prepared = training.prepare(ByKeyword(), x, 8)
    quantized = training.convert(prepared)
    torch.testing.assert_close(quantized(x), prepared(x), rtol=1e-4, atol=1e-4)
    assert quantized(x[:0]).shape == (0, 3)
    assert training.convert(training.prepare(nn.Conv2d(2, 3, 2), inputs(4, 2, 5, 5), 8))(
        torch.zeros(0, 2, 5, 5)
    ).shape == (0, 3, 4, 4)


class Routed(nn.Module):
    """Two experts, of which rows below 100 go to the first."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        low = x.abs().amax(-1) < 100
        y = torch.empty_like(x)
        y[low], y[~low] = self.experts[0](x[low]), self.experts[1](x[~low])
        return y


class Idle(nn.Sequential):
    def forward(self, x):
        return self[0](x)


@pytest.mark.parametrize(
    ("make", "name"), [(Routed, "experts.1"), (lambda: Idle(nn.Linear(4, 4), nn.Linear(4, 4)), "1")]
)
def test_a_layer_that_calibration_does_not_reach_is_named(make, name):
    with pytest.raises(ValueError, match=f"{name}: nothing entered there while the model saw `inputs`"):
        training.prepare(make(), inputs(5, 4), 8)
    float_model = make()
    with outliers.observe(float_model) as seen:
        float_model(inputs(5, 4))
    with pytest.raises(ValueError, match=f"{name}: never observed"):
        outliers.replace_linears(float_model, seen.maxima, outliers.StaticInt8Linear)


def test_calibration_sees_the_layers_of_a_transformer_of_torch():
    float_model, x = encoder_layer(16), inputs(2, 5, 16)
    prepared = training.prepare(float_model, x, 8)
    with torch.no_grad():
        assert relative_error(prepared(x), float_model(x)) < 0.05
        assert relative_error(training.convert(prepared)(x), prepared(x)) < 1e-4
    assert torch.backends.mha.get_fastpath_enabled()


# --- what torch makes of a model ---


@every_convert
def test_a_quantized_model_can_be_exported(convert):
    quantized, x = quantize_model(model(), convert), inputs(3, 64)
    with torch.no_grad():
        exported = torch.export.export(quantized, (x,))
        torch.testing.assert_close(exported.module()(x), quantized(x))


@every_convert
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_gives_its_dtype_as_it_does_for_float_layers(convert, dtype):
    linear, x = layer(), inputs(5, 64)
    quantized = quantize_model(linear, convert)
    with torch.autocast("cpu", dtype=dtype):
        found, expected = quantized(x), linear(x)
        assert quantized(x.double()).dtype == torch.float64
    assert found.dtype == expected.dtype == dtype
    torch.testing.assert_close(found.float(), quantized(x), rtol=0.05, atol=0.05 * float(expected.abs().max()))


def test_autocast_gives_its_dtype_in_training_too():
    x = inputs(5, 64)
    prepared = training.prepare(model(), x, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert prepared(x).dtype == training.convert(prepared)(x).dtype == torch.bfloat16


def test_a_star_import_hides_nothing_of_torch():
    assert not {"nn", "torch", "optim"} & set(labutils.__all__)
