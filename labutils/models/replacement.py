"""A copy of a model with other modules in place of some of its layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn


def replaced_copy(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """A deep copy of `model` with each key of `replacements` replaced by its value, wherever the model holds it.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    >>> replaced_copy(model, {model[1]: nn.ReLU()})
    Sequential(
      (0): Linear(in_features=4, out_features=4, bias=True)
      (1): ReLU()
    )

    Replaced layers are not copied, so their weights take no memory; a layer used in two places is replaced in both.
    """
    return copy.deepcopy(model, {id(layer): replacement for layer, replacement in replacements.items()})
