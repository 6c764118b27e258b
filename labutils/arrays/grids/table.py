"""What the grids have in common whose codes are looked up in a table."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays.grids import nearest
from labutils.arrays.grids.base import Grid
from labutils.arrays.inputs import Array


class Table(Grid):
    """Codes from 0 on; `levels` says what each stands for, and `ascending`, which of them are rounded to."""

    symmetric = True  # as the word is used for schemes: there is no zero point
    quant_min = 0

    @property
    def ascending(self) -> np.ndarray:
        """The values that are rounded to, float64; a value's place here is its code."""
        raise NotImplementedError

    @property
    def quant_max(self) -> int:
        return 2**self.num_bits - 1

    @property
    def code_dtype(self) -> str:
        """uint8, or uint16 above 8 bits."""
        return "uint8" if self.num_bits <= 8 else "uint16"

    @cached_property
    def peak(self) -> float:
        return float(np.abs(self.ascending).max())

    @property
    def span(self) -> float:
        return self.peak

    def to_codes(self, xp: Any, steps: Array, zero_point: Array | None = None) -> Array:
        """The codes of the values nearest to `steps`; beyond the grid, of its ends."""
        return xp.astype(self._codes(xp, steps), getattr(xp, self.code_dtype), copy=False)

    def _codes(self, xp: Any, steps: Array) -> Array:
        """What `to_codes` returns, as integers of any type."""
        raise NotImplementedError

    def to_steps(self, xp: Any, codes: Array, dtype: Any, zero_point: Array | None = None) -> Array:
        """The levels of `codes`."""
        levels = xp.asarray(self.levels, dtype=dtype, device=array_api_compat.device(codes))
        return levels[xp.astype(codes, xp.int64)]

    def _places(self, xp: Any, steps: Array) -> Array:
        """The place in `ascending` that is nearest to each of `steps`."""
        return nearest.places(xp, steps, self._thresholds[8 * steps.itemsize])

    @cached_property
    def _thresholds(self) -> dict[int, np.ndarray]:
        return {32: nearest.thresholds(self.ascending, np.float32), 64: nearest.thresholds(self.ascending, np.float64)}
