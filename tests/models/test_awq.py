"""AWQ's scales protect loud channels, never lose more than plain rounding, and fold away."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from labutils.arrays.affine import choose_qparams, dequantize, fake_quantize, quantize
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.models.awq import awq_linear, awq_scales, clip_search
from labutils.models.hessian import output_loss
from labutils.models.layers import PackedLinear, QuantizedLinear
from labutils.models.outliers import Divide, fold_division
from tests.arrays.bad_inputs import refuses, table
from tests.models.examples import inputs, layer
from tests.models.problems import correlated, problem

schemes = st.builds(
    Scheme,
    st.sampled_from([2, 3, 4]),
    st.booleans(),
    st.sampled_from([PerTensor(), PerAxis(0), PerGroup(6), PerGroup(20)]),
)
seeds = st.integers(0, 10_000)
GROUPS = Scheme(3, granularity=PerGroup(8))


def loud(seed=0, channels=(3, 11), factor=30, size=20):
    """Inputs (200, size) of which a few channels are `factor` times as large."""
    x = correlated(200, size, seed)
    x[:, list(channels)] *= factor
    return x


def loss_of(weight, scales, x, scheme):
    """What the outputs lose, from the inputs themselves."""
    y = (x / scales) @ fake_quantize(weight * scales, scheme).t()
    return float(((x @ weight.t() - y) ** 2).sum())


@given(seeds, schemes)
def test_the_scales_are_the_best_of_the_grid_and_never_worse_than_plain_rounding(seed, scheme):
    weight, x = problem(seed=seed)[0], loud(seed)
    size = (x**2).mean(0).sqrt()
    grid = [size ** (step / 20) for step in range(21)]
    losses = [loss_of(weight, s / (s.max() * s.min()).sqrt(), x, scheme) for s in grid]
    found = loss_of(weight, awq_scales(weight, 2 * x.t() @ x, scheme), x, scheme)
    assert found == pytest.approx(min(losses), rel=1e-6)
    assert found <= loss_of(weight, torch.ones(20), x, scheme) * (1 + 1e-9)


@given(seeds)
def test_where_few_channels_carry_the_activations_much_less_is_lost(seed):
    weight, x = problem(seed=seed)[0], loud(seed)
    scales = awq_scales(weight, 2 * x.t() @ x, GROUPS)
    assert scales[[3, 11]].min() > scales[[j for j in range(20) if j not in (3, 11)]].max()
    assert loss_of(weight, scales, x, GROUPS) < 0.6 * loss_of(weight, torch.ones(20), x, GROUPS)


def test_magnitudes_may_be_given_and_a_common_factor_does_not_matter():
    weight, x = problem()[0], loud()
    hessian, mean = 2 * x.t() @ x, x.abs().mean(0)
    scales = awq_scales(weight, hessian, GROUPS, magnitudes=mean)
    torch.testing.assert_close(awq_scales(weight, hessian, GROUPS, magnitudes=1024 * mean), scales)
    assert torch.equal(awq_scales(weight, hessian, GROUPS, magnitudes=torch.tensor(7.0)), torch.ones_like(scales))


def test_a_channel_that_was_always_0_keeps_its_scale():
    weight, x = problem()[0], loud()
    x[:, 5] = 0
    scales = awq_scales(weight, 2 * x.t() @ x, GROUPS)
    assert scales[5] == 1 and (scales > 0).all() and scales.isfinite().all()
    assert torch.equal(awq_scales(weight, torch.zeros(20, 20), GROUPS), torch.ones_like(scales))


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    "scheme", [GROUPS, Scheme(4, False, PerGroup(32)), Scheme(8, False), Scheme(3, True, PerAxis(0))]
)
def test_a_layer_loses_what_the_search_says(scheme, clip):
    linear, x = layer(), loud(size=64).float()
    hessian = 2 * x.t() @ x
    made = awq_linear(linear, hessian, scheme, clip)
    assert isinstance(made[0], Divide)
    assert isinstance(made[1], PackedLinear if scheme.num_bits < 8 else QuantizedLinear)
    with torch.no_grad():
        lost = float(((made(x) - linear(x)) ** 2).sum())
        assert lost == pytest.approx(output_loss(linear.weight, made[1].weight / made[0].scales, hessian), rel=0.1)
        nearest = output_loss(linear.weight, fake_quantize(linear.weight, scheme), hessian)
    assert lost < 1.05 * nearest  # a packed layer rounds its scales to 16 bits


def test_layers_that_read_one_norm_share_scales_that_fold_into_it():
    norm, query, key = nn.RMSNorm(64), layer(bias=False), layer(seed=1)
    x = inputs(100, 64) * torch.where(torch.arange(64) == 9, 30.0, 1.0)
    normed = norm(x).detach()
    scales = awq_scales(torch.cat([query.weight, key.weight]), 2 * normed.t() @ normed, GROUPS)
    for linear in (query, key):
        quantized = QuantizedLinear.from_codes(linear, quantize(linear.weight * scales, GROUPS))
        divided, folded = (
            nn.Sequential(norm, Divide(scales), quantized),
            nn.Sequential(fold_division(norm, scales), quantized),
        )
        torch.testing.assert_close(folded(x), divided(x), rtol=1e-4, atol=1e-4)


@given(seeds, schemes)
def test_a_clip_never_costs_a_group_more_than_the_full_range(seed, scheme):
    weight, hessian = problem(seed=seed)
    weight[:, 4] *= 4
    qparams = clip_search(weight, hessian, scheme)
    full = choose_qparams(weight, scheme)[0]
    assert (
        qparams[0].shape == full.shape
        and (qparams[0] <= full * (1 + 1e-12)).all()
        and (qparams[0] >= full / 2.01).all()
    )
    errors = [weight - dequantize(quantize(weight, scheme, found)) for found in (qparams, None)]
    size = scheme.granularity.group_size if isinstance(scheme.granularity, PerGroup) else 20
    losses = [
        torch.stack(
            [
                (e[:, g : g + size] @ hessian[g : g + size, g : g + size] * e[:, g : g + size]).sum(1)
                for g in range(0, 20, size)
            ]
        )
        for e in errors
    ]
    if scheme.granularity == PerTensor():
        losses = [loss.sum() for loss in losses]
    assert (losses[0] <= losses[1] * (1 + 1e-9)).all()


W, H = problem()
BAD = {
    "no weight": (awq_scales, (None, H), TypeError, ("weight must be a torch tensor",)),
    "another Hessian": (awq_scales, (W, H[:3, :3]), ValueError, ("hessian must have shape (20, 20)",)),
    "no steps": (awq_scales, (W, H, GROUPS, None, 0), ValueError, ("steps must be at least 1, got 0",)),
    "magnitudes of others": (
        awq_scales,
        (W, H, GROUPS, torch.ones(3)),
        ValueError,
        ("magnitudes must", "(20,)", "(3,)"),
    ),
    "negative": (awq_scales, (W, H, GROUPS, -torch.ones(20)), ValueError, ("magnitudes must hold finite magnitudes",)),
    "a scheme of 4": (awq_scales, (W, H, 4), TypeError, ("scheme must be a Scheme",)),
    "a clip of 2": (clip_search, (W, H, GROUPS, [2.0]), ValueError, ("clip is a fraction",)),
    "no clips": (clip_search, (W, H, GROUPS, []), ValueError, ("clips must hold at least one",)),
    "columns": (clip_search, (W, H, Scheme(4, True, PerAxis(1))), ValueError, ("PerGroup, PerAxis(0) or PerTensor",)),
    "no layer": (awq_linear, (nn.ReLU(), H), TypeError, ("expected an nn.Linear, got ReLU",)),
    "clip a number": (awq_linear, (nn.Linear(20, 4), H, GROUPS, 1), TypeError, ("clip must be True or False",)),
}


@pytest.mark.parametrize(("function", "args", "kind", "words"), **table(BAD))
def test_what_cannot_be_scaled_is_refused(function, args, kind, words):
    refuses(kind, words, function, *args)
