"""8 bits by 8 bits with one activation scale for all, fixed beforehand: the layer that suffers from outliers."""

from __future__ import annotations

import torch
from torch import nn

from labutils.arrays import affine
from labutils.arrays.grids import Integers
from labutils.arrays.scheme import PerAxis, PerTensor, Scheme
from labutils.models.kept_dtypes import KeepsScales
from labutils.models.layers import PER_CHANNEL, Int8Linear
from labutils.models.linear import plain_linear
from labutils.models.outliers.channels import require_maxima
from labutils.models.saved_form import scheme_numbers

Tensor = torch.Tensor


class StaticInt8Linear(KeepsScales, Int8Linear):
    """Integers by integers, and one scale for all activations, fixed before the first of them comes (W8A8, static).

    >>> layer = StaticInt8Linear(nn.Linear(512, 256), input_max=torch.tensor(6.35))
    >>> layer.input_scale
    tensor(0.0500)

    input_max  the largest magnitude to be represented, or those of the channels, of which the largest counts; what
               comes beyond is clamped to it
    scheme     of the weight: symmetric, 2 to 8 bits, PerAxis(0) or PerTensor(); activations have as many bits

    A row of `x` that holds NaN or Inf comes out NaN.
    """

    scale_names = ("input_scale",)

    def __init__(self, linear: nn.Linear, input_max: Tensor, scheme: Scheme = PER_CHANNEL):
        linear = plain_linear(linear)
        super().__init__(linear)
        is_int8 = isinstance(scheme.grid, Integers) and scheme.symmetric and scheme.num_bits <= 8
        if not is_int8 or scheme.granularity not in (PerAxis(0), PerTensor()):
            raise ValueError(
                f"scheme must be symmetric integers of 2 to 8 bits, with PerAxis(0) or PerTensor(), got {scheme}"
            )
        require_maxima(input_max, linear.in_features)
        self.scheme = scheme
        weight = affine.quantize(linear.weight, scheme)
        scale = weight.scale.to(torch.float32).expand(self.out_features).clone()
        self._weights = self._hold({"codes": weight.codes, "scale": scale})
        largest = input_max.detach().max().to(torch.float32)
        self.register_buffer("input_scale", torch.where(largest > 0, largest / scheme.quant_max, 1.0))

    @classmethod
    def from_float(cls, linear: nn.Linear, input_max: Tensor) -> StaticInt8Linear:
        """The layer with `linear`'s weight in 8 bits; `linear` stays as it is."""
        return cls(linear, input_max)

    def _exact(self, rows: Tensor) -> Tensor:
        limit = self.scheme.quant_max
        rows = rows.to(torch.float32)
        spoilt = rows.abs().amax(1, keepdim=True) * 0  # 0, or NaN where a row holds NaN or Inf: integers cannot say so
        codes = (rows / self.input_scale).round_().clamp_(-limit, limit).nan_to_num_().add_(128).to(torch.uint8)
        return self._weights.multiply(codes, zero_point=128).mul_(self.input_scale).add_(spoilt)

    def _smooth(self, rows: Tensor) -> Tensor:
        """No gradient reaches what is clamped."""
        limit = self.scheme.quant_max * self.input_scale
        return super()._smooth(rows.clamp(-limit, limit))

    def _form(self) -> list[int]:
        return scheme_numbers(self.scheme)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.scheme.num_bits} bits, one activation scale"
