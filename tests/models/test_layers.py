"""Layers with integer weights compute what their codes say, and go wherever modules go."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import nn

from labutils.arrays.affine import fake_quantize
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.models.conversion import quantize_model
from labutils.models.layers import Int8Linear, PackedLinear, QuantizedLinear
from tests.models.examples import CHANNELS, every_convert, inputs, layer, model, relative_noise

# --- what a layer computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme",
    [CHANNELS, Scheme(8), Scheme(4, False, PerGroup(16)), Scheme(2, granularity=PerAxis(1)), Scheme(16)],
    ids=str,
)
def test_a_quantized_layer_is_a_layer_with_a_fake_quantized_weight(scheme):
    linear, x = layer(), inputs(5, 64)
    expected = nn.functional.linear(x, fake_quantize(linear.weight, scheme), linear.bias)
    assert torch.equal(QuantizedLinear.from_float(linear, scheme)(x), expected)


@given(st.integers(2, 8), st.booleans(), st.sampled_from([1, 8, 32, 100]), st.integers(1, 70), st.integers(1, 20))
def test_no_packed_weight_is_off_by_more_than_half_a_scale(num_bits, symmetric, group_size, length, rows):
    """Also not for being rounded to 16 bits: scales are rounded up, so nothing is clipped."""
    linear = layer(length, rows)
    packed = PackedLinear.from_float(linear, Scheme(num_bits, symmetric, PerGroup(group_size)))
    scale = packed.state_dict()["scale"].float().repeat_interleave(min(group_size, length), 1)[:, :length]
    steps = (packed.weight - linear.weight).abs() / scale
    assert float(steps.max()) <= 0.5 + 2**-12  # float32 rounding of up to 255 steps


@every_convert
def test_quantization_noise_is_all_that_a_layer_adds(convert):
    """Against the float layer: a relative error of the bits' size, 2^-b or so, and nothing systematic."""
    linear, x = layer(64, 64), inputs(200, 64)
    replaced = quantize_model(linear, convert)
    noise = replaced(x) - linear(x)
    assert float(noise.norm() / linear(x).norm()) < relative_noise(convert)
    assert float(noise.mean().abs()) < 3 * float(noise.std()) / np.sqrt(noise.numel()) + 0.5 * float(noise.std())


@every_convert
@pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 3, 64), (0, 64), (2, 0, 64), (1, 1, 1, 64)], ids=str)
def test_any_shape_goes_in_as_into_a_float_layer(convert, shape):
    linear = layer()
    x = inputs(*shape)
    replaced = quantize_model(linear, convert)
    assert replaced(x).shape == linear(x).shape
    if x.numel():
        rows = torch.stack([replaced(row) for row in x.reshape(-1, 64)])
        # A row's result does not depend on the others; the order of float sums may.
        torch.testing.assert_close(replaced(x).reshape(-1, 48), rows, rtol=2**-7, atol=2**-7 * float(rows.abs().max()))


