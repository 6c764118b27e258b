"""Multiplying by a Hadamard matrix, factor by factor."""

from __future__ import annotations

import torch
from torch import nn

from labutils.arrays.inputs import whole_number
from labutils.models.inputs import require_features
from labutils.models.rotation.hadamard import block_order, factor_orders, signs_of_factors

Tensor = torch.Tensor


class Rotation(nn.Module):
    """x @ hadamard(n) along the last axis, computed factor by factor: n log n steps a row instead of n^2.

    >>> Rotation(576, seed=0)
    Rotation(576 = 36 x 16, random signs)
    >>> Rotation(4)(torch.tensor([0.0, 0.0, 8.0, 0.0]))  # an outlier is spread over all channels
    tensor([ 4.,  4., -4., -4.])

    seed    None, or the seed of random signs that the channels get before they are rotated. Without them, channels that
            are all of one sign add up in channel 0, for the first column of the matrix is (almost) constant
    blocks  for sizes that have no Hadamard matrix, as in `hadamard`
    """

    def __init__(self, n: int, seed: int | None = None, blocks: bool = False):
        super().__init__()
        self.order = block_order(n, blocks)
        self.n = int(n)
        self.register_buffer("signs", None if seed is None else _random_signs(self.n, seed))
        for i, factor in enumerate(signs_of_factors(self.order)):  # int8: `.half()` leaves it exact
            self.register_buffer(f"factor{i}", torch.from_numpy(factor), persistent=False)

    @property
    def matrix(self) -> Tensor:
        """The orthogonal (n, n) float32 matrix R with which this computes x @ R; its inverse is its transpose."""
        return self(torch.eye(self.n, device=self.factors[0].device if self.factors else None))

    @property
    def factors(self) -> list[Tensor]:
        """The Kronecker factors, int8, entries +1 and -1."""
        return [getattr(self, f"factor{i}") for i in range(len(factor_orders(self.order)))]

    def forward(self, input: Tensor) -> Tensor:
        """(..., n) floats -> (..., n) in the same dtype; float16 and bfloat16 are computed in float32."""
        require_features(input, self.n)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        if self.signs is not None:
            x = x * self.signs
        return (self._product(x) * self.order**-0.5).reshape(input.shape).to(input.dtype)

    def undo(self, rotated: Tensor) -> Tensor:
        """rotated @ R.T, along the last axis: what was rotated, or the weight whose rows were."""
        x = rotated.to(torch.promote_types(rotated.dtype, torch.float32))
        x = (self._product(x, transposed=True) * self.order**-0.5).reshape(rotated.shape)
        return (x if self.signs is None else x * self.signs).to(rotated.dtype)

    def _product(self, x: Tensor, transposed: bool = False) -> Tensor:
        """x times the Kronecker product of the factors: seen as (rows, a, b, ...), each axis times its factor."""
        rows = x.numel() // self.order
        for factor in self.factors:  # the axis that comes first is multiplied, and goes to the end
            factor = factor.t() if transposed else factor
            x = x.reshape(rows, len(factor), self.order // len(factor)).transpose(1, 2) @ factor.to(x.dtype)
        return x

    def extra_repr(self) -> str:
        count, factors = self.n // self.order, factor_orders(self.order) or (1,)
        kind = " x ".join(map(str, factors)) if count == 1 else f"{count} blocks of {self.order}"
        return f"{self.n} = {kind}" + ("" if self.signs is None else ", random signs")


def rotate(x: Tensor, seed: int | None = None, blocks: bool = False) -> Tensor:
    """x @ hadamard(n) along the last axis, in n log n steps a row.

    >>> rotate(torch.tensor([1.0, 1.0, 1.0, 1.0]))
    tensor([2., 0., 0., 0.])

    (..., n) floats -> (..., n), same dtype; lengths and dot products stay as they are. `Rotation` explains the options.
    """
    if not isinstance(x, Tensor) or x.ndim == 0:
        got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a tensor of at least one axis, got {got}")
    return Rotation(x.shape[-1], seed, blocks).to(x.device)(x)


def _random_signs(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(whole_number(seed, "seed", least=0))
    return torch.randint(0, 2, (n,), generator=generator, dtype=torch.int8) * 2 - 1
