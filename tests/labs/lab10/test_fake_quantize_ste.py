"""fake_quantize_ste: values on the grid, and the gradients of torch's own fake quantization."""

import math
from importlib import metadata

import pytest
from packaging.version import Version

torch = pytest.importorskip("torch")

from labutils.labs.answers import fake_quantize_ste
from labutils.labs.lab10._grid import limits
from labutils.labs.lab10.fake_quantize_ste import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

# From torch 2.14 on, clamp passes no gradient at its very bound: to clamp what was rounded is right before that only.
CLAMP_PASSES = Version(metadata.version("torch")) < Version("2.14.dev0")

ONES = torch.ones(2)
BAD = {
    "a list": (([0.5], torch.tensor(0.1)), TypeError, ("x must be", "got list")),
    "integers": ((ONES.int(), torch.tensor(1.0)), TypeError, ("x must hold floats",)),
    "scale 0": ((ONES, torch.tensor(0.0)), ValueError, ("scale must be positive",)),
    "scale NaN": ((ONES, torch.tensor(math.nan)), ValueError, ("scale must be positive",)),
    "1 bit": ((ONES, torch.tensor(1.0), 1), ValueError, ("between 2 and 16, got 1",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_bad_input_is_refused(args, kind, words):
    refuses(kind, words, fake_quantize_ste, *args)


@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_inside_the_grid_values_and_gradients_are_torchs(num_bits):
    x, grad = torch.linspace(-1.9, 0.9, 41), torch.linspace(-1, 2, 41)
    scale = torch.tensor(2.0 / 2 ** (num_bits - 1))  # the grid reaches from -2 to nearly 2
    found = []
    for function in (fake_quantize_ste, torchs_own):
        leaf = x.clone().requires_grad_()
        y = function(leaf, scale, num_bits)
        y.backward(grad)
        found.append((y.detach(), leaf.grad))
    torch.testing.assert_close(*found)


def detach_trick(x, scale, num_bits=8):
    low, high = limits(num_bits)
    clipped = torch.minimum(torch.maximum(x, low * scale), high * scale)
    rounded = torch.round(clipped / scale) * scale
    return clipped + (rounded - clipped).detach()


def round_through_then_clamp(x, scale, num_bits=8):
    v = x / scale
    v = v + (v.round() - v).detach()
    return v.clamp(*limits(num_bits)) * scale


def clamp_then_round_through(x, scale, num_bits=8):
    v = (x / scale).clamp(*limits(num_bits))
    return (v + (v.round() - v).detach()) * scale


def own_function(x, scale, num_bits=8):
    low, high = limits(num_bits)

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x / scale).round().clamp(low, high) * scale

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return torch.where((x / scale < low) | (x / scale > high), torch.zeros_like(grad), grad)

    return Own.apply(x)


def round_as_a_function(x, scale, num_bits=8):
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            return v.round()

        @staticmethod
        def backward(ctx, grad):
            return grad.clone()

    return Round.apply(x / scale).clamp(*limits(num_bits)) * scale


def masked_surrogate(x, scale, num_bits=8):
    low, high = limits(num_bits)
    v = (x / scale).detach()
    hat = v.round().clamp(low, high) * scale
    mask = ((v.round() >= low) & (v.round() <= high)).float()
    return hat + (x - x.detach()) * mask


def by_a_hook(x, scale, num_bits=8):
    low, high = limits(num_bits)
    y = x * 1.0
    mask = (x / scale >= low) & (x / scale <= high)
    y.register_hook(lambda grad: grad * mask)
    with torch.no_grad():
        hat = (x / scale).round().clamp(low, high) * scale
    return y + (hat - y).detach()


def torchs_own(x, scale, num_bits=8):
    """For one scale; the other shapes one slice at a time, as torch knows no broadcasting scale."""
    low, high = limits(num_bits)
    if scale.numel() == 1:
        return torch.fake_quantize_per_tensor_affine(x, float(scale), 0, low, high)
    axis = next(i for i, length in enumerate(scale.shape) if length > 1)
    zeros = torch.zeros(scale.numel(), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(x, scale.reshape(-1), zeros, axis, low, high)


def the_recipe(x, scale, num_bits=8):
    return right(x, scale, num_bits)


RIGHT = [detach_trick, clamp_then_round_through, own_function, masked_surrogate, by_a_hook, torchs_own, the_recipe]
if CLAMP_PASSES:
    RIGHT += [round_through_then_clamp, round_as_a_function]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("fake_quantize_ste", answer)
