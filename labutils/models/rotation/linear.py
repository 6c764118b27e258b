"""Linear layers between a rotation and its inverse: inputs and weight change, outputs do not."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn

from labutils.models.behind import Behind
from labutils.models.conversion import quantize_model
from labutils.models.linear import plain_linear
from labutils.models.rotation.transform import Rotation


def rotate_linear(linear: nn.Linear, seed: int | None = None, blocks: bool = False) -> Behind:
    """A `Rotation` of the inputs, and a linear layer whose weight is rotated the same way: outputs as before.

    >>> linear, x = nn.Linear(48, 8), torch.randn(5, 48)
    >>> rotated = rotate_linear(linear)
    >>> rotated
    Behind(
      (0): Rotation(48 = 12 x 4)
      (1): Linear(in_features=48, out_features=8, bias=True)
    )
    >>> torch.allclose(rotated(x), linear(x), atol=1e-5)
    True

    (x R)(W R)^T = x R R^T W^T = x W^T. The weight is rotated here, once; the inputs at each call. `linear` stays as it
    is. `Rotation` explains the options; ValueError for a number of inputs without a Hadamard matrix.
    """
    linear = plain_linear(linear)
    rotation = Rotation(linear.in_features, seed, blocks).to(linear.weight.device)
    rotated = copy.deepcopy(linear)
    with torch.no_grad():
        rotated.weight.copy_(rotation(linear.weight))
    return Behind(rotation, rotated)


def rotate_model(
    model: nn.Module, seed: int | None = None, blocks: bool = False, skip: Iterable[str] = ()
) -> nn.Module:
    """A copy of `model`, each linear layer replaced by `rotate_linear` of it; `model` itself stays as it is.

    >>> from labutils.models.outliers import observe, replace_linears, StaticInt8Linear
    >>> model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    >>> rotated = rotate_model(model)
    >>> with observe(rotated) as seen:
    ...     y = rotated(torch.randn(8, 16))
    >>> list(seen.maxima)
    ['0.1', '2.1']
    >>> static = replace_linears(rotated, seen.maxima, StaticInt8Linear)  # W8A8, behind rotations

    The inner layers are plain nn.Linear: whatever quantizes a model quantizes them, and the rotations stay in float.
    Errors as in `quantize_model`, whose `skip` this is; a layer whose inputs cannot be rotated is named.
    """
    return quantize_model(model, partial(rotate_linear, seed=seed, blocks=blocks), skip=skip)
