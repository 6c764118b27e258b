"""Ranges, (low, high), as the exercises of this lab read and judge them, and values that they are asked for."""

from __future__ import annotations

import math
from functools import cache

import array_api_compat
import numpy as np

from labutils import data
from labutils.arrays.inputs import Array, real_array, require_finite
from labutils.course.exercise import Misconception, Wrong
from labutils.course.reading import as_number, parts
from labutils.labs.recipes import Recipe


def flat_float64(x: Array) -> np.ndarray:
    """`x` as a flat NumPy array of float64; raises for an `x` that has no range."""
    xp, x = real_array(x)
    require_finite(xp, x)
    values = x.cpu().double().numpy() if array_api_compat.is_torch_array(x) else x
    return values.reshape(-1).astype(np.float64)


@cache
def relu_activations() -> np.ndarray:
    """The output of a layer of the digits network for one image, after its ReLU6: (1, 32, 8, 8)."""
    images, _ = data.digits("train")
    return np.ascontiguousarray(data.digits_network().activations(images[:1])["block1.depthwise"])


def read_range(value: object) -> dict:
    """The answer of a calibration function: two numbers."""
    low, high = parts(value, ("low", "high"))
    return {"low": as_number(low, "low"), "high": as_number(high, "high")}


def require_range(answer: dict, symmetric: bool) -> tuple[float, float]:
    """(low, high) of an answer; Wrong where they are no range, or no symmetric one where that was asked for."""
    low, high = answer["low"], answer["high"]
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Wrong(f"the range should have finite ends, but it is ({low:g}, {high:g})")
    if low > high:
        raise Wrong(f"the range should reach from low up to high, but it is ({low:.6g}, {high:.6g})")
    if symmetric and not math.isclose(low, -high, rel_tol=1e-5):
        raise Wrong(f"a symmetric range reaches equally far both ways, but yours is ({low:.6g}, {high:.6g})")
    return low, high


def threshold_alone(right: Recipe) -> Misconception:
    """The mistake of returning high without low, for a recipe with a step `result`."""
    return Misconception("returns the threshold alone", right.but(result=lambda low, high: high),
        "The contract is two values, low and high, also where low is just -high.")  # fmt: skip
