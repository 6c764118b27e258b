"""Layers as real models hold them, on which a quantizer errs easily and silently: right, or refused by name."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models import Int8Linear, PackedLinear, QuantizedLinear, outliers, training
from labutils.models.conversion import quantize_model
from labutils.models.left_in_float import LeftInFloatWarning
from tests.models.examples import encoder_layer, every_convert, inputs, layer, model, relative_error

# --- containers that read weights instead of calling layers ---


@pytest.fixture
def called(monkeypatch):
    """How often an Int8Linear has been called."""
    calls = []
    forward = Int8Linear.forward
    monkeypatch.setattr(Int8Linear, "forward", lambda self, x: calls.append(x.shape) or forward(self, x))
    return calls


@pytest.mark.filterwarnings("ignore::labutils.models.LeftInFloatWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_layers_of_a_transformer_of_torch_run_quantized_without_gradients_too(called, dtype):
    float_model, x = encoder_layer().to(dtype), inputs(3, 5, 64).to(dtype)
    with torch.no_grad():
        found, expected = quantize_model(float_model, Int8Linear)(x), float_model(x)
    assert len(called) == 2
    assert 0 < relative_error(found, expected) < 0.02


@pytest.mark.filterwarnings("ignore::labutils.models.LeftInFloatWarning")
def test_so_do_those_of_a_padded_stack(called):
    stack, x = nn.TransformerEncoder(encoder_layer(), 2).eval(), inputs(3, 5, 64)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True
    with torch.no_grad():
        found = quantize_model(stack, Int8Linear)(x, src_key_padding_mask=padding)
        expected = stack(x, src_key_padding_mask=padding)
    assert len(called) == 4
    assert relative_error(found[~padding], expected[~padding]) < 0.02


# --- weights that are recomputed at each call ---


def pruned():
    linear = prune.random_unstructured(layer(), "weight", amount=0.5)
    other = prune.random_unstructured(layer(seed=1), "weight", amount=0.5)
    other.load_state_dict(linear.state_dict())  # `other.weight` is that of before until it runs
    return other


RECOMPUTED = {
    "pruned": pruned,
    "weight norm": lambda: parametrizations.weight_norm(layer()),
    "orthogonal": lambda: parametrizations.orthogonal(layer()),
    "spectral norm": lambda: nn.utils.spectral_norm(layer()).eval(),
}


@pytest.mark.parametrize("make", RECOMPUTED.values(), ids=RECOMPUTED)
@pytest.mark.parametrize("convert", [Scheme(8, granularity=PerAxis(0)), Int8Linear], ids=["W8A16", "W8A8"])
def test_a_weight_that_is_recomputed_is_quantized_as_the_next_call_would_use_it(make, convert):
    float_model, x = nn.Sequential(make()), inputs(9, 64)
    quantized = quantize_model(float_model, convert)
    assert relative_error(quantized(x), float_model(x)) < 0.02


@pytest.mark.parametrize("make", RECOMPUTED.values(), ids=RECOMPUTED)
def test_it_is_smoothed_so_and_not_trained_at_all(make):
    linear, x = make(), inputs(9, 64)
    torch.testing.assert_close(outliers.smooth_linear(linear, torch.full((64,), 2.0))(x), linear(x))
    with pytest.raises(ValueError, match="0: its weight is recomputed at each call"):
        training.prepare(nn.Sequential(linear), x, 8)


def test_a_weight_without_values_is_refused_by_name():
    with pytest.raises(ValueError, match="0: its weight is on the meta device, without values: load the weights first"):
        quantize_model(nn.Sequential(nn.Linear(4, 4, device="meta")))


# --- what hangs on a layer ---


def hooked(seen):
    """A model whose first layer adds 1 to its output in a hook, and notes its input in another."""
    made = model()
    made[0].register_forward_hook(lambda module, args, output: output + 1)
    made[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    return made


@every_convert
def test_hooks_move_to_the_replacement(convert):
    seen = []
    original, x = hooked(seen), inputs(9, 64)
    quantized = quantize_model(original, convert)
    without = quantize_model(model(), convert)
    torch.testing.assert_close(quantized[0](x), without[0](x) + 1)
    assert seen == [x.shape]


def test_they_stay_where_training_puts_its_layers():
    seen = []
    original, x = hooked(seen), inputs(9, 64)
    prepared = training.prepare(original, x, 8)
    integers = training.convert(prepared)
    seen.clear()
    with torch.no_grad():
        for quantized in (prepared, integers):
            assert relative_error(quantized(x), original(x)) < 0.05
    assert seen == [x.shape] * 4


def patched():
    made = model()
    made[0].forward = lambda x: torch.zeros(len(x), 64)
    return made


def with_a_buffer():
    made = model()
    made[0].register_buffer("position_ids", torch.arange(5))
    return made


def with_state_hooks():
    made = model()
    made[0]._register_state_dict_hook(lambda *args: None)
    return made


def with_a_patched_container():
    made, inner = nn.Sequential(model()), None
    inner = made[0]
    inner.forward = lambda x: nn.functional.relu(inner[0](x))
    return made


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (patched, "0: its forward was replaced on the instance"),
        (with_a_buffer, "0: it also holds position_ids, which would be lost"),
        (with_state_hooks, "0: it has hooks for its state_dict, which would be lost"),
        (with_a_patched_container, "0: its forward was replaced on the instance"),
        (lambda: torch.compile(model(), backend="eager"), "torch.compile has compiled the float model"),
    ],
)
def test_what_a_replacement_would_drop_is_refused_by_name(make, says):
    with pytest.raises(ValueError, match=says):
        quantize_model(make())


# --- subclasses ---


class OnePlus(nn.RMSNorm):
    def forward(self, x):
        return nn.functional.rms_norm(x, self.normalized_shape, 1 + self.weight)


class Doubled(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, 2 * self.weight, self.bias)


def test_a_subclass_may_mean_something_else():
    scales = torch.full((64,), 2.0)
    with pytest.raises(TypeError, match="not into OnePlus: divide at the layer's input instead"):
        outliers.fold_division(OnePlus(64), scales)
    for use in (
        partial(outliers.smooth_linear, scales=scales),
        QuantizedLinear,
        Int8Linear,
        PackedLinear,
        partial(outliers.SplitLinear, input_max=scales),
        partial(outliers.StaticInt8Linear, input_max=scales),
    ):
        with pytest.raises(TypeError, match="expected an nn.Linear, got Doubled: a subclass may use its weight"):
            use(Doubled(64, 8))
    with pytest.raises(ValueError, match="has no Linear or Conv2d"):
        training.prepare(nn.Sequential(Doubled(64, 8)), inputs(2, 64), 8)


# --- what stays in float ---


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.embedding.weight


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 8)
        self.up = nn.Parameter(torch.zeros(4, 8, 8))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Tied, r"left in float: head \(its weight is also that of embedding \(Embedding\)\)"),
        (Experts, r"left in float: Experts \(Experts, which holds its weight itself\)"),
        (lambda: nn.Sequential(Doubled(8, 8), nn.Linear(8, 8)), r"left in float: 0 \(Doubled, a subclass of nn.Linear"),
        (lambda: nn.Sequential(nn.LSTM(8, 8), nn.Linear(8, 8)), r"left in float: 0 \(LSTM, which holds its weight"),
        (encoder_layer, r"left in float: self_attn \(MultiheadAttention, which holds.*self_attn.out_proj"),
    ],
)
def test_what_is_left_in_float_is_named(make, says):
    with pytest.warns(LeftInFloatWarning, match=says):
        quantize_model(make())


def test_nothing_is_said_where_it_was_left_on_purpose():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize_model(Tied(), skip=["head"])
        quantize_model(nn.Sequential(nn.Embedding(50, 8), nn.LayerNorm(8), nn.Conv1d(8, 8, 3), nn.Linear(8, 8)))
