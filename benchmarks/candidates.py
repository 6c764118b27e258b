"""The candidates: the same symmetric int8 quantization, codes -127 to 127, by labutils, torchao and torch.

A candidate is a dict of steps from a tensor to its reconstruction: phase -> f(x, result of the previous step).
"""

import torch
from torchao.quantization import quant_primitives as torchao

from labutils.arrays.affine import choose_qparams, dequantize, quantize
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme

GRANULARITIES = {
    "per tensor": PerTensor(),
    "per axis 0": PerAxis(0),
    "per axis 1": PerAxis(1),
    "groups of 128": PerGroup(128),
    "groups of 32": PerGroup(32),
}
LOW, HIGH = -127, 127


def labutils_steps(granularity, shape):
    scheme = Scheme(granularity=granularity)
    return {
        "choose": lambda x, _: choose_qparams(x, scheme),
        "quantize": lambda x, qparams: quantize(x, scheme, qparams),
        "dequantize": lambda x, quantized: dequantize(quantized),
    }


def labutils_numpy_steps(granularity, shape):
    """The same functions on a NumPy array that shares the tensor's memory."""
    steps = labutils_steps(granularity, shape)
    return {phase: lambda x, previous, step=step: step(x.numpy(), previous) for phase, step in steps.items()}


def torchao_steps(granularity, shape):
    """The public primitives, called as in their documentation: they apply a zero point of 0."""
    block = block_of(granularity, shape)
    steps = {
        "quantize": lambda x, scale, zero: torchao.quantize_affine(x, block, scale, zero, torch.int8, LOW, HIGH),
        "dequantize": lambda q, scale, zero: torchao.dequantize_affine(q, block, scale, zero, torch.int8, LOW, HIGH),
    }
    return _torchao(block, **steps)


def torchao_no_zero_steps(granularity, shape):
    """The private variants without a zero point: the least work that torchao can do for a symmetric quantizer."""
    quantize_affine = torchao._quantize_affine_no_zero_point
    dequantize_affine = torchao._dequantize_affine_no_zero_point
    block = block_of(granularity, shape)
    steps = {
        "quantize": lambda x, scale, _: quantize_affine(x, block, scale, None, torch.int8, LOW, HIGH),
        "dequantize": lambda q, scale, _: dequantize_affine(q, block, scale, None, torch.int8, LOW, HIGH),
    }
    return _torchao(block, **steps)


def _torchao(block, quantize, dequantize):
    symmetric = torchao.MappingType.SYMMETRIC
    return {
        "choose": lambda x, _: torchao.choose_qparams_affine(x, symmetric, block, torch.int8, LOW, HIGH),
        "quantize": lambda x, qparams: (quantize(x, *qparams), *qparams),
        "dequantize": lambda x, quantized: dequantize(*quantized),
    }


def torch_steps(granularity, shape):
    """torch's fused fake-quantize, which makes no codes, with the scale computed here.

    For groups, the tensor is viewed as one group per row, and a group is a channel.
    """
    axis = granularity.axis if isinstance(granularity, PerAxis) else 0
    viewed = (-1, granularity.group_size) if isinstance(granularity, PerGroup) else shape
    reduced = (0, 1) if isinstance(granularity, PerTensor) else 1 - axis

    def choose(x, _):
        x = x.view(viewed)
        return torch.maximum(x.amax(reduced), -x.amin(reduced)) / HIGH

    def fake_quantize(x, scale):
        zero = torch.zeros_like(scale, dtype=torch.int32)
        if scale.ndim == 0:
            return torch.fake_quantize_per_tensor_affine(x, scale, zero, LOW, HIGH)
        return torch.fake_quantize_per_channel_affine(x.view(viewed), scale, zero, axis, LOW, HIGH).view(shape)

    return {"choose": choose, "quantize + dequantize": fake_quantize}


def block_of(granularity, shape):
    """torchao's block size: the shape of a block that shares a scale."""
    rows, columns = shape
    if isinstance(granularity, PerTensor):
        return rows, columns
    if isinstance(granularity, PerAxis):
        return (1, columns) if granularity.axis == 0 else (rows, 1)
    return 1, granularity.group_size


CANDIDATES = {
    "labutils": labutils_steps,
    "torchao": torchao_steps,
    "torchao, no zero point": torchao_no_zero_steps,
    "torch": torch_steps,
    "labutils on NumPy": labutils_numpy_steps,
}


def run(steps, x):
    """Run all steps and return the reconstruction."""
    result = None
    for step in steps.values():
        result = step(x, result)
    return torch.as_tensor(result)
