"""A model quantized with its Hessians: each layer as by itself, and MiniLM as well as a plain prototype did."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from labutils.arrays.affine import QuantizedArray, dequantize, quantize
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.data import calibration_sentences, questions
from labutils.models.awq import awq_linear
from labutils.models.calibrated import quantize_with
from labutils.models.conversion import quantize_model
from labutils.models.evaluation import mean_cosine
from labutils.models.gptq import gptq_linear
from labutils.models.hessian import layer_hessians
from labutils.models.layers import PackedLinear, QuantizedLinear
from labutils.models.left_in_float import LeftInFloatWarning
from tests.arrays.bad_inputs import refuses
from tests.models.examples import inputs, layer, model

GROUPS = Scheme(4, granularity=PerGroup(16))
gptq = partial(gptq_linear, scheme=GROUPS)


@pytest.mark.parametrize("method", [gptq, partial(gptq, activation_order=True), partial(awq_linear, scheme=GROUPS)])
def test_each_layer_is_quantized_as_by_itself_and_the_model_stays_as_it_is(method):
    net, x = model(), inputs(40, 64)
    before = copy.deepcopy(net.state_dict())
    hessians = layer_hessians(net, [x])
    quantized = quantize_with(net, hessians, method)
    expected = nn.Sequential(
        method(net[0], hessians["0"]), net[1], *[method(net[2][i], hessians[f"2.{i}"]) for i in (0, 1)]
    )
    assert torch.equal(quantized(x), expected(x))
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_layers_that_share_a_weight_go_on_sharing_it():
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    net[2].weight = net[0].weight
    quantized = quantize_with(net, layer_hessians(net, [inputs(40, 64)]), gptq)
    assert quantized[0]._weights is quantized[2]._weights


def test_what_is_skipped_or_tied_to_an_embedding_stays_float():
    net = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 100, bias=False))
    net[3].weight = net[0].weight
    hessians = layer_hessians(net, [torch.arange(100)], skip="2")
    with pytest.warns(LeftInFloatWarning, match="3 .its weight is also that of 0"):
        quantized = quantize_with(net, hessians, gptq, skip="2")
    assert [type(part).__name__ for part in quantized] == ["Embedding", "PackedLinear", "Linear", "Linear"]
    refuses(ValueError, ("2: hessians must hold one for each layer",), quantize_with, net, hessians, gptq)


def test_errors_name_the_layer():
    net = model()
    hessians = layer_hessians(net, [inputs(5, 64)])
    refuses(ValueError, ("0: the Hessian cannot be inverted",), quantize_with, net, hessians, partial(gptq, damping=0))
    refuses(TypeError, ("model must be an nn.Module",), quantize_with, None, hessians, gptq)
    refuses(ValueError, ("no linear layer is called 'head'",), quantize_with, net, hessians, gptq, skip=["head"])


def test_progress_is_shown_where_it_is_wanted(capsys):
    net = model()
    quantize_with(net, layer_hessians(net, [inputs(50, 64)]), gptq)
    assert capsys.readouterr().err == ""
    quantize_with(net, layer_hessians(net, [inputs(50, 64)], progress=True), gptq, progress=True)
    shown = capsys.readouterr().err
    assert "calibrate: 100%" in shown and "quantize: 100%" in shown and "3/3" in shown


# --- layers made of codes ---


def test_codes_that_do_not_fit_a_layer_are_refused():
    linear = layer()
    quantized = quantize(linear.weight, GROUPS)
    for kind in (QuantizedLinear, PackedLinear):
        refuses(TypeError, ("quantized must be a QuantizedArray", "dict"), kind.from_codes, linear, {})
        refuses(TypeError, ("expected an nn.Linear, got ReLU",), kind.from_codes, nn.ReLU(), quantized)
        refuses(ValueError, ("codes must have shape (48, 32), got (48, 64)",), kind.from_codes, layer(32), quantized)
    refuses(ValueError, ("scale must be exact in bfloat16",), PackedLinear.from_codes, linear, quantized)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", [PerAxis(0), PerGroup(24)])
def test_a_layer_made_of_codes_survives_being_saved_and_cast(symmetric, granularity):
    linear, scheme = layer(), Scheme(3, symmetric, granularity)
    nearest = PackedLinear(linear, scheme)
    scale = nearest._weights.scale.float()
    zero_point = 0 if symmetric else nearest._weights.zero_point.int()
    if granularity == PerAxis(0):
        scale, zero_point = scale[:, 0], zero_point if symmetric else zero_point[:, 0]
    chosen = quantize(linear.weight.flip(0), scheme, (scale.flip(0), zero_point if symmetric else zero_point.flip(0)))
    assert isinstance(chosen, QuantizedArray)
    made = PackedLinear.from_codes(linear, chosen)
    assert torch.equal(made.weight, dequantize(chosen)) and not torch.equal(made.weight, nearest.weight)
    nearest.load_state_dict(made.state_dict())
    assert torch.equal(nearest.weight, made.weight)
    assert torch.equal(copy.deepcopy(made).bfloat16().weight, made.weight)


# --- MiniLM ---

G128, G2 = Scheme(4, granularity=PerGroup(128)), Scheme(2, granularity=PerGroup(32))
MEASURED = {  # mean cosine to float over questions and answers, as a plain prototype had it
    "AWQ": (partial(awq_linear, scheme=G128), 0.958),
    "GPTQ": (partial(gptq_linear, scheme=G128), 0.978),
    "GPTQ, activation order": (partial(gptq_linear, scheme=G128, activation_order=True), 0.980),
    "GPTQ, 2 bits": (partial(gptq_linear, scheme=G2), 0.067),
}


@pytest.mark.slow
def test_minilm_keeps_as_much_as_others_have_measured(trained):
    sentences, texts = calibration_sentences(), [text for pair in questions()[::4] for text in pair]
    batches = [sentences[start : start + 32] for start in range(0, len(sentences), 32)]
    hessians = layer_hessians(trained.model, batches, run=lambda net, batch: trained.with_model(net).encode(batch))
    exact = trained.encode(texts)

    def cosine(net):
        return mean_cosine(trained.with_model(net).encode(texts), exact)

    found = {name: cosine(quantize_with(trained.model, hessians, method)) for name, (method, _) in MEASURED.items()}
    assert found == pytest.approx({name: expected for name, (_, expected) in MEASURED.items()}, abs=0.01)
    assert cosine(quantize_model(trained.model, G128)) < found["AWQ"] < found["GPTQ"] < found["GPTQ, activation order"]
    assert (
        cosine(quantize_model(trained.model, G2)) > found["GPTQ, 2 bits"] + 0.03
    )  # few bits: errors add up nonetheless
