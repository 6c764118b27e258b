"""Integer weights that are dequantized at each call (W8A16)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from labutils.arrays import affine
from labutils.arrays.affine import QuantizedArray
from labutils.arrays.scheme import Scheme
from labutils.models import opaque
from labutils.models.layers.base import PER_CHANNEL, LinearBase, describe_scheme, require_codes_of
from labutils.models.linear import plain_linear

Tensor = torch.Tensor


class QuantizedLinear(LinearBase):
    """Integer weights, float activations (W8A16): the codes are dequantized at each call, and floats are multiplied.

    >>> layer = QuantizedLinear.from_float(nn.Linear(512, 256))
    >>> layer, layer.memory_bytes()
    (QuantizedLinear(512, 256, bias=True, int8 codes, 8 bits, PerAxis(axis=0)), 133120)

    131,072 codes of a byte, 256 scales and 256 biases of 4. Smaller than float, and slower: dequantizing comes on top.
    Other grids than integers come here, too, such as those of MXFP4: a code takes a byte, and a scale is a float.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme = PER_CHANNEL, quantized: QuantizedArray | None = None):
        linear = plain_linear(linear)
        super().__init__(linear, scheme)
        quantized = affine.quantize(linear.weight, scheme) if quantized is None else quantized
        # A copy: after a short last group the codes are part of a longer storage, which files would refuse.
        self.register_buffer("codes", quantized.codes.clone(memory_format=torch.contiguous_format))
        self.register_buffer("scale", quantized.scale)
        self.register_buffer("zero_point", None if scheme.symmetric else quantized.zero_point)

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: Scheme = PER_CHANNEL) -> QuantizedLinear:
        """The layer with `linear`'s weight under `scheme`, and a copy of its bias; `linear` stays as it is."""
        return cls(linear, scheme)

    @classmethod
    def from_codes(cls, linear: nn.Linear, quantized: QuantizedArray) -> QuantizedLinear:
        """The layer with codes that were chosen otherwise than by rounding, and a copy of the bias of `linear`.

        >>> linear = nn.Linear(64, 32)
        >>> quantized = affine.quantize(linear.weight, Scheme(8, granularity=PerGroup(32)))
        >>> torch.equal(QuantizedLinear.from_codes(linear, quantized).weight, affine.dequantize(quantized))
        True
        """
        require_codes_of(plain_linear(linear), quantized)
        return cls(linear, quantized.scheme, quantized)

    @staticmethod
    def held_scale(scale: Tensor) -> Tensor:
        """The scale with which this layer would compute in place of `scale`: the same."""
        return scale

    @property
    def weight(self) -> Tensor:
        """The weight, dequantized: (out_features, in_features) in the dtype of `scale`."""
        return self._dequantized(self.scale.dtype)

    @property
    def quantized(self) -> QuantizedArray:
        """Its codes and scales as they are held; nothing is copied."""
        zero_point = 0 if self.zero_point is None else self.zero_point
        return QuantizedArray(self.codes, self.scale, zero_point, self.scheme, self.scale.dtype)

    def memory_bytes(self) -> int:
        """Bytes of all buffers: codes, scales, zero points, bias."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def share_weight(self, other: QuantizedLinear) -> None:
        """Hold the codes and scales of `other`, not a second copy of them."""
        self.codes, self.scale, self.zero_point = other.codes, other.scale, other.zero_point

    def _multiply(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self._dequantized(rows.dtype))

    def _dequantized(self, dtype: torch.dtype) -> Tensor:
        return opaque.dequantize(self.codes, self.scale, self.zero_point, self.scheme, dtype)

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """`.half()` and other casts leave the scale alone: 16 bits would round it, and turn 1e-8 into 0."""
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale.to(self.codes.device)
        return self

    def extra_repr(self) -> str:
        dtype = str(self.codes.dtype).removeprefix("torch.")
        return f"{super().extra_repr()}, {dtype} codes, {describe_scheme(self.scheme)}"
