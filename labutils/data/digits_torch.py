"""The trained digits network as a torch module, for labs that replace its layers or train it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from labutils.data.digits import ARCHITECTURE, IMAGE_SHAPE, digits, digits_network

POINTWISE = (1, 1)


class DigitsModel(nn.Module):
    """The layers of ARCHITECTURE under their own names (`model.block1.pointwise`), with a ReLU6 after all but the head.

    A pointwise convolution is a linear layer applied at every pixel, and is one here: an `nn.Linear` that sees channels
    last. A replaced layer is called with the same input as the original.
    """

    def __init__(self):
        super().__init__()
        channels = IMAGE_SHAPE[0]
        for name, (_, shape) in ARCHITECTURE.items():
            if shape:
                block, _, layer = name.rpartition(".")
                if block and not hasattr(self, block):
                    self.add_module(block, nn.Module())
                self.get_submodule(block).add_module(layer, _layer(channels, shape))
                channels = shape[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 1, 8, 8), floating point -> logits (N, 10)."""
        x = images
        for name, (_, shape) in ARCHITECTURE.items():
            if shape is None:
                x = x.mean(dim=(2, 3))  # (N, C, H, W) -> (N, C)
                continue
            layer = self.get_submodule(name)
            # a linear layer sees channels last
            x = layer(x.movedim(1, -1)).movedim(-1, 1) if shape[2:] == POINTWISE else layer(x)
            if name != "head":
                x = functional.relu6(x)
        return x


def _layer(channels, shape):
    """The torch layer with a weight of this shape, for an input of `channels` channels."""
    if len(shape) == 2 or shape[2:] == POINTWISE:
        return nn.Linear(shape[1], shape[0])
    out, per_group, size, _ = shape
    return nn.Conv2d(channels, out, size, padding=size // 2, groups=channels // per_group)


def digits_model() -> DigitsModel:
    """A fresh torch module with the trained weights of `digits_network`, batch norm folded, in eval mode.

    >>> model = digits_model()
    >>> model.block1.pointwise
    Linear(in_features=32, out_features=64, bias=True)
    >>> images, labels = digits("test")
    >>> model(torch.from_numpy(images[:5])).argmax(dim=1)
    tensor([1, 4, 5, 6, 9])

    Each call returns a module of its own, yours to change. Its logits are those of the NumPy network to within 1e-4.
    """
    model = DigitsModel()
    shapes = {name: p.shape for name, p in model.named_parameters()}
    trained = digits_network().weights
    model.load_state_dict({name: torch.tensor(trained[name]).reshape(shape) for name, shape in shapes.items()})
    return model.eval()


def digits_accuracy(model: nn.Module, images: np.ndarray | None = None, labels: np.ndarray | None = None) -> float:
    """Fraction of images that a module reads right, 0.0 to 1.0; by default of the test split.

    >>> round(digits_accuracy(digits_model()), 3)
    0.991

    `images` (N, 1, 8, 8), `labels` (N,); one without the other is a ValueError. The module runs in eval mode; its
    mode is restored afterwards. One test image is 1/540, 0.2 percentage points: differences of a few images are noise.
    """
    if (images is None) != (labels is None):
        raise ValueError("digits_accuracy needs images and labels together, or neither (the test split)")
    if images is None:
        images, labels = digits("test")
    training = model.training
    model.eval()
    with torch.no_grad():
        answers = model(torch.as_tensor(images)).argmax(dim=1)
    model.train(training)
    return (answers == torch.as_tensor(labels)).double().mean().item()
