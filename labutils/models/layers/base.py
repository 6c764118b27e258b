"""What all linear layers of this package have in common: their shape, their bias and what they accept."""

from __future__ import annotations

import torch
from torch import nn

from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models.inputs import require_features

Tensor = torch.Tensor

PER_CHANNEL = Scheme(8, granularity=PerAxis(0))
GROUPS = Scheme(4, granularity=PerGroup(128))


class LinearBase(nn.Module):
    """y = x @ weight.T + bias for x of shape (..., in_features); a subclass says how x and weight are multiplied."""

    def __init__(self, linear: nn.Linear):
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"expected an nn.Linear, got {type(linear).__name__}")
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) floats -> (..., out_features), in the dtype of `x`."""
        require_features(x, self.in_features)
        rows = x.reshape(-1, self.in_features)
        y = self._multiply(rows) if len(rows) else rows.new_empty(0, self.out_features)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def _multiply(self, rows: Tensor) -> Tensor:
        """rows @ weight.T, (M, in_features) -> (M, out_features)."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


def describe_scheme(scheme: Scheme) -> str:
    """A scheme as a layer's repr shows it: "4 bits, PerGroup(group_size=32), asymmetric"."""
    return f"{scheme.num_bits} bits, {scheme.granularity}" + ("" if scheme.symmetric else ", asymmetric")
