"""What several exercises of this lab have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils import data

Array = Any  # a numpy.ndarray or a torch.Tensor


def _trained(name: str) -> np.ndarray:
    return data.digits_network().weights[f"{name}.weight"].copy()


def _uneven(shape: tuple[int, ...], axis: int, loudest: float = 100.0, seed: int = 0) -> np.ndarray:
    """Gaussian values whose channels along `axis` grow from 1 to `loudest`, so that the last one is the loudest."""
    x = np.random.default_rng(seed).normal(size=shape)
    gains = np.geomspace(1, loudest, shape[axis])
    return (x * _along(gains, x.ndim, axis)).astype(np.float32)


def _along(values: np.ndarray, ndim: int, axis: int) -> np.ndarray:
    """Values that lie along `axis` of an array of `ndim` axes, ready to broadcast over it."""
    shape = [1] * ndim
    shape[axis] = -1
    return np.reshape(values, shape)


def _others(ndim: int, axis: int) -> tuple[int, ...]:
    """All axes but one: those that are reduced."""
    return tuple(i for i in range(ndim) if i != axis % ndim)
