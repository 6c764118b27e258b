"""What every grid answers: which values exist, and which of them is nearest."""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils.arrays.inputs import Array


class Grid:
    """The interface of a grid; every grid is a frozen dataclass, so that schemes compare by value.

    num_bits    bits that a stored code takes
    symmetric   True: zero sits at 0 steps. False: at the code that the zero point says
    quant_min   the smallest code
    quant_max   the largest code
    code_dtype  the name of the dtype that holds the codes
    span        steps into which a range is divided: scale = max|x| / span, asymmetric (max - min) / span
    peak        no code is further from zero than this many steps, wherever the zero point is
    levels      the steps that each code from `quant_min` to `quant_max` stands for, float64
    """

    num_bits: int
    symmetric: bool
    quant_min: int
    quant_max: int
    code_dtype: str
    span: float
    peak: float
    levels: np.ndarray

    def to_codes(self, xp: Any, steps: Array, zero_point: Array | None = None) -> Array:
        """The codes of the levels nearest to `steps`, which is x / scale in floats; beyond the grid, of its ends.

        `zero_point` is None for a symmetric grid, else an array of the dtype of `steps` that broadcasts with it.
        """
        raise NotImplementedError

    def to_steps(self, xp: Any, codes: Array, dtype: Any, zero_point: Array | None = None) -> Array:
        """The steps that `codes` stand for, in a new array of `dtype`."""
        raise NotImplementedError
