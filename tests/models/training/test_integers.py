"""Converted networks answer as the fake-quantized ones did."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from labutils import data
from labutils.models.training import (
    FakeQuantizedLayer,
    convert,
    fake_quantize_ste,
    prepare,
)
from tests.models.training.examples import INPUTS, small

widths = st.integers(2, 16)
scales = st.floats(0.0078125, 10, width=32)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-50, 50, width=32)
)


@pytest.mark.parametrize(("num_bits", "activation_bits"), [(2, 8), (4, 4), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_integers_answer_as_fake_quantization_did(num_bits, activation_bits, dtype):
    inputs = INPUTS.to(dtype)
    model = prepare(small().to(dtype), inputs, num_bits, activation_bits)
    integers = convert(model)
    for name in ("0", "2", "4"):
        trained, layer = model.get_submodule(name), integers.get_submodule(name)
        assert layer.codes.dtype == torch.int8
        weight = fake_quantize_ste(trained.layer.weight, trained.weight_scale, num_bits)
        scale = layer.scale.reshape(-1, *[1] * (weight.ndim - 1))
        assert torch.equal(layer.codes * scale, weight.detach())
    with torch.no_grad():
        torch.testing.assert_close(
            integers(inputs), model(inputs), rtol=1e-4, atol=1e-4 * float(model(inputs).abs().max())
        )


def test_the_converted_network_gives_the_same_answers(two_bits):
    model, curve = two_bits
    images = torch.from_numpy(data.digits("test")[0])
    with torch.no_grad():
        simulated, exact = model(images), convert(model)(images)
    assert torch.equal(simulated.argmax(dim=1), exact.argmax(dim=1))
    assert data.digits_accuracy(convert(model)) == curve[-1]


def test_new_scales_at_conversion_ruin_what_was_trained(two_bits):
    model, curve = two_bits
    other = copy.deepcopy(model)
    for layer in other.modules():
        if isinstance(layer, FakeQuantizedLayer):
            w = layer.layer.weight.detach()
            layer.weight_scale.data = w.abs().amax(dim=tuple(range(1, w.ndim)), keepdim=True)
    assert data.digits_accuracy(convert(other)) < curve[-1] - 0.2


def test_a_converted_model_holds_no_parameter_and_survives_its_state():
    model = prepare(small(), INPUTS, 4)
    integers, other = convert(model), convert(prepare(small(), 2 * INPUTS, 4))
    assert list(integers.parameters()) == [] and not integers.training
    other.load_state_dict(integers.state_dict())
    assert torch.equal(other(INPUTS), integers(INPUTS))


@pytest.mark.parametrize(
    ("layer", "bits", "says"),
    [
        (nn.Linear(2, 2), (9, 8), "8 bits at most, got 9 and 8"),
        (nn.Linear(2, 2), (8, 12), "8 bits at most, got 8 and 12"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), (8, 8), "only zeros can be padded with, not 'reflect'"),
    ],
)
def test_what_integers_cannot_do_is_refused(layer, bits, says):
    x = torch.ones(1, 2) if isinstance(layer, nn.Linear) else torch.ones(1, 1, 4, 4)
    with pytest.raises(ValueError, match=says):
        convert(prepare(layer, x, *bits))
