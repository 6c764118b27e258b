"""Weights of up to 4 bits on torch's int4 kernel, which unpacks the codes while it multiplies."""

from __future__ import annotations

import platform
import sys

import torch
from torch.nn import functional

from labutils.arrays import packing
from labutils.arrays.scheme import Scheme
from labutils.models.kernels import probes
from labutils.models.kernels.int4_layout import GROUP_SIZES, Int4Layout
from labutils.models.kernels.packed_weights import PackedWeights

Tensor = torch.Tensor

INT4PACK = "torch int4pack, bfloat16"

ROWS = 16  # it takes output channels by so many
LOW, HIGH = -8, 7  # the codes that it knows


def hold_packed(
    packed: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, length: int, repack: bool = False
) -> PackedWeights | Int4Weights:
    """A packed weight (arguments as in `PackedWeights`) in the form that multiplies fastest here.

    That form is the int4 kernel's where it needs no more than 4 bits a code, and with `repack` also where it does.
    """
    if why_not(len(packed), length, scheme, packed.device.type, repack):
        return PackedWeights(packed, scale, zero_point, scheme, length)
    return Int4Weights(packed, scale, zero_point, scheme, length)


class Int4Weights:
    """`PackedWeights` of 2 to 4 bits, laid out for the int4 kernel.

    The kernel works in bfloat16: activations and results are rounded to 8 significant bits. It adds a zero to each
    group, 16 bits more beside the scale: weight = (code - 8) * scale + zero. Here all zeros are 0. A zero point would
    become (8 - zero_point) * scale, rounded to bfloat16: the weight 0 would no longer be 0. So what is held are
    differences, code - zero_point, exact in every case:

        from 2 and 3 bits   they lie between -7 and 7, which the kernel's codes from -8 to 7 hold
        from 4 bits         they lie between -15 and 14, or, where the zero point is 0, between 0 and 15, which a
                            negative scale turns round: the sum of two codes of the kernel, in two products

    Groups lie as `Int4Layout` says; rows are filled up to a multiple of 16.
    """

    kernel = INT4PACK

    def __init__(self, packed: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, length: int):
        self.shape, self.device, self.scheme = (len(packed), length), packed.device, scheme
        self._layout = Int4Layout.of(length, scheme.granularity.group_size)
        self._zero_point = zero_point
        codes = packing.unpack(packed, scheme.num_bits, length, signed=scheme.symmetric).to(torch.int8)
        signs = self._signs()
        differences = codes if signs is None else (codes - self._each(zero_point.to(torch.int8))) * self._each(signs)
        first = differences.clamp(LOW, HIGH)
        rest = differences - first
        self._codes = [self._pack(part) for part in ([first, rest] if bool(rest.any()) else [first])]
        scale = scale if signs is None else scale * signs
        held = functional.pad(scale[:, self._layout.group_of].t(), (0, -len(packed) % ROWS))
        self._scales = torch.stack([held, torch.zeros_like(held)], -1)  # (groups of the kernel, rows, 2)

    def plain(self) -> dict[str, Tensor]:
        """The arguments `packed`, `scale` and, if there is one, `zero_point` from which this was made."""
        rows, layout = self.shape[0], self._layout
        codes = layout.gather(sum(_unpack(held, layout.columns) for held in self._codes)[:rows])
        groups = -(-layout.length // layout.size)
        scale = self._scales[torch.arange(groups) * layout.padded // layout.kernel_group, :rows, 0].t().contiguous()
        if self._zero_point is None:
            return {"packed": packing.pack(codes, self.scheme.num_bits), "scale": scale}
        codes = (codes * self._each(self._signs()) + self._each(self._zero_point.to(torch.int8))).to(torch.uint8)
        packed = packing.pack(codes, self.scheme.num_bits)
        return {"packed": packed, "scale": scale.abs(), "zero_point": self._zero_point}

    @property
    def nbytes(self) -> int:
        zero_point = 0 if self._zero_point is None else self._zero_point.nbytes
        return sum(held.nbytes for held in self._codes) + self._scales.nbytes + zero_point

    def linear(self, x: Tensor) -> Tensor:
        """x @ weight.T for `x` (M, K) -> (M, N), in the dtype of `x`."""
        spread = self._layout.spread(x.to(torch.bfloat16)).contiguous()
        y, *more = (
            _multiply(spread, held, self._layout.kernel_group, self._scales).to(x.dtype) for held in self._codes
        )
        for rest in more:
            y += rest
        return y if y.shape[1] == self.shape[0] else y[:, : self.shape[0]]

    def dequantize(self) -> Tensor:
        """The weight as float32 (N, K)."""
        return PackedWeights(
            **{"zero_point": None} | self.plain(), scheme=self.scheme, length=self.shape[1]
        ).dequantize()

    def _signs(self) -> Tensor | None:
        """-1 for each group whose differences go up to 15, else 1: (N, groups) int8; None without zero points."""
        return None if self._zero_point is None else torch.where(self._zero_point == 0, -1, 1).to(torch.int8)

    def _each(self, of_groups: Tensor) -> Tensor:
        """(N, groups) -> (N, K)."""
        return of_groups.repeat_interleave(self._layout.size, dim=1)[:, : self.shape[1]]

    def _pack(self, codes: Tensor) -> Tensor:
        return _pack(functional.pad(self._layout.spread(codes), (0, 0, 0, -len(codes) % ROWS)))


def why_not(rows: int, length: int, scheme: Scheme, device: str, repack: bool = False) -> str:
    """Why the kernel does not multiply a weight of `rows` by `length`, or "". With `repack` it may take more memory."""
    layout = Int4Layout.of(length, scheme.granularity.group_size)
    if device != "cpu":
        return f"it works on the CPU, not on {device}"
    if scheme.num_bits > 4:
        return f"it knows 4 bits, not {scheme.num_bits}"
    if layout.columns > 2 * length:
        return f"rows of {length} in groups of {layout.size} would take {layout.columns} columns"
    if not repack and not (scheme.num_bits == 4 and scheme.symmetric):
        return "codes of 2 or 3 bits, or with a zero point, take more memory there: see repack"
    if not repack and (rows % ROWS or not layout.is_plain):
        return f"{rows} rows of {length} in groups of {layout.size} take more memory there: see repack"
    return _why_not_in_vectors() or probes.why_not(INT4PACK, device)


def _why_not_in_vectors() -> str:
    """Why torch's kernel takes one weight at a time here, 60 times as long as the portable form; "" where it does not.

    As in torch's aten/src/ATen/native/cpu/int4mm_kernel.cpp, which has code for NEON, and for AVX2 and AVX-512
    where the compiler is not Microsoft's.
    """
    if sys.platform == "win32":
        return "torch has no vector code for it on Windows"
    if platform.machine() in ("aarch64", "arm64"):
        return ""
    if (vectors := torch.backends.cpu.get_cpu_capability()).startswith("AVX"):
        return ""
    return f"torch has vector code for it with AVX2 and AVX-512, not with {vectors}"


def _pack(codes: Tensor) -> Tensor:
    """(N, K) codes from -8 to 7, in an order of bytes that differs from processor to processor."""
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32) + 8, 1)


def _unpack(held: Tensor, length: int) -> Tensor:
    """Undo `_pack` whatever the order of bytes: the rows of the identity are multiplied, and give the codes back."""
    ones = torch.ones(length // GROUP_SIZES[0], len(held), 1, dtype=torch.bfloat16)
    scales = torch.cat([ones, torch.zeros_like(ones)], -1)
    codes = torch.empty(len(held), length, dtype=torch.int8)
    for start in range(0, length, 256):
        rows = torch.eye(length, dtype=torch.bfloat16)[start : start + 256]
        codes[:, start : start + 256] = _multiply(rows, held, GROUP_SIZES[0], scales).t().to(torch.int8)
    return codes


def _multiply(x: Tensor, held: Tensor, group_size: int, scales: Tensor) -> Tensor:
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, held, group_size, scales)


@probes.probe(INT4PACK)
def _int4pack_is_right(device: str) -> bool:
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(64, 4)  # (64, 64)
    return torch.equal(_unpack(_pack(codes), codes.shape[1]), codes)
