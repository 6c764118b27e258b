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

Ends = tuple[float, float]  # the smallest and the largest value that a grid covers


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


def largest_unsigned(num_bits: int) -> int:
    """2^b - 1: 255 at 8 bits, the largest code and the number of steps between the first and the last."""
    return Scheme(num_bits, symmetric=False).quant_max


def clamped_unsigned(codes: np.ndarray, num_bits: int) -> np.ndarray:
    return np.clip(codes, 0, largest_unsigned(num_bits))


def smallest_unsigned_dtype(num_bits: int) -> np.dtype:
    return np.dtype(Scheme(num_bits, symmetric=False).code_dtype)


def ends_with_zero(x: np.ndarray) -> Ends:
    """The smallest and the largest value, 0 among them."""
    return min(x.min(), 0), max(x.max(), 0)


def steps_below_zero(low: float, scale: np.ndarray, num_bits: int) -> int:
    """The code of 0.0: how many steps it lies above `low`."""
    return int(np.round(-low / scale))


def wrapping(steps: np.ndarray, dtype: Any) -> np.ndarray:
    """Cast without a clamp: integers that do not fit wrap around, as they do in C."""
    return np.asarray(steps).astype(np.int64).astype(dtype) if np.isfinite(steps).all() else steps.astype(dtype)


def cast(codes: np.ndarray, dtype: Any) -> np.ndarray:
    """`codes` in `dtype`, wrapped around where they do not fit; None leaves them floats."""
    return codes if dtype is None else wrapping(codes, dtype)


class Recipe:
    """A quantizer whose steps are the fields of a dataclass."""

    def but(self, **steps: Any) -> Recipe:
        """The same recipe with these steps replaced."""
        return replace(self, **steps)


@dataclass(frozen=True)
class Symmetric(Recipe):
    """scale = floor(span(x) / divisor(b)), q = cast(clamp(round(steps(x, scale)))); `result` is what is returned."""

    span: Callable = lambda x: np.abs(x).max()
    divisor: Callable = largest_code  # of num_bits
    floor: Callable = ones_for_zeros  # of the scale
    steps: Callable = np.divide  # x by the scale
    round: Callable = np.round
    clamp: Callable = clamped  # of steps and num_bits
    dtype: Callable = smallest_dtype  # of num_bits; None keeps floats
    result: Callable = lambda q, scale, x: (q, scale)

    def __call__(self, x, num_bits=8):
        return self.quantize(x, self.span(x), num_bits)

    def quantize(self, x: np.ndarray, span: np.ndarray, num_bits: int) -> tuple:
        """With the grid that reaches from -span to span."""
        scale = self.floor(np.float32(span / self.divisor(num_bits)))
        return self.result(self.codes(x, scale, num_bits), scale, x)

    def codes(self, x: np.ndarray, scale: np.ndarray, num_bits: int) -> np.ndarray:
        return cast(self.clamp(self.round(self.steps(x, scale)), num_bits), self.dtype(num_bits))


@dataclass(frozen=True)
class Asymmetric(Recipe):
    """scale = floor(span(*ends(x)) / levels(b)), q = cast(clamp(shift(round(steps(x, scale)), zero_point))).

    >>> Asymmetric()(np.array([-0.6, 0.0, 1.95], dtype=np.float32))
    (array([  0,  60, 255], dtype=uint8), array(0.01, dtype=float32), 60)
    """

    ends: Callable = ends_with_zero  # of x: (low, high)
    span: Callable = lambda low, high: high - low
    levels: Callable = largest_unsigned  # of num_bits: how many steps the range has
    floor: Callable = ones_for_zeros  # of the scale
    zero_point: Callable = steps_below_zero  # of low, scale and num_bits
    steps: Callable = np.divide  # x by the scale
    round: Callable = np.round
    shift: Callable = lambda steps, zero_point: steps + zero_point
    clamp: Callable = clamped_unsigned  # of codes and num_bits
    dtype: Callable = smallest_unsigned_dtype  # of num_bits; None keeps floats
    result: Callable = lambda q, scale, zero_point, x: (q, scale, zero_point)

    def __call__(self, x, num_bits=8):
        return self.quantize(x, self.ends(x), num_bits)

    def quantize(self, x: np.ndarray, ends: Ends, num_bits: int) -> tuple:
        """With the grid that reaches from the one end to the other."""
        scale = self.floor(np.float32(self.span(*ends) / self.levels(num_bits)))
        zero_point = self.zero_point(ends[0], scale, num_bits)
        codes = self.clamp(self.shift(self.round(self.steps(x, scale)), zero_point), num_bits)
        return self.result(cast(codes, self.dtype(num_bits)), scale, zero_point, x)


def shifted_first(round: Callable) -> dict[str, Callable]:
    """The steps of `Asymmetric` that add the zero point before they round: round(x / scale + zero_point)."""
    return {"round": np.asarray, "shift": lambda steps, zero_point: round(steps + zero_point)}
