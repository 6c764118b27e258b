"""Products with integer weights, on the kernels that the machine has, and a portable one that gives the same numbers.

Integers beside integers: `int_matmul` multiplies int8 by int8 and adds up in int32, exactly. `Int8Weights`,
`Int4Weights` and `PackedWeights` hold the weight of a linear layer in the form that a kernel wants, and apply it; each
can give its codes back in plain form. A kernel is used where torch has it and where a probe finds it exact: some
processors add pairs of 8-bit products in 16 bits, and saturate. `report()` says which kernel runs here, and why.

Weights are (N, K): N outputs of K inputs each, as in torch.nn.Linear. Activations are (M, K).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

from labutils.arrays import packing
from labutils.arrays.affine import QuantizedArray, dequantize
from labutils.arrays.scheme import PerGroup, Scheme

Tensor = torch.Tensor

MOST_PRODUCTS = 2**17 - 1  # of two int8: the largest, (-128)(-128) = 2^14, so many times fits into int32
MOST_UNSIGNED = 2**16  # of a uint8 and an int8 from -127 to 127: 255 * 127 so many times
EXACT_IN_FLOAT32 = 2**10  # such products: sums up to 2^24 are whole numbers in float32, in whatever order
INT4_GROUPS = (32, 64, 128, 256)  # that torch's int4 kernel knows
INT4_ROWS = 16  # it takes output channels by so many
TILE = 2**18  # weights dequantized at a time where there is no kernel: 1 MB of float32

INT_MM = "torch._int_mm"
ONEDNN = "oneDNN, packed once"
INT4PACK = "torch int4pack, bfloat16"
PORTABLE = "portable"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: on small tensors and busy machines, several mostly wait for one another.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- integers by integers ---------------------------------------------------------------------------------------------


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
            raise TypeError(f"{name} must be an int8 tensor, got {what(matrix)}")
        if matrix.ndim != 2:
            raise ValueError(f"{name} must have two axes, got shape {tuple(matrix.shape)}")
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"a has {a.shape[1]} columns, but b has {b.shape[0]} rows")
    _require_room(a.shape[1], MOST_PRODUCTS)
    return _float_blocks(a, b) if _why_not_int_mm(a, b) else torch._int_mm(_laid_out(a), _laid_out(b))


def _laid_out(matrix: Tensor) -> Tensor:
    """A matrix in rows, or a transposed one: of other views `_int_mm` reads what lies beside them (torch 2.13)."""
    rows, columns = matrix.shape
    transposed = min(rows, columns) > 1 and matrix.stride() == (1, rows)
    if transposed or matrix.stride() == (columns, 1):
        return matrix
    return matrix.clone(memory_format=torch.contiguous_format)


def _float_blocks(a: Tensor, b: Tensor) -> Tensor:
    """The portable kernel: float products of so few columns at a time that every sum is a whole number."""
    total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.int32, device=a.device)
    for start in range(0, a.shape[1], EXACT_IN_FLOAT32):
        block = slice(start, start + EXACT_IN_FLOAT32)
        total += (a[:, block].to(torch.float32) @ b[block].to(torch.float32)).to(torch.int32)
    return total


def _why_not_int_mm(a: Tensor, b: Tensor) -> str:
    if 0 in a.shape or 0 in b.shape:
        return "nothing to multiply"
    if a.device.type == "cuda" and (a.shape[0] <= 16 or a.shape[1] % 8 or b.shape[1] % 8):
        return "on CUDA it wants more than 16 rows, and K and N divisible by 8"
    return _inexact(INT_MM, a.device.type)


def _require_room(length: int, most: int) -> None:
    if length > most:
        raise ValueError(f"sums of {length} products may not fit into int32; at most {most} do")


@cache
def _inexact(kernel: str, device: str) -> str:
    """Why a kernel is not to be trusted on a device: "" where a probe with the largest codes comes out exact."""
    try:
        return "" if PROBES[kernel](device) else f"{kernel} is not exact here"
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        return f"{kernel} does not run here ({str(error).splitlines()[0]})"


def _extremes(device: str) -> tuple[Tensor, Tensor]:
    """Codes (32, 64) and (64, 64) whose products are as large as they get: the first to saturate."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-128, 128, (rows, 64), generator=generator, dtype=torch.int8) for rows in (32, 64))
    a[:2], a[2:4], a[4:6], b[:2], b[2:4] = 127, -127, -1, 127, -128  # -1 is 255 where unsigned
    return a.to(device), b.to(device)


