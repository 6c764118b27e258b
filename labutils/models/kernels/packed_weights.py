"""Weights of 2 to 8 bits in packed bytes, multiplied by float activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from labutils.arrays import packing
from labutils.arrays.affine import QuantizedArray, dequantize
from labutils.arrays.scheme import Scheme
from labutils.models.kernels.probes import PORTABLE
from labutils.models.saved_form import scheme_numbers, scheme_of

Tensor = torch.Tensor

TILE = 2**18  # weights dequantized at a time: 1 MB of float32


class PackedWeights:
    """A packed weight with groups along K; a few rows at a time are dequantized to be multiplied.

    packed      (N, ceil(K * num_bits / 8)) uint8, as `packing.pack` makes it
    scale       (N, groups) bfloat16: the 16 bits that lab 04 counts
    zero_point  (N, groups) uint8, or None where codes are symmetric
    scheme      its num_bits, symmetry and groups
    length      K
    """

    kernel = PORTABLE

    def __init__(self, packed: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, length: int):
        self.shape, self.device = (len(packed), length), packed.device
        self.packed, self.scale, self.zero_point, self.scheme = packed, scale, zero_point, scheme

    def plain(self) -> dict[str, Tensor]:
        """Codes, scales and zero points in a form that is the same on every machine."""
        held = {"packed": self.packed, "scale": self.scale}
        return held if self.zero_point is None else held | {"zero_point": self.zero_point}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.plain().values())

    def linear(self, x: Tensor) -> Tensor:
        """x @ weight.T for `x` (M, K) -> (M, N), in the dtype of `x`."""
        if torch.compiler.is_compiling():
            return _packed_linear(x, **self._arguments())
        return self._product(x)

    def _arguments(self) -> dict[str, Any]:
        held = {"packed": self.packed, "scale": self.scale, "zero_point": self.zero_point}
        return held | {"scheme": scheme_numbers(self.scheme), "length": self.shape[1]}

    def _product(self, x: Tensor) -> Tensor:
        out = x.new_empty(x.shape[0], self.shape[0])
        for rows in self._tiles():
            out[:, rows] = x @ self._dequantized_rows(rows, x.dtype).t()
        return out

    def dequantize(self) -> Tensor:
        """The weight as float32 (N, K)."""
        return torch.cat([self._dequantized_rows(rows, torch.float32) for rows in self._tiles()])

    def _tiles(self) -> list[slice]:
        step = max(1, TILE // self.shape[1])
        return [slice(row, row + step) for row in range(0, self.shape[0], step)]

    def _dequantized_rows(self, rows: slice, dtype: torch.dtype) -> Tensor:
        codes = packing.unpack(self.packed[rows], self.scheme.num_bits, self.shape[1], signed=self.scheme.symmetric)
        zero_point = 0 if self.zero_point is None else self.zero_point[rows].to(torch.int32)
        scale = self.scale[rows].to(torch.float32)
        return dequantize(QuantizedArray(codes, scale, zero_point, self.scheme, dtype))


@torch.library.custom_op(
    "labutils::packed_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor packed, Tensor scale, Tensor? zero_point, int[] scheme, int length) -> Tensor",
)
def _packed_linear(
    x: Tensor, packed: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Sequence[int], length: int
) -> Tensor:
    """`PackedWeights.linear` as one operator: unpacking goes through NumPy, which a trace cannot follow."""
    return PackedWeights(packed, scale, zero_point, scheme_of(scheme), length)._product(x)


@_packed_linear.register_fake
def _(x: Tensor, packed: Tensor, *others: Any) -> Tensor:
    return x.new_empty(x.shape[0], packed.shape[0])
