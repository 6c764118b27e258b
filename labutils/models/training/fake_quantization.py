"""Fake quantization with a gradient: straight through the rounding to the values, LSQ's to the scale."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from labutils.arrays import affine
from labutils.arrays.scheme import PerAxis, Scheme

CLIPS = np.linspace(0.2, 1, 41)  # fractions of max|w| among which `best_weight_scale` chooses


class FakeQuantize(torch.autograd.Function):
    """scale * clamp(round(x / scale)), with the gradients of LSQ.

    v = x / scale        to x                to scale, each element
    within the codes     1                   round(v) - v               (equations 3 and 5)
    beyond them          0                   the last code

    The gradient to a scale is summed over the elements that share it and divided by sqrt(N * quant_max), N of them
    (section 2.2): it is then about as large, relative to the scale, as a weight's is to the weight.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, quant_min: int, quant_max: int) -> torch.Tensor:
        work = torch.promote_types(torch.promote_types(x.dtype, scale.dtype), torch.float32)
        v = x.to(work) / scale.to(work)
        clamped = v.clamp(quant_min, quant_max)
        q = clamped.round()  # the limits are whole numbers: clamp and round may change places
        within = clamped == v
        ctx.quant_max, ctx.scale_shape, ctx.scale_dtype = quant_max, scale.shape, scale.dtype
        ctx.save_for_backward(within, *([v, q] if ctx.needs_input_grad[1] else []))
        largest = torch.finfo(x.dtype).max
        return (q * scale.to(work)).clamp_(-largest, largest).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        within, *kept = ctx.saved_tensors
        to_scale = None
        if kept:
            v, q = kept
            each = grad * torch.where(within, q - v, q)
            share = v.numel() / math.prod(ctx.scale_shape)  # elements to a scale
            to_scale = each.sum_to_size(ctx.scale_shape) / math.sqrt(share * ctx.quant_max)
            to_scale = to_scale.to(ctx.scale_dtype)
        return grad * within, to_scale, None, None


def fake_quantize_ste(x: torch.Tensor, scale: torch.Tensor, num_bits: int = 8) -> torch.Tensor:
    """The values of `x` on the symmetric grid of `scale`, differentiable by the straight-through estimator.

    >>> x = torch.tensor([-0.26, 0.04, 0.11, 0.9], requires_grad=True)
    >>> y = fake_quantize_ste(x, torch.tensor(0.1), num_bits=3)
    >>> y.detach()
    tensor([-0.3000,  0.0000,  0.1000,  0.3000])
    >>> y.sum().backward()
    >>> x.grad
    tensor([1., 1., 1., 0.])

    `scale` broadcasts over `x`; where it requires a gradient it gets LSQ's. The gradient to `x` is 1 where x / scale
    lies in [-2^(b-1), 2^(b-1) - 1], and 0 beyond. Values are those of `affine.fake_quantize` to the bit: 16-bit floats
    are computed in float32, and come back as they were. ValueError for a scale that is not positive.
    """
    scheme = Scheme(num_bits)
    if not isinstance(scale, torch.Tensor):
        scale = torch.as_tensor(scale, dtype=torch.promote_types(x.dtype, torch.float32))
    if not bool((scale > 0).all()):
        raise ValueError("scale must be positive everywhere")
    return FakeQuantize.apply(x, scale, scheme.quant_min, scheme.quant_max)


def best_weight_scale(weight: torch.Tensor, num_bits: int) -> torch.Tensor:
    """For each output channel the scale that loses least in mean square, in a shape that broadcasts over `weight`.

    >>> best_weight_scale(torch.tensor([[0.2, -0.1, 0.1, 0.1], [3.0, 2.0, -1.0, 0.0]]), num_bits=2)
    tensor([[0.1240],
            [2.5200]])

    Sought among 41 fractions of max|w| from 0.2 to 1. At 2 and 3 bits a few clipped weights are a good price for finer
    steps (lab 01).
    """
    each = tuple(range(1, weight.ndim))
    best = least = None
    for clip in CLIPS:
        scheme = Scheme(num_bits, granularity=PerAxis(0), clip=float(clip))
        qparams = affine.choose_qparams(weight, scheme)
        noise = (affine.fake_quantize(weight, scheme, qparams) - weight.detach()).square().sum(dim=each)
        if best is None:
            best, least = qparams[0], noise
        best, least = torch.where(noise < least, qparams[0], best), torch.minimum(noise, least)
    return best.reshape(-1, *[1] * (weight.ndim - 1))
