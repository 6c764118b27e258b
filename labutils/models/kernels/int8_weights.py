"""8-bit weights by 8-bit activations (W8A8): integers are multiplied, the zero point and the scales come after."""

from __future__ import annotations

import math
import platform
import warnings

import numpy as np
import torch

from labutils.models.kernels import probes
from labutils.models.kernels.integer_product import INT_MM, int_matmul, require_int32_sums

Tensor = torch.Tensor

ONEDNN = "oneDNN, packed once"
FBGEMM = "FBGEMM, packed once"

MOST_UNSIGNED = 2**16  # products of a uint8 and an int8 from -127 to 127: so many of 255 * 127 fit into int32


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """8-bit codes of each row, its scale and its zero point: (M, K) float32 -> (M, K) uint8, (M, 1) and (M, 1) float32.

    >>> quantize_rows(torch.tensor([[2.0, -0.55, 0.25]]))
    (tensor([[255,   0,  80]], dtype=torch.uint8), tensor([[0.0100]]), tensor([[55.]]))

    The numbers of `affine.quantize(x, Scheme(8, symmetric=False, granularity=PerAxis(0)))`, in fewer passes and
    unchecked, because every layer calls it. A row with a NaN has the scale NaN.
    """
    low, high = x.amin(1, keepdim=True).clamp_(max=0), x.amax(1, keepdim=True).clamp_(min=0)
    scale = (high / 255 - low / 255).clamp_min_(torch.finfo(torch.float32).smallest_normal)
    zero_point = (-low / scale).round_()
    # torch casts to int8 six times as fast as to uint8: subtract 128, and flip the top bit back.
    steps = (x / scale).round_().add_(zero_point - 128).clamp_(-128, 127)
    return steps.to(torch.int8).view(torch.uint8).bitwise_xor_(128), scale, zero_point


def quantize_row(x: Tensor) -> tuple[Tensor, float, int] | None:
    """`quantize_rows` of one row, scale and zero point as numbers: half as many calls; None where it is not finite.

    >>> codes, scale, zero_point = quantize_row(torch.tensor([[2.0, -0.55, 0.25]]))
    >>> codes, round(scale, 4), zero_point
    (tensor([[255,   0,  80]], dtype=torch.uint8), 0.01, 55)

    Where a token is decoded at a time, calls cost as much as products: a row of 576 takes 36 us there and 19 here.
    """
    low, high = torch.aminmax(x)
    low, high = min(low.item(), 0.0), max(high.item(), 0.0)
    if not math.isfinite(high - low):
        return None
    low, high, levels = np.float32(low), np.float32(high), np.float32(255)  # rounded as tensors are
    scale = max(high / levels - low / levels, np.finfo(np.float32).smallest_normal)
    zero_point = round(float(-low / scale))
    codes = x.div(float(scale)).round_().add_(zero_point).clamp_(0, 255).to(torch.uint8)
    return codes, float(scale), zero_point


class Int8Weights:
    """An 8-bit weight with one scale for each output.

    codes     (N, K) int8
    scale     (N,) float32
    few_rows  whether it will mostly be multiplied by few rows: FBGEMM is faster up to about 16, oneDNN from there on
    kernel    the name of the one that multiplies here
    """

    def __init__(self, codes: Tensor, scale: Tensor, few_rows: bool = False):
        require_int32_sums(codes.shape[1], MOST_UNSIGNED)
        self.shape, self.device = tuple(codes.shape), codes.device
        self.scale = scale.to(torch.float32)
        self._sums = codes.sum(1, dtype=torch.int32)  # (N,), what a zero point of 1 would add
        self.kernel = _kernel(codes.device.type, few_rows)
        self._held = PACK[self.kernel](codes, self.scale) if self.kernel in PACK else codes

    def plain(self) -> dict[str, Tensor]:
        """The arguments from which this was made."""
        codes = UNPACK[self.kernel](self._held) if self.kernel in UNPACK else self._held
        return {"codes": codes, "scale": self.scale}

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) + self.scale.nbytes + self._sums.nbytes

    def linear(self, x: Tensor) -> Tensor:
        """x @ weight.T for float32 `x` (M, K) -> (M, N) float32: quantize, multiply integers, rescale."""
        if len(x) == 1 and x.device.type == "cpu" and not torch.compiler.is_compiling() and (row := quantize_row(x)):
            codes, scale, zero_point = row
            return self.multiply(codes, zero_point).mul_(scale)
        codes, scales, zero_points = quantize_rows(x)
        # sum (q - zero_point) w = sum q w - zero_point sum w: see `products.quantized_matmul`
        return self.multiply(codes).addr_(zero_points[:, 0], self._sums * self.scale, alpha=-1).mul_(scales)

    def multiply(self, codes: Tensor, zero_point: int = 0) -> Tensor:
        """(codes - zero_point) @ weight.T for uint8 (M, K) -> (M, N) float32: exact in int32, then made float32."""
        if self.kernel == ONEDNN:
            return _multiply(codes, self._held, self.scale, zero_point)
        if self.kernel == FBGEMM:
            return _multiply_fbgemm(codes, self._held, zero_point)
        moved = (codes ^ 128).view(torch.int8)  # `int_matmul` takes int8: q - 128
        products = int_matmul(moved, self._held.t()).add_(self._sums * (128 - zero_point))
        return products.to(torch.float32).mul_(self.scale)

    def dequantize(self) -> Tensor:
        """The weight as float32 (N, K)."""
        return self.plain()["codes"] * self.scale[:, None]


