"""SmoothQuant: a channel's size is moved from the activations into the weights, and the function stays the same."""

from __future__ import annotations

import copy

import torch
from torch import nn

from labutils.models.behind import Behind
from labutils.models.kept_dtypes import KeepsScales
from labutils.models.linear import is_exactly, plain_linear
from labutils.models.outliers.channels import checked_scales, scaled

Tensor = torch.Tensor


class Divide(KeepsScales):
    """x / scales, channel by channel along the last axis.

    >>> Divide(torch.tensor([8.0, 2.0]))(torch.tensor([[16.0, -1.0]]))
    tensor([[ 2.0000, -0.5000]])
    """

    scale_names = ("scales",)

    def __init__(self, scales: Tensor):
        super().__init__()
        self.register_buffer("scales", checked_scales(scales, None).clone())

    def forward(self, input: Tensor) -> Tensor:
        """(..., channels) -> (..., channels), in the dtype of `input`."""
        return (input / self.scales).to(input.dtype)

    undo = forward  # (x / s) w^T = x (w / s)^T

    def extra_repr(self) -> str:
        return f"{len(self.scales)}"


def smooth_linear(linear: nn.Linear, scales: Tensor) -> Behind:
    """The reference of lab 08: see `labs.lab08.smooth_linear`."""
    linear = plain_linear(linear)
    scales = checked_scales(scales, linear.in_features)
    return Behind(Divide(scales), _with_columns_times(linear, scales))


def fold_division(before: nn.Module, scales: Tensor) -> nn.Module:
    """The reference of lab 08's stretch exercise: see `labs.lab08.fold_division`."""
    if not any(is_exactly(before, kind) for kind in (nn.LayerNorm, nn.RMSNorm, nn.Linear)):
        raise TypeError(
            f"a division folds into an nn.LayerNorm, nn.RMSNorm or nn.Linear, not into {type(before).__name__}: "
            "divide at the layer's input instead, with smooth_linear"
        )
    if before.weight is None:
        raise ValueError(f"{before} has no weight to divide: divide at the layer's input instead, with smooth_linear")
    if before.weight.ndim != 1 and not isinstance(before, nn.Linear):
        raise ValueError(f"the norm must act on the last axis alone, got {before}")
    scales = checked_scales(scales, len(before.weight))
    folded = copy.deepcopy(before)
    each = scales[:, None] if folded.weight.ndim == 2 else scales  # a row, or one number, for each output
    folded.weight.data = scaled(folded.weight, 1 / each.to(torch.float64), "the divided weight")
    if getattr(folded, "bias", None) is not None:
        folded.bias.data = scaled(folded.bias, 1 / scales.to(torch.float64), "the divided bias")
    return folded


def rescale(before: nn.Module, after: nn.Linear, factors: Tensor) -> tuple[nn.Module, nn.Linear]:
    """Copies of two modules, the outputs of the first times `factors`, the second's columns divided by them.

    >>> value, output = nn.Linear(4, 4), nn.Linear(4, 2)
    >>> louder, quieter = rescale(value, output, torch.tensor([1.0, 1024.0, 1.0, 1.0]))
    >>> x = torch.randn(8, 4)
    >>> torch.equal(quieter(louder(x)), output(value(x)))
    True

    Powers of two change no digit, so the outputs are the same to the last bit, as long as nothing over- or underflows.
    What stands between the two must pass a factor through, channel by channel: nothing, a ReLU, or, from the values of
    an attention to its output layer, a weighted mean over tokens. Errors as in `fold_division`.
    """
    factors = checked_scales(factors, after.in_features)
    return fold_division(before, 1 / factors), _with_columns_times(after, 1 / factors)


def _with_columns_times(linear: nn.Linear, scales: Tensor) -> nn.Linear:
    changed = copy.deepcopy(linear)
    changed.weight.data = scaled(changed.weight, scales, "the weight times the scales")
    return changed
