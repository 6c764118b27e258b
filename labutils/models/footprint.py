"""How many bytes a model holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from labutils.models.layers import HeldLinear

Tensor = torch.Tensor


def model_bytes(model: nn.Module) -> int:
    """Bytes that the parameters, buffers and integer weights of a model take; what is shared counts once.

    >>> from labutils.models import quantize_model
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
        if isinstance(module, HeldLinear):
            held[id(module._weights)] = module._weights.nbytes
    return sum(held.values())


def _plain_tensors(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors that hold the bytes: those inside a wrapper such as torchao's, which has no storage of its own."""
    for tensor in tensors:
        if hasattr(tensor, "__tensor_flatten__"):
            yield from _plain_tensors(getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        else:
            yield tensor
