"""Every layer is fake-quantized in the copy, and what cannot be is refused."""

import copy
import math

import pytest
import torch
from torch import nn

from labutils.models.training import (
    FakeQuantizedLayer,
    IntegerLayer,
    convert,
    fake_quantize_ste,
    prepare,
)
from tests.models.training.examples import INPUTS, small


def test_every_linear_and_convolution_is_prepared_and_the_model_itself_stays_as_it_was():
    model = small()
    before = copy.deepcopy(model.state_dict())
    prepared = prepare(model, INPUTS, num_bits=3)
    assert [type(layer) for layer in (prepared[0], prepared[2], prepared[4])] == [FakeQuantizedLayer] * 3
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.fill_(1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [type(layer) for layer in (model[0], model[2], model[4])] == [nn.Conv2d, nn.Conv2d, nn.Linear]


def test_many_bits_change_next_to_nothing_and_few_change_much():
    model = small()
    with torch.no_grad():
        outputs = {b: prepare(model, INPUTS, num_bits=b, activation_bits=b)(INPUTS) for b in (2, 8, 16)}
        expected = model(INPUTS)
    errors = {b: float((y - expected).abs().max()) for b, y in outputs.items()}
    assert errors[16] < 0.01 * expected.abs().max() < errors[2]
    assert errors[16] < errors[8] < errors[2]


def test_a_layer_used_twice_is_prepared_once_and_sees_the_larger_of_its_inputs():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    x = torch.randn(20, 4)
    prepared = prepare(model, x, num_bits=4)
    assert prepared[0] is prepared[2]
    largest = max(x.abs().max(), torch.relu(shared(x)).abs().max())
    assert prepared[0].input_scale.item() == pytest.approx(largest.item() / 127)


def test_one_layer_alone_can_be_prepared_and_converted():
    layer = nn.Linear(5, 3)
    x = torch.randn(7, 5)
    prepared = prepare(layer, x, num_bits=4)
    assert isinstance(prepared, FakeQuantizedLayer) and isinstance(convert(prepared), IntegerLayer)
    torch.testing.assert_close(convert(prepared)(x), prepared(x))


@pytest.mark.parametrize("training", [True, False])
def test_preparing_leaves_the_mode_and_no_hook_behind(training):
    model = small().train(training)
    prepare(model, INPUTS, num_bits=4)
    assert model.training is training
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("model", "inputs", "num_bits", "says"),
    [
        (nn.Sequential(nn.ReLU()), torch.ones(1, 2), 4, "Sequential has no Linear or Conv2d"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), torch.ones(2, 2), 4, "fold batch norm .* not folded: 1"),
        (nn.Sequential(nn.Linear(2, 3)), torch.full((2, 2), math.nan), 4, "must be finite"),
        (nn.Sequential(nn.Linear(2, 3)), torch.ones(2, 2), 1, "num_bits must be between 2 and 16, got 1"),
    ],
    ids=["no layers", "batch norm", "NaN", "one bit"],
)
def test_what_cannot_be_prepared_is_refused(model, inputs, num_bits, says):
    with pytest.raises(ValueError, match=says):
        prepare(model, inputs, num_bits)


def test_a_model_is_prepared_once_and_converted_after_that():
    prepared = prepare(nn.Sequential(nn.Linear(2, 3)), torch.ones(1, 2), 4)
    with pytest.raises(ValueError, match="prepared already"):
        prepare(prepared, torch.ones(1, 2), 4)
    with pytest.raises(ValueError, match="Sequential has no FakeQuantizedLayer"):
        convert(nn.Sequential(nn.Linear(2, 3)))


def test_a_learners_function_is_the_one_that_is_called():
    calls = []

    def counted(x, scale, num_bits):
        calls.append(num_bits)
        return fake_quantize_ste(x, scale, num_bits)

    prepare(small(), INPUTS, num_bits=3, fake_quantize=counted)(INPUTS)
    assert calls == [3, 8] * 3
