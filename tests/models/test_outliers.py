"""Outliers are seen where they are, smoothing changes no function, and what is split or planted adds up exactly."""

import copy
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn

from labutils import sqnr_db
from labutils.arrays.scheme import PerGroup, PerTensor, Scheme
from labutils.labs.answers import fold_division, smooth_linear, smooth_scales, split_outliers
from labutils.models import outliers
from labutils.models.conversion import quantize_model
from tests.arrays.bad_inputs import refuses, table

alphas = st.floats(0, 1)
seeds = st.integers(0, 1000)


def layer(inputs=24, out=16, seed=0, bias=True):
    generator = torch.Generator().manual_seed(seed)
    made = nn.Linear(inputs, out, bias=bias)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def activations(rows=40, channels=24, seed=1, loud=()):
    x = torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed))
    for channel in loud:
        x[:, channel] *= 50
    return x


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 8))).eval()


# --- observe ---


def test_maxima_over_batches_are_those_of_all_rows_at_once():
    model, x = mlp(), activations()
    with outliers.observe(model) as once:
        model(x)
    with outliers.observe(model) as batches:
        for batch in x.split(7):
            model(batch.reshape(1, -1, 24))
    assert list(once.maxima) == ["0", "2.1"]
    for name in once.maxima:
        torch.testing.assert_close(batches.maxima[name], once.maxima[name], rtol=1e-6, atol=0)
    assert torch.equal(once.maxima["0"], x.abs().amax(0))


def test_only_the_layers_named_keep_their_inputs():
    model, x = mlp(), activations()
    with outliers.observe(model, keep="0") as seen:
        for batch in x.split(7):
            model(batch)
    assert list(seen.inputs) == ["0"]
    assert torch.equal(seen.inputs["0"], x)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_on_the_model_after_an_error(error):
    model = mlp()
    with pytest.raises(error), outliers.observe(model):
        raise error
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_activations_that_are_not_finite_are_named_by_their_layer(value):
    model, x = mlp(), activations()
    x[3, 5] = value
    with pytest.raises(ValueError, match="0: its input holds NaN or Inf"), outliers.observe(model):
        model(x)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_observing_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing was observed"), outliers.observe(mlp()):
        pass
    with pytest.raises(ValueError, match=r"no nn.Linear"), outliers.observe(nn.ReLU()):
        pass
    with pytest.raises(ValueError, match="no linear layer is called 'nope'"), outliers.observe(mlp(), keep="nope"):
        pass


def test_a_layer_that_was_not_observed_is_not_quantized_on_a_guess():
    model = mlp()
    with pytest.raises(ValueError, match=r"2\.1: never observed"):
        outliers.replace_linears(model, {"0": torch.ones(24)}, outliers.StaticInt8Linear)


# --- smooth_scales ---


@given(seeds, alphas)
def test_alpha_shares_the_size_of_a_channel_between_the_two_sides(seed, alpha):
    linear, peaks = layer(seed=seed), activations(seed=seed + 1, loud=(3,)).abs().amax(0)
    weight = linear.weight.detach()
    scales = smooth_scales(peaks, weight, alpha)
    both = (peaks / scales).double() * (weight.abs().amax(0) * scales).double()
    torch.testing.assert_close(both, (peaks.double() * weight.abs().amax(0).double()), rtol=1e-5, atol=0)
    expected = peaks ** (1 - alpha) * weight.abs().amax(0) ** (1 - alpha)
    torch.testing.assert_close(peaks / scales, expected, rtol=1e-4, atol=0)


def test_the_ends_of_alpha_flatten_one_side_each():
    peaks, weight = activations(loud=(3,)).abs().amax(0), layer().weight.detach()
    torch.testing.assert_close(peaks / smooth_scales(peaks, weight, 1.0), torch.ones(24))
    torch.testing.assert_close((weight * smooth_scales(peaks, weight, 0.0)).abs().amax(0), torch.ones(24))


@given(seeds, alphas, st.integers(1, 12))
def test_a_planted_factor_is_found_and_undone_at_every_alpha(seed, alpha, power):
    peaks, weight = activations(seed=seed).abs().amax(0), layer(seed=seed).weight.detach()
    factors = torch.ones(24)
    factors[5] = 2.0**power
    before, after = smooth_scales(peaks, weight, alpha), smooth_scales(peaks * factors, weight / factors, alpha)
    torch.testing.assert_close(after, before * factors, rtol=1e-5, atol=0)


