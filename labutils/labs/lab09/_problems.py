"""Layers as cases describe them: a weight, and the Hessian of inputs that are correlated."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from labutils import data
from labutils.labs.contract import trained_weights

Problem = tuple[np.ndarray, np.ndarray]  # weight (N, K) and hessian (K, K), float32


def inputs(rows: int, channels: int, seed: int = 0) -> np.ndarray:
    """(rows, channels) that share a few directions, beside noise of their own."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(rows, max(1, channels // 4))) @ rng.normal(size=(max(1, channels // 4), channels))
    return (shared + rng.normal(size=(rows, channels))).astype(np.float32)


def hessian_of(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return (2 * x.T @ x).astype(np.float32)


def problem(outputs: int, channels: int, seed: int = 0, rows: int = 100, loudness: ArrayLike = 1.0) -> Problem:
    """A random weight, and `inputs` times `loudness`: a factor for all channels, or one for each."""
    weight = np.random.default_rng(seed + 1000).normal(size=(outputs, channels)).astype(np.float32)
    return weight, hessian_of(inputs(rows, channels, seed) * np.float32(loudness))


def loud_first(outputs: int, channels: int, seed: int = 0) -> Problem:
    """The first channel is 50 times as loud as the last: what it loses moves the weights of quiet ones off the grid."""
    return problem(outputs, channels, seed, loudness=np.geomspace(50, 1, channels))


@cache
def digits_inputs() -> np.ndarray:
    """What enters the digits network's last pointwise layer, (rows, 64): half of its channels are silent at a time."""
    images, _ = data.digits("train")
    seen = data.digits_network().activations(images[:32])["block3.depthwise"]
    return np.moveaxis(seen, 1, -1).reshape(-1, 64).copy()


def digits_layer(outputs: int = 128) -> Problem:
    """That layer's weight, (outputs, 64), and its Hessian."""
    return trained_weights()[:outputs], hessian_of(digits_inputs())
