"""A copy of a model in which linear layers are quantized."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from labutils.arrays.scheme import Scheme
from labutils.models.layers import PER_CHANNEL, HeldLinear, QuantizedLinear, layer_kind
from labutils.models.left_in_float import left_in_float, tied_elsewhere, warn
from labutils.models.linear import linear_layers, plain_linear
from labutils.models.replacement import replaced_copy

Convert = Scheme | Callable[[nn.Linear], nn.Module]  # how a linear layer is replaced


def quantize_model(
    model: nn.Module,
    convert: Convert = PER_CHANNEL,
    rules: Mapping[str, Convert | None] | None = None,
    skip: Iterable[str] = (),
) -> nn.Module:
    """A copy of `model` with its linear layers replaced; `model` itself stays as it is.

    >>> from labutils.models import Int8Linear
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> quantize_model(model, Scheme(4, granularity=PerGroup(32)), rules={"2": Int8Linear})
    Sequential(
      (0): PackedLinear(64, 64, bias=True, packed, 4 bits, PerGroup(group_size=32), kernel: ...)
      (1): ReLU()
      (2): Int8Linear(64, 10, bias=True, int8 by int8, kernel: ...)
    )

    convert  a Scheme for the weight (8 bits and more: QuantizedLinear, below: PackedLinear), or any function from an
             nn.Linear to the module that replaces it, such as Int8Linear
    rules    name -> what to do there instead, None to leave it in float; "encoder.*" is all names that begin so; the
             first rule that fits holds
    skip     names, in the same way, to leave in float

    The float weights of replaced layers are not copied. A layer used in several places is replaced once; layers that
    share a weight go on sharing it. Hooks move to the replacement; a weight that a parametrization or pruning
    recomputes is quantized as it is now. A layer whose weight also serves another kind of module, such as an embedding,
    stays in float unless a rule names it: its float weight would be kept anyway. Subclasses of nn.Linear stay too, for
    they use their weight in ways of their own. LeftInFloatWarning names what stays; see `replaced_copy` for what is
    refused. ValueError for a model without linear layers and for names that no linear layer has; TypeError for what is
    no module, Scheme or function.
    """
    layers = linear_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to quantize")
    rules = dict.fromkeys([skip] if isinstance(skip, str) else skip) | dict(rules or {})
    tied = tied_elsewhere(model)
    choices = _choices(layers, convert, rules, tied)
    replacements: dict[nn.Module, nn.Module] = {}
    first_of: dict[tuple[int, Convert], nn.Module] = {}  # weight and choice -> the first layer made of them
    for name, choice in choices.items():
        layer = layers[name]
        if choice is None or layer in replacements:
            continue
        replacement = replacements[layer] = _replacement(name, layer, choice)
        weight = layer._parameters.get("weight", layer)  # a weight that is recomputed is its layer's own
        _share_weight(replacement, first_of.setdefault((id(weight), choice), replacement))
    on_purpose = [name for name in layers if _fitting(name, rules)]
    if left := left_in_float(model, on_purpose, tied, replacements):
        warn(left)
    return replaced_copy(model, replacements)


def _choices(
    layers: Mapping[str, nn.Linear],
    convert: Convert,
    rules: Mapping[str, Convert | None],
    left_in_float: Iterable[nn.Module],
) -> dict[str, Convert | None]:
    """Name -> how that layer is replaced, or None for float."""
    _require_choices({"convert": convert, **rules})
    require_known_names(rules, layers)
    choices: dict[str, Convert | None] = {}
    first_name: dict[nn.Module, str] = {}
    for name, layer in layers.items():
        default = None if layer in left_in_float else convert
        choices[name] = next(iter(_fitting(name, rules)), default)
        first = first_name.setdefault(layer, name)
        if choices[first] != choices[name]:
            raise ValueError(f"{first} and {name} are one and the same layer, but the rules treat them differently")
    return choices


def _fitting(name: str, rules: Mapping[str, Convert | None]) -> list[Convert | None]:
    """The choices of the rules that fit a name, in their order."""
    return [choice for pattern, choice in rules.items() if fnmatchcase(name, pattern)]


def _require_choices(choices: Mapping[str, Convert | None]) -> None:
    for name, choice in choices.items():
        if choice is not None and not isinstance(choice, Scheme) and not callable(choice):
            raise TypeError(f"{name}: expected a Scheme or a function of a layer, got {choice!r}")


def require_known_names(patterns: Iterable[str], layers: Mapping[str, nn.Linear]) -> None:
    """ValueError, with the names that are nearest, for a pattern that fits no layer."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            near = difflib.get_close_matches(pattern, layers, n=3) or list(layers)[:3]
            raise ValueError(f"no linear layer is called {pattern!r}; there are {', '.join(near)}")


def _replacement(name: str, layer: nn.Linear, choice: Convert) -> nn.Module:
    try:
        if isinstance(choice, Scheme):
            return layer_kind(choice)(layer, choice)
        replacement = choice(plain_linear(layer))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if not isinstance(replacement, nn.Module):
        raise TypeError(f"{choice} should make an nn.Module of a layer, got {type(replacement).__name__}")
    return replacement


def _share_weight(layer: nn.Module, first: nn.Module) -> None:
    """Let two layers that were made of one weight hold it together."""
    if layer is not first and type(layer) is type(first) and isinstance(layer, (QuantizedLinear, HeldLinear)):
        layer.share_weight(first)
