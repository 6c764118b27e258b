"""The codes of a grid whose scale is given, and where a gradient passes through them."""

from __future__ import annotations

import numpy as np

from labutils.arrays.scheme import Scheme
from labutils.labs.contract import float32_noise

HAND = np.array([-0.26, 0.04, 0.11, 0.9], dtype=np.float32)  # the lesson's example: scale 0.1, 3 bits


def limits(num_bits: int) -> tuple[int, int]:
    """The first and the last code: -128 and 127 at 8 bits."""
    scheme = Scheme(num_bits)
    return scheme.quant_min, scheme.quant_max


def gradient_masks(v: np.ndarray, num_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the gradient to v = x / scale must pass, and where it may pass, in full or in part.

    It may within half a step beyond the last code: the paper's mask ends at the last code, torch's half a step beyond,
    and torch's `minimum` halves the gradient at equality.
    """
    low, high = limits(num_bits)
    near = 1e-3 + float32_noise(high)  # steps: nearer to the last code, float32 decides on which side a value lies
    return (v >= low + near) & (v <= high - near), (v >= low - 0.5 - near) & (v <= high + 0.5 + near)
