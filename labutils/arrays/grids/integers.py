"""Evenly spaced values: the integers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from labutils.arrays.grids.base import Grid
from labutils.arrays.inputs import Array, bit_width, true_or_false


@dataclass(frozen=True)
class Integers(Grid):
    """Evenly spaced values, one step apart: a code is its own number of steps, counted from the zero point.

    >>> Integers(4).levels
    array([-8., -7., -6., -5., -4., -3., -2., -1.,  0.,  1.,  2.,  3.,  4.,  5.,  6.,  7.])
    >>> Integers(2, symmetric=False).levels
    array([0., 1., 2., 3.])

    num_bits   2 <= num_bits <= 16
    symmetric  True: signed codes and no zero point. False: unsigned codes and a zero point

    A symmetric range is divided into quant_max steps on either side, so that -2^(b-1) is legal and unused.
    """

    num_bits: int = 8
    symmetric: bool = True

    def __post_init__(self):
        object.__setattr__(self, "num_bits", bit_width(self.num_bits))
        true_or_false(self.symmetric, "symmetric")

    @cached_property  # asked for with every tile
    def quant_min(self) -> int:
        """-2^(b-1) when symmetric, else 0."""
        return -(2 ** (self.num_bits - 1)) if self.symmetric else 0

    @cached_property
    def quant_max(self) -> int:
        """2^(b-1) - 1 when symmetric, else 2^b - 1."""
        return self.quant_min + 2**self.num_bits - 1

    @cached_property
    def code_dtype(self) -> str:
        """The smallest integer dtype that holds a code: int8, uint8, int16 or uint16."""
        return f"{'' if self.symmetric else 'u'}int{8 if self.num_bits <= 8 else 16}"

    @property
    def span(self) -> int:
        return self.quant_max

    @property
    def peak(self) -> int:
        return max(-self.quant_min, self.quant_max)

    @property
    def levels(self) -> np.ndarray:
        return np.arange(self.quant_min, self.quant_max + 1, dtype=np.float64)

    def to_codes(self, xp: Any, steps: Array, zero_point: Array | None = None) -> Array:
        """Round half to even, add the zero point, clamp to [quant_min, quant_max].

        >>> Integers(4).to_codes(np, np.array([-9.7, -1.2, 2.5, 3.5]))
        array([-8, -1,  2,  4], dtype=int8)
        """
        steps = xp.round(steps)
        if zero_point is not None:
            steps += zero_point
        return xp.astype(xp.clip(steps, self.quant_min, self.quant_max), getattr(xp, self.code_dtype))

    def to_steps(self, xp: Any, codes: Array, dtype: Any, zero_point: Array | None = None) -> Array:
        """codes - zero_point."""
        steps = xp.astype(codes, dtype)
        if zero_point is not None:
            steps -= zero_point
        return steps
