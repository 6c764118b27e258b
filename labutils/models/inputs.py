"""What may come into a layer, and the words in which an error says what came instead."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def describe(value: object) -> str:
    """`value` as an error names it: its dtype where it is a tensor, else its type.

    >>> describe(torch.zeros(2, dtype=torch.int8)), describe(3.0)
    ('a tensor of torch.int8', 'float')
    """
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def require_features(x: Tensor, features: int) -> None:
    """TypeError unless `x` is a float tensor, ValueError unless its last axis has `features` elements."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a float tensor, got {describe(x)}")
    if x.ndim == 0 or x.shape[-1] != features:
        raise ValueError(f"x must have shape (..., {features}), got {tuple(x.shape)}")


def in_autocast_dtype(x: Tensor) -> Tensor:
    """`x` as torch's own linear layers take it: under `torch.autocast` in its dtype, else as it is.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     in_autocast_dtype(torch.ones(2)).dtype
    torch.bfloat16
    """
    device = x.device.type
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if casts and x.dtype != torch.float64 else x
