"""Dequantizing as one operator of a graph that torch.export or torch.compile makes.

`affine.dequantize` looks at values, which a trace cannot follow. Where nothing is traced, it is called directly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from labutils.arrays import affine
from labutils.arrays.scheme import Scheme
from labutils.models.saved_form import scheme_numbers, scheme_of

Tensor = torch.Tensor


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, dtype: torch.dtype) -> Tensor:
    """`affine.dequantize` of codes whose zero point is None where they are symmetric."""
    if torch.compiler.is_compiling():
        return _operator(codes, scale, zero_point, scheme_numbers(scheme), dtype)
    zero = 0 if zero_point is None else zero_point
    return affine.dequantize(affine.QuantizedArray(codes, scale, zero, scheme, dtype))


@torch.library.custom_op(
    "labutils::dequantize",
    mutates_args=(),
    schema="(Tensor codes, Tensor scale, Tensor? zero_point, int[] scheme, ScalarType dtype) -> Tensor",
)
def _operator(
    codes: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Sequence[int], dtype: torch.dtype
) -> Tensor:
    return dequantize(codes, scale, zero_point, scheme_of(scheme), dtype)


@_operator.register_fake
def _(codes: Tensor, *others: object) -> Tensor:
    return torch.empty_like(codes, dtype=others[-1])
