"""Layers as cases describe them, (kind, weight, bias): handed to a submission as modules, and computed in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labutils.labs.floats import as_float64
from labutils.labs.tensors import Changed, as_tensors

if TYPE_CHECKING:
    from torch import nn

Spec = tuple[str, np.ndarray, np.ndarray | None]  # "Linear", "LayerNorm" or "RMSNorm", its weight and its bias

EPS = 0.05  # of the norms: large enough to be noticed where it is lost


class Returned(NamedTuple):
    """What a submission returned, and its output where it is a module."""

    module: Any
    y: Any = None


def input_of(spec: Spec) -> np.ndarray:
    """(9, channels) of all sizes."""
    channels = spec[1].shape[-1]
    rng = np.random.default_rng(channels)
    return (rng.normal(size=(9, channels)) * np.geomspace(0.2, 5, 9)[:, None]).astype(np.float32)


def module_of(spec: Spec) -> nn.Module:
    import torch
    from torch import nn

    kind, weight, bias = spec
    if kind == "Linear":
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    elif kind == "RMSNorm":
        made = nn.RMSNorm(len(weight), eps=EPS)
    else:
        made = nn.LayerNorm(len(weight), eps=EPS, bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
        if bias is not None:
            made.bias.copy_(torch.tensor(bias))
    return made


def output_of(spec: Spec) -> np.ndarray:
    """The layer's output for `input_of(spec)`, in float64."""
    kind, weight, bias = spec
    x, weight = input_of(spec).astype(np.float64), weight.astype(np.float64)
    if kind == "LayerNorm":
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + EPS)
    elif kind == "RMSNorm":
        x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + EPS)
    y = x @ weight.T if kind == "Linear" else x * weight
    return y if bias is None else y + bias


def on_module(submission: Callable, spec: Spec, other: np.ndarray, name: str = "scales") -> Returned | Changed:
    """What a submission makes of a module and of a tensor called `name`, or Changed where it does not leave them alone.

    Random numbers are the same each time, so that a layer that was left at its random start can be recognised.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given, (tensor,) = module_of(spec), as_tensors(other)
        before = copy.deepcopy(given.state_dict())
        torch.manual_seed(0)
        module = submission(given, tensor)
        after = given.state_dict()
        if after.keys() != before.keys() or any(not torch.equal(after[name], before[name]) for name in before):
            return Changed("layer")
        if not np.array_equal(tensor.numpy(), other):
            return Changed(name)
        if not isinstance(module, torch.nn.Module):
            return Returned(module)
        with torch.no_grad():
            return Returned(module, module(torch.tensor(input_of(spec))))


def read_parameters(module: nn.Module) -> dict:
    """Weight and bias, each an empty array where the module has none."""
    parameters = {"weight": module.weight, "bias": getattr(module, "bias", None)}
    return {name: np.zeros(0) if value is None else as_float64(value, name) for name, value in parameters.items()}
