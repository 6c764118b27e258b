"""What several exercises of this lab have in common."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from labutils import data

Array = Any  # a numpy.ndarray or a torch.Tensor


POSITIVE = np.array([10.0, 11.0, 12.0], dtype=np.float32)  # what the formula without 0 falls into


@cache
def relu_activations() -> np.ndarray:
    """What leaves a layer of the digits network for four images, (4, 64, 8, 8) float32, half of it exactly 0."""
    images, _ = data.digits("test")
    return np.ascontiguousarray(data.digits_network().activations(images[:4])["block1.pointwise"])


def _code_dtype(num_bits: int) -> type:
    return np.uint8 if num_bits <= 8 else np.uint16
