"""Training on the grid: values to the bit, gradients against theory and torch, and integers that answer alike."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch")
nn = torch.nn

from labutils import data
from labutils.arrays import affine
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.labs import answers
from labutils.models.training import (
    FakeQuantizedLayer,
    IntegerLayer,
    best_weight_scale,
    convert,
    fake_quantize_ste,
    prepare,
    train,
)

widths = st.integers(2, 16)
scales = st.floats(0.0078125, 10, width=32)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(-50, 50, width=32)
)


def graded(x, scale, num_bits, grad=None):
    """The fake-quantized values, and the gradients that reach x and scale."""
    x, scale = (torch.as_tensor(value).clone().requires_grad_() for value in (x, scale))
    y = fake_quantize_ste(x, scale, num_bits)
    y.backward(torch.ones_like(y) if grad is None else torch.as_tensor(grad))
    return y.detach(), x.grad, scale.grad


def images_and_labels(count=200):
    images, labels = data.digits("train")
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])


# --- fake quantization ---


@given(matrices, scales, widths)
def test_values_are_those_of_affine_to_the_bit(x, scale, num_bits):
    y, _, _ = graded(x, np.float32(scale), num_bits)
    expected = affine.fake_quantize(torch.from_numpy(x), Scheme(num_bits), (torch.tensor(scale), 0))
    assert torch.equal(y, expected)


@given(matrices, scales, widths)
def test_the_gradient_is_one_inside_the_clip_and_zero_outside(x, scale, num_bits):
    _, grad, _ = graded(x, np.float32(scale), num_bits)
    v = torch.from_numpy(x) / torch.tensor(scale)
    scheme = Scheme(num_bits)
    inside = (v >= scheme.quant_min) & (v <= scheme.quant_max)
    assert torch.equal(grad, inside.float())


@pytest.mark.parametrize("num_bits", [2, 3, 4, 8])
def test_values_and_gradients_are_torchs_beyond_the_half_step_in_which_conventions_differ(num_bits):
    generator = torch.Generator().manual_seed(num_bits)
    scheme = Scheme(num_bits)
    scale = torch.rand(6, generator=generator) + 0.1
    v = torch.randn(6, 500, generator=generator) * scheme.quant_max * 1.5
    ends = (v.clamp(scheme.quant_min, scheme.quant_max) - v).abs()
    v = torch.where((ends > 0) & (ends < 0.6), 0.25, v)
    x = (v * scale[:, None]).requires_grad_()
    zeros = torch.zeros(6, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(x, scale, zeros, 0, scheme.quant_min, scheme.quant_max)
    upstream = torch.randn(6, 500, generator=generator)
    (their_gradient,) = torch.autograd.grad(theirs, x, upstream)
    y, gradient, _ = graded(x.detach(), scale[:, None], num_bits, upstream)
    assert torch.equal(gradient, their_gradient)
    differs = (y - theirs).abs() > 1e-5 * scale[:, None]
    assert differs.float().mean() < 1e-3, "torch multiplies by 1 / scale: a tie may fall to the other side"


@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_the_estimator_is_the_slope_of_the_average_over_many_weights_and_no_derivative(num_bits):
    scheme = Scheme(num_bits)
    rng = np.random.default_rng(0)
    moved = 0.1
    inside = rng.uniform(scheme.quant_min, scheme.quant_max - moved, 200_000)
    before, after = (graded(inside + d, 1.0, num_bits)[0].double() for d in (0, moved))
    slope = (after - before).mean() / moved
    # A share `moved` of the weights jumps by 1: 5 standard errors of that share, over `moved`.
    assert slope == pytest.approx(1, abs=5 * math.sqrt(moved / len(inside)) / moved)
    tiny = graded(inside + 1e-9, 1.0, num_bits)[0].double()
    assert (tiny != before).float().mean() < 1e-4, "each by itself, hardly one moves: the derivative is 0"
    outside = rng.uniform(scheme.quant_max + 1, scheme.quant_max + 9, 1000)
    assert torch.equal(graded(outside, 1.0, num_bits)[0], graded(outside + moved, 1.0, num_bits)[0])


def test_the_gradient_of_a_scale_is_a_derivative_where_everything_is_clamped():
    x, scale = torch.tensor([5.0, 7.0, -9.0]), torch.tensor(0.5, dtype=torch.float64)
    _, _, grad = graded(x.double(), scale, 3)
    h = 1e-6
    up, down = (fake_quantize_ste(x.double(), scale + d, 3).sum() for d in (h, -h))
    assert grad == pytest.approx(float((up - down) / (2 * h)) / math.sqrt(3 * 3), rel=1e-6)


@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_the_gradient_of_a_scale_is_torchs_learnable_one_with_its_factor(num_bits):
    generator = torch.Generator().manual_seed(1)
    scheme = Scheme(num_bits)
    v = torch.randn(5, 40, generator=generator) * scheme.quant_max
    ends = (v.clamp(scheme.quant_min, scheme.quant_max) - v).abs()
    v = torch.where((ends > 0) & (ends < 0.6), 0.25, v)
    scale = (torch.rand(5, generator=generator) + 0.2).requires_grad_()
    x, upstream = v * scale.detach()[:, None], torch.randn(5, 40, generator=generator)
    factor = 1 / math.sqrt(40 * scheme.quant_max)
    theirs = torch._fake_quantize_learnable_per_channel_affine(
        x, scale, torch.zeros(5), 0, scheme.quant_min, scheme.quant_max, factor
    )
    (expected,) = torch.autograd.grad(theirs, scale, upstream)
    _, _, gradient = graded(x, scale.detach()[:, None], num_bits, upstream)
    torch.testing.assert_close(gradient[:, 0], expected, rtol=1e-3, atol=1e-4)


def test_learning_the_scale_finds_the_one_with_least_error():
    w = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    scale = torch.full((1, 1), 0.2).requires_grad_()
    optimizer = torch.optim.Adam([scale], lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        (fake_quantize_ste(w, scale, 3) - w).square().mean().backward()
        optimizer.step()
    assert scale.item() == pytest.approx(best_weight_scale(w, 3).item(), rel=0.05)


# --- the first scales ---


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.floats(-9, 9, width=32)))
def test_the_best_scale_of_a_channel_is_never_worse_than_that_of_its_largest_weight(w):
    w = torch.from_numpy(w)
    best = fake_quantize_ste(w, best_weight_scale(w, 3), 3)
    largest = affine.fake_quantize(w, Scheme(3, granularity=PerAxis(0)))
    error, bound = ((x - w).square().sum(dim=1) for x in (best, largest))
    assert (error <= bound * (1 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize("shape", [(4, 3), (6, 2, 3, 3)])
def test_scales_broadcast_over_the_weight_and_zero_channels_stay_zero(shape):
    w = torch.randn(shape)
    w[1] = 0
    scale = best_weight_scale(w, 2)
    assert scale.shape == (shape[0], *[1] * (len(shape) - 1)) and (scale > 0).all()
    assert not fake_quantize_ste(w, scale, 2)[1].any()


# --- preparing ---


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.Flatten(),
        nn.Linear(24, 5),
    )  # fmt: skip


INPUTS = torch.randn(12, 2, 7, 7, generator=torch.Generator().manual_seed(3))


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


# --- training ---


@pytest.fixture(scope="module")
def two_bits():
    """The digits network after one epoch at 2 bits on all training digits, and its accuracy before and after."""
    images, labels = images_and_labels(None)
    model = prepare(data.digits_model(), images, num_bits=2)
    return model, train(model, images, labels, epochs=1, measure=data.digits_accuracy)


def test_training_on_the_grid_wins_back_at_least_half_of_what_rounding_lost(two_bits):
    _, (untrained, trained) = two_bits
    network = data.digits_network()
    weights = {n: w for n, w in network.weights.items() if n.endswith(".weight")}
    rounded = network.accuracy(
        {n: affine.fake_quantize(w, Scheme(2, granularity=PerAxis(0))) for n, w in weights.items()}
    )
    lost_from = max(untrained, rounded)
    assert trained - lost_from > 0.5 * (network.accuracy() - lost_from)


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    images, labels = images_and_labels()
    models = [prepare(data.digits_model(), images, num_bits=3) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6)):
        train(model, images, labels, epochs=1, seed=seed)
    first, again, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_fixed_scales_stay_and_learned_ones_move():
    images, labels = images_and_labels()
    for learn in (False, True):
        model = prepare(data.digits_model(), images, num_bits=3, learn_scales=learn)
        before = {name: p.clone() for name, p in model.named_parameters() if name.endswith("_scale")}
        train(model, images, labels, epochs=1)
        moved = [not torch.equal(before[name], p) for name, p in model.named_parameters() if name in before]
        assert all(moved) if learn else not any(moved)


def test_training_measures_before_and_after_each_epoch_and_ends_in_eval_mode_with_the_threads_it_found(capsys):
    images, labels = images_and_labels()
    threads = torch.get_num_threads()
    modes = []
    model = data.digits_model()
    measured = train(model, images, labels, epochs=2, measure=lambda m: modes.append(m.training) or len(modes))
    assert measured == [1, 2, 3] and modes == [False, False, False]
    assert not model.training and torch.get_num_threads() == threads
    shown = capsys.readouterr()
    assert "100%" in shown.out and shown.err == ""


# --- integers ---


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


# --- the references of the lab ---


@given(matrices, scales, st.integers(2, 16))
def test_a_converted_weight_is_what_training_saw(w, scale, num_bits):
    w, scale = torch.from_numpy(w), torch.tensor(scale)
    q = answers.convert_weight(w, scale, num_bits)
    assert q.dtype == (torch.int8 if num_bits <= 8 else torch.int16)
    assert torch.equal(q * scale, answers.fake_quantize_ste(w, scale, num_bits))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: answers.fake_quantize_ste([0.5], torch.tensor(0.1)), TypeError, "x must be .* got list"),
        (lambda: answers.fake_quantize_ste(torch.ones(2), torch.tensor(0.0)), ValueError, "scale must be positive"),
        (
            lambda: answers.fake_quantize_ste(torch.ones(2), torch.tensor(math.nan)),
            ValueError,
            "scale must be positive",
        ),
        (lambda: answers.fake_quantize_ste(torch.ones(2), torch.tensor(1.0), 1), ValueError, "between 2 and 16, got 1"),
        (lambda: answers.fake_quantize_ste(torch.ones(2).int(), torch.tensor(1.0)), TypeError, "x must hold floats"),
        (lambda: answers.convert_weight(torch.tensor([math.inf]), torch.tensor(1.0)), ValueError, "must be finite"),
        (lambda: answers.convert_weight(torch.ones(2), 0.5), TypeError, "scale must be .* got float"),
        (
            lambda: answers.qat_step(torch.ones(1, 1), torch.ones(1, 1), torch.ones(1, 1), torch.tensor(1.0), 4, -0.1),
            ValueError,
            "learning_rate must be positive, got -0.1",
        ),
        (
            lambda: answers.lsq_gradient(torch.ones(2), torch.tensor(1.0), None, 4),
            TypeError,
            "grad must be .* got NoneType",
        ),
    ],
)
def test_bad_input_is_named(call, error, says):
    with pytest.raises(error, match=says):
        call()
