"""How many bytes a model holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from labutils.models.kernels import Int4Weights, Int8Weights, PackedWeights

Tensor = torch.Tensor

OF_MODULES = frozenset(vars(nn.Module()))  # attributes that every module has


def model_bytes(model: nn.Module) -> int:
    """Bytes that a model's parameters, buffers, other tensors and integer weights take; what is shared counts once.

    >>> from labutils.models import quantize_model
    >>> model = nn.Linear(1024, 1024, bias=False)
    >>> model_bytes(model), model_bytes(quantize_model(model))
    (4194304, 1052672)

    Weights that torch.ao's quantized modules have packed count as what they unpack to. Gradients do not count.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    held: dict[int, int] = {}
    for module in model.modules():
        for value in (*module._parameters.values(), *module._buffers.values(), *_attributes(module)):
            for key, size in _sizes(value):
                held[key] = size
    return sum(held.values())


def _attributes(module: nn.Module) -> list[Any]:
    return [value for name, value in vars(module).items() if name not in OF_MODULES]


def _sizes(value: Any) -> Iterator[tuple[int, int]]:
    """(identity, bytes) of each storage that a value holds."""
    if isinstance(value, Tensor):
        if hasattr(value, "__tensor_flatten__"):  # a wrapper such as torchao's, which has no storage of its own
            yield from _all_sizes(getattr(value, name) for name in value.__tensor_flatten__()[0])
        else:
            yield _storage(value)
    elif isinstance(value, (Int8Weights, PackedWeights, Int4Weights)):
        yield id(value), value.nbytes
    elif isinstance(value, torch.ScriptObject):
        yield id(value), sum(size for _, size in _all_sizes(value.__getstate__()))
    elif isinstance(value, (list, tuple)):
        yield from _all_sizes(value)
    elif isinstance(value, dict):
        yield from _all_sizes(value.values())


def _all_sizes(values: Iterable[Any]) -> Iterator[tuple[int, int]]:
    for value in values:
        yield from _sizes(value)


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr() or id(tensor), storage.nbytes()