def _int_mm_is_exact(device: str) -> bool:
    a, b = _extremes(device)
    return torch.equal(torch._int_mm(a, b.t()).cpu().long(), a.cpu().long() @ b.cpu().long().t())


def _onednn_is_exact(device: str) -> bool:
    a, b = _extremes(device)
    codes = a.view(torch.uint8)
    expected = (codes.long() @ b.long().t()).to(torch.float32)
    return torch.equal(_onednn(codes, _pack_onednn(b), torch.ones(len(b))), expected)


def _int4pack_is_right(device: str) -> bool:
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(64, 4)  # (64, 64)
    return torch.equal(_unpack_int4(_pack_int4(codes), codes.shape[1]), codes)


PROBES: dict[str, Callable[[str], bool]] = {
    INT_MM: _int_mm_is_exact,
    ONEDNN: _onednn_is_exact,
    INT4PACK: _int4pack_is_right,
}


def report(device: str = "cpu") -> str:
    """Which kernels run on a device, and why not the others, a line each.

    >>> print(report())  # doctest: +SKIP
    int_matmul   torch._int_mm
    Int8Weights  oneDNN, packed once
    Int4Weights  torch int4pack, bfloat16
    """
    int_mm = (INT_MM, _inexact(INT_MM, device))
    kernels = {
        "int_matmul": [int_mm],
        "Int8Weights": [(ONEDNN, _why_not_onednn(device)), int_mm],
        "Int4Weights": [(INT4PACK, _why_not_int4pack(INT4_ROWS, INT4_GROUPS[0], PerGroup(INT4_GROUPS[0]), device))],
    }
    return "\n".join(f"{what:<12} {_chosen(choice)}" for what, choice in kernels.items())


def _chosen(kernels: list[tuple[str, str]]) -> str:
    """The first kernel with nothing against it, and what was against those before it."""
    reasons = []
    for name, why_not in [*kernels, (PORTABLE, "")]:
        if not why_not:
            return name + (f" ({'; '.join(reasons)})" if reasons else "")
        reasons.append(why_not)
    raise AssertionError("the portable kernel always runs")


# --- 8-bit weights, 8-bit activations ---------------------------------------------------------------------------------


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """8-bit codes of each row, its scale and its zero point: (M, K) float32 -> (M, K) uint8, (M, 1) and (M, 1) float32.

    >>> quantize_rows(torch.tensor([[2.0, -0.55, 0.25]]))
    (tensor([[255,   0,  80]], dtype=torch.uint8), tensor([[0.0100]]), tensor([[55.]]))

    The numbers of `affine.quantize(x, Scheme(8, symmetric=False, granularity=PerAxis(0)))`, in fewer passes and
    unchecked, since it stands before every layer. A row with a NaN has the scale NaN.
    """
    low, high = x.amin(1, keepdim=True).clamp_(max=0), x.amax(1, keepdim=True).clamp_(min=0)
    scale = (high / 255 - low / 255).clamp_min_(torch.finfo(torch.float32).smallest_normal)
    zero_point = (-low / scale).round_()
    # torch casts to int8 six times as fast as to uint8: less 128, and the top bit turned back.
    steps = (x / scale).round_().add_(zero_point - 128).clamp_(-128, 127)
    return steps.to(torch.int8).view(torch.uint8).bitwise_xor_(128), scale, zero_point


