"""Tensors whose channels need scales of their own."""

from __future__ import annotations

import numpy as np

from labutils import data
from labutils.labs.slices import along_axis


def uneven(shape: tuple[int, ...], axis: int, seed: int = 0) -> np.ndarray:
    """Gaussian values whose channels along `axis` grow louder from 1 to 100."""
    x = np.random.default_rng(seed).normal(size=shape)
    return (x * along_axis(np.geomspace(1, 100, shape[axis]), x.ndim, axis)).astype(np.float32)


def convolution_weights() -> np.ndarray:
    """Trained weights of a depthwise convolution, (channels, 1, height, width) float32."""
    return data.digits_network().weights["block3.depthwise.weight"].copy()
