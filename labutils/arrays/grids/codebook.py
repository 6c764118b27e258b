"""Any table of values as a grid, and NF4, the one that QLoRA uses."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from labutils.arrays.grids.table import Table
from labutils.arrays.inputs import Array, positive_number, real_number

MOST_VALUES = 2**16
LARGEST = 2.0**120  # no sum or multiple of values comes near the largest float32


@dataclass(frozen=True)
class Codebook(Table):
    """Any values, ascending: a code is the place of its value, and the nearest value is taken, ties to the even place.

    >>> Codebook((-1, -0.2, 0, 0.3, 1)).to_codes(np, np.array([-0.7, -0.1, 0.1, 0.2, 7.0]))
    array([0, 2, 2, 3, 4], dtype=uint8)

    values  2 to 65,536 numbers, strictly ascending and finite
    range   scale = max|x| / range; the largest magnitude of `values` where it is left out
    name    that `repr` shows instead of the values

    It takes ceil(log2(number of values)) bits a code. Where no value is 0, a slice of zeros does not come back as 0.
    TypeError or ValueError for anything else.
    """

    values: tuple[float, ...]
    range: float | None = None
    name: str | None = field(default=None, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "values", _ascending(self.values))
        if self.range is not None:
            object.__setattr__(self, "range", positive_number(self.range, "range"))

    def __repr__(self) -> str:
        if self.name:
            return self.name
        return f"Codebook({self.values!r}{'' if self.range is None else f', range={self.range!r}'})"

    @cached_property
    def num_bits(self) -> int:
        """ceil(log2(number of values))."""
        return math.ceil(math.log2(len(self.values)))

    @property
    def quant_max(self) -> int:
        return len(self.values) - 1

    @property
    def span(self) -> float:
        return self.peak if self.range is None else self.range

    @cached_property
    def levels(self) -> np.ndarray:
        return np.array(self.values)

    @property
    def ascending(self) -> np.ndarray:
        return self.levels

    def _codes(self, xp: Any, steps: Array) -> Array:
        return self._places(xp, steps)


def _ascending(values: object) -> tuple[float, ...]:
    """`values` as a tuple of floats, or TypeError or ValueError."""
    try:
        given = list(values)
    except TypeError:
        raise TypeError(f"values must be a sequence of numbers, got {values!r}") from None
    if isinstance(values, (str, bytes, dict, set)):
        raise TypeError(f"values must be a sequence of numbers, got {values!r}")
    numbers = tuple(real_number(value, f"values[{place}]") for place, value in enumerate(given))
    if not 2 <= len(numbers) <= MOST_VALUES:
        raise ValueError(f"a codebook has from 2 to {MOST_VALUES} values, got {len(numbers)}")
    for place, (low, high) in enumerate(itertools.pairwise(numbers)):
        if not low < high:
            fault = "occurs twice" if low == high else f"is followed by {high:g}"
            raise ValueError(f"values must ascend, but {low:g} at place {place} {fault}")
    if max(-numbers[0], numbers[-1]) > LARGEST:
        raise ValueError(f"values must lie within {LARGEST:g} of 0, got {numbers[0]:g} to {numbers[-1]:g}")
    return numbers


# Dettmers et al., 2023, "QLoRA" (arXiv:2305.14314), appendix E: means of neighbouring quantiles of a normal
# distribution, eight of its negative half and nine of its positive one, with 0 in common, divided by the largest.
NF4 = Codebook(
    (
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ),
    name="NF4",
)
