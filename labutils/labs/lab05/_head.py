"""A trained linear layer to work on, the head of the digits network, and the activations that enter it."""

from __future__ import annotations

import numpy as np

from labutils import data


def head() -> tuple[np.ndarray, np.ndarray]:
    """Weight (10, 128) and bias (10,), float32."""
    weights = data.digits_network().weights
    return weights["head.weight"].copy(), weights["head.bias"].copy()


def pooled() -> np.ndarray:
    """The head's input for 20 images: (20, 128) float32, none of it negative."""
    images, _ = data.digits("test")
    return data.digits_network().activations(images[:20])["pool"]
