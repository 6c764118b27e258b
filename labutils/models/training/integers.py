"""What a trained network becomes: layers that compute with integers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from labutils.arrays import affine
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models import kernels
from labutils.models.replacement import replaced_copy
from labutils.models.training.preparation import FakeQuantizedLayer


class IntegerLayer(nn.Module):
    """A trained `FakeQuantizedLayer` in integers: codes are multiplied and added up, and one multiplication rescales.

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

    >>> from labutils.models.training import prepare
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> convert(prepare(model, torch.rand(10, 4), num_bits=2))[0]
    IntegerLayer(codes=(3, 4), num_bits=2, activation_bits=8)

    Each layer has the codes that its fake-quantized weight stood for; outputs agree up to the order of float sums.
    ValueError for a model that was not prepared.
    """
    prepared = [layer for layer in model.modules() if isinstance(layer, FakeQuantizedLayer)]
    if not prepared:
        raise ValueError(f"{type(model).__name__} has no FakeQuantizedLayer")
    return replaced_copy(model, {layer: IntegerLayer(layer) for layer in prepared}).eval()
