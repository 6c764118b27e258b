"""What several exercises of this lab have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils.arrays.scheme import Scheme
from labutils.labs.contract import float32_noise

Tensor = Any  # a torch.Tensor


HAND = np.array([-0.26, 0.04, 0.11, 0.9], dtype=np.float32)  # the lesson's example: scale 0.1, 3 bits


# Cases hold NumPy arrays, which the engine can copy and compare, and `run` makes torch tensors of them. Torch is
# imported when a check runs: the exercises can be listed where it is not installed.
def _tensors(*arrays: np.ndarray) -> list:
    import torch

    return [torch.tensor(np.array(array, order="C")) for array in arrays]


def _limits(num_bits: int) -> tuple[int, int]:
    scheme = Scheme(num_bits)
    return scheme.quant_min, scheme.quant_max


def _masks(v: np.ndarray, num_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the gradient must pass, and where it may: from the last code half a step outwards any share of it is right.

    The paper's mask ends at the last code, torch's half a step beyond, and torch's `minimum` halves it at equality.
    """
    low, high = _limits(num_bits)
    near = 1e-3 + float32_noise(high)  # steps: nearer to the last code, float32 decides on which side a value lies
    return (v >= low + near) & (v <= high - near), (v >= low - 0.5 - near) & (v <= high + 0.5 + near)


def _place(where: tuple) -> str:
    return ", ".join(str(int(i)) for i in where)
