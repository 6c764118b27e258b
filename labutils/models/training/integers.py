"""What a trained network becomes: layers that compute with integers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from labutils.arrays import affine
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models import kernels
from labutils.models.inputs import in_autocast_dtype
from labutils.models.kept_dtypes import KeepsScales
from labutils.models.replacement import replaced_copy
from labutils.models.saved_form import SavesBits
from labutils.models.straight_through import straight_through
from labutils.models.training.preparation import FakeQuantizedLayer


class IntegerLayer(KeepsScales, SavesBits):
    """A trained `FakeQuantizedLayer` in integers: codes are multiplied and added up, and one multiplication rescales.

    Its scales are those that the layer was trained with, never chosen anew. Gradients go straight through to its input.
    """

    scale_names = ("scale", "input_scale")

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

    @property
    def weight(self) -> torch.Tensor:
        """The weight, dequantized, in the dtype of `scale`."""
        return self.codes * self.scale.reshape(-1, *[1] * (self.codes.ndim - 1))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """What the trained layer computes, in the dtype of `input`, or that of `torch.autocast`."""
        x = in_autocast_dtype(input)
        y = straight_through(x, self._exact, self._smooth)
        return (y if self.bias is None else y + self._over_channels(self.bias)).to(x.dtype)

    def _exact(self, x: torch.Tensor) -> torch.Tensor:
        scheme = Scheme(self.activation_bits)
        q = affine.quantize(x, scheme, (self.input_scale, 0)).codes if x.numel() else x.to(torch.int8)
        if self.convolution is None:
            sums = kernels.int_matmul(q.reshape(-1, q.shape[-1]), self.codes.t())
            sums = sums.reshape(*q.shape[:-1], len(self.codes))
        else:
            sums = kernels.int_conv2d(q, self.codes, **self.convolution)
        return sums * self._over_channels(self.input_scale * self.scale)

    def _smooth(self, x: torch.Tensor) -> torch.Tensor:
        """The product of floats whose gradient stands for the integers': none where the input is clamped."""
        limits = Scheme(self.activation_bits)
        x = x.clamp(limits.quant_min * self.input_scale, limits.quant_max * self.input_scale)
        weight = self.weight.to(x.dtype)
        if self.convolution is None:
            return functional.linear(x, weight)
        return functional.conv2d(x, weight, **self.convolution)

    def _over_channels(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.convolution is None else values.reshape(-1, 1, 1)

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
    prepared = {name: layer for name, layer in model.named_modules() if isinstance(layer, FakeQuantizedLayer)}
    if not prepared:
        raise ValueError(f"{type(model).__name__} has no FakeQuantizedLayer")
    replacements = {}
    for name, layer in prepared.items():
        try:
            replacements[layer] = IntegerLayer(layer)
        except ValueError as error:
            raise ValueError(f"{name or 'the layer'}: {error}") from error
    return replaced_copy(model, replacements).eval()
