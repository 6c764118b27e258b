"""Where the columns of a weight lie among those that torch's int4 kernel multiplies."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

Tensor = torch.Tensor

GROUP_SIZES = (32, 64, 128, 256)  # that the kernel knows


class Int4Layout(NamedTuple):
    """A weight's groups in the kernel's: a larger group becomes several with one scale, others are filled up with 0.

    >>> Int4Layout.of(length=576, group_size=128)  # 4 groups of 128 and one of 64, as 9 of 64
    Int4Layout(length=576, size=128, padded=128, columns=576, kernel_group=64)
    >>> Int4Layout.of(length=96, group_size=48)  # each group of 48 takes 64 columns
    Int4Layout(length=96, size=48, padded=64, columns=128, kernel_group=64)

    length        K, the columns of the weight
    size          of a group; the last of a row may be shorter
    padded        columns that a group takes: the next multiple of 32
    columns       that the kernel multiplies
    kernel_group  the largest of GROUP_SIZES that divides both, so that no group of the kernel has two scales
    """

    length: int
    size: int
    padded: int
    columns: int
    kernel_group: int

    @classmethod
    def of(cls, length: int, group_size: int) -> Int4Layout:
        """The layout of rows of `length` weights in groups of `group_size`."""
        size = min(group_size, length)
        padded = _next_multiple(size)
        before_last = (length - 1) // size
        columns = before_last * padded + _next_multiple(length - before_last * size)
        kernel_group = max(known for known in GROUP_SIZES if padded % known == columns % known == 0)
        return cls(length, size, padded, columns, kernel_group)

    @property
    def is_plain(self) -> bool:
        """Whether every column stays where it is."""
        return self.columns == self.length

    @property
    def group_of(self) -> Tensor:
        """For each group of the kernel, the group of the weight in which it lies."""
        return torch.arange(0, self.columns, self.kernel_group) // self.padded

    def spread(self, x: Tensor) -> Tensor:
        """(rows, K) -> (rows, columns), with 0 where a group is filled up."""
        if self.is_plain:
            return x
        groups = -(-self.length // self.size)
        whole = functional.pad(x, (0, groups * self.size - self.length)).unflatten(1, (groups, self.size))
        return functional.pad(whole, (0, self.padded - self.size)).flatten(1)[:, : self.columns]

    def gather(self, spread: Tensor) -> Tensor:
        """Undo `spread`."""
        column = torch.arange(self.length)
        return spread[:, column + column // self.size * (self.padded - self.size)]


def _next_multiple(length: int) -> int:
    """The next multiple of the smallest group that the kernel knows."""
    smallest = GROUP_SIZES[0]
    return -(-length // smallest) * smallest
