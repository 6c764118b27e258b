"""Weights of 2 to 8 bits in packed bytes, float activations (W4A16)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from labutils.arrays import affine, packing
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models import kernels
from labutils.models.layers.base import GROUPS, describe_scheme
from labutils.models.layers.held import HeldLinear
from labutils.models.linear import plain_linear
from labutils.models.saved_form import scheme_numbers

Tensor = torch.Tensor


class PackedLinear(HeldLinear):
    """Weights of 2 to 8 bits without a bit between them, in groups, with 16-bit scales; float activations (W4A16).

    >>> layer = PackedLinear.from_float(nn.Linear(512, 256, bias=False), Scheme(3, granularity=PerGroup(64)))
    >>> layer.memory_bytes() * 8 / (512 * 256)  # 3 + 16 / 64
    3.25

    Scales are rounded up to bfloat16, so that no weight is clipped for it. Gradients go straight through to `x`.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme = GROUPS):
        linear = plain_linear(linear)
        super().__init__(linear, _in_groups(scheme, linear))
        scale, zero_point = affine.choose_qparams(linear.weight, self.scheme)
        scale = _up_to_bfloat16(scale)
        quantized = affine.quantize(linear.weight, self.scheme, (scale.to(torch.float32), zero_point))
        plain = {"packed": packing.pack(quantized.codes, scheme.num_bits), "scale": scale}
        self._weights = self._hold(plain if scheme.symmetric else plain | {"zero_point": zero_point.to(torch.uint8)})

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: Scheme = GROUPS) -> PackedLinear:
        """The layer with `linear`'s weight packed under `scheme`: groups, or PerAxis(0) for a group each row."""
        return cls(linear, scheme)

    def _hold(self, plain: Mapping[str, Tensor]) -> kernels.PackedWeights | kernels.Int4Weights:
        return kernels.hold_packed(**({"zero_point": None} | plain), scheme=self.scheme, length=self.in_features)

    def _form(self) -> list[int]:
        return scheme_numbers(self.scheme)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, packed, {describe_scheme(self.scheme)}, kernel: {self.kernel}"


def _in_groups(scheme: Scheme, linear: nn.Linear) -> Scheme:
    """`scheme`, with PerAxis(0) as groups of a whole row."""
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, got {scheme!r}")
    if isinstance(scheme.granularity, PerGroup):
        return scheme
    if scheme.granularity not in (PerAxis(0), PerAxis(-2)):
        raise ValueError(f"a packed weight has groups or PerAxis(0), got {scheme.granularity}")
    return Scheme(scheme.num_bits, scheme.symmetric, PerGroup(linear.in_features), scheme.clip)


def _up_to_bfloat16(scale: Tensor) -> Tensor:
    rounded = scale.to(torch.bfloat16)
    return torch.where(rounded < scale, torch.nextafter(rounded, torch.full_like(rounded, torch.inf)), rounded)
