"""The networks and digits that the tests of training share."""

import torch
from torch import nn

from labutils import data


def images_and_labels(count=128):
    images, labels = data.digits("train")
    return torch.from_numpy(images[:count]), torch.from_numpy(labels[:count])


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.Flatten(),
        nn.Linear(24, 5),
    )  # fmt: skip


INPUTS = torch.randn(12, 2, 7, 7, generator=torch.Generator().manual_seed(3))
