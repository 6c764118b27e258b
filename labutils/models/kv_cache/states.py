"""The keys or the values of one layer: old tokens in packed codes, the newest in full precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

from labutils.arrays import affine, packing
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.models.inputs import describe
from labutils.models.kv_cache.format import CacheFormat

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class PackedBlocks:
    """Blocks of `group_size` tokens. A row is one channel of a block, or one of its tokens, and has one scale.

    codes       (batch, heads, blocks, rows, bytes) uint8
    scale       (batch, heads, blocks, rows) float16 or bfloat16
    zero_point  (batch, heads, blocks, bytes) uint8, packed as the codes are; None where symmetric
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def map(self, change: Callable[..., Tensor], *others: PackedBlocks) -> PackedBlocks:
        """`change` applied to each tensor, together with the same tensor of `others`."""
        tensors = ([getattr(each, field.name) for each in (self, *others)] for field in fields(self))
        return PackedBlocks(*(None if same[0] is None else change(*same) for same in tensors))

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in (self.codes, self.scale, self.zero_point) if tensor is not None]


class CachedStates:
    """The keys or the values that one layer has seen, (batch, heads, tokens, channels).

    kind    "keys" or "values"
    format  says what shares a scale; where that is None, all tokens stay in `newest`
    newest  the tokens in full precision, (batch, heads, tokens, channels)
    """

    def __init__(self, kind: str, format: CacheFormat):
        self.kind, self.format, self.shared = kind, format, format.shared_by(kind)
        self.blocks: PackedBlocks | None = None
        self.newest: Tensor | None = None

    def __len__(self) -> int:
        """Tokens held."""
        return self.quantized + (0 if self.newest is None else self.newest.shape[2])

    @property
    def quantized(self) -> int:
        """Tokens held in codes."""
        return 0 if self.blocks is None else self.blocks.codes.shape[2] * self.format.group_size

    @property
    def nbytes(self) -> int:
        """Bytes of the memory behind all tensors."""
        tensors = [] if self.newest is None else [self.newest]
        tensors += [] if self.blocks is None else self.blocks.tensors
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    def check(self, states: Tensor) -> None:
        """TypeError or ValueError unless `states` can be appended."""
        if not isinstance(states, Tensor) or not states.is_floating_point():
            raise TypeError(f"{self.kind} must be a float tensor, got {describe(states)}")
        if states.ndim != 4:
            raise ValueError(f"{self.kind} must have shape (batch, heads, tokens, channels), got {tuple(states.shape)}")
        if self.newest is not None:
            (batch, heads, _, channels), dtype = self.newest.shape, self.newest.dtype
            if (*states.shape[:2], states.shape[3], states.dtype) != (batch, heads, channels, dtype):
                raise ValueError(
                    f"the cache holds {self.kind} of shape ({batch}, {heads}, ..., {channels}) and dtype {dtype}, got "
                    f"shape {tuple(states.shape)} and dtype {states.dtype}: reset it before other sequences"
                )
        if self.shared and not bool(states.isfinite().all()):
            raise ValueError(f"{self.kind} hold NaN or Inf, which no scale can represent")

    def append(self, states: Tensor) -> None:
        """Add tokens in full precision."""
        self.newest = states.clone() if self.newest is None else torch.cat([self.newest, states], dim=2)

    def quantize_old(self) -> None:
        """Quantize the whole groups that lie before the window; what is quantized stays as it is."""
        count = self.format.quantized_tokens(len(self)) - self.quantized
        if self.shared is None or count <= 0:
            return
        old, newest = self.newest[:, :, :count], self.newest[:, :, count:]
        blocks = self._quantized(old)
        self.blocks = blocks if self.blocks is None else self.blocks.map(_joined, blocks)
        self.newest = newest.clone()  # a view would keep the quantized tokens in memory

    def read(self) -> Tensor:
        """All tokens, in the dtype in which they came: (batch, heads, tokens, channels)."""
        if self.blocks is None:
            return self.newest
        return torch.cat([self._dequantized(self.blocks), self.newest], dim=2)

    def drop(self, count: int) -> None:
        """Forget the newest `count` tokens, which must be in full precision."""
        self.newest = self.newest[:, :, : self.newest.shape[2] - count].clone()

    def select(self, change: Callable[[Tensor], Tensor]) -> None:
        """Replace every tensor by `change(tensor)`; `change` may only act on the first axis, the batch."""
        if self.newest is not None:
            self.newest = change(self.newest)
        if self.blocks is not None:
            self.blocks = self.blocks.map(change)

    def clear(self) -> None:
        """Forget everything."""
        self.blocks = self.newest = None

    def _scheme(self, row: int) -> Scheme:
        return Scheme(self.format.num_bits, self.format.symmetric, PerGroup(row))

    def _quantized(self, states: Tensor) -> PackedBlocks:
        """Whole groups of tokens, (batch, heads, blocks * group_size, channels), as blocks."""
        rows = states.unflatten(2, (-1, self.format.group_size))
        rows = (rows.transpose(-1, -2) if self.shared == "channel" else rows).contiguous()
        scheme, bits = self._scheme(rows.shape[-1]), self.format.num_bits
        scale, zero_point = affine.choose_qparams(rows, scheme)
        scale = _rounded_up(scale, self.format.scale_dtype, self.kind)
        codes = affine.quantize(rows, scheme, (scale, zero_point)).codes
        zeros = None if scheme.symmetric else packing.pack(zero_point[..., 0].to(torch.uint8), bits)
        return PackedBlocks(packing.pack(codes, bits), scale[..., 0].contiguous(), zeros)

    def _dequantized(self, blocks: PackedBlocks) -> Tensor:
        channels = self.newest.shape[3]
        group, bits, symmetric = self.format.group_size, self.format.num_bits, self.format.symmetric
        count, row = (channels, group) if self.shared == "channel" else (group, channels)
        codes = packing.unpack(blocks.codes, bits, row, signed=symmetric)
        zeros = 0 if symmetric else packing.unpack(blocks.zero_point, bits, count, signed=False)[..., None].int()
        scale = blocks.scale[..., None].float()
        rows = affine.dequantize(affine.QuantizedArray(codes, scale, zeros, self._scheme(row), self.newest.dtype))
        return (rows.transpose(-1, -2) if self.shared == "channel" else rows).flatten(2, 3)


def _joined(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], dim=2)


def _rounded_up(scale: Tensor, dtype: torch.dtype, kind: str) -> Tensor:
    """`scale` in 16 bits, never smaller than before: so no value is clamped, and errors stay below half a step."""
    nearest = scale.to(dtype)
    too_small = (nearest.to(scale.dtype) < scale).to(torch.int16)
    up = (nearest.view(torch.int16) + too_small).view(dtype)  # positive floats are ordered as their bits are
    if not bool(up.isfinite().all()):
        raise ValueError(f"{kind} need a scale of {float(scale.max()):.6g}, beyond {dtype}: pass torch.bfloat16")
    return up
