"""Formats of 2026 as schemes: which grid, which block, and which grid the block's scales are on.

| format | codes | block | scale | bits per weight |
|---|---|---|---|---|
| `MXFP4` | E2M1 | 32 | E8M0, rounded down | 4.25 |
| `MXFP8` | E4M3 | 32 | E8M0, rounded down | 8.25 |
| `NVFP4` | E2M1 | 16 | E4M3, and one float32 for the tensor | 4.5 |
| `FP8` | E4M3 | a row | float32 | 8 |

The blocks lie along the last axis; a last one may be short. Sources as in `scales`.
"""

from __future__ import annotations

import math
from types import MappingProxyType

from labutils.arrays.grids import E2M1, E4M3, E8M0, FLOAT16, NF4
from labutils.arrays.inputs import whole_number
from labutils.arrays.layout import Layout
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme

WORKING_BITS = 32  # of a scale without a grid, and of a tensor's scale

MXFP4 = Scheme(grid=E2M1, granularity=PerGroup(32), scale_grid=E8M0)
MXFP8 = Scheme(grid=E4M3, granularity=PerGroup(32), scale_grid=E8M0)
NVFP4 = Scheme(grid=E2M1, granularity=PerGroup(16), scale_grid=E4M3, tensor_scale=True)
FP8 = Scheme(grid=E4M3, granularity=PerAxis(0))

FORMATS = MappingProxyType(
    {
        "INT4 g128": Scheme(4, granularity=PerGroup(128), scale_grid=FLOAT16),
        "INT4 g32": Scheme(4, granularity=PerGroup(32), scale_grid=FLOAT16),
        "INT4 g16": Scheme(4, granularity=PerGroup(16), scale_grid=FLOAT16),
        "NF4 g64": Scheme(grid=NF4, granularity=PerGroup(64)),
        "MXFP4": MXFP4,
        "NVFP4": NVFP4,
        "FP8": FP8,
        "MXFP8": MXFP8,
        "INT8": Scheme(8, granularity=PerAxis(0)),
    }
)


def bits_per_weight(scheme: Scheme, shape: tuple[int, ...]) -> float:
    """Bits that a weight of an array of `shape` takes: its code, and its share of scales and zero points.

    >>> bits_per_weight(MXFP4, (4096, 4096))  # 4 + 8 / 32
    4.25
    >>> bits_per_weight(NVFP4, (64, 64))  # 4 + 8 / 16 + 32 / 4096
    4.5078125

    A scale takes the bits of its grid, else 32; a zero point as many as a code; the scale of the tensor 32. ValueError
    for a shape without elements, or one that does not fit the scheme.
    """
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, such as MXFP4, got {scheme!r}")
    shape = tuple(whole_number(length, "a length of shape", least=1) for length in shape)
    scale_bits = scheme.scale_grid.num_bits if scheme.scale_grid else WORKING_BITS
    zero_point_bits = 0 if scheme.symmetric else scheme.num_bits
    shared = math.prod(Layout.of(shape, scheme.granularity).scale_shape) * (scale_bits + zero_point_bits)
    return scheme.num_bits + (shared + WORKING_BITS * scheme.tensor_scale) / math.prod(shape)
