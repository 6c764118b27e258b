"""The layers and activations that the tests of outliers share."""

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


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 8))).eval()
