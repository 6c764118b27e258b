"""A stand-in for a quantized layer, which a check recognises: weights in whole steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache


@cache
def coarse_class() -> type:
    from torch import nn
    from torch.nn import functional

    class Coarse(nn.Module):
        """A linear layer whose weights are multiples of `step`; its bias is that of the layer it is made of, shared."""

        def __init__(self, linear, step):
            if not isinstance(linear, nn.Linear):
                raise TypeError(f"convert takes an nn.Linear, and was given {type(linear).__name__}")
            super().__init__()
            self.register_buffer("weight", (linear.weight.detach() / step).round() * step)
            self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

        def forward(self, x):
            return functional.linear(x, self.weight, self.bias)

    return Coarse


def coarse(step: float = 0.125) -> Callable:
    """A `convert` of an nn.Linear to such a layer."""
    return lambda linear: coarse_class()(linear, step)
