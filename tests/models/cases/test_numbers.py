"""Small numbers, large ones and zero in 16 bits and in integers, and the gradients that pass them."""

import pytest
import torch
from torch import nn

from labutils.arrays.affine import choose_qparams, fake_quantize
from labutils.models import outliers, training
from labutils.models.conversion import quantize_model
from tests.models.examples import every_convert, inputs, layer, model

# --- 16 bits ---


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_scale_is_not_rounded_to_the_dtype_of_what_it_scales(dtype):
    x = inputs(4096).to(dtype)
    qparams = choose_qparams(x)
    assert torch.equal(training.fake_quantize_ste(x, qparams[0]), fake_quantize(x, qparams=qparams))
    scales = torch.full((64,), 1.001)
    divided = outliers.Divide(scales)(x.reshape(64, 64))
    assert torch.equal(divided, (x.reshape(64, 64).double() / scales.double()).float().to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_cast_leaves_every_scale_alone(dtype):
    x = inputs(9, 64)
    prepared = training.prepare(model(), x, 8)
    smoothed = outliers.smooth_linear(layer(), torch.full((64,), 1.001))
    for module in (prepared, training.convert(prepared), smoothed):
        held = {name: t.clone() for name, t in module.state_dict().items() if "scale" in name}
        assert held
        module.to(dtype)
        assert all(torch.equal(module.state_dict()[name], value) for name, value in held.items())
        assert module(x.to(dtype)).dtype == dtype


def test_a_product_that_leaves_float16_is_refused():
    linear = layer().half()
    with torch.no_grad():
        linear.weight[3, 5] = 100
    with pytest.raises(ValueError, match="the weight times the scales reaches 100000, and torch.float16 holds"):
        outliers.smooth_linear(linear, torch.full((64,), 1000.0))
    with pytest.raises(ValueError, match="convert the layer to float32 first"):
        outliers.fold_division(nn.LayerNorm(4).half(), torch.tensor([1e-6, 1, 1, 1]))
    with pytest.raises(ValueError, match="convert the layer to float32 first"):
        outliers.fold_division(nn.LayerNorm(4).half(), torch.tensor([1e6, 1, 1, 1]))
    assert outliers.smooth_linear(linear.float(), torch.full((64,), 1000.0))[1].weight.isfinite().all()


# --- zero ---


@every_convert
def test_a_weight_of_zero_takes_no_part_however_large_its_input(convert):
    linear = layer(64, 64, bias=False)
    with torch.no_grad():
        linear.weight[:, 7] = 0
    x = torch.zeros(3, 64)
    x[:, 7] = 1000
    assert not quantize_model(linear, convert)(x).any()


# --- gradients ---


@every_convert
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gradient_goes_straight_through_to_the_input(convert, dtype):
    linear, x = quantize_model(layer(), convert), inputs(9, 64).to(dtype).requires_grad_()
    linear(x).sum().backward()
    expected = linear.weight.sum(0).expand(9, 64)
    torch.testing.assert_close(x.grad.float(), expected.float(), rtol=2**-6, atol=2**-6 * float(expected.abs().max()))


def test_it_stops_where_a_range_clamps():
    static = outliers.StaticInt8Linear(layer(2, 1), torch.tensor(1.0))
    x = torch.tensor([[0.5, 3.0]], requires_grad=True)
    static(x).sum().backward()
    assert x.grad[0, 0] == static.weight[0, 0] and x.grad[0, 1] == 0


@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.Linear(6, 3)), lambda: nn.Sequential(nn.Conv2d(2, 3, 2))])
def test_trained_integers_pass_one_on_too(make):
    float_model = make()
    x = inputs(4, 6) if isinstance(float_model[0], nn.Linear) else inputs(4, 2, 5, 5)
    prepared = training.prepare(float_model, x, 8)
    gradients = []
    for quantized in (prepared, training.convert(prepared)):
        given = x.clone().requires_grad_()
        quantized(given).square().sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


# --- training ---


def test_a_learned_scale_stays_positive():
    images, labels = inputs(640, 8), torch.arange(640) % 4
    prepared = training.prepare(nn.Sequential(nn.Linear(8, 4)), images, 4, learn_scales=True)
    training.train(prepared, images, labels, epochs=3, scale_learning_rate=0.1)
    assert all((scale > 0).all() for name, scale in prepared.named_parameters() if name.endswith("_scale"))
    torch.testing.assert_close(training.convert(prepared)(images), prepared(images), rtol=1e-3, atol=1e-3)


def test_a_scale_that_is_not_positive_is_refused():
    prepared = training.prepare(nn.Sequential(nn.Linear(8, 4)), inputs(6, 8), 4)
    with torch.no_grad():
        prepared[0].weight_scale[1] = -0.03
    with pytest.raises(ValueError, match="scale must be positive everywhere"):
        prepared(inputs(6, 8))
    with pytest.raises(ValueError, match="0: scale must be positive"):
        training.convert(prepared)


@pytest.mark.parametrize("options", [{"dilation": 2}, {"dilation": (1, 2), "groups": 2}, {"padding": "same"}], ids=str)
def test_convolutions_of_every_kind_are_converted(options):
    float_model, x = nn.Sequential(nn.Conv2d(4, 8, 3, **options)), inputs(3, 4, 9, 9)
    prepared = training.prepare(float_model, x, 8)
    with torch.no_grad():
        torch.testing.assert_close(training.convert(prepared)(x), prepared(x), rtol=1e-4, atol=1e-4)
