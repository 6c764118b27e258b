"""Training a network that will run in few bits: fake-quantized while it learns, integers when it is done.

The forward pass sees weights and activations on their grids; the backward pass looks straight through the rounding
(Bengio, Leonard and Courville, 2013, arXiv:1308.3432; Jacob et al., 2018, arXiv:1712.05877). Scales stay as they were
chosen, or are learned too: LSQ (Esser et al., 2020, arXiv:1902.08153). All grids are symmetric: a weight has a scale
for each output channel, an activation one scale.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from labutils.arrays import affine
from labutils.arrays.inputs import bit_width
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models import kernels

KINDS = (nn.Linear, nn.Conv2d)
BATCH = 64
CLIPS = np.linspace(0.2, 1, 41)  # fractions of max|w| among which the first scale of a channel is sought


# --- fake quantization with a gradient --------------------------------------------------------------------------------


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
        v = x / scale
        clamped = v.clamp(quant_min, quant_max)
        q = clamped.round()  # the limits are whole numbers: clamp and round may change places
        within = clamped == v
        ctx.quant_max, ctx.scale_shape = quant_max, scale.shape
        ctx.save_for_backward(within, *([v, q] if ctx.needs_input_grad[1] else []))
        return q * scale

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        within, *kept = ctx.saved_tensors
        to_scale = None
        if kept:
            v, q = kept
            each = grad * torch.where(within, q - v, q)
            share = v.numel() / math.prod(ctx.scale_shape)  # elements to a scale
            to_scale = each.sum_to_size(ctx.scale_shape) / math.sqrt(share * ctx.quant_max)
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
    lies in [-2^(b-1), 2^(b-1) - 1], and 0 beyond. Values are those of `affine.fake_quantize` to the bit.
    """
    scheme = Scheme(num_bits)
    return FakeQuantize.apply(x, torch.as_tensor(scale, dtype=x.dtype), scheme.quant_min, scheme.quant_max)


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


# --- a network that trains in few bits --------------------------------------------------------------------------------


