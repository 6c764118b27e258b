"""Replacing the linear layers of a model by layers that know the range of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from labutils.models.conversion import quantize_model
from labutils.models.linear import linear_layers

Tensor = torch.Tensor


def replace_linears(
    model: nn.Module, maxima: Mapping[str, Tensor], make: Callable[[nn.Linear, Tensor], nn.Module]
) -> nn.Module:
    """A copy of `model`, each linear layer replaced by make(layer, its maxima); `model` itself stays as it is.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> from labutils.models.outliers import observe, StaticInt8Linear
    >>> with observe(model) as seen:
    ...     y = model(torch.randn(8, 2))
    >>> type(replace_linears(model, seen.maxima, StaticInt8Linear)[2]).__name__
    'StaticInt8Linear'

    `maxima` are those of `observe`. ValueError for a layer that it did not see.
    """
    layers = linear_layers(model)
    unseen = [name for name in layers if name not in maxima]
    if unseen:
        raise ValueError(f"{', '.join(unseen)}: never observed, so nothing is known of what enters there")
    choices = {id(layer): _bound(make, maxima[name]) for name, layer in layers.items()}  # a shared layer has one
    return quantize_model(model, rules={name: choices[id(layer)] for name, layer in layers.items()})


def _bound(make: Callable[[nn.Linear, Tensor], nn.Module], input_max: Tensor) -> Callable[[nn.Linear], nn.Module]:
    return lambda layer: make(layer, input_max)
