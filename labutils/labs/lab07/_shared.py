"""What several exercises of this lab have in common."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import array_api_compat
import numpy as np

from labutils import data
from labutils.arrays.inputs import real_array
from labutils.course.exercise import Wrong
from labutils.course.reading import as_number, parts

Array = Any  # a numpy.ndarray or a torch.Tensor


Range = tuple[float, float]


def _values(x: Array) -> np.ndarray:
    """`x` as a flat float64 array; raises for what has no range."""
    _, x = real_array(x)
    if array_api_compat.is_torch_array(x):
        x = x.cpu().double().numpy()
    values = x.reshape(-1).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"x must be finite, but holds NaN or Inf (shape {tuple(x.shape)}, dtype {x.dtype})")
    return values


@cache
def _activations() -> np.ndarray:
    """What leaves a layer of the digits network for one image, after its ReLU6: (1, 32, 8, 8)."""
    images, _ = data.digits("train")
    return np.ascontiguousarray(data.digits_network().activations(images[:1])["block1.depthwise"])


def _gelu(x: np.ndarray) -> np.ndarray:
    """Lopsided: a short side below zero, a long one above."""
    return (x / (1 + np.exp(-1.702 * x))).astype(np.float32)


def read_range(value: object) -> dict:
    """The answer of a calibration function: two numbers."""
    low, high = parts(value, ("low", "high"))
    return {"low": as_number(low, "low"), "high": as_number(high, "high")}


def _require_range(answer: dict, symmetric: bool) -> tuple[float, float]:
    low, high = answer["low"], answer["high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Wrong(f"the range should have finite ends, but it is ({low:g}, {high:g})")
    if low > high:
        raise Wrong(f"the range should reach from low up to high, but it is ({low:.6g}, {high:.6g})")
    if symmetric and not math.isclose(low, -high, rel_tol=1e-5):
        raise Wrong(f"a symmetric range reaches equally far both ways, but yours is ({low:.6g}, {high:.6g})")
    return low, high
