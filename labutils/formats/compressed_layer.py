"""How compressed-tensors (the format of transformers and vLLM) stores one quantized weight.

| scheme | format | tensors |
|---|---|---|
| integers of 2 to 8 bits | pack-quantized | weight_packed int32, weight_scale, weight_shape, weight_zero_point int32 |
| 8-bit integers, 8-bit activations | int-quantized | weight int8, weight_scale |
| `FP8` | float-quantized | weight float8_e4m3fn, weight_scale |
| `MXFP8` | mxfp8-quantized | weight float8_e4m3fn, weight_scale uint8: the exponents |
| `MXFP4` | mxfp4-pack-quantized | weight_packed uint8, weight_scale uint8 |
| `NVFP4` | nvfp4-pack-quantized | weight_packed uint8, weight_scale float8_e4m3fn, weight_global_scale |

Source: github.com/vllm-project/compressed-tensors, version 0.20.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.torch as array_torch
import torch

from labutils.arrays import packing
from labutils.arrays.affine import QuantizedArray
from labutils.arrays.grids import E2M1, E4M3, E8M0, Integers
from labutils.arrays.inputs import Array, bit_width, code_array
from labutils.arrays.scales import scale_codes
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme

Tensor = torch.Tensor

PACKED, INTEGERS, FLOATS = "pack-quantized", "int-quantized", "float-quantized"
BLOCKS = {  # grid, grid of scales, group: format, strategy, dtype of stored scales
    (E4M3, E8M0, 32): ("mxfp8-quantized", "group", "torch.uint8"),
    (E2M1, E8M0, 32): ("mxfp4-pack-quantized", "group", "torch.uint8"),
    (E2M1, E4M3, 16): ("nvfp4-pack-quantized", "tensor_group", "torch.float8_e4m3fn"),
}


def pack_int32(q: Array, num_bits: int = 4) -> Array:
    """Pack signed codes along the last axis into 32-bit words, first code lowest: (..., n) -> (..., ceil(n b / 32)).

    >>> word = pack_int32(np.array([[-8, -7, 0, 7, 0, 0, 0, 0]], dtype=np.int8))
    >>> f"{word.view(np.uint32)[0, 0]:08x}"  # from the right: -8 + 8, -7 + 8, 0 + 8, 7 + 8, ...
    '8888f810'

    Each code is stored as the unsigned q + 2^(b-1). At 4 bits eight codes make a word; at other widths from 2 to 8
    codes follow each other without a gap, across words. The last word of a row is filled up with zeros. int32, in the
    library of `q`. TypeError for codes that are not of a signed integer dtype, ValueError for one outside its range.
    """
    bits = bit_width(num_bits, packing.MAX_BITS, "to be packed")
    xp, q = code_array(q)
    if not xp.isdtype(q.dtype, "signed integer"):
        raise TypeError(f"q must have a signed integer dtype, got {q.dtype}")
    if not q.shape:
        raise ValueError("q needs at least one axis to be packed along, got an array of shape ()")
    low, high, half = int(xp.min(q)), int(xp.max(q)), 2 ** (bits - 1)
    if low < -half or high >= half:
        raise ValueError(
            f"signed {bits}-bit codes lie between {-half} and {half - 1}, but q holds {low if low < -half else high}"
        )
    packed = packing.pack(xp.astype(xp.astype(q, xp.int16) + half, xp.uint8), bits)
    words = xp.zeros(
        (*packed.shape[:-1], -(-packed.shape[-1] // 4) * 4), dtype=xp.uint8, device=array_api_compat.device(packed)
    )
    words[..., : packed.shape[-1]] = packed
    return words.view(xp.int32)


def format_of(scheme: Scheme, int8_inputs: bool = False) -> str:
    """The name of the format that stores a linear layer's weight of `scheme`.

    >>> format_of(Scheme(4, granularity=PerGroup(32)))
    'pack-quantized'

    ValueError for what compressed-tensors does not have: more than 8 bits, codebooks, scales per column.
    """
    if isinstance(scheme.grid, Integers):
        if scheme.num_bits > 8:
            raise ValueError(f"compressed-tensors holds integers of 2 to 8 bits, got {scheme.num_bits}")
        return INTEGERS if int8_inputs else PACKED
    if block := BLOCKS.get(_block(scheme)):
        return block[0]
    if scheme.grid == E4M3 and scheme.scale_grid is None and not isinstance(scheme.granularity, PerGroup):
        return FLOATS
    raise ValueError(f"compressed-tensors has integers, FP8, MXFP8, MXFP4 and NVFP4, and nothing for {scheme}")


def weight_arguments(scheme: Scheme) -> dict[str, Any]:
    """What config.json says of a weight of `scheme`.

    >>> weight_arguments(Scheme(4, granularity=PerGroup(32)))
    {'num_bits': 4, 'type': 'int', 'symmetric': True, 'dynamic': False, 'strategy': 'group', 'group_size': 32}
    """
    format_of(scheme)
    is_integer = isinstance(scheme.grid, Integers)
    arguments: dict[str, Any] = {"num_bits": scheme.num_bits, "type": "int" if is_integer else "float"}
    arguments |= {"symmetric": scheme.symmetric, "dynamic": False, "strategy": _strategy(scheme)}
    if isinstance(scheme.granularity, PerGroup):
        arguments["group_size"] = scheme.granularity.group_size
    if block := BLOCKS.get(_block(scheme)):
        arguments["scale_dtype"] = block[2]
    return arguments


def stored_weight(quantized: QuantizedArray, int8_inputs: bool = False) -> dict[str, Tensor]:
    """The tensors in which a quantized (outputs, inputs) weight is stored.

    >>> from labutils.arrays.affine import quantize
    >>> quantized = quantize(torch.randn(16, 64), Scheme(4, granularity=PerGroup(32)))
    >>> {name: tuple(tensor.shape) for name, tensor in stored_weight(quantized).items()}
    {'weight_packed': (16, 8), 'weight_scale': (16, 2), 'weight_shape': (2,)}

    No number is changed; scales are stored in 16 bits where these hold them. ValueError for what the format lacks.
    """
    scheme, codes = quantized.scheme, quantized.codes
    stored_format = format_of(scheme, int8_inputs)
    _require_whole_groups(codes, scheme)
    if block := BLOCKS.get(_block(scheme)):
        exponents_or_scales, unit = scale_codes(array_torch, quantized.scale, scheme)
        dtype = getattr(torch, block[2].removeprefix("torch."))
        stored = _float_codes(codes, scheme) | {"weight_scale": exponents_or_scales.to(torch.uint8).view(dtype)}
        return stored if unit is None else stored | {"weight_global_scale": (1 / unit).reshape(1).to(torch.float32)}
    in_rows = (-1,) if isinstance(scheme.granularity, PerTensor) else (len(codes), -1)
    scale = quantized.scale.reshape(in_rows)
    # Transformers can only read zero points by dequantizing as it loads, which it does in the dtype of the scales.
    scale = {"weight_scale": in_16_bits(scale) if scheme.symmetric else scale}
    if stored_format == FLOATS:
        return _float_codes(codes, scheme) | scale
    codes = _signed(codes, scheme)
    if stored_format == INTEGERS:
        return {"weight": codes.contiguous()} | scale
    stored = {"weight_packed": pack_int32(codes, scheme.num_bits), **scale, "weight_shape": torch.tensor(codes.shape)}
    if not scheme.symmetric:  # zero points are packed down the columns
        zero_point = _signed(quantized.zero_point.reshape(in_rows), scheme)
        stored["weight_zero_point"] = pack_int32(zero_point.t().contiguous(), scheme.num_bits).t().contiguous()
    return stored


def in_16_bits(scale: Tensor) -> Tensor:
    """`scale` in bfloat16 or float16 where that holds every one of its numbers, else as it is."""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal((narrow := scale.to(dtype)).to(scale.dtype), scale):
            return narrow
    return scale


def _float_codes(codes: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """Bit patterns: a byte each of 8 bits, two to a byte of 4."""
    if scheme.num_bits == 8:
        return {"weight": codes.contiguous().view(torch.float8_e4m3fn)}
    return {"weight_packed": packing.pack(codes, scheme.num_bits)}


def _signed(codes: Tensor, scheme: Scheme) -> Tensor:
    """Unsigned codes, moved to the signed range: 0 becomes -2^(b-1)."""
    return codes if scheme.symmetric else (codes.to(torch.int16) - 2 ** (scheme.num_bits - 1)).to(torch.int8)


def _block(scheme: Scheme) -> tuple:
    return scheme.grid, scheme.scale_grid, getattr(scheme.granularity, "group_size", None)


def _strategy(scheme: Scheme) -> str:
    if block := BLOCKS.get(_block(scheme)):
        return block[1]
    match scheme.granularity:
        case PerGroup():
            return "group"
        case PerAxis(0) | PerAxis(-2):
            return "channel"
        case PerTensor() if scheme.symmetric:
            return "tensor"
    raise ValueError(
        "compressed-tensors has scales per group, per output (PerAxis(0)) and, without zero points, per tensor, got "
        f"{scheme.granularity}"
    )


def _require_whole_groups(codes: Tensor, scheme: Scheme) -> None:
    size = getattr(scheme.granularity, "group_size", 1)
    if codes.shape[-1] % size:
        raise ValueError(f"compressed-tensors has no short groups: {size} does not divide {codes.shape[-1]} inputs")
