"""The model that a reader builds from a configuration, before it fills in the tensors of a file."""

from __future__ import annotations

import copy

import torch
from torch import nn


def built_from_config(model: nn.Module) -> nn.Module:
    """A model of the same class and configuration as one of transformers, without memory for its tensors."""
    with torch.device("meta"):
        return type(model)(copy.deepcopy(model.config))
