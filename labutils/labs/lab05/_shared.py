"""What several exercises of this lab have in common."""

from __future__ import annotations

import numpy as np

from labutils import data


def _trained(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, in) and bias of a trained layer."""
    weights = data.digits_network().weights
    w = weights[f"{name}.weight"]
    return w.reshape(len(w), -1).copy(), weights[f"{name}.bias"].copy()


def _pooled() -> np.ndarray:
    """What enters the head of the digits network: (20, 128), none of it negative."""
    images, _ = data.digits("test")
    return data.digits_network().activations(images[:20])["pool"]
