"""A quantizer as a recipe whose steps can be replaced one by one.

The right recipe answers as the reference does. A mistake is the right recipe with one step replaced:

>>> right = Symmetric()
>>> right(np.array([-1.0, 0.25, 2.54], dtype=np.float32))[0]
array([-50,  12, 127], dtype=int8)
>>> right.but(round=np.ceil)(np.array([-1.0, 0.25, 2.54], dtype=np.float32))[0]
array([-50,  13, 127], dtype=int8)

Every step is a function of arrays or of a bit width; `families` lists the replacements that many exercises share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labutils.arrays.scheme import Scheme


def largest_code(num_bits: int) -> int:
    """2^(b-1) - 1: 127 at 8 bits."""
    return Scheme(num_bits).quant_max


def ones_for_zeros(scale: np.ndarray) -> np.ndarray:
    """A scale of 0 replaced by 1, any other as it is."""
    return np.where(scale == 0, np.float32(1), scale)


def clamped(steps: np.ndarray, num_bits: int) -> np.ndarray:
    scheme = Scheme(num_bits)
    return np.clip(steps, scheme.quant_min, scheme.quant_max)


def smallest_dtype(num_bits: int) -> np.dtype:
    return np.dtype(Scheme(num_bits).code_dtype)


def wrapping(steps: np.ndarray, dtype: Any) -> np.ndarray:
    """Cast without a clamp: integers that do not fit wrap around, as they do in C."""
    return np.asarray(steps).astype(np.int64).astype(dtype) if np.isfinite(steps).all() else steps.astype(dtype)


class Recipe:
    """What recipes have in common."""

    def but(self, **steps: Any) -> Recipe:
        """The same recipe with these steps replaced."""
        return replace(self, **steps)


@dataclass(frozen=True)
class Symmetric(Recipe):
    """scale = floor(span(x) / divisor(b)), q = cast(clamp(round(x / scale))); `result` is what is returned of them."""

    span: Callable = lambda x: np.abs(x).max()
    divisor: Callable = largest_code  # of num_bits
    floor: Callable = ones_for_zeros  # of the scale
    round: Callable = np.round
    clamp: Callable = clamped  # of steps and num_bits
    dtype: Callable = smallest_dtype  # of num_bits; None keeps floats
    result: Callable = lambda q, scale, x: (q, scale)

    def __call__(self, x, num_bits=8):
        scale = self.floor(np.float32(self.span(x) / self.divisor(num_bits)))
        return self.result(self.codes(x, scale, num_bits), scale, x)

    def codes(self, x: np.ndarray, scale: np.ndarray, num_bits: int) -> np.ndarray:
        steps = self.clamp(self.round(x / scale), num_bits)
        dtype = self.dtype(num_bits)
        return steps if dtype is None else wrapping(steps, dtype)
