"""Layers with integer weights compute what their codes say, go where modules go, and take the bytes that they say."""

import copy
import io
import itertools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import nn

from labutils.arrays.affine import fake_quantize
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.data import calibration_sentences, questions
from labutils.models.conversion import linear_layers, model_bytes, quantize_model
from labutils.models.evaluation import mean_cosine, retrieval_at_1
from labutils.models.layers import Int8Linear, PackedLinear, QuantizedLinear
from labutils.models.sensitivity import allocate_bits, layer_sensitivity

CHANNELS = Scheme(8, granularity=PerAxis(0))
CONVERTS = {
    "8 bits per channel": CHANNELS,
    "8 bits per tensor, asymmetric": Scheme(8, symmetric=False),
    "12 bits": Scheme(12, granularity=PerAxis(0)),
    "4 bits in groups": Scheme(4, granularity=PerGroup(32)),
    "4 bits in groups, asymmetric": Scheme(4, symmetric=False, granularity=PerGroup(32)),
    "3 bits per channel": Scheme(3, granularity=PerAxis(0)),
    "8 bits packed": lambda layer: PackedLinear(layer, Scheme(8, symmetric=False, granularity=PerGroup(16))),
    "W8A8": Int8Linear,
}
every_convert = pytest.mark.parametrize("convert", CONVERTS.values(), ids=CONVERTS)


def model(seed=0):
    """Two layers of 64 inputs, one of them nested, one of 48 outputs without a bias."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 48, bias=False), nn.Linear(48, 10)))


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(in_features=64, out_features=48, bias=True, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(in_features, out_features, bias=bias).to(dtype)


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
    bits = getattr(convert, "num_bits", 8)
    assert float(noise.norm() / linear(x).norm()) < 2.0 ** (1 - bits)
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
    bits = getattr(convert, "num_bits", 8)
    # quantization noise, and the 8 significant bits of bfloat16
    assert float((found.double() - expected).norm() / expected.norm()) < 2.0 ** (1 - bits) + 2**-7


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
    bits = getattr(convert, "num_bits", 8)
    tolerance = 2.0 ** (2 - bits) * float(plain.norm()) + 2**-20 * float(expected.norm())
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
    from labutils.models import kernels

    here = quantize_model(model(), convert)
    monkeypatch.setattr(kernels, "_inexact", lambda name, device: "switched off")
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
        module.load_state_dict(state | {name: state[name][:-1]})
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


# --- models -----------------------------------------------------------------------------------------------------------


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


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_are_those_of_the_parts():
    linear = layer(256, 128)
    assert model_bytes(linear) == 4 * (256 * 128 + 128)
    assert QuantizedLinear(linear).memory_bytes() == 256 * 128 + 4 * 128 + 4 * 128
    assert Int8Linear(linear).memory_bytes() == 256 * 128 + 4 * 128 + 4 * 128 + 4 * 128
    three = PackedLinear(linear, Scheme(3, granularity=PerGroup(64)))
    assert three.memory_bytes() == 256 * 128 * 3 // 8 + 2 * 128 * 4 + 4 * 128
    for made in (QuantizedLinear(linear), Int8Linear(linear), three):
        assert model_bytes(made) == made.memory_bytes()


def test_a_view_holds_all_of_its_storage():
    module = nn.Module()
    module.register_buffer("part", torch.zeros(1000)[:10])
    assert model_bytes(module) == 4000


def test_the_wrapped_weights_of_torchao_count_as_what_they_hold():
    torchao = pytest.importorskip("torchao.quantization")
    wrapped = nn.Sequential(layer(256, 128, bias=False))
    torchao.quantize_(wrapped, torchao.Int8WeightOnlyConfig())
    assert sum(p.numel() * p.element_size() for p in wrapped.parameters()) == 4 * 256 * 128  # what it looks like
    assert 256 * 128 + 4 * 128 <= model_bytes(wrapped) <= 256 * 128 + 16 * 128  # codes, and scales of some dtype


RESIDENT = """
import ctypes, gc, json, sys
import torch
from pathlib import Path
from torch import nn
from labutils.models.layers import Int8Linear
from labutils.models.conversion import model_bytes, quantize_model
from labutils.arrays.scheme import PerGroup, Scheme

def resident():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if "RssAnon" in line)

convert = {"W8A8": Int8Linear, "int8": Scheme(8), "int4": Scheme(4, granularity=PerGroup(128)),
           "int3": Scheme(3, granularity=PerGroup(128))}[sys.argv[1]]
