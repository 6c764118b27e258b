"""What a quantized copy of a model goes on computing in float, and why."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping

from torch import nn
from torch.nn.modules import batchnorm, conv, instancenorm

from labutils.models.linear import is_exactly, linear_layers

# Layers that nobody expects to be quantized here: they look up or normalize; and, unless told otherwise, convolve.
LOOK_UP_OR_NORMALIZE = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    batchnorm._NormBase,
    instancenorm._InstanceNorm,
)
NOT_LINEAR = (*LOOK_UP_OR_NORMALIZE, conv._ConvNd)
NAMED = 3  # so many are named in a message
ONLY_LINEAR = "Only nn.Linear is quantized, and a tied one only where a rule names it."


class LeftInFloatWarning(UserWarning):
    """A quantized copy multiplies with large weights that are still float."""


def tied_elsewhere(model: nn.Module) -> dict[nn.Module, str]:
    """Linear layer -> the name of a module of another kind that has the same weight."""
    names = {
        id(weight): f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        for weight in module.parameters(recurse=False)
        if not is_exactly(module, nn.Linear)
    }
    layers = linear_layers(model).values()
    weights = {layer: layer._parameters.get("weight") for layer in layers}
    return {layer: names[id(weight)] for layer, weight in weights.items() if id(weight) in names}


def left_in_float(
    model: nn.Module,
    named: Collection[str],
    tied: Mapping[nn.Module, str],
    replaced: Collection[nn.Module],
    expected: tuple[type[nn.Module], ...] = NOT_LINEAR,
) -> dict[str, str]:
    """Name -> why it stays in float, for all that is as large as a linear layer and was not left on purpose.

    >>> attention = nn.MultiheadAttention(16, 2)
    >>> left_in_float(nn.Sequential(attention, nn.Linear(4, 4)), (), {}, ())
    {'0': 'MultiheadAttention, which holds its weight itself', '0.out_proj': 'NonDynamicallyQuantizableLinear, ...'}

    named     names of linear layers that a rule speaks of
    tied      as `tied_elsewhere` returns them
    replaced  layers that are quantized
    expected  classes whose layers are not mentioned
    """
    layers = linear_layers(model)
    smallest = min((layer.in_features * layer.out_features for layer in layers.values()), default=1)
    reasons = {
        name: f"its weight is also that of {tied[layer]}"
        for name, layer in layers.items()
        if layer in tied and name not in named
    }
    inside = {part for layer in (*layers.values(), *replaced) for part in layer.modules()}  # parametrizations, too
    for name, module in model.named_modules():
        if isinstance(module, expected) or module in inside:
            continue
        if any(w.ndim > 1 and w.numel() >= smallest for w in module.parameters(recurse=False)):
            kind = type(module).__name__
            why = "a subclass of nn.Linear" if isinstance(module, nn.Linear) else "which holds its weight itself"
            reasons[name or kind] = f"{kind}, {why}"
    return reasons


def warn(reasons: Mapping[str, str], rule: str = ONLY_LINEAR) -> None:
    """Issue a LeftInFloatWarning, at the line outside this package from which it was called."""
    shown = "; ".join(f"{name} ({why})" for name, why in list(reasons.items())[:NAMED])
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    warnings.warn(
        f"left in float: {shown}{more}. {rule}",
        LeftInFloatWarning,
        stacklevel=_frames_within(),
    )


def _frames_within() -> int:
    """The stacklevel, seen from `warn`, of the first frame outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("labutils."):
        frame, level = frame.f_back, level + 1
    return level
