"""A linear layer, activations for it, and scales that it cannot have."""

import math

import numpy as np
import torch
from torch import nn


def layer(inputs=24, out=16, seed=0, bias=True):
    generator = torch.Generator().manual_seed(seed)
    made = nn.Linear(inputs, out, bias=bias)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def activations(rows=40, channels=24, seed=1, loud=()):
    x = torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed))
    for channel in loud:
        x[:, channel] *= 50
    return x


BAD_SCALES = {
    "too few": (torch.ones(3), ValueError, ("scales must have shape (24,)", "got (3,)")),
    "two axes": (torch.ones(1, 24), ValueError, ("scales must have shape (24,)", "(1, 24)")),
    "0": (torch.zeros(24), ValueError, ("positive and finite",)),
    "negative": (-torch.ones(24), ValueError, ("positive and finite",)),
    "NaN": (torch.full((24,), math.nan), ValueError, ("positive and finite",)),
    "integers": (torch.ones(24, dtype=torch.int64), TypeError, ("float tensor, got a tensor of torch.int64",)),
    "an array": (np.ones(24), TypeError, ("float tensor, got ndarray",)),
    "None": (None, TypeError, ("got NoneType",)),
}