def _kernel(device: str, few_rows: bool) -> str:
    """The kernel for a weight on this device."""
    packed = [FBGEMM, ONEDNN] if few_rows else [ONEDNN]
    runs = [name for name in packed if not _why_not_packed(name, device)]
    return next(iter(runs), probes.PORTABLE if probes.why_not(INT_MM, device) else INT_MM)


def why_not_onednn(device: str) -> str:
    """Why oneDNN's kernel cannot be used on a device, or ""."""
    return _why_not_packed(ONEDNN, device)


def _why_not_packed(kernel: str, device: str) -> str:
    if device != "cpu":
        return f"it works on the CPU, not on {device}"
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"it is made for x86, this is {platform.machine()}"
    return probes.why_not(kernel, device)


def _pack(codes: Tensor, scale: Tensor) -> Tensor:
    return torch.ops.onednn.qlinear_prepack(codes.contiguous(), None)


def _pack_fbgemm(codes: Tensor, scale: Tensor) -> torch.ScriptObject:
    engine = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch's quantized tensors are deprecated; where they are gone, so is this kernel
        zeros = torch.zeros(len(scale), dtype=torch.int64)
        weight = torch._make_per_channel_quantized_tensor(codes.contiguous(), scale.double(), zeros, 0)
    try:
        torch.backends.quantized.engine = "fbgemm"
        return torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = engine


PACK = {ONEDNN: _pack, FBGEMM: _pack_fbgemm}
UNPACK = {
    ONEDNN: lambda held: held.to_dense().t().contiguous(),
    FBGEMM: lambda held: torch.ops.quantized.linear_unpack(held)[0].int_repr(),
}


def _multiply(codes: Tensor, held: Tensor, scale: Tensor, zero_point: int = 0) -> Tensor:
    """uint8 codes (M, K) less zero_point by the packed weight: exact in int32, as float32 times the outputs' scales."""
    zero = torch.zeros((), dtype=torch.int64).expand(len(scale))
    return torch.ops.onednn.qlinear_pointwise.default(
        codes, 1.0, zero_point, held, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )


def _multiply_fbgemm(codes: Tensor, held: torch.ScriptObject, zero_point: int = 0) -> Tensor:
    """As `_multiply`. The operator quantizes its input: with a scale of 1, whole numbers stay what they are."""
    steps = codes.to(torch.float32)
    steps = steps.sub_(zero_point) if zero_point else steps
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default(steps, 1.0, zero_point, held)


@probes.probe(FBGEMM)
def _fbgemm_is_exact(device: str) -> bool:
    a, b = probes.largest_codes(device)
    codes = a.view(torch.uint8)
    expected = ((codes.long() - 100) @ b.long().t()).to(torch.float32)
    return torch.equal(_multiply_fbgemm(codes, _pack_fbgemm(b, torch.ones(len(b))), 100), expected)


@probes.probe(ONEDNN)
def _onednn_is_exact(device: str) -> bool:
    a, b = probes.largest_codes(device)
    codes = a.view(torch.uint8)
    expected = (codes.long() @ b.long().t()).to(torch.float32)
    return torch.equal(_multiply(codes, _pack(b, torch.ones(len(b))), torch.ones(len(b))), expected)
