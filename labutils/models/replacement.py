"""A copy of a model with other modules in place of some of its layers."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping
from functools import cache
from types import FunctionType

from torch import nn

from labutils.models.linear import RECOMPUTE

HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)
STATE_HOOKS = (
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
# Containers of torch that may read the weights of their layers instead of calling them, and what keeps them from it.
FAST_PATHS = {
    nn.TransformerEncoderLayer: {"activation_relu_or_gelu": 0},
    nn.TransformerEncoder: {"use_nested_tensor": False},
}


def replaced_copy(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """A deep copy of `model` with each key of `replacements` replaced by its value, wherever the model holds it.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    >>> replaced_copy(model, {model[1]: nn.ReLU()})
    Sequential(
      (0): Linear(in_features=4, out_features=4, bias=True)
      (1): ReLU()
    )

    Replaced layers are not copied, so their weights take no memory; a layer used in two places is replaced in both. A
    replacement gets the mode and the hooks of its layer, and torch's transformer layers call it instead of reading its
    weight. ValueError, with the layer's name, for what would be lost or go on computing in float: see `why_not`.
    """
    for name, module in model.named_modules():
        if reason := why_not(module, module in replacements):
            raise ValueError(f"{name or type(module).__name__}: {reason}")
        _require_weights(name, module, replacements)
    memo = {id(layer): replacement for layer, replacement in replacements.items()}
    for layer, replacement in replacements.items():
        _carry_hooks(layer, replacement.train(layer.training), memo)
    replaced = set(replacements.values())
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        for kind, settings in FAST_PATHS.items():
            if isinstance(module, kind) and any(part in replaced for part in module.modules()):
                vars(module).update(settings)
    return copied


def why_not(module: nn.Module, is_replaced: bool) -> str:
    """Why a copy with replaced layers would not do what the model does; "" where nothing stands against it."""
    if type(module).__name__ == "OptimizedModule":
        return "torch.compile has compiled the float model: quantize that first, and compile the copy"
    forward = vars(module).get("forward")
    if forward is not None and (is_replaced or isinstance(forward, FunctionType)):
        return "its forward was replaced on the instance, which a copy cannot take over: restore it, or name it in skip"
    if is_replaced and (extra := _extras(module)):
        return f"it also holds {', '.join(extra)}, which would be lost: move that elsewhere, or name the layer in skip"
    has_plain_weight = "weight" in module._parameters  # else what recomputes it may have brought hooks of its own
    if is_replaced and has_plain_weight and any(getattr(module, hooks) for hooks in STATE_HOOKS):
        return "it has hooks for its state_dict, which would be lost: remove them, or name the layer in skip"
    return ""


def _require_weights(name: str, module: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """ValueError where a module asks one of its layers for the weight, and what replaces the layer has none."""
    for part, layer in module.named_children():
        if layer in replacements and type(module) not in FAST_PATHS and _asks_for_weight(type(module), part):
            replacement = replacements[layer]
            if not hasattr(replacement, "weight"):
                raise ValueError(
                    f"{name + '.' if name else ''}{part}: {type(module).__name__} asks this layer for its weight, and "
                    f"{type(replacement).__name__} has none: give it a property `weight`, or name the layer in skip"
                )


@cache
def _asks_for_weight(kind: type[nn.Module], part: str) -> bool:
    """Whether the forward of a class reads `self.part.weight`, as T5's does to learn its dtype."""
    try:
        return re.search(rf"\bself\.{re.escape(part)}\.weight\b", inspect.getsource(kind.forward)) is not None
    except (OSError, TypeError):  # no source
        return False


def _extras(layer: nn.Module) -> list[str]:
    """Names of what a linear or convolution layer holds beside its weight, its bias and what these are computed of."""
    if not isinstance(layer, (nn.Linear, nn.Conv2d)):
        return []
    held = [*layer._parameters, *layer._buffers, *layer._modules]
    return [name for name in held if not name.startswith(("weight", "bias", "parametrizations"))]


def _recomputing(layer: nn.Module) -> list[int]:
    """The keys of pre-hooks that compute the weight or the bias: a replacement holds what they compute."""
    return [key for key, hook in layer._forward_pre_hooks.items() if isinstance(hook, tuple(RECOMPUTE))]


def _carry_hooks(layer: nn.Module, replacement: nn.Module, memo: dict) -> None:
    """Put copies of a layer's hooks on its replacement."""
    if replacement is layer:
        return
    left = _recomputing(layer)
    for name in HOOKS:
        hooks = {key: hook for key, hook in getattr(layer, name).items() if key not in left}
        getattr(replacement, name).update(copy.deepcopy(hooks, memo))
    replacement._is_full_backward_hook = layer._is_full_backward_hook
