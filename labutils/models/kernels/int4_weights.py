"""4-bit weights on torch's int4 kernel, which unpacks the codes while it multiplies."""

from __future__ import annotations

import torch

from labutils.arrays import packing
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.models.kernels import probes
from labutils.models.kernels.packed_weights import PackedWeights

Tensor = torch.Tensor

INT4PACK = "torch int4pack, bfloat16"

GROUP_SIZES = (32, 64, 128, 256)  # that the kernel knows
ROWS = 16  # it takes output channels by so many


def hold_packed(
    packed: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, length: int
) -> PackedWeights | Int4Weights:
    """A packed weight (arguments as in `PackedWeights`) in the form that multiplies fastest here."""
    is_int4 = scheme.num_bits == 4 and scheme.symmetric
    if is_int4 and not why_not(len(packed), length, scheme.granularity, packed.device.type):
        return Int4Weights(packed, scale, scheme, length)
    return PackedWeights(packed, scale, zero_point, scheme, length)


class Int4Weights:
    """`PackedWeights` of 4 bits with symmetric codes, laid out for the int4 kernel.

    The kernel works in bfloat16: activations and results are rounded to 8 significant bits. It adds a zero to each
    group, 16 bits more beside the scale: weight = (code - 8) * scale + zero. Here all zeros are 0. A zero point would
    become (8 - zero_point) * scale, rounded to bfloat16: the weight 0 would no longer be 0, so asymmetric codes do not
    come here.
    """

    kernel = INT4PACK

    def __init__(self, packed: Tensor, scale: Tensor, scheme: Scheme, length: int):
        self.shape, self.device, self.scheme = (len(packed), length), packed.device, scheme
        self._codes = _pack(packing.unpack(packed, 4, length))
        self._scales = torch.stack([scale.t(), torch.zeros_like(scale.t())], -1)  # (groups, N, 2)

    def plain(self) -> dict[str, Tensor]:
        """The arguments `packed` and `scale` from which this was made."""
        codes = _unpack(self._codes, self.shape[1])
        return {"packed": packing.pack(codes, 4), "scale": self._scales[..., 0].t().contiguous()}

    @property
    def nbytes(self) -> int:
        return self._codes.nbytes + self._scales.nbytes

    def linear(self, x: Tensor) -> Tensor:
        """x @ weight.T for `x` (M, K) -> (M, N), in the dtype of `x`."""
        group_size = self.shape[1] // len(self._scales)
        return _multiply(x.to(torch.bfloat16).contiguous(), self._codes, group_size, self._scales).to(x.dtype)

    def dequantize(self) -> Tensor:
        """The weight as float32 (N, K)."""
        return PackedWeights(**self.plain(), zero_point=None, scheme=self.scheme, length=self.shape[1]).dequantize()


def why_not(rows: int, length: int, granularity: PerGroup, device: str) -> str:
    """Why the kernel cannot multiply a weight of `rows` by `length`, or ""."""
    size = min(granularity.group_size, length)
    if device != "cpu":
        return f"it works on the CPU, not on {device}"
    if size not in GROUP_SIZES or length % size or rows % ROWS:
        return (
            f"it wants groups of {', '.join(map(str, GROUP_SIZES))} that divide K, and N divisible by {ROWS}, "
            f"got groups of {size}, K = {length} and N = {rows}"
        )
    return probes.why_not(INT4PACK, device)


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
