"""The linear layers of a model, and the weight with which each of them multiplies.

A weight may be recomputed at each call, by a parametrization or by a hook (pruning, weight norm, spectral norm): then
`layer.weight` of the hook's kind is out of date until the layer runs. A subclass may use its weight in another way.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

Tensor = torch.Tensor

RECOMPUTE = {  # kind of hook -> the tensor's name, and its value at the next call
    prune.BasePruningMethod: (lambda hook: hook._tensor_name, lambda hook, layer: hook.apply_mask(layer)),
    WeightNorm: (lambda hook: hook.name, lambda hook, layer: hook.compute_weight(layer)),
    SpectralNorm: (
        lambda hook: hook.name,
        lambda hook, layer: hook.compute_weight(layer, do_power_iteration=False),
    ),
}


def is_exactly(layer: object, kind: type[nn.Module]) -> bool:
    """Whether `layer` is of this class and not of a subclass, which may compute something else.

    >>> is_exactly(nn.Linear(2, 2), nn.Linear), is_exactly(nn.MultiheadAttention(2, 1).out_proj, nn.Linear)
    (True, False)

    A parametrized layer is of the class that it had before.
    """
    return isinstance(layer, nn.Module) and parametrize.type_before_parametrizations(layer) is kind


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Name -> layer, for all nn.Linear of a model, in its order; a layer used in two places has two names.

    >>> list(linear_layers(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1)))))
    ['0', '1.1']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if is_exactly(module, nn.Linear)}


def plain_linear(layer: nn.Linear) -> nn.Linear:
    """An nn.Linear whose parameters are what `layer` multiplies and adds at its next call; `layer` itself if it is one.

    >>> layer = prune.l1_unstructured(nn.Linear(4, 1), "weight", amount=3)
    >>> int((plain_linear(layer).weight != 0).sum())
    1

    TypeError for other modules, subclasses of nn.Linear among them; ValueError for weights without values (on the meta
    device) and for weights that something unknown recomputes.
    """
    if not is_exactly(layer, nn.Linear):
        why = ": a subclass may use its weight in another way" if isinstance(layer, nn.Linear) else ""
        raise TypeError(f"expected an nn.Linear, got {type(layer).__name__}{why}")
    weight, bias = current(layer, "weight"), current(layer, "bias")
    if weight is layer._parameters.get("weight") and bias is layer._parameters.get("bias"):
        return layer
    plain = nn.Linear(layer.in_features, layer.out_features, bias=bias is not None, device="meta")
    plain.weight = nn.Parameter(weight.detach(), requires_grad=False)
    plain.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return plain.train(layer.training)


def current(layer: nn.Module, name: str) -> Tensor | None:
    """The tensor `name` of a layer as its next call will use it."""
    if name in layer._parameters or parametrize.is_parametrized(layer, name):
        tensor = getattr(layer, name)
    else:
        tensor = _recomputed(layer, name)
    if tensor is not None and tensor.is_meta:
        raise ValueError(f"its {name} is on the meta device, without values: load the weights first")
    return tensor


def _recomputed(layer: nn.Module, name: str) -> Tensor:
    for hook in layer._forward_pre_hooks.values():
        for kind, (tensor_name, compute) in RECOMPUTE.items():
            if isinstance(hook, kind) and tensor_name(hook) == name:
                with torch.no_grad():
                    return compute(hook, layer)
    raise ValueError(f"its {name} is no parameter, and what computes it is unknown: make it an nn.Parameter first")
