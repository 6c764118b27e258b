"""As in LLM.int8(): outlier channels are multiplied in float, the others in integers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from labutils.arrays.inputs import positive_number
from labutils.models.linear import plain_linear
from labutils.models.outliers.channels import require_maxima
from labutils.models.outliers.static import StaticInt8Linear

Tensor = torch.Tensor


class SplitLinear(nn.Module):
    """Channels with an outlier in float, the others in integers with one activation scale (W8A8, static).

    >>> layer = SplitLinear(nn.Linear(4, 2), input_max=torch.tensor([1.0, 30.0, 2.0, 1.5]))
    >>> layer.channels, layer.regular.input_scale * 127
    (tensor([1]), tensor(2.))

    A channel is an outlier if its maximum, of `input_max` (in_features,), is above `threshold`. LLM.int8() looks at
    each batch anew and gives every row a scale of its own; here both are fixed beforehand, to be compared with
    `StaticInt8Linear`.
    """

    def __init__(self, linear: nn.Linear, input_max: Tensor, threshold: float = 6.0):
        super().__init__()
        linear = plain_linear(linear)
        require_maxima(input_max, linear.in_features)
        if tuple(input_max.shape) != (linear.in_features,):
            raise ValueError(f"input_max must have shape ({linear.in_features},), got {tuple(input_max.shape)}")
        outlier = input_max > positive_number(threshold, "threshold")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("channels", outlier.nonzero()[:, 0])
        self.register_buffer("others", (~outlier).nonzero()[:, 0])
        self.register_buffer("weight", linear.weight.detach()[:, outlier].clone())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())
        self.regular = None  # where every channel is an outlier
        if len(self.others):
            rest = nn.Linear(len(self.others), linear.out_features, bias=False, device="meta")
            rest.weight = nn.Parameter(linear.weight.detach()[:, ~outlier], requires_grad=False)
            self.regular = StaticInt8Linear(rest, input_max[~outlier])

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) floats -> (..., out_features)."""
        y = functional.linear(input[..., self.channels], self.weight, self.bias)
        return y if self.regular is None else y + self.regular(input[..., self.others])

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {len(self.channels)} channels in float"