@every_convert
@pytest.mark.parametrize("weights", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("activations", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_dtypes_mix_and_the_result_has_that_of_the_activations(convert, weights, activations):
    linear, x = layer(dtype=weights), inputs(7, 64).to(activations)
    found = quantize_model(linear, convert)(x)
    assert found.dtype == activations
    expected = linear.double()(x.double())
    # quantization noise, and the 8 significant bits of bfloat16
    assert float((found.double() - expected).norm() / expected.norm()) < relative_noise(convert) + 2**-7


ODD = {
    "one input": layer(1, 5),
    "one output": layer(7, 1),
    "one of both, no bias": layer(1, 1, bias=False),
    "not a multiple of the group": layer(70, 16),
    "a row of zeros": layer(64, 16),
    "all zeros": layer(64, 16),
    "tiny weights": layer(64, 16),
}
with torch.no_grad():
    ODD["a row of zeros"].weight[3] = 0
    ODD["all zeros"].weight.zero_()
    ODD["tiny weights"].weight.mul_(1e-20)


@every_convert
@pytest.mark.parametrize("linear", ODD.values(), ids=ODD)
def test_odd_layers_are_quantized_like_others(convert, linear):
    x = inputs(6, linear.in_features)
    expected, found = linear(x), quantize_model(linear, convert)(x)
    plain = expected if linear.bias is None else expected - linear.bias
    tolerance = 2 * relative_noise(convert) * float(plain.norm()) + 2**-20 * float(expected.norm())
    assert float((found - expected).norm()) <= tolerance


@every_convert
def test_a_row_with_nan_does_not_spoil_the_others(convert):
    linear, x = layer(), inputs(5, 64)
    replaced = quantize_model(linear, convert)
    clean = replaced(x)
    x[2, 7] = float("nan")
    found = replaced(x)
    assert not bool(torch.isfinite(found[2]).any())
    assert torch.equal(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])


def test_w8a8_makes_little_of_a_large_neighbour():
    """Each row of activations has its own scale: a row a million times larger changes nothing in the others."""
    x = inputs(4, 64)
    replaced = Int8Linear.from_float(layer())
    clean = replaced(x)
    x[0] *= 1e6
    assert torch.equal(replaced(x)[1:], clean[1:])


@every_convert
@pytest.mark.parametrize(
    ("x", "error", "says"),
    [
        (torch.zeros(2, 63), ValueError, r"x must have shape \(..., 64\), got \(2, 63\)"),
        (torch.tensor(1.0), ValueError, r"x must have shape \(..., 64\), got \(\)"),
        (torch.zeros(2, 64, dtype=torch.int8), TypeError, "x must be a float tensor, got a tensor of torch.int8"),
        (torch.zeros(2, 64, dtype=torch.complex64), TypeError, "x must be a float tensor"),
        (np.zeros((2, 64), np.float32), TypeError, "x must be a float tensor, got ndarray"),
        (None, TypeError, "x must be a float tensor, got NoneType"),
    ],
)
def test_what_is_no_activation_is_refused(convert, x, error, says):
    with pytest.raises(error, match=says):
        quantize_model(layer(), convert)(x)


@pytest.mark.parametrize("make", [QuantizedLinear, Int8Linear, PackedLinear])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(make, value):
    linear = layer()
    with torch.no_grad():
        linear.weight[1, 1] = value
    with pytest.raises(ValueError, match="x must be finite, but holds NaN or Inf"):
        make.from_float(linear)
    with pytest.raises(ValueError, match=r"^1: x must be finite"):
        quantize_model(nn.Sequential(nn.ReLU(), linear), make)


@pytest.mark.parametrize("make", [QuantizedLinear, Int8Linear, PackedLinear])
@pytest.mark.parametrize("what", [None, "linear", nn.Conv2d(1, 1, 1), nn.Linear])
def test_only_linear_layers_can_be_converted(make, what):
    with pytest.raises(TypeError, match="expected an nn.Linear, got"):
        make.from_float(what)


@pytest.mark.parametrize("granularity", [PerTensor(), PerAxis(1), PerAxis(-1), PerAxis(7)], ids=str)
def test_packed_weights_need_groups(granularity):
    with pytest.raises(ValueError, match="a packed weight has groups or PerAxis"):
        PackedLinear.from_float(layer(), Scheme(4, granularity=granularity))


# --- where a layer goes -----------------------------------------------------------------------------------------------


def saved_and_loaded(module, convert):
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    other = quantize_model(model(seed=9), convert)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    return other


def through_safetensors(module, convert, path):
    save_model(module, path)
    other = quantize_model(model(seed=9), convert)
    assert load_model(other, path) == (set(), [])
    return other


@every_convert
def test_a_quantized_model_survives_every_copy(convert, tmp_path):
    original, x = model(), inputs(9, 64)
    module = quantize_model(original, convert)
    with torch.no_grad():
        expected = module(x)
        assert torch.equal(copy.deepcopy(module)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(module))(x), expected)
        assert torch.equal(saved_and_loaded(module, convert)(x), expected)
        assert torch.equal(through_safetensors(module, convert, tmp_path / "model.safetensors")(x), expected)
        assert torch.equal(torch.compile(module, backend="eager")(x), expected)
        assert torch.equal(module(x), expected)  # and is still itself


@every_convert
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_cast_leaves_codes_and_scales_alone(convert, dtype):
    """A scale of 1e-8 would be 0 in float16."""
    original = model()
    with torch.no_grad():
        original[0].weight.mul_(1e-6)
        original[0].bias.mul_(1e-6)
    module = quantize_model(original, convert)
    x = inputs(9, 64).bfloat16()
    before = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith("bias")}
    cast = copy.deepcopy(module).to(dtype)
    after = cast.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )
    assert cast[2][1].bias.dtype == dtype
    found, expected = cast[0](x).float(), module[0](x).float()
    torch.testing.assert_close(found, expected, rtol=2**-6, atol=2**-6 * float(expected.abs().max()))


@every_convert
def test_what_is_saved_is_the_same_on_every_machine(convert, monkeypatch):
    from labutils.models.kernels import probes

    here = quantize_model(model(), convert)
    monkeypatch.setattr(probes, "why_not", lambda name, device: "switched off")
    elsewhere = quantize_model(model(), convert)
    assert here.state_dict().keys() == elsewhere.state_dict().keys()
    assert all(torch.equal(tensor, elsewhere.state_dict()[name]) for name, tensor in here.state_dict().items())
    elsewhere.load_state_dict(here.state_dict())
    x = inputs(9, 64)
    tolerance = 2**-6 * float(here(x).abs().max())  # the int4 kernel works in bfloat16
    torch.testing.assert_close(elsewhere(x), here(x), rtol=0, atol=tolerance)


@every_convert
def test_a_state_that_does_not_fit_is_refused_with_its_name(convert):
    module = quantize_model(model(), convert)
    state = module.state_dict()
    name = next(name for name in state if name.startswith("0.") and not name.endswith("bias"))
    with pytest.raises(RuntimeError, match=f"Missing key.*{name}"):
        module.load_state_dict({other: tensor for other, tensor in state.items() if other != name})
    with pytest.raises(RuntimeError, match=name):
        module.load_state_dict(state | {name: state[name][..., :-1]})
    with pytest.raises(RuntimeError, match="Unexpected key.*surplus"):
        module.load_state_dict(state | {"0.surplus": torch.zeros(1)})
    before = module(inputs(2, 64))
    module.load_state_dict(state)
    assert torch.equal(module(inputs(2, 64)), before)


@every_convert
def test_a_layer_shows_what_it_is(convert):
    shown = repr(quantize_model(layer(), convert))
    assert "64, 48" in shown
    assert "bit" in shown or "int8" in shown