torch.set_num_threads(1)
make = lambda: nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(12)))
small = quantize_model(nn.Sequential(nn.Linear(64, 64)), convert)  # what is loaded at first use
small(torch.zeros(1, 64))
before = resident()
model = make()
full = resident() - before
model = quantize_model(model, convert)
print(json.dumps([full, resident() - before, model_bytes(model)]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("convert", ["W8A8", "int8", "int4", "int3"])
def test_the_process_holds_what_model_bytes_says(convert):
    """Within 5%, after the float model is gone."""
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        [sys.executable, "-c", RESIDENT, convert], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    full, held, said = json.loads(told.stdout)
    assert held == pytest.approx(said, rel=0.05), f"{held:,} bytes are held, model_bytes says {said:,}"
    assert held < full / 3.5


# --- sensitivity and bits ---------------------------------------------------------------------------------------------


def test_the_layer_that_matters_most_comes_first():
    torch.manual_seed(0)
    original = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)).requires_grad_(False)
    original[0].weight[:, 0] *= 1000  # a column that nothing is multiplied with spoils the scales of all rows
    x = inputs(64, 32)
    x[:, 0] = 0
    expected = original(x)
    falls = layer_sensitivity(original, lambda m: -float((m(x) - expected).norm()), Scheme(4, granularity=PerAxis(0)))
    assert next(iter(falls)) == "0"
    assert list(falls.values()) == sorted(falls.values(), reverse=True)
    assert falls.keys() == {"0", "1", "2"}
    alone = quantize_model(original, Scheme(4, granularity=PerAxis(0)), skip=["1", "2"])
    assert falls["0"] == pytest.approx(float((alone(x) - expected).norm()))


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(2, 8))
def test_bits_are_allocated_as_well_as_can_be(count, seed, budget):
    generator = np.random.default_rng(seed)
    names = [f"layer{i}" for i in range(count)]
    num_weights = {name: int(generator.integers(1, 1000)) for name in names}
    sensitivity = {bits: {name: float(generator.random() * 4.0**-bits) for name in names} for bits in (2, 4, 8)}
    chosen = allocate_bits(sensitivity, budget, num_weights)

    def loss(choice):
        return sum(sensitivity[bits][name] for name, bits in choice.items())

    def fits(choice):
        return sum(num_weights[name] * bits for name, bits in choice.items()) <= budget * sum(num_weights.values())

    every = [dict(zip(names, bits)) for bits in itertools.product((2, 4, 8), repeat=count)]
    best = min(loss(choice) for choice in every if fits(choice))
    assert fits(chosen)
    assert loss(chosen) <= best * (1 + 1e-6) + 1e-9


def test_a_budget_that_cannot_be_met_is_an_error():
    with pytest.raises(ValueError, match="a budget of 3 bits per weight cannot be met: the fewest given are 4"):
        allocate_bits({4: {"a": 0.1}, 8: {"a": 0.0}}, 3, {"a": 10})


@pytest.mark.parametrize(
    ("sensitivity", "budget", "num_weights", "error", "says"),
    [
        ({4: {"a": 0.1}}, 8, {"a": 10, "b": 10}, ValueError, "no loss of 'b'; it has a"),
        ({4: {"a": float("nan")}}, 8, {"a": 10}, ValueError, "the loss of a must be finite"),
        ({4: {"a": "low"}}, 8, {"a": 10}, TypeError, "the loss of a must be a number"),
        ({1: {"a": 0.1}}, 8, {"a": 10}, ValueError, "num_bits must be between 2 and 16"),
        ({4: {"a": 0.1}}, float("nan"), {"a": 10}, ValueError, "budget must be finite"),
        ({4: {"a": 0.1}}, None, {"a": 10}, TypeError, "budget must be a number"),
        ({4: {"a": 0.1}}, 8, {"a": 10.5}, TypeError, "must be a whole number"),
        ({4: {"a": 0.1}}, 8, {"a": -3}, ValueError, "must be at least 1"),
        ({}, 8, {"a": 10}, ValueError, "sensitivity must hold at least one bit width"),
        ({4: {}}, 8, {}, ValueError, "num_weights must name at least one layer"),
    ],
)
def test_what_cannot_be_allocated_is_refused(sensitivity, budget, num_weights, error, says):
    with pytest.raises(error, match=says):
        allocate_bits(sensitivity, budget, num_weights)


# --- MiniLM -----------------------------------------------------------------------------------------------------------

# Mean cosine to float over 256 sentences, as measured elsewhere, on other sentences.
MEASURED = {
    Scheme(8, granularity=PerAxis(0)): 0.9997,
    Scheme(4, granularity=PerGroup(128)): 0.940,
    Scheme(4, granularity=PerGroup(32)): 0.959,
    Scheme(4, symmetric=False, granularity=PerGroup(128)): 0.956,
    Scheme(4, symmetric=False, granularity=PerGroup(32)): 0.973,
}


@pytest.fixture(scope="module")
def sentences(trained):
    texts = calibration_sentences()[:256]
    return texts, trained.encode(texts)


@pytest.mark.parametrize(("scheme", "cosine"), MEASURED.items(), ids=str)
def test_minilm_keeps_as_much_as_others_have_measured(scheme, cosine, trained, sentences):
    texts, exact = sentences
    quantized = trained.with_model(quantize_model(trained.model, scheme))
    assert mean_cosine(quantized.encode(texts), exact) == pytest.approx(cosine, abs=0.01)


def test_minilm_in_integers_finds_the_same_answers_but_for_one_question(trained):
    asked, answers = zip(*questions())
    encoders = [trained, trained.with_model(quantize_model(trained.model, Int8Linear))]
    found = [retrieval_at_1(encoder.encode(asked), encoder.encode(answers)) for encoder in encoders]
    assert abs(found[0] - found[1]) <= 1.01 / len(asked)
