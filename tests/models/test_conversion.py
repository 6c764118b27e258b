"""A model's copy has quantized layers where it was asked for, and is otherwise the model; MiniLM keeps its answers."""

import pytest
import torch
from torch import nn

from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.data import calibration_sentences, questions
from labutils.models.conversion import quantize_model
from labutils.models.evaluation import mean_cosine, retrieval_at_1
from labutils.models.footprint import model_bytes
from labutils.models.layers import Int8Linear, PackedLinear, QuantizedLinear
from labutils.models.linear import linear_layers
from tests.models.examples import CHANNELS, every_convert, inputs, layer, model


@every_convert
def test_the_original_stays_as_it_is(convert):
    original = model()
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    copied = quantize_model(original, convert)
    assert linear_layers(copied) == {}
    assert list(linear_layers(original)) == ["0", "2.0", "2.1"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.state_dict().items())
    with torch.no_grad():
        original[0].weight.zero_()
        original[0].bias.zero_()
    assert float(copied[0].weight.abs().max()) > 0  # nothing is shared
    assert float(copied[0].bias.abs().max()) > 0


def test_rules_and_skips_say_what_becomes_of_a_layer():
    kinds = quantize_model(
        model(), CHANNELS, rules={"2.0": Int8Linear, "2.*": Scheme(4, granularity=PerGroup(16))}, skip="0"
    )
    assert [type(kinds[0]), type(kinds[2][0]), type(kinds[2][1])] == [nn.Linear, Int8Linear, PackedLinear]
    assert type(quantize_model(model(), CHANNELS, rules={"2.0": None})[2][0]) is nn.Linear


@pytest.mark.parametrize("where", ["rules", "skip"])
def test_a_name_that_no_layer_has_is_an_error_that_names_near_ones(where):
    given = {"2.2": CHANNELS} if where == "rules" else ["2.2"]
    with pytest.raises(ValueError, match=r"no linear layer is called '2.2'; there are 2\.\d"):
        quantize_model(model(), CHANNELS, **{where: given})


def test_what_is_no_model_or_no_way_to_convert_is_refused():
    with pytest.raises(ValueError, match=r"Sequential has no nn.Linear to quantize"):
        quantize_model(nn.Sequential(nn.ReLU()))
    for what in (None, "model", model().state_dict()):
        with pytest.raises(TypeError, match="model must be an nn.Module, got"):
            quantize_model(what)
        with pytest.raises(TypeError, match="model must be an nn.Module, got"):
            model_bytes(what)
    with pytest.raises(TypeError, match="convert: expected a Scheme or a function of a layer, got 8"):
        quantize_model(model(), 8)
    with pytest.raises(TypeError, match="0: expected a Scheme or a function of a layer, got 'int8'"):
        quantize_model(model(), rules={"0": "int8"})
    with pytest.raises(TypeError, match="should make an nn.Module of a layer, got NoneType"):
        quantize_model(model(), lambda linear: None)


def test_a_layer_in_two_places_stays_one_layer():
    shared = layer(64, 64)
    original = nn.ModuleDict({"first": shared, "second": nn.Sequential(nn.ReLU(), shared)})
    copied = quantize_model(original, Int8Linear)
    assert copied["first"] is copied["second"][1]
    assert model_bytes(copied) == copied["first"].memory_bytes()
    with pytest.raises(ValueError, match="first and second.1 are one and the same layer"):
        quantize_model(original, skip=["first"])


@every_convert
def test_tied_weights_stay_tied_and_count_once(convert):
    original = nn.Sequential(layer(64, 64), layer(64, 64, seed=1))
    untied = model_bytes(quantize_model(original, convert))
    original[1].weight = original[0].weight
    assert model_bytes(original) == 4 * (64 * 64 + 2 * 64)
    copied = quantize_model(original, convert)
    biases = 2 * 64 * 4
    assert 2 * (model_bytes(copied) - biases) == untied - biases
    assert torch.equal(copied[0].weight, copied[1].weight)
    assert not torch.equal(copied[0].bias, copied[1].bias)


class Decoder(nn.Module):
    """As language models are: the embedding is also the last layer's weight."""

    def __init__(self):
        super().__init__()
        self.embedding, self.body, self.head = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.body(self.embedding(tokens)))


def test_a_weight_that_is_also_an_embedding_stays_in_float_unless_asked():
    copied = quantize_model(Decoder(), Int8Linear)
    assert [type(copied.body), type(copied.head)] == [Int8Linear, nn.Linear]
    assert copied.head.weight is copied.embedding.weight
    asked = quantize_model(Decoder(), Int8Linear, rules={"head": CHANNELS})
    assert type(asked.head) is QuantizedLinear
    assert model_bytes(asked) == model_bytes(copied) + 50 * 16 + 50 * 4  # the embedding is kept anyway
    assert asked(torch.tensor([3, 7])).shape == (2, 50)


def test_modes_are_kept_and_hooks_elsewhere_too():
    original = model().train()
    original[2].eval()
    seen = []
    original[1].register_forward_hook(lambda module, given, result: seen.append(1))
    copied = quantize_model(original)
    assert [copied[0].training, copied[2][0].training] == [True, False]
    copied(inputs(2, 64))
    assert seen == [1]


@pytest.mark.parametrize("convert", [CHANNELS, Int8Linear], ids=["W8A16", "W8A8"])
def test_a_transformer_of_torch_runs_quantized(convert):
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    x = inputs(2, 5, 32)
    with torch.no_grad():
        expected, found = encoder(x), quantize_model(encoder, convert)(x)
    assert float((found - expected).norm() / expected.norm()) < 0.02


def test_subclasses_of_linear_are_not_touched():
    """MultiheadAttention reads the weight of its out_proj itself."""
    attention = nn.MultiheadAttention(16, 2)
    with pytest.raises(ValueError, match="MultiheadAttention has no nn.Linear"):
        quantize_model(attention)


# --- MiniLM -----------------------------------------------------------------------------------------------------------

# Mean cosine to float, as measured elsewhere, on other sentences.
MEASURED = {
    Scheme(8, granularity=PerAxis(0)): 0.9997,
    Scheme(4, granularity=PerGroup(128)): 0.940,
    Scheme(4, granularity=PerGroup(32)): 0.959,
    Scheme(4, symmetric=False, granularity=PerGroup(128)): 0.956,
    Scheme(4, symmetric=False, granularity=PerGroup(32)): 0.973,
}


@pytest.fixture(scope="module")
def sentences(trained):
    texts = calibration_sentences()[:48]
    return texts, trained.encode(texts)


@pytest.mark.parametrize(("scheme", "cosine"), MEASURED.items(), ids=str)
def test_minilm_keeps_as_much_as_others_have_measured(scheme, cosine, trained, sentences):
    texts, exact = sentences
    quantized = trained.with_model(quantize_model(trained.model, scheme))
    assert mean_cosine(quantized.encode(texts), exact) == pytest.approx(cosine, abs=0.01)


def test_minilm_in_integers_finds_the_same_answers_but_for_one_question(trained):
    asked, answers = zip(*questions()[::2])
    encoders = [trained, trained.with_model(quantize_model(trained.model, Int8Linear))]
    found = [retrieval_at_1(encoder.encode(asked), encoder.encode(answers)) for encoder in encoders]
    assert abs(found[0] - found[1]) <= 1.01 / len(asked)
