"""Small models of real kinds on which a quantizer is easily wrong without saying so: the right value, or a refusal."""

import copy
import io
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import labutils
from labutils.arrays.affine import choose_qparams, fake_quantize
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models import Int8Linear, PackedLinear, QuantizedLinear, outliers, training
from labutils.models.conversion import quantize_model
from labutils.models.footprint import model_bytes
from labutils.models.left_in_float import LeftInFloatWarning
from labutils.models.sensitivity import layer_sensitivity
from tests.models.examples import every_convert, inputs, layer, model

GROUPS = Scheme(4, granularity=PerGroup(32))


def encoder_layer(width=64):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(width, 2, width, batch_first=True).eval()


def relative_error(found, expected):
    return float((found - expected).float().norm() / expected.float().norm())


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


# --- checkpoints of another scheme ---


def integers(num_bits):
    return training.convert(training.prepare(model(), inputs(9, 64), num_bits))


def static(num_bits):
    return outliers.StaticInt8Linear(layer(), torch.tensor(3.0), Scheme(num_bits, granularity=PerAxis(0)))


OTHERS = {
    "groups": (
        lambda size: PackedLinear(layer(), Scheme(4, granularity=PerGroup(size))), (40, 33),
        "saved with 4 bits, PerGroup.group_size=40., but has 4 bits, PerGroup.group_size=33. here",
    ),
    "bits in one byte": (
        lambda bits: PackedLinear(layer(1, 8), Scheme(bits, granularity=PerGroup(1))), (5, 6),
        "saved with 5 bits, PerGroup.group_size=1., but has 6 bits",
    ),
    "rows and columns": (
        lambda axis: QuantizedLinear(layer(64, 64), Scheme(8, granularity=PerAxis(axis))), (0, 1), "0.scheme|scheme",
    ),
    "groups of codes": (
        lambda size: QuantizedLinear(layer(), Scheme(8, granularity=PerGroup(size))), (40, 33), "group_size=40.*=33",
    ),
    "static": (static, (4, 8), "saved with 4 bits, PerAxis.axis=0., but has 8 bits"),
    "integers": (integers, (2, 8), "0.bits: it was saved with 2-bit weights and 8-bit activations, but has 8-bit"),
    "prepared": (lambda bits: training.prepare(model(), inputs(9, 64), bits), (2, 8), "0.bits: it was saved with 2"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "forms", "says"), OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_does_not_load_into_another_scheme(make, forms, says):
    saved, other = (make(form) for form in forms)
    for state, into in ((saved.state_dict(), other), (other.state_dict(), saved)):
        before = copy.deepcopy(into.state_dict())
        with pytest.raises(RuntimeError, match=says if into is other else None):
            into.load_state_dict(state)
        assert before.keys() == into.state_dict().keys()
    saved.load_state_dict(make(forms[0]).state_dict())


# --- bytes ---


def test_what_torch_has_packed_counts():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(512, 512, bias=False), nn.ReLU(), nn.LSTM(16, 32))
    dynamic = torch.ao.quantization.quantize_dynamic(made, {nn.Linear}, dtype=torch.qint8)
    expected = 512 * 512 + sum(p.nbytes for p in made[2].parameters())
    assert expected <= model_bytes(dynamic) <= expected + 4096


def test_tensors_that_are_plain_attributes_count():
    made = nn.Module()
    made.table, made.more = torch.zeros(100), {"a": [torch.zeros(10), torch.zeros(10)]}
    assert model_bytes(made) == 4 * 120


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


# --- inputs ---


@every_convert
def test_strided_inputs_are_read_as_they_lie(convert):
    quantized = quantize_model(layer(64, 16), convert)
    for x in (inputs(1, 64, 9).transpose(1, 2), inputs(9, 128)[:, ::2], inputs(1, 64).expand(5, 64)):
        torch.testing.assert_close(quantized(x), quantized(x.contiguous()))


@every_convert
def test_inputs_may_come_by_keyword(convert):
    quantized, x = quantize_model(layer(), convert), inputs(3, 64)
    assert torch.equal(quantized(input=x), quantized(x))


class ByKeyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(input=self.first(input=x))


