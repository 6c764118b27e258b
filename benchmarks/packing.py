"""Packing, unpacking and quantizing in groups, mostly at 4 bits: labutils, torchao and plain torch."""

from statistics import median
from time import perf_counter

import torch
from torchao.prototype.dtypes.uintx.bitpacking import pack_cpu, unpack_cpu
from torchao.prototype.mx_formats.kernels import pack_uint4, unpack_uint4
from torchao.quantization import quant_primitives as torchao

from benchmarks.tables import ratio
from labutils.arrays.packing import pack, unpack
from labutils.labs.answers import dequantize_group, pack_int4, quantize_group, unpack_int4

OURS = "labutils"


def torch_pack_int4(q):
    """The expression that torchao uses to pack int4 weights, with the mask that signed codes need."""
    return (q[..., ::2] & 15 | q[..., 1::2] << 4).to(torch.uint8)


def torch_unpack_int4(packed):
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2).to(torch.int8)
    return (nibbles ^ 8) - 8


def torch_pack_int32(q):
    """The layout of compressed-tensors: eight codes in an int32, with an offset of 8."""
    places = torch.arange(0, 32, 4, dtype=torch.int32)
    return ((q.to(torch.int32) + 8).unflatten(-1, (-1, 8)) << places).sum(-1, dtype=torch.int32)


def torchao_groups(x, group_size):
    block = (1, group_size)
    scale, zero = torchao.choose_qparams_affine(x, torchao.MappingType.SYMMETRIC, block, torch.int8, -7, 7)
    return torchao.quantize_affine(x, block, scale, zero, torch.int8, -7, 7), scale


def torchao_ungroup(q, scale, group_size):
    return torchao.dequantize_affine(q, (1, group_size), scale, None, torch.int8, -7, 7)


def torch_groups(x, group_size):
    groups = x.unflatten(-1, (-1, group_size))
    scale = groups.abs().amax(-1, keepdim=True) / 7
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (groups / scale).round().clamp(-8, 7).to(torch.int8).flatten(-2), scale[..., 0]


def tasks(q, x):
    """task -> implementation -> function. `q` holds 4-bit codes, `x` floats of the same even shape."""
    length = q.shape[-1]
    packed, unsigned = pack_int4(q), q.to(torch.uint8) & 15
    three, two = q >> 1, q >> 2
    packed3, unsigned3, unsigned2 = pack(three, 3), unsigned >> 1, unsigned >> 2
    halves, halves3 = pack_cpu(unsigned, 4), pack_cpu(unsigned3, 3)
    grouped = quantize_group(x, 4, 128)
    return {
        "pack_int4": {
            OURS: lambda: pack_int4(q),
            "labutils on NumPy": lambda: pack_int4(q.numpy()),
            "torchao, its formula": lambda: torch_pack_int4(q),
            "torchao pack_uint4": lambda: pack_uint4(unsigned),
            "torchao pack_cpu, by halves": lambda: pack_cpu(unsigned, 4),
            "torch, compressed-tensors' order": lambda: torch_pack_int32(q),
        },
        "unpack_int4": {
            OURS: lambda: unpack_int4(packed, length),
            "labutils on NumPy": lambda: unpack_int4(packed.numpy(), length),
            "torch": lambda: torch_unpack_int4(packed),
            "torchao unpack_uint4": lambda: unpack_uint4(packed),
            "torchao pack_cpu, by halves": lambda: unpack_cpu(halves, 4),
        },
        "pack 3 bits": {
            OURS: lambda: pack(three, 3),
            "torchao pack_cpu, by halves": lambda: pack_cpu(unsigned3, 3),
        },
        "unpack 3 bits": {
            OURS: lambda: unpack(packed3, 3, length),
            "torchao pack_cpu, by halves": lambda: unpack_cpu(halves3, 3),
        },
        "pack 2 bits": {
            OURS: lambda: pack(two, 2),
            "torchao pack_cpu, by halves": lambda: pack_cpu(unsigned2, 2),
        },
        "quantize_group, g128": {
            OURS: lambda: quantize_group(x, 4, 128),
            "labutils on NumPy": lambda: quantize_group(x.numpy(), 4, 128),
            "torchao": lambda: torchao_groups(x, 128),
            "torch": lambda: torch_groups(x, 128),
        },
        "dequantize_group, g128": {
            OURS: lambda: dequantize_group(*grouped, 128),
            "labutils on NumPy": lambda: dequantize_group(grouped[0].numpy(), grouped[1].numpy(), 128),
            "torchao": lambda: torchao_ungroup(*grouped, 128),
        },
    }


def table(side=4096, repeats=11, progress=lambda rounds, title: rounds):
    """A row for each task and implementation: median milliseconds, and their ratio to those of labutils."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randint(-8, 8, (side, side), generator=generator, dtype=torch.int8)
    x = torch.randn(side, side, generator=generator)
    rows = []
    for task, implementations in progress(tasks(q, x).items(), "packing"):
        times = {name: [] for name in implementations}
        for _ in range(repeats):  # interleaved, A B C A B C ..., so that other load affects all of them
            for name, run in implementations.items():
                start = perf_counter()
                run()
                times[name].append(1e3 * (perf_counter() - start))
        medians = {name: median(milliseconds) for name, milliseconds in times.items()}
        rows += [
            {"what": task, "by": name, "ms": ms, "of labutils": ratio(ms, medians[OURS])}
            for name, ms in medians.items()
        ]
    return rows