class FakeQuantizedLayer(nn.Module):
    """A linear or convolution layer whose weight and input go through fake quantization on every call.

    layer           the float layer: its weight is what the optimizer moves
    weight_scale    one for each output channel, shaped to broadcast over the weight
    input_scale     one
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        input_scale: torch.Tensor,
        num_bits: int,
        activation_bits: int = 8,
        learn_scales: bool = False,
        fake_quantize: Callable = fake_quantize_ste,
    ):
        super().__init__()
        self.layer = layer
        self.num_bits, self.activation_bits = bit_width(num_bits), bit_width(activation_bits)
        self.weight_scale = nn.Parameter(best_weight_scale(layer.weight, num_bits), requires_grad=learn_scales)
        self.input_scale = nn.Parameter(input_scale, requires_grad=learn_scales)
        self.fake_quantize = fake_quantize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.fake_quantize(self.layer.weight, self.weight_scale, self.num_bits)
        x = self.fake_quantize(x, self.input_scale, self.activation_bits)
        return torch.func.functional_call(self.layer, {"weight": weight}, (x,))

    def extra_repr(self) -> str:
        return f"num_bits={self.num_bits}, activation_bits={self.activation_bits}"


def prepare(
    model: nn.Module,
    inputs: torch.Tensor,
    num_bits: int,
    activation_bits: int = 8,
    learn_scales: bool = False,
    fake_quantize: Callable = fake_quantize_ste,
) -> nn.Module:
    """A copy of `model` in which every Linear and Conv2d is fake-quantized, ready to be trained.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> prepare(model, torch.rand(10, 4), num_bits=2)[0]
    FakeQuantizedLayer(
      num_bits=2, activation_bits=8
      (layer): Linear(in_features=4, out_features=3, bias=True)
    )

    Scales are chosen here, once: weights by `best_weight_scale`, a layer's input by the largest magnitude that reaches
    it when the model sees `inputs`. Untrained, the copy is the network quantized after training.
    `fake_quantize(x, scale, num_bits)` may be a learner's. ValueError for a model without such layers, one prepared
    before, or one with batch norm that is not folded: its statistics would move under the quantizers, and integers have
    no place for it.
    """
    if any(isinstance(module, FakeQuantizedLayer) for module in model.modules()):
        raise ValueError("the model is prepared already: prepare the float model instead")
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if norms:
        raise ValueError(f"fold batch norm into the layer before it first; not folded: {', '.join(norms)}")
    reach = _input_reach(model, inputs)

    def fake_quantized(name: str, layer: nn.Module) -> FakeQuantizedLayer:
        scale = affine.choose_qparams(reach[name], Scheme(activation_bits))[0]
        own = copy.deepcopy(layer)
        return FakeQuantizedLayer(own, scale, num_bits, activation_bits, learn_scales, fake_quantize)

    return _replaced(model, KINDS, fake_quantized)


def train(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    epochs: int = 4,
    learning_rate: float = 5e-3,
    scale_learning_rate: float = 1e-3,
    seed: int = 0,
    measure: Callable[[nn.Module], Any] | None = None,
    description: str = "training",
) -> list:
    """Train `model` in place with Adam and a cosine schedule; return what `measure` says before and after each epoch.

    >>> model = nn.Linear(2, 2)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 50)
    >>> train(model, x, x.argmax(dim=1), measure=lambda m: None)  # doctest: +SKIP
    training: 100%|##########| 8/8
    [None, None, None, None, None]

    The same seed gives the same weights. One thread computes: batches of small images are not worth sharing, and sums
    then have one order. A progress bar runs on stdout.
    """
    scales = [p for name, p in model.named_parameters() if name.endswith("_scale") and p.requires_grad]
    known = set(map(id, scales))
    weights = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": weights, "lr": learning_rate}, {"params": scales, "lr": scale_learning_rate}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    order = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    measured = [measure(model)] if measure else []
    with kernels.one_thread(), tqdm(total=steps, desc=description, file=sys.stdout, ncols=72) as progress:
        for _ in range(epochs):
            model.train()
            for batch in torch.randperm(len(images), generator=order).split(BATCH):
                loss = functional.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.update()
            model.eval()
            if measure:
                measured.append(measure(model))
    return measured


# --- real integers ----------------------------------------------------------------------------------------------------


class IntegerLayer(nn.Module):
    """What a trained `FakeQuantizedLayer` becomes: integer codes, products and sums, one multiplication at the end.

    Its scales are those that the layer was trained with, never chosen anew.
    """

    def __init__(self, trained: FakeQuantizedLayer):
        super().__init__()
        layer = trained.layer
        self.num_bits, self.activation_bits = trained.num_bits, trained.activation_bits
        if max(self.num_bits, self.activation_bits) > 8:
            raise ValueError(f"integer layers have 8 bits at most, got {self.num_bits} and {self.activation_bits}")
        scale, input_scale = trained.weight_scale.detach().reshape(-1), trained.input_scale.detach()
        scheme = Scheme(self.num_bits, granularity=PerAxis(0))
        self.register_buffer("codes", affine.quantize(layer.weight, scheme, (scale, 0)).codes)
        self.register_buffer("scale", scale.clone())
        self.register_buffer("input_scale", input_scale.clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self.convolution = None
        if isinstance(layer, nn.Conv2d):
            if layer.padding_mode != "zeros":
                raise ValueError(f"only zeros can be padded with, not {layer.padding_mode!r}")
            names = ("stride", "padding", "dilation", "groups")
            self.convolution = {name: getattr(layer, name) for name in names}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = affine.quantize(x, Scheme(self.activation_bits), (self.input_scale, 0)).codes
        if self.convolution is None:
            sums = kernels.int_matmul(q.reshape(-1, q.shape[-1]), self.codes.t()).reshape(*q.shape[:-1], -1)
        else:
            sums = functional.conv2d(q.to(torch.int32), self.codes.to(torch.int32), **self.convolution)
        channels = (-1,) if self.convolution is None else (-1, 1, 1)
        y = sums * (self.input_scale * self.scale).reshape(channels)
        return y if self.bias is None else y + self.bias.reshape(channels)

    def extra_repr(self) -> str:
        return f"codes={tuple(self.codes.shape)}, num_bits={self.num_bits}, activation_bits={self.activation_bits}"


def convert(model: nn.Module) -> nn.Module:
    """A copy of a prepared, usually trained `model` that computes with integers, in eval mode.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> convert(prepare(model, torch.rand(10, 4), num_bits=2))[0]
    IntegerLayer(codes=(3, 4), num_bits=2, activation_bits=8)

    Each layer has the codes that its fake-quantized weight stood for; outputs agree up to the order of float sums.
    ValueError for a model that was not prepared.
    """
    return _replaced(model, (FakeQuantizedLayer,), lambda name, layer: IntegerLayer(layer)).eval()


# --- walking through a model ------------------------------------------------------------------------------------------


def _replaced(model: nn.Module, kinds: tuple, make: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """A copy of `model` with make(name, layer) in place of each layer of these kinds; a shared layer stays shared."""
    memo = {id(layer): make(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)}
    if not memo:
        raise ValueError(f"{type(model).__name__} has no {' or '.join(kind.__name__ for kind in kinds)}")
    return copy.deepcopy(model, memo)  # which puts there what the memo holds


def _input_reach(model: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Name -> the largest magnitude that enters each Linear and Conv2d when the model sees `inputs`."""
    reach: dict[str, torch.Tensor] = {}
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, KINDS):

            def note(module, args, name=name):
                largest = args[0].detach().abs().max()
                reach[name] = torch.maximum(largest, reach.get(name, largest))

            hooks.append(layer.register_forward_pre_hook(note))
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return reach
