"""A model's copy in which linear layers are quantized, and the bytes that a model takes."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from labutils.arrays.scheme import Scheme
from labutils.models.layers import PER_CHANNEL, PackedLinear, QuantizedLinear, _HeldLinear

Tensor = torch.Tensor


Convert = Scheme | Callable[[nn.Linear], nn.Module]  # how a linear layer is replaced


def quantize_model(
    model: nn.Module,
    convert: Convert = PER_CHANNEL,
    rules: Mapping[str, Convert | None] | None = None,
    skip: Iterable[str] = (),
) -> nn.Module:
    """A copy of `model` with its linear layers replaced; `model` itself stays as it is.

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
    share a weight go on sharing it. A layer whose weight also serves another kind of module, such as an embedding,
    stays in float unless a rule names it: its float weight would be kept anyway. Subclasses of nn.Linear stay too, for
    they use their weight in ways of their own. ValueError for a model without linear layers and for names that no
    linear layer has; TypeError for what is no module, Scheme or function.
    """
    layers = linear_layers(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to quantize")
    choices = _choices(layers, convert, dict(rules or {}), skip, _tied_elsewhere(model))
    memo: dict[int, nn.Module] = {}  # what deepcopy puts in place of a layer, wherever it finds it
    weights: dict[tuple[int, Convert], nn.Module] = {}
    for name, choice in choices.items():
        layer = layers[name]
        if choice is None or id(layer) in memo:
            continue
        try:
            replaced = _replacement(layer, choice)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        _share(replaced, weights.setdefault((id(layer.weight), choice), replaced))
        memo[id(layer)] = replaced.train(layer.training)
    return copy.deepcopy(model, memo)


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Name -> layer, for all nn.Linear of a model, in its order; a layer used in two places has two names.

    >>> list(linear_layers(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1)))))
    ['0', '1.1']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    modules = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in modules if type(module) is nn.Linear}


def model_bytes(model: nn.Module) -> int:
    """Bytes that the parameters, buffers and integer weights of a model take; what is shared counts once.

    >>> model = nn.Linear(1024, 1024, bias=False)
    >>> model_bytes(model), model_bytes(quantize_model(model))
    (4194304, 1052672)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    held = {}
    for tensor in _plain_tensors([*model.parameters(), *model.buffers()]):
        storage = tensor.untyped_storage()
        held[storage.data_ptr() or id(tensor)] = storage.nbytes()
    for module in model.modules():
        if isinstance(module, _HeldLinear):
            held[id(module._weights)] = module._weights.nbytes
    return sum(held.values())


def _plain_tensors(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors that hold the bytes: inside a wrapper such as torchao's, which has none of its own."""
    for tensor in tensors:
        if hasattr(tensor, "__tensor_flatten__"):
            yield from _plain_tensors(getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        else:
            yield tensor


def _choices(
    layers: Mapping[str, nn.Linear],
    convert: Convert,
    rules: dict[str, Convert | None],
    skip: Iterable[str],
    left: set[int],
) -> dict[str, Convert | None]:
    """Name -> how it is replaced, or None for float."""
    skip = [skip] if isinstance(skip, str) else list(skip)
    rules = dict.fromkeys(skip) | rules
    for pattern, choice in {"convert": convert, **rules}.items():
        if choice is not None and not isinstance(choice, Scheme) and not callable(choice):
            raise TypeError(f"{pattern}: expected a Scheme or a function of a layer, got {choice!r}")
    for pattern in rules:
        if not any(fnmatchcase(name, pattern) for name in layers):
            near = difflib.get_close_matches(pattern, layers, n=3) or list(layers)[:3]
            raise ValueError(f"no linear layer is called {pattern!r}; there are {', '.join(near)}")
    choices: dict[str, Convert | None] = {}
    by_layer: dict[int, str] = {}
    for name, layer in layers.items():
        fitting = [choice for pattern, choice in rules.items() if fnmatchcase(name, pattern)]
        choices[name] = fitting[0] if fitting else None if id(layer) in left else convert
        first = by_layer.setdefault(id(layer), name)
        if choices[first] != choices[name]:
            raise ValueError(f"{first} and {name} are one and the same layer, but the rules treat them differently")
    return choices


def _tied_elsewhere(model: nn.Module) -> set[int]:
    """The ids of linear layers whose weight is also that of a module of another kind."""
    owners = [(module, weight) for module in model.modules() for weight in module.parameters(recurse=False)]
    others = {id(weight) for module, weight in owners if type(module) is not nn.Linear}
    return {id(module) for module, _ in owners if type(module) is nn.Linear and id(module.weight) in others}


def _replacement(layer: nn.Linear, choice: Convert) -> nn.Module:
    if isinstance(choice, Scheme):
        return (PackedLinear if choice.num_bits < 8 else QuantizedLinear)(layer, choice)
    replaced = choice(layer)
    if not isinstance(replaced, nn.Module):
        raise TypeError(f"{choice} should make an nn.Module of a layer, got {type(replaced).__name__}")
    return replaced


def _share(layer: nn.Module, first: nn.Module) -> None:
    """Let two layers made of one weight hold it together."""
    if layer is first:
        return
    if isinstance(layer, _HeldLinear):
        layer._weights = first._weights
    elif isinstance(layer, QuantizedLinear):
        layer.codes, layer.scale, layer.zero_point = first.codes, first.scale, first.zero_point