class Int8Weights:
    """An 8-bit weight, one scale for each output: W8A8, with a scale and zero point for each row of activations.

    codes   (N, K) int8
    scale   (N,) float32
    kernel  which one multiplies here
    """

    def __init__(self, codes: Tensor, scale: Tensor):
        _require_room(codes.shape[1], MOST_UNSIGNED)
        self.shape, self.device = tuple(codes.shape), codes.device
        self.scale = scale.to(torch.float32)
        self._sums = codes.sum(1, dtype=torch.int32)  # (N,), what a zero point of 1 would add
        packed = not _why_not_onednn(codes.device.type)
        self.kernel = ONEDNN if packed else PORTABLE if _inexact(INT_MM, codes.device.type) else INT_MM
        self._held = _pack_onednn(codes) if packed else codes

    def plain(self) -> dict[str, Tensor]:
        """The arguments from which this was made."""
        codes = self._held.to_dense().t().contiguous() if self.kernel == ONEDNN else self._held
        return {"codes": codes, "scale": self.scale}

    @property
    def nbytes(self) -> int:
        return self._held.numel() + self.scale.nbytes + self._sums.nbytes

    def linear(self, x: Tensor) -> Tensor:
        """x @ weight.T for float32 `x` (M, K) -> (M, N) float32: quantize, multiply integers, rescale."""
        codes, row_scale, zero_point = quantize_rows(x)
        # sum (q - zero_point) w = sum q w - zero_point sum w
        return self.multiply(codes).addr_(zero_point[:, 0], self._sums * self.scale, alpha=-1).mul_(row_scale)

    def multiply(self, codes: Tensor, zero_point: int = 0) -> Tensor:
        """(codes - zero_point) @ weight.T for uint8 (M, K) -> (M, N) float32: exact in int32, then made float32."""
        if self.kernel == ONEDNN:
            return _onednn(codes, self._held, self.scale, zero_point)
        moved = (codes ^ 128).view(torch.int8)  # `int_matmul` takes int8: q - 128
        products = int_matmul(moved, self._held.t()).add_(self._sums * (128 - zero_point))
        return products.to(torch.float32).mul_(self.scale)

    def dequantize(self) -> Tensor:
        """The weight as float32 (N, K)."""
        return self.plain()["codes"] * self.scale[:, None]


def _why_not_onednn(device: str) -> str:
    if device != "cpu":
        return f"it works on the CPU, not on {device}"
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"it is made for x86, this is {platform.machine()}"
    return _inexact(ONEDNN, device)


def _pack_onednn(codes: Tensor) -> Tensor:
    return torch.ops.onednn.qlinear_prepack(codes.contiguous(), None)


def _onednn(codes: Tensor, held: Tensor, scale: Tensor, zero_point: int = 0) -> Tensor:
    """uint8 codes (M, K) less zero_point by the packed weight: exact in int32, as float32 times the outputs' scales."""
    zero = torch.zeros((), dtype=torch.int64).expand(len(scale))
    return torch.ops.onednn.qlinear_pointwise(
        codes, 1.0, zero_point, held, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )


# --- packed weights, float activations --------------------------------------------------------------------------------


def hold_packed(
    packed: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, length: int
) -> PackedWeights | Int4Weights:
    """A packed weight (see `PackedWeights`) in the form that multiplies fastest here."""
    fits = scheme.num_bits == 4 and not _why_not_int4pack(len(packed), length, scheme.granularity, packed.device.type)
    return (Int4Weights if fits else PackedWeights)(packed, scale, zero_point, scheme, length)


