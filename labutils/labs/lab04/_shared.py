"""What several exercises of this lab have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils.arrays.inputs import code_array

Array = Any  # a numpy.ndarray or a torch.Tensor


def _require_signed(q: Array) -> None:
    xp, q = code_array(q)
    if not xp.isdtype(q.dtype, "signed integer"):
        raise TypeError(f"q must hold signed codes, as symmetric quantizers give, got dtype {q.dtype}")


def _groups_of(x: np.ndarray, size: int, mode: str = "constant") -> np.ndarray:
    """(..., n) -> (..., G, size), the last group of each row filled up."""
    short = -x.shape[-1] % size
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, short)], mode=mode)
    return padded.reshape(*x.shape[:-1], -1, size)


def _each(scales: np.ndarray, size: int, length: int) -> np.ndarray:
    """The scale of every element: (..., G) -> (..., n)."""
    return np.repeat(scales, size, axis=-1)[..., :length]


def _place(where: tuple) -> str:
    return ", ".join(str(int(i)) for i in where)


def _signed_width(num_bits: int) -> type:
    return np.int8 if num_bits <= 8 else np.int16
