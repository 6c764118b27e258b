"""One number for each input channel: what scales and maxima must be."""

from __future__ import annotations

import torch

from labutils.models.inputs import describe

Tensor = torch.Tensor


def checked_scales(scales: Tensor, length: int | None) -> Tensor:
    """Positive finite scales, as a vector of `length`."""
    if not isinstance(scales, Tensor) or not scales.is_floating_point():
        raise TypeError(f"scales must be a float tensor, got {describe(scales)}")
    if scales.ndim != 1 or (length is not None and len(scales) != length):
        wanted = "one axis" if length is None else f"shape ({length},), one for each channel"
        raise ValueError(f"scales must have {wanted}, got {tuple(scales.shape)}")
    if not bool((scales.isfinite() & (scales > 0)).all()):
        raise ValueError("scales must be positive and finite everywhere")
    return scales.detach()


def require_maxima(input_max: Tensor, length: int, name: str = "input_max") -> None:
    """TypeError or ValueError unless `input_max` is one finite magnitude, or one for each of `length` channels."""
    if not isinstance(input_max, Tensor) or not input_max.is_floating_point():
        raise TypeError(f"{name} must be a float tensor, got {describe(input_max)}")
    if tuple(input_max.shape) not in ((), (length,)):
        raise ValueError(f"{name} must be one number or have shape ({length},), got {tuple(input_max.shape)}")
    if not bool((input_max.isfinite() & (input_max >= 0)).all()):
        raise ValueError(f"{name} must hold finite magnitudes, from 0 on")


def scaled(tensor: Tensor, factors: Tensor, name: str) -> Tensor:
    """tensor * factors in the dtype of `tensor`; ValueError where its range does not hold the products.

    >>> scaled(torch.tensor([100.0], dtype=torch.float16), torch.tensor([1000.0]), "the weight")
    Traceback (most recent call last):
    ValueError: the weight reaches 100000, and torch.float16 holds 6.1e-05 to 65504: convert the layer to float32 first
    """
    exact = tensor.detach().to(torch.float64) * factors.to(torch.float64)
    info = torch.finfo(tensor.dtype)
    peaks = exact.abs().amax(tuple(range(1, exact.ndim))) if exact.ndim > 1 else exact.abs()
    for peak in (peaks.max(), peaks[peaks > 0].min() if bool((peaks > 0).any()) else peaks.max()):
        if peak > info.max or 0 < peak < info.smallest_normal:
            raise ValueError(
                f"{name} reaches {peak:.6g}, and {tensor.dtype} holds {info.smallest_normal:.2g} to {info.max:.6g}: "
                "convert the layer to float32 first"
            )
    return exact.to(tensor.dtype)
