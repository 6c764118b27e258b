"""The grid: which values a code can stand for, before the scale and the zero point are applied.

| grid | values |
|---|---|
| `Integers(num_bits, symmetric)` | evenly spaced |
| `FloatGrid(exponent_bits, mantissa_bits)` | small floats: `E2M1`, `E4M3`, `E5M2`, ...; `E8M0` for scales |
| `Codebook(values)` | any table: `NF4`, and what `codebooks.kmeans_codebook` finds |

Values are counted in steps: a code stands for scale * steps. `Grid` is all that `affine` knows of a grid, so a new grid
is a new subclass here, and nothing else changes.
"""

from labutils.arrays.grids.base import Grid
from labutils.arrays.grids.codebook import NF4, Codebook
from labutils.arrays.grids.floats import BFLOAT16, E2M1, E2M3, E3M2, E4M3, E5M2, E8M0, FLOAT16, FloatGrid
from labutils.arrays.grids.integers import Integers

__all__ = [
    "BFLOAT16",
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3",
    "E5M2",
    "E8M0",
    "FLOAT16",
    "NF4",
    "Codebook",
    "FloatGrid",
    "Grid",
    "Integers",
]
