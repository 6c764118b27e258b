"""Scales that keep their dtype when a model is cast: 16 bits would round them, and turn 1e-8 into 0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class KeepsScales(nn.Module):
    """A module whose parameters and buffers in `scale_names` go to other devices, but not to other dtypes."""

    scale_names: tuple[str, ...] = ()

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        before = {name: getattr(self, name).data for name in self.scale_names}
        super()._apply(fn, recurse)
        for name, scale in before.items():
            device = fn(torch.empty(0, dtype=torch.int8, device=scale.device)).device
            if not scale.is_meta:
                getattr(self, name).data = scale.to(device)
        return self
