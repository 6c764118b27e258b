"""The inventory of a model: nothing is missing and nothing is counted twice, and float has its reason."""

import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch import nn

from labutils import MXFP4, PerAxis, PerGroup, Scheme
from labutils.data.stand_in import untrained_encoder, untrained_language_model
from labutils.models import Int8Linear, model_bytes, quantize_model
from labutils.models.inventory import LOOKED_UP, ON_PURPOSE, inventory

MODELS = {"BERT": untrained_encoder, "Llama": untrained_language_model}
CONVERTED = {
    "float": None,
    "int4": Scheme(4, granularity=PerGroup(32)),
    "uint3": Scheme(3, symmetric=False, granularity=PerGroup(64)),
    "int8": Scheme(8, granularity=PerAxis(0)),
    "MXFP4": MXFP4,
    "W8A8": Int8Linear,
}


def converted(model, convert, **options):
    with warnings.catch_warnings(action="ignore"):
        return model if convert is None else quantize_model(model, convert, **options)


@pytest.mark.parametrize("convert", CONVERTED)
@pytest.mark.parametrize("name", MODELS)
def test_all_bytes_and_all_values_are_counted_once(name, convert):
    model = MODELS[name]().model
    parts = inventory(converted(model, CONVERTED[convert]))
    assert sum(part.nbytes for part in parts) == model_bytes(converted(model, CONVERTED[convert]))
    values = {id(tensor): tensor.numel() for tensor in (*model.parameters(), *model.buffers())}
    assert sum(part.values for part in parts) == sum(values.values())
    assert any(part.is_quantized for part in parts) == (convert != "float")


def test_bits_count_the_scales():
    model = nn.Sequential(nn.Linear(256, 64, bias=False))
    (part,) = inventory(quantize_model(model, Scheme(3, granularity=PerGroup(64))))
    assert (part.form, part.bits) == ("int3, groups of 64, scales in bfloat16", 3 + 16 / 64)
    (part,) = inventory(quantize_model(model, Scheme(8, granularity=PerAxis(0))))
    assert (part.form, part.bits) == ("int8, a scale for each row, scales in float32", 8 + 32 / 256)


def test_what_is_float_says_why():
    model = untrained_language_model().model
    parts = {part.kind: part for part in inventory(converted(model, CONVERTED["int4"]))}
    assert parts["embeddings"].why == f"{LOOKED_UP}; it is also the weight of lm_head"
    reasons = {part.why for part in inventory(converted(model, CONVERTED["int4"], skip="*down_proj"))}
    assert ON_PURPOSE in reasons
    attention = inventory(converted(nn.Sequential(nn.MultiheadAttention(16, 2), nn.Linear(16, 16)), CONVERTED["int8"]))
    assert "MultiheadAttention, which holds its weight itself" in {part.why for part in attention}


def test_a_shared_layer_counts_once():
    layer = nn.Linear(64, 64)
    once, twice = nn.Sequential(layer), nn.Sequential(layer, nn.ReLU(), layer)
    assert inventory(quantize_model(once)) == inventory(quantize_model(twice))
    tied = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
    tied[1].weight = tied[0].weight
    assert inventory(quantize_model(tied)) == inventory(quantize_model(tied[:1]))


def test_tensors_that_are_no_parameters_count():
    model = nn.Sequential(nn.Linear(4, 4))
    model.table = torch.zeros(100)
    assert sum(part.nbytes for part in inventory(model)) == model_bytes(model) == 4 * (16 + 4 + 100)


@pytest.mark.parametrize("wrong", [None, "model", torch.zeros(3)])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        inventory(wrong)
