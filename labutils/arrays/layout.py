"""Which elements share a scale: every granularity seen as one shape (R, G, K).

The K elements of one row r and one group g share a scale. Per tensor is (1, 1, n). Per axis is (before, channels,
after), and all rows share the scales of the channels. Per group is (rows, groups, group_size). With this view,
`affine` needs no code for single granularities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import array_api_compat

from labutils.arrays.inputs import Array
from labutils.arrays.scheme import Granularity, PerAxis, PerTensor

TILE = 2**16  # elements: 256 KB of float32, a tile and its intermediates fit the processor's cache


@dataclass(frozen=True)
class Layout:
    """The (R, G, K) view of arrays of one shape under one granularity.

    >>> Layout.of((2, 5), PerGroup(4))
    Layout(shape=(2, 5), rgk=(2, 2, 4), scale_shape=(2, 2), pad=3, per_row=True)
    """

    shape: tuple[int, ...]  # of the array
    rgk: tuple[int, int, int]
    scale_shape: tuple[int, ...]
    pad: int = 0  # zeros that complete the last group of each row
    per_row: bool = False  # True: a scale for each (r, g). False: a scale for each g, shared by the rows

    @classmethod
    def of(cls, shape: tuple[int, ...], granularity: Granularity) -> Layout:
        """The layout for arrays of `shape`; ValueError for an axis that is not there."""
        shape = tuple(shape)
        if isinstance(granularity, PerTensor):
            return cls(shape, (1, 1, math.prod(shape)), ())
        if not shape:
            raise ValueError(f"{granularity} needs at least one axis, got an array of shape ()")
        if isinstance(granularity, PerAxis):
            axis, ndim = granularity.axis, len(shape)
            if not -ndim <= axis < ndim:
                raise ValueError(f"axis {axis} is not there: an array of shape {shape} has axes 0 to {ndim - 1}")
            axis %= ndim
            rgk = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
            return cls(shape, rgk, (shape[axis],))
        *rows, length = shape
        size = min(granularity.group_size, length)
        groups = -(-length // size)
        return cls(shape, (math.prod(rows), groups, size), (*rows, groups), groups * size - length, per_row=True)

    def view(self, xp: Any, x: Array) -> Array:
        """`x` as (R, G, K); copied only where a last group is short or the memory is not contiguous."""
        if self.pad:
            zeros = xp.zeros((*self.shape[:-1], self.pad), dtype=x.dtype, device=array_api_compat.device(x))
            x = xp.concat([x, zeros], axis=-1)
        return xp.reshape(x, self.rgk)

    def unview(self, xp: Any, view: Array) -> Array:
        """Back to `shape`, without the padding."""
        if not self.pad:
            return xp.reshape(view, self.shape)
        *rows, length = self.shape
        return xp.reshape(view, (*rows, length + self.pad))[..., :length]

    def column(self, xp: Any, values: Array, name: str) -> Array:
        """Scales or zero points as (R or 1, G, 1), ready to broadcast over the view; ValueError for another shape."""
        if tuple(values.shape) != self.scale_shape:
            raise ValueError(f"{name} must have shape {self.scale_shape}, got {tuple(values.shape)}")
        return xp.reshape(values, self.column_shape)

    @property
    def column_shape(self) -> tuple[int, int, int]:
        return (self.rgk[0] if self.per_row else 1, self.rgk[1], 1)

    def tiles(self, on_cpu: bool = True) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """Slices that cut the view into pieces of at most TILE elements, each with the slices of its scales.

        On an accelerator there is one piece: few large kernel launches are fastest there.
        """
        rows, groups, size = self.rgk
        budget = TILE if on_cpu else math.prod(self.rgk)
        k_step = min(size, budget)
        g_step = min(groups, max(1, budget // k_step))
        r_step = min(rows, max(1, budget // (k_step * g_step)))
        for r in range(0, rows, r_step):
            for g in range(0, groups, g_step):
                row, group = slice(r, r + r_step), slice(g, g + g_step)
                for k in range(0, size, k_step):
                    yield (row, group, slice(k, k + k_step)), (row if self.per_row else slice(None), group)