def test_numpy_and_torch_agree_and_silent_channels_have_nothing_to_move():
    peaks, weight = activations().abs().amax(0), layer().weight.detach().clone()
    peaks[[1, 9]], weight[:, 4] = 0, 0
    scales = smooth_scales(peaks, weight, 0.7)
    assert scales.dtype == torch.float32
    assert scales[[1, 4, 9]].tolist() == [1, 1, 1]
    assert np.allclose(smooth_scales(peaks.numpy(), weight.numpy(), 0.7), scales, rtol=1e-6)
    assert smooth_scales(peaks.half(), weight.half()).dtype == torch.float32
    assert smooth_scales(peaks.double(), weight.double()).dtype == torch.float64


ONES, W = np.ones(3, np.float32), np.ones((2, 3), np.float32)
BAD_SMOOTHING = {
    "alpha below 0": ((ONES, W, -0.1), ValueError, ("alpha must be between 0 and 1, got -0.1",)),
    "alpha above 1": ((ONES, W, 1.5), ValueError, ("alpha must be between 0 and 1, got 1.5",)),
    "alpha NaN": ((ONES, W, math.nan), ValueError, ("alpha must be finite",)),
    "alpha a string": ((ONES, W, "0.5"), TypeError, ("alpha must be a number",)),
    "NaN in the activations": ((ONES * np.nan, W), ValueError, ("activation_max must be finite",)),
    "Inf in the activations": ((ONES * np.inf, W), ValueError, ("activation_max must be finite",)),
    "NaN in the weight": ((ONES, W * np.nan), ValueError, ("weight must be finite",)),
    "a negative maximum": ((-ONES, W), ValueError, ("magnitudes, from 0 on, got -1",)),
    "one channel too few": ((ONES[:2], W), ValueError, ("activation_max must have shape (3,)", "got (2,)")),
    "a weight of one axis": ((ONES, ONES), ValueError, ("weight must have two axes", "(3,)")),
    "a list": (([1.0], W), TypeError, ("activation_max must be a NumPy array or a torch tensor, got list",)),
    "integers": ((np.ones(3, int), W), TypeError, ("activation_max must hold floats",)),
    "two libraries": ((ONES, torch.ones(2, 3)), TypeError, ("one library",)),
    "no channels": ((ONES[:0], W[:, :0]), ValueError, ("must not be empty",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD_SMOOTHING))
def test_what_cannot_be_smoothed_is_refused(args, kind, words):
    refuses(kind, words, smooth_scales, *args)


# --- smooth_linear, fold_division, rescale ---


@given(seeds, alphas, st.booleans())
def test_smoothing_does_not_change_what_a_layer_computes(seed, alpha, bias):
    linear, x = layer(seed=seed, bias=bias), activations(seed=seed, loud=(2, 7))
    before = copy.deepcopy(linear.state_dict())
    smoothed = smooth_linear(linear, smooth_scales(x.abs().amax(0), linear.weight.detach(), alpha))
    y = linear(x)
    assert (smoothed(x) - y).abs().max() <= 1e-5 * y.abs().max()
    assert all(torch.equal(linear.state_dict()[name], value) for name, value in before.items())


def test_an_outlier_channel_costs_less_where_it_is_smoothed():
    linear, x = layer(64, 48), activations(200, 64, loud=(11,))
    peaks = x.abs().amax(0)
    scales = smooth_scales(peaks, linear.weight.detach(), 0.5)
    divide, inner = smooth_linear(linear, scales)
    plain = sqnr_db(linear(x), outliers.StaticInt8Linear(linear, peaks)(x))
    smooth = sqnr_db(linear(x), outliers.StaticInt8Linear(inner, peaks / scales)(divide(x)))
    assert smooth > plain + 6


NORMS = {
    "LayerNorm": lambda: nn.LayerNorm(24),
    "LayerNorm without bias": lambda: nn.LayerNorm(24, bias=False),
    "RMSNorm": lambda: nn.RMSNorm(24),
    "Linear": lambda: layer(24, 24),
    "Linear without bias": lambda: layer(10, 24, bias=False),
}


@pytest.mark.parametrize("make", **table(NORMS))
def test_a_folded_division_divides_the_outputs(make):
    before, scales = make(), torch.logspace(-2, 2, 24)
    x = activations(channels=before.weight.shape[-1])
    torch.testing.assert_close(fold_division(before, scales)(x), before(x) / scales, rtol=1e-4, atol=1e-4)


def test_a_factor_folds_through_a_pre_norm_and_not_through_a_post_norm():
    scales, x = torch.logspace(-1, 1, 32), torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    for norm, first in (("norm2", True), ("norm1", False)):
        block = nn.TransformerEncoderLayer(32, 4, 64, norm_first=first).eval()
        folded = copy.deepcopy(block)
        setattr(folded, norm, fold_division(getattr(folded, norm), scales))
        with torch.no_grad():
            folded.linear1.weight.mul_(scales)
            same = torch.allclose(folded(x), block(x), atol=1e-5)
        assert same == first


@given(seeds, st.integers(-8, 12))
def test_a_planted_power_of_two_changes_no_bit(seed, power):
    before, after, x = layer(24, 20, seed), layer(20, 8, seed + 1), activations(seed=seed)
    factors = torch.ones(20)
    factors[3] = 2.0**power
    louder, quieter = outliers.rescale(before, after, factors)
    assert torch.equal(quieter(louder(x)), after(before(x)))
    assert torch.equal(quieter(louder(x).relu()), after(before(x).relu()))
    assert torch.equal(louder(x)[:, 3], before(x)[:, 3] * 2.0**power)


BAD_SCALES = {
    "too few": (torch.ones(3), ValueError, ("scales must have shape (24,)", "got (3,)")),
    "two axes": (torch.ones(1, 24), ValueError, ("scales must have shape (24,)", "(1, 24)")),
    "0": (torch.zeros(24), ValueError, ("positive and finite",)),
    "negative": (-torch.ones(24), ValueError, ("positive and finite",)),
    "NaN": (torch.full((24,), math.nan), ValueError, ("positive and finite",)),
    "integers": (torch.ones(24, dtype=torch.int64), TypeError, ("float tensor, got a tensor of torch.int64",)),
    "an array": (np.ones(24), TypeError, ("float tensor, got ndarray",)),
    "None": (None, TypeError, ("got NoneType",)),
}


@pytest.mark.parametrize("scales, kind, words", **table(BAD_SCALES))
def test_what_are_no_scales_is_refused(scales, kind, words):
    refuses(kind, words, smooth_linear, layer(), scales)
    refuses(kind, words, fold_division, nn.LayerNorm(24), scales)


def test_where_nothing_can_be_folded_the_way_out_is_named():
    refuses(TypeError, ("not into GELU", "divide at the layer's input"), fold_division, nn.GELU(), torch.ones(24))
    bare = nn.LayerNorm(24, elementwise_affine=False)
    refuses(ValueError, ("no weight", "divide at the layer's input"), fold_division, bare, torch.ones(24))
    refuses(ValueError, ("last axis alone",), fold_division, nn.LayerNorm((2, 12)), torch.ones(2))
    refuses(TypeError, ("expected an nn.Linear, got LayerNorm",), smooth_linear, nn.LayerNorm(24), torch.ones(24))


# --- split_outliers, SplitLinear ---


@given(seeds, st.floats(0.1, 100))
def test_the_two_parts_add_up_and_share_no_channel(seed, threshold):
    x = activations(seed=seed, loud=(0, 6)).reshape(4, 10, 24)
    regular, loud = split_outliers(x, threshold)
    assert torch.equal(regular + loud, x)
    assert not ((regular != 0).any((0, 1)) & (loud != 0).any((0, 1))).any()
    assert regular.abs().max() <= threshold


BAD_SPLITS = {
    "NaN": ((np.array([[1.0, np.nan]]),), ValueError, ("NaN or Inf",)),
    "no axis": ((np.float32(3),), ValueError, ("at least one axis",)),
    "threshold 0": ((ONES, 0), ValueError, ("threshold must be positive, got 0",)),
    "threshold NaN": ((ONES, math.nan), ValueError, ("threshold must be finite",)),
    "threshold None": ((ONES, None), TypeError, ("threshold must be a number",)),
    "a list": (([1.0],), TypeError, ("got list",)),
    "empty": ((ONES[:0],), ValueError, ("must not be empty",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD_SPLITS))
def test_what_cannot_be_split_is_refused(args, kind, words):
    refuses(kind, words, split_outliers, *args)


@pytest.mark.parametrize("threshold", [0.01, 6.0, 1e6], ids=["all in float", "some", "all in integers"])
def test_a_split_layer_is_the_sum_of_its_parts(threshold):
    linear, x = layer(), activations(loud=(4, 17))
    peaks = x.abs().amax(0)
    split = outliers.SplitLinear(linear, peaks, threshold)
    assert split.channels.tolist() == [c for c in range(24) if peaks[c] > threshold]
    regular, loud = split_outliers(x, threshold)
    without = nn.Linear(24, 16, bias=False)
    without.weight = linear.weight
    expected = loud @ linear.weight.T + linear.bias
    if split.regular is not None:
        expected = expected + outliers.StaticInt8Linear(_columns(without, split.others), peaks[split.others])(
            regular[:, split.others]
        )
    torch.testing.assert_close(split(x), expected)


def _columns(linear, chosen):
    fewer = nn.Linear(len(chosen), linear.out_features, bias=False)
    fewer.weight = nn.Parameter(linear.weight.detach()[:, chosen])
    return fewer


# --- StaticInt8Linear ---


@pytest.mark.parametrize("num_bits", [2, 4, 8])
@pytest.mark.parametrize("granularity", [PerTensor(), Scheme(granularity=PerTensor()).granularity])
def test_integers_by_integers_are_what_fake_quantization_says(num_bits, granularity):
    linear, x, scheme = layer(), activations(), Scheme(num_bits, granularity=granularity)
    static = outliers.StaticInt8Linear(linear, x.abs().amax(0), scheme)
    limit = scheme.quant_max
    codes = (x / static.input_scale).round().clamp(-limit, limit).double()
    expected = codes @ static.weight.double().T * static.input_scale.double() + linear.bias
    torch.testing.assert_close(static(x), expected.float(), rtol=1e-5, atol=1e-5)


def test_what_comes_beyond_the_calibrated_range_saturates():
    linear = layer(1, 1, bias=False)
    static = outliers.StaticInt8Linear(linear, torch.tensor(1.0))
    assert torch.equal(static(torch.tensor([[5.0]])), static(torch.tensor([[1.0]])))


def test_a_row_with_nan_comes_out_nan_and_alone():
    static, x = outliers.StaticInt8Linear(layer(), torch.tensor(3.0)), activations()
    clean = static(x)
    x[2, 5], x[4, 0] = math.nan, math.inf
    spoilt = static(x)
    assert spoilt[[2, 4]].isnan().all()
    others = [row for row in range(len(x)) if row not in (2, 4)]
    assert torch.equal(spoilt[others], clean[others])


def test_a_static_layer_survives_being_copied_saved_and_halved():
    static, x = outliers.StaticInt8Linear(layer(), torch.tensor(3.0)), activations()
    y = static(x)
    file = io.BytesIO()
    torch.save(static.state_dict(), file)
    file.seek(0)
    other = outliers.StaticInt8Linear(layer(seed=9), torch.tensor(1.0))
    other.load_state_dict(torch.load(file))
    for same in (copy.deepcopy(static), other, copy.deepcopy(static).half()):
        torch.testing.assert_close(same(x), y, rtol=1e-3, atol=2e-2 if same.bias.dtype == torch.float16 else 1e-6)
    assert static.half().input_scale.dtype == torch.float32


def test_a_silent_layer_gives_its_bias():
    linear = layer()
    static = outliers.StaticInt8Linear(linear, torch.zeros(24))
    assert torch.equal(static(torch.zeros(3, 24)), linear.bias.detach().expand(3, 16))


BAD_STATIC = {
    "NaN": ((torch.tensor(math.nan),), ValueError, ("finite magnitudes",)),
    "negative": ((torch.tensor(-1.0),), ValueError, ("finite magnitudes",)),
    "a shape": ((torch.ones(3),), ValueError, ("have shape (24,), got (3,)",)),
    "a float": ((3.0,), TypeError, ("input_max must be a float tensor, got float",)),
    "16 bits": ((torch.tensor(1.0), Scheme(16)), ValueError, ("2 to 8 bits",)),
    "a zero point": ((torch.tensor(1.0), Scheme(8, symmetric=False)), ValueError, ("symmetric",)),
    "groups": ((torch.tensor(1.0), Scheme(8, granularity=PerGroup(8))), ValueError, ("PerAxis(0) or PerTensor()",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD_STATIC))
def test_a_range_or_scheme_that_does_not_fit_is_refused(args, kind, words):
    refuses(kind, words, outliers.StaticInt8Linear, layer(), *args)


# --- models ---


def test_a_model_is_replaced_layer_by_layer_and_left_as_it_is():
    model, x = mlp(), activations(loud=(3,))
    before = copy.deepcopy(model.state_dict())
    with outliers.observe(model) as seen:
        y = model(x)

    def smoothed(linear, input_max):
        scales = smooth_scales(input_max, linear.weight.detach(), 0.5)
        return quantize_model(
            smooth_linear(linear, scales), lambda inner: outliers.StaticInt8Linear(inner, input_max / scales)
        )

    plain = outliers.replace_linears(model, seen.maxima, outliers.StaticInt8Linear)
    smooth = outliers.replace_linears(model, seen.maxima, smoothed)
    assert sqnr_db(y, smooth(x)) > sqnr_db(y, plain(x)) > 10
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_layer_used_twice_is_replaced_once():
    shared = layer(24, 24)
    model = nn.ModuleDict({"a": shared, "b": shared})
    with outliers.observe(model) as seen:
        model["a"](activations())
    replaced = outliers.replace_linears(model, seen.maxima, outliers.StaticInt8Linear)
    assert replaced["a"] is replaced["b"]
