"""Architectures by what can be done with them: the answer is right or refused by name, never silently wrong.

A copy of 8 bits answers as the float model does, up to what 8 bits cost; the expected cost is that of the weights as
`affine` rounds them, so a layer that was left out or read in another way would show.
"""

import copy
import re
import warnings

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.labs.answers import smooth_scales
from labutils.models import Int8Linear, outliers, training
from labutils.models.conversion import quantize_model
from labutils.models.left_in_float import LeftInFloatWarning
from labutils.models.linear import linear_layers
from labutils.models.rotation import rotate_model
from tests.models.architectures import ARCHITECTURES, build, output
from tests.models.examples import relative_error

CONVERTS = {"8 bits": Scheme(8, granularity=PerAxis(0)), "W8A8": Int8Linear, "6 bits": Scheme(6, False, PerGroup(16))}
# What quantize_model says stays in float; nothing else does.
LEFT = {
    "GPT-2": r"lm_head .*transformer.wte.*c_attn \(Conv1D.*more",
    "Gemma": r"lm_head .*model.embed_tokens",
    "Mixtral": r"model.layers.0.mlp.experts \(MixtralExperts",
    "T5": r"lm_head .*decoder.embed_tokens|lm_head .*shared",
    "nn.TransformerEncoder": r"layers.0.self_attn \(MultiheadAttention",
    "nn.Transformer": r"encoder.layers.0.self_attn \(MultiheadAttention",
    "LSTM": r"cells \(LSTM",
}
# What `prepare`, which takes tied layers and Conv2d as well, says stays in float.
LEFT_BY_PREPARE = {name: LEFT[name] for name in ("Mixtral", "nn.TransformerEncoder", "nn.Transformer", "LSTM")} | {
    "GPT-2": r"c_attn \(Conv1D.*more",
    "Whisper": r"encoder.conv2 \(Conv1d, which holds its weight itself",
}
UNCHANGED = {"GPT-2"}  # nothing in it is an nn.Linear that could be quantized
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def quantized(made, convert=CONVERTS["8 bits"]):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftInFloatWarning)
        return quantize_model(made, convert)


class WithInputs(nn.Module):
    """A model that takes its keywords as one argument, as `prepare` hands it on."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, keywords):
        return self.made(**keywords)


def assert_said(caught, pattern):
    """One LeftInFloatWarning of these words, or none."""
    said = [str(warning.message) for warning in caught if warning.category is LeftInFloatWarning]
    assert len(said) == (pattern is not None)
    assert pattern is None or re.search(pattern, said[0])


@every_architecture
def test_what_stays_in_float_is_said(name):
    made, _ = build(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantize_model(made)
    assert_said(caught, LEFT.get(name))


@every_architecture
@pytest.mark.parametrize("convert", CONVERTS.values(), ids=CONVERTS)
def test_a_quantized_model_answers_as_the_float_one_does(name, convert):
    made, inputs = build(name)
    error = relative_error(output(quantized(made, convert), inputs), output(made, inputs))
    assert (error == 0) == (name in UNCHANGED)
    assert error < (0.04 if isinstance(convert, Scheme) and convert.num_bits < 8 else 0.02)


@every_architecture
def test_every_layer_that_is_quantized_is_called(name):
    made, inputs = build(name)
    copied, called = quantized(made, Int8Linear), set()
    layers = {name: module for name, module in copied.named_modules() if isinstance(module, Int8Linear)}
    for layer_name, layer in layers.items():
        layer.register_forward_hook(lambda module, args, result, name=layer_name: called.add(name))
    output(copied, inputs)
    # A pooler, say, is no part of the first output, but runs; whatever is idle was so in the float model.
    with outliers.observe(made) as seen:
        output(made, inputs)
    assert called == seen.maxima.keys() & layers.keys()


@every_architecture
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_costs_little_more(name, dtype):
    made, inputs = build(name)
    expected = output(made, inputs)
    made.to(dtype)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    found = output(quantized(made, Int8Linear), inputs)
    assert found.dtype == dtype
    assert relative_error(found, expected) < 0.02 + 2 * relative_error(output(made, inputs), expected)


@every_architecture
def test_it_goes_through_its_state(name):
    made, inputs = build(name)
    other = copy.deepcopy(made)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    for convert in CONVERTS.values():
        saved, loaded = quantized(made, convert), quantized(other, convert)
        loaded.load_state_dict(saved.state_dict())
        assert torch.equal(output(loaded, inputs), output(saved, inputs))


@every_architecture
def test_it_is_prepared_and_converted(name):
    made, inputs = build(name)
    modes = {module: module.training for module in made.modules()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepared = training.prepare(WithInputs(made), inputs, 8)
    assert_said(caught, LEFT_BY_PREPARE.get(name))
    assert {module: module.training for module in made.modules()} == modes
    integers = training.convert(prepared)
    simulated = output(prepared.eval(), {"keywords": inputs})
    assert relative_error(simulated, output(made, inputs)) < 0.03
    assert relative_error(output(integers, {"keywords": inputs}), simulated) < 1e-3


@every_architecture
def test_smoothing_changes_no_answer(name):
    made, inputs = build(name)
    with outliers.observe(made) as seen:
        expected = output(made, inputs)

    def smoothed(linear, input_max):
        return outliers.smooth_linear(linear, smooth_scales(input_max, linear.weight.detach()))

    assert seen.maxima.keys() == linear_layers(made).keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftInFloatWarning)
        changed = outliers.replace_linears(made, seen.maxima, smoothed)
    assert relative_error(output(changed, inputs), expected) < 1e-5


def test_a_layer_without_a_weight_is_refused_where_the_model_asks_for_it():
    """T5 looks at the dtype of `wo.weight` before it calls `wo`; other layers it only calls."""
    made, _ = build("T5")
    with pytest.raises(ValueError, match=r"DenseReluDense\.wo: T5DenseActDense asks .* and Sequential has none: give"):
        quantized(made, nn.Sequential)
    quantize_model(made, nn.Sequential, skip=["*.wo", "lm_head"])


def test_a_rotated_t5_answers_as_it_did():
    made, inputs = build("T5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeftInFloatWarning)
        rotated = rotate_model(made, seed=0)
    assert relative_error(output(rotated, inputs), output(made, inputs)) < 1e-5
