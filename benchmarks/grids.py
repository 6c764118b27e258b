"""Time to quantize a matrix to other grids than integers, beside torchao's block formats."""

from statistics import median
from time import process_time

import torch
from torchao.prototype.mx_formats.mx_tensor import to_mx
from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize
from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import to_nf4

from benchmarks.tables import ratio
from labutils.arrays.affine import quantize
from labutils.arrays.block_formats import FORMATS

THEIRS = {
    "MXFP4": lambda x: to_mx(x, torch.float4_e2m1fn_x2, 32),
    "MXFP8": lambda x: to_mx(x, torch.float8_e4m3fn, 32),
    "NVFP4": lambda x: nvfp4_quantize(x, 16, x.abs().amax() / (448 * 6)),
    "NF4 g64": lambda x: to_nf4(x, 64, 256),  # its scales are quantized, too
}


def table(side=4096, repeats=5, progress=lambda rounds, title: rounds):
    """A row for each format: processor milliseconds from floats to codes and scales, and the ratio; interleaved."""
    x = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    return [row(name, x, repeats) for name in progress(THEIRS, "grids")]


def row(name, x, repeats):
    candidates = {"labutils": lambda x: quantize(x, FORMATS[name]), "torchao": THEIRS[name]}
    samples = {candidate: [] for candidate in candidates}
    for _ in range(repeats + 1):  # the first is to warm up
        for candidate, function in candidates.items():
            start = process_time()
            function(x)
            samples[candidate].append(1e3 * (process_time() - start))
    ms = {candidate: median(taken[1:]) for candidate, taken in samples.items()}
    return {"format": name, **ms, "torchao / labutils": ratio(ms["torchao"], ms["labutils"])}
