"""8-bit weights by 8-bit activations (W8A8)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from labutils.arrays import affine
from labutils.arrays.affine import QuantizedArray
from labutils.models import kernels
from labutils.models.layers.base import PER_CHANNEL
from labutils.models.layers.held import HeldLinear
from labutils.models.linear import plain_linear

Tensor = torch.Tensor


class Int8Linear(HeldLinear):
    """Integers by integers (W8A8): each row of activations is quantized as it comes, products add up in int32.

    >>> layer = Int8Linear.from_float(nn.Linear(512, 256))
    >>> layer.memory_bytes()
    134144

    A byte for each weight, and 12 for each output: its scale, its bias, and the sum of its weights, by which the zero
    points of activations are accounted for. A row of `x` that holds NaN or Inf comes out not finite, and alone.
    Computes in float32 whatever the dtype of `x`. Gradients go straight through to `x`, as if it were not quantized.
    """

    def __init__(self, linear: nn.Linear):
        linear = plain_linear(linear)
        super().__init__(linear, PER_CHANNEL)
        quantized = affine.quantize(linear.weight, PER_CHANNEL)
        self._weights = self._hold({"codes": quantized.codes, "scale": quantized.scale})

    @classmethod
    def from_float(cls, linear: nn.Linear) -> Int8Linear:
        """The layer with `linear`'s weight in 8 bits, a scale for each output; `linear` stays as it is."""
        return cls(linear)

    @property
    def quantized(self) -> QuantizedArray:
        """Its codes and scales."""
        plain = self._weights.plain()
        return QuantizedArray(plain["codes"], plain["scale"], 0, self.scheme, torch.float32)

    def _hold(self, plain: Mapping[str, Tensor]) -> kernels.Int8Weights:
        return kernels.Int8Weights(**plain, few_rows=self.repacked)

    def _exact(self, rows: Tensor) -> Tensor:
        return self._weights.linear(rows.to(torch.float32))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, int8 by int8, kernel: {self.kernel}"
