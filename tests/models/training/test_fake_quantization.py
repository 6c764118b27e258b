"""Fake quantization: values to the bit, gradients against theory and torch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays import affine
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models.training import (
    best_weight_scale,
    fake_quantize_ste,
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
