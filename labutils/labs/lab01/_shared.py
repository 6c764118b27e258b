"""What several exercises of this lab have in common."""

from __future__ import annotations

from typing import Any

import array_api_compat

from labutils.arrays.metrics import quantization_error as quantization_error  # a learner writes it in lab 01

Array = Any  # a numpy.ndarray or a torch.Tensor


def _step(xp: Any, scale: float, dtype: Any, beside: Array) -> Array:
    """`scale` as a 0-d array of `dtype` on the device of `beside`; ValueError where `dtype` cannot hold it."""
    if scale > float(xp.finfo(dtype).max):
        raise ValueError(f"scale must be at most {float(xp.finfo(dtype).max):g}, got {scale:g}")
    return xp.asarray(scale, dtype=dtype, device=array_api_compat.device(beside))
