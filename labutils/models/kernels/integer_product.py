"""Products of int8 matrices and images, exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from labutils.models.inputs import describe
from labutils.models.kernels import probes

Tensor = torch.Tensor

INT_MM = "torch._int_mm"

MOST_PRODUCTS = 2**17 - 1  # of two int8: the largest is (-128)(-128) = 2^14, and so many of it fit into int32
EXACT_IN_FLOAT32 = 2**10  # so many such products add up to at most 2^24: exact in float32, in whatever order


def int_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for int8 matrices, exactly: (M, K) by (K, N) -> (M, N) int32.

    >>> a = torch.tensor([[-128, 127]], dtype=torch.int8)
    >>> int_matmul(a, a.t())
    tensor([[32513]], dtype=torch.int32)

    Nothing wraps: no product of int8 is beyond int16, and K up to 131,071 of them fit into int32. ValueError for a
    larger K and for shapes that do not match; TypeError for what is not an int8 tensor. Subtract 128 from unsigned
    codes (and from their zero point) first.
    """
    for name, matrix in (("a", a), ("b", b)):
        if not isinstance(matrix, Tensor) or matrix.dtype != torch.int8:
            raise TypeError(f"{name} must be an int8 tensor, got {describe(matrix)}")
        if matrix.ndim != 2:
            raise ValueError(f"{name} must have two axes, got shape {tuple(matrix.shape)}")
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"a has {a.shape[1]} columns, but b has {b.shape[0]} rows")
    require_int32_sums(a.shape[1], MOST_PRODUCTS)
    return _in_float32_blocks(a, b) if _why_not_int_mm(a, b) else torch._int_mm(_laid_out(a), _laid_out(b))


def int_conv2d(codes: Tensor, weight: Tensor, **convolution: Any) -> Tensor:
    """`functional.conv2d` of integer codes, exactly: (M, C, H, W) by (N, C / groups, h, w) -> (M, N, ..., ...) int32.

    >>> codes = torch.full((1, 1, 5, 5), -128, dtype=torch.int8)
    >>> int_conv2d(codes, codes[..., :3, :3], dilation=2)
    tensor([[[[147456]]]], dtype=torch.int32)

    torch's integer convolution knows neither dilation nor CUDA. The sums are below 2^31, so float64 adds them exactly.
    """
    require_int32_sums(weight[0].numel(), MOST_PRODUCTS)
    return functional.conv2d(codes.to(torch.float64), weight.to(torch.float64), **convolution).to(torch.int32)


def require_int32_sums(length: int, most: int) -> None:
    """ValueError where a sum of `length` products may exceed int32, which holds `most`."""
    if length > most:
        raise ValueError(f"sums of {length} products may not fit into int32; at most {most} do")


def _why_not_int_mm(a: Tensor, b: Tensor) -> str:
    if 0 in a.shape or 0 in b.shape:
        return "nothing to multiply"
    if a.device.type == "cuda" and (a.shape[0] <= 16 or a.shape[1] % 8 or b.shape[1] % 8):
        return "on CUDA it wants more than 16 rows, and K and N divisible by 8"
    return probes.why_not(INT_MM, a.device.type)


def _laid_out(matrix: Tensor) -> Tensor:
    """A contiguous or transposed matrix; of other views `_int_mm` reads the wrong elements (torch 2.13)."""
    rows, columns = matrix.shape
    is_transposed = min(rows, columns) > 1 and matrix.stride() == (1, rows)
    if is_transposed or matrix.stride() == (columns, 1):
        return matrix
    return matrix.clone(memory_format=torch.contiguous_format)


def _in_float32_blocks(a: Tensor, b: Tensor) -> Tensor:
    """The portable kernel: float32 products of at most 1024 columns at a time, whose sums are exact."""
    total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.int32, device=a.device)
    for start in range(0, a.shape[1], EXACT_IN_FLOAT32):
        block = slice(start, start + EXACT_IN_FLOAT32)
        total += (a[:, block].to(torch.float32) @ b[block].to(torch.float32)).to(torch.int32)
    return total


@probes.probe(INT_MM)
def _int_mm_is_exact(device: str) -> bool:
    a, b = probes.largest_codes(device)
    return torch.equal(torch._int_mm(a, b.t()).cpu().long(), a.cpu().long() @ b.cpu().long().t())
