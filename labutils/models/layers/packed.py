"""Weights of 2 to 8 bits in packed bytes, float activations (W4A16)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from labutils.arrays import affine, packing
from labutils.arrays.affine import QuantizedArray
from labutils.arrays.grids import Integers
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models import kernels
from labutils.models.layers.base import GROUPS, describe_scheme, require_codes_of
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
    `repack` makes it faster where the kernel takes more memory than that.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme = GROUPS, quantized: QuantizedArray | None = None):
        linear = plain_linear(linear)
        super().__init__(linear, _in_groups(scheme, linear))
        if quantized is None:
            scale, zero_point = affine.choose_qparams(linear.weight, self.scheme)
            quantized = affine.quantize(linear.weight, self.scheme, (self.held_scale(scale), zero_point))
        in_groups = (self.out_features, -1)  # from PerAxis(0) come (out_features,)
        scale = quantized.scale.reshape(in_groups).to(torch.bfloat16)
        plain = {"packed": packing.pack(quantized.codes, scheme.num_bits), "scale": scale}
        if not scheme.symmetric:
            plain["zero_point"] = quantized.zero_point.reshape(in_groups).to(torch.uint8)
        self._weights = self._hold(plain)

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: Scheme = GROUPS) -> PackedLinear:
        """The layer with `linear`'s weight packed under `scheme`: groups, or PerAxis(0) for a group each row."""
        return cls(linear, scheme)

    @classmethod
    def from_codes(cls, linear: nn.Linear, quantized: QuantizedArray) -> PackedLinear:
        """The layer with codes that were chosen otherwise than by rounding, and a copy of the bias of `linear`.

        >>> linear, scheme = nn.Linear(64, 32), Scheme(3, granularity=PerGroup(32))
        >>> scale, zero_point = affine.choose_qparams(linear.weight, scheme)
        >>> quantized = affine.quantize(linear.weight, scheme, (PackedLinear.held_scale(scale), zero_point))
        >>> torch.equal(PackedLinear.from_codes(linear, quantized).weight, affine.dequantize(quantized))
        True

        ValueError where a scale needs more than the 16 bits of bfloat16: the layer would not hold what was chosen.
        """
        require_codes_of(plain_linear(linear), quantized)
        if not torch.equal(cls.held_scale(quantized.scale), quantized.scale):
            raise ValueError(
                "scale must be exact in bfloat16: choose the codes with scales that held_scale has rounded"
            )
        return cls(linear, quantized.scheme, quantized)

    @staticmethod
    def held_scale(scale: Tensor) -> Tensor:
        """The scale with which this layer computes in place of `scale`: the next larger one of bfloat16.

        >>> PackedLinear.held_scale(torch.tensor([0.5, 0.1])).tolist()
        [0.5, 0.10009765625]
        """
        rounded = scale.to(torch.bfloat16)
        up = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
        return torch.where(rounded < scale, up, rounded).to(scale.dtype)

    @property
    def quantized(self) -> QuantizedArray:
        """Its codes, a byte each, and its scales in float32."""
        plain, is_signed = {"zero_point": None} | self._weights.plain(), self.scheme.symmetric
        codes = packing.unpack(plain["packed"], self.scheme.num_bits, self.in_features, signed=is_signed)
        zero_point = 0 if is_signed else plain["zero_point"].to(torch.int32)
        return QuantizedArray(codes, plain["scale"].to(torch.float32), zero_point, self.scheme, torch.float32)

    def _hold(self, plain: Mapping[str, Tensor]) -> kernels.PackedWeights | kernels.Int4Weights:
        given = {"zero_point": None} | plain
        return kernels.hold_packed(**given, scheme=self.scheme, length=self.in_features, repack=self.repacked)

    def _form(self) -> list[int]:
        return scheme_numbers(self.scheme)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, packed, {describe_scheme(self.scheme)}, kernel: {self.kernel}"


def _in_groups(scheme: Scheme, linear: nn.Linear) -> Scheme:
    """`scheme`, with PerAxis(0) as groups of a whole row."""
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, got {scheme!r}")
    if not isinstance(scheme.grid, Integers) or scheme.scale_grid is not None:
        raise ValueError(
            f"a packed weight holds integers and scales in bfloat16, got {describe_scheme(scheme)}: "
            "QuantizedLinear takes every grid"
        )
    if isinstance(scheme.granularity, PerGroup):
        return scheme
    if scheme.granularity not in (PerAxis(0), PerAxis(-2)):
        raise ValueError(f"a packed weight has groups or PerAxis(0), got {scheme.granularity}")
    return Scheme(scheme.num_bits, scheme.symmetric, PerGroup(linear.in_features), scheme.clip)