class PackedWeights:
    """A weight of 2 to 8 bits in real bytes, groups along K; dequantized a few rows at a time to be multiplied.

    packed      (N, ceil(K * num_bits / 8)) uint8, as `packing.pack` makes it
    scale       (N, groups) bfloat16: the 16 bits that lab 04 counts
    zero_point  (N, groups) uint8, or None where codes are symmetric
    scheme      its num_bits, symmetry and groups
    length      K
    """

    kernel = PORTABLE

    def __init__(self, packed: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, length: int):
        self.shape, self.device = (len(packed), length), packed.device
        self.packed, self.scale, self.zero_point, self.scheme = packed, scale, zero_point, scheme

    def plain(self) -> dict[str, Tensor]:
        """Codes, scales and zero points in a form that is the same on every machine."""
        held = {"packed": self.packed, "scale": self.scale}
        return held if self.zero_point is None else held | {"zero_point": self.zero_point}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.plain().values())

    def linear(self, x: Tensor) -> Tensor:
        """x @ weight.T for `x` (M, K) -> (M, N), in the dtype of `x`."""
        out = x.new_empty(x.shape[0], self.shape[0])
        for rows in self._tiles():
            out[:, rows] = x @ self._rows(rows).to(x.dtype).t()
        return out

    def dequantize(self) -> Tensor:
        """The weight as float32 (N, K)."""
        return torch.cat([self._rows(rows) for rows in self._tiles()])

    def _tiles(self) -> list[slice]:
        step = max(1, TILE // self.shape[1])
        return [slice(row, row + step) for row in range(0, self.shape[0], step)]

    def _rows(self, rows: slice) -> Tensor:
        codes = packing.unpack(self.packed[rows], self.scheme.num_bits, self.shape[1], signed=self.scheme.symmetric)
        zero_point = 0 if self.zero_point is None else self.zero_point[rows].to(torch.int32)
        scale = self.scale[rows].to(torch.float32)
        return dequantize(QuantizedArray(codes, scale, zero_point, self.scheme, torch.float32))


class Int4Weights:
    """`PackedWeights` of 4 bits, laid out for torch's int4 kernel, which unpacks the codes where it multiplies.

    The kernel works in bfloat16: activations and results are rounded to 8 significant bits. It wants a zero beside
    each scale, 16 bits more for each group, in steps from code 8: weight = (code - 8) * scale + zero.
    """

    kernel = INT4PACK

    def __init__(self, packed: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: Scheme, length: int):
        self.shape, self.device, self.scheme = (len(packed), length), packed.device, scheme
        codes = packing.unpack(packed, 4, length, signed=scheme.symmetric)
        codes = codes if scheme.symmetric else (codes.view(torch.int8) - 8)
        zero = torch.zeros_like(scale) if zero_point is None else (8 - zero_point.to(torch.float32)) * scale
        self._codes, self._scales = _pack_int4(codes), torch.stack([scale.t(), zero.t().to(scale.dtype)], -1)

    def plain(self) -> dict[str, Tensor]:
        """The arguments `packed`, `scale` and `zero_point` from which this was made."""
        codes = _unpack_int4(self._codes, self.shape[1])
        scale, zero = self._scales.transpose(0, 1).contiguous().unbind(-1)  # (N, groups) each
        if self.scheme.symmetric:
            return {"packed": packing.pack(codes, 4), "scale": scale.contiguous()}
        zero_point = (8 - zero.to(torch.float32) / scale.to(torch.float32)).round().to(torch.uint8)
        packed = packing.pack((codes + 8).view(torch.uint8), 4)
        return {"packed": packed, "scale": scale.contiguous(), "zero_point": zero_point}

    @property
    def nbytes(self) -> int:
        return self._codes.nbytes + self._scales.nbytes

    def linear(self, x: Tensor) -> Tensor:
        """x @ weight.T for `x` (M, K) -> (M, N), in the dtype of `x`."""
        group_size = self.shape[1] // len(self._scales)
        return _multiply_int4(x.to(torch.bfloat16), self._codes, group_size, self._scales).to(x.dtype)

    def dequantize(self) -> Tensor:
        """The weight as float32 (N, K)."""
        plain = {"zero_point": None} | self.plain()
        return PackedWeights(**plain, scheme=self.scheme, length=self.shape[1]).dequantize()


def _why_not_int4pack(rows: int, length: int, granularity: PerGroup, device: str) -> str:
    size = min(granularity.group_size, length)
    if device != "cpu":
        return f"it works on the CPU, not on {device}"
    if size not in INT4_GROUPS or length % size or rows % INT4_ROWS:
        return (
            f"it wants groups of {', '.join(map(str, INT4_GROUPS))} that divide K, and N divisible by {INT4_ROWS}, "
            f"got groups of {size}, K = {length} and N = {rows}"
        )
    return _inexact(INT4PACK, device)


def _pack_int4(codes: Tensor) -> Tensor:
    """(N, K) codes from -8 to 7, in an order of bytes that differs from processor to processor."""
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32) + 8, 1)


def _unpack_int4(held: Tensor, length: int) -> Tensor:
    """Undo `_pack_int4` whatever the order: the rows of the identity, multiplied, give the codes back."""
    ones = torch.ones(length // INT4_GROUPS[0], len(held), 1, dtype=torch.bfloat16)
    scales = torch.cat([ones, torch.zeros_like(ones)], -1)
    codes = torch.empty(len(held), length, dtype=torch.int8)
    for start in range(0, length, 256):
        rows = torch.eye(length, dtype=torch.bfloat16)[start : start + 256]
        codes[:, start : start + 256] = _multiply_int4(rows, held, INT4_GROUPS[0], scales).t().to(torch.int8)
    return codes


def _multiply_int4(x: Tensor, held: Tensor, group_size: int, scales: Tensor) -> Tensor:
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, held, group_size, scales)


def what(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