def test_training_sees_inputs_by_keyword_and_empty_ones():
    x = inputs(5, 6)
    prepared = training.prepare(ByKeyword(), x, 8)
    quantized = training.convert(prepared)
    torch.testing.assert_close(quantized(x), prepared(x), rtol=1e-4, atol=1e-4)
    assert quantized(x[:0]).shape == (0, 3)
    assert training.convert(training.prepare(nn.Conv2d(2, 3, 2), inputs(4, 2, 5, 5), 8))(
        torch.zeros(0, 2, 5, 5)
    ).shape == (0, 3, 4, 4)


class Routed(nn.Module):
    """Two experts, of which rows below 100 go to the first."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        low = x.abs().amax(-1) < 100
        y = torch.empty_like(x)
        y[low], y[~low] = self.experts[0](x[low]), self.experts[1](x[~low])
        return y


class Idle(nn.Sequential):
    def forward(self, x):
        return self[0](x)


@pytest.mark.parametrize(
    ("make", "name"), [(Routed, "experts.1"), (lambda: Idle(nn.Linear(4, 4), nn.Linear(4, 4)), "1")]
)
def test_a_layer_that_calibration_does_not_reach_is_named(make, name):
    with pytest.raises(ValueError, match=f"{name}: nothing entered there while the model saw `inputs`"):
        training.prepare(make(), inputs(5, 4), 8)
    float_model = make()
    with outliers.observe(float_model) as seen:
        float_model(inputs(5, 4))
    with pytest.raises(ValueError, match=f"{name}: never observed"):
        outliers.replace_linears(float_model, seen.maxima, outliers.StaticInt8Linear)


def test_calibration_sees_the_layers_of_a_transformer_of_torch():
    float_model, x = encoder_layer(16), inputs(2, 5, 16)
    prepared = training.prepare(float_model, x, 8)
    with torch.no_grad():
        assert relative_error(prepared(x), float_model(x)) < 0.05
        assert relative_error(training.convert(prepared)(x), prepared(x)) < 1e-4
    assert torch.backends.mha.get_fastpath_enabled()


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


# --- what torch makes of a model ---


@every_convert
def test_a_quantized_model_can_be_exported(convert):
    quantized, x = quantize_model(model(), convert), inputs(3, 64)
    with torch.no_grad():
        exported = torch.export.export(quantized, (x,))
        torch.testing.assert_close(exported.module()(x), quantized(x))


@every_convert
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_gives_its_dtype_as_it_does_for_float_layers(convert, dtype):
    linear, x = layer(), inputs(5, 64)
    quantized = quantize_model(linear, convert)
    with torch.autocast("cpu", dtype=dtype):
        found, expected = quantized(x), linear(x)
        assert quantized(x.double()).dtype == torch.float64
    assert found.dtype == expected.dtype == dtype
    torch.testing.assert_close(found.float(), quantized(x), rtol=0.05, atol=0.05 * float(expected.abs().max()))


def test_autocast_gives_its_dtype_in_training_too():
    x = inputs(5, 64)
    prepared = training.prepare(model(), x, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert prepared(x).dtype == training.convert(prepared)(x).dtype == torch.bfloat16


def test_a_star_import_hides_nothing_of_torch():
    assert not {"nn", "torch", "optim"} & set(labutils.__all__)


# --- sensitivity ---


def test_a_layer_in_two_places_is_measured_once():
    shared = layer(8, 8)
    float_model = nn.Sequential(shared, nn.ReLU(), shared)
    x = inputs(9, 8)
    falls = layer_sensitivity(float_model, lambda m: -relative_error(m(x), float_model(x)), GROUPS)
    assert falls.keys() == {"0"} and falls["0"] > 0


def test_a_state_goes_through_a_file():
    quantized = quantize_model(model(), GROUPS)
    buffer = io.BytesIO()
    torch.save(quantized.state_dict(), buffer)
    buffer.seek(0)
    with pytest.raises(RuntimeError, match="0.scheme: it was saved with 4 bits, PerGroup"):
        quantize_model(model(), Scheme(4, granularity=PerGroup(33))).load_state_dict(torch.load(buffer))
