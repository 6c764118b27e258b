"""int8 linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import place
from labutils.labs import answers
from labutils.labs.lab03.quantize_per_token import quantize_per_token
from labutils.labs.lab05 import LESSON
from labutils.labs.lab05._shared import _pooled, _trained
from labutils.labs.lab05.quantized_matmul import _read_product, quantized_matmul

Array = Any  # a numpy.ndarray or a torch.Tensor


def int8_linear(x: Array, w_q: Array, w_scale: Array, bias: Array | None = None) -> Array:
    """x @ (w_scale * w_q).T + bias, with symmetric 8-bit codes for each row of `x`, found as it comes (W8A8, dynamic).

    >>> import torch
    >>> w_q = torch.tensor([[1, 2], [-3, 127]], dtype=torch.int8)
    >>> int8_linear(torch.tensor([[1.27, 0.5]]), w_q, torch.tensor([0.1, 0.01]))
    tensor([[0.2270, 0.5969]])

    x (..., K) floats, w_q (N, K) int8, w_scale (N,), bias (N,) or None -> (..., N) float32. Torch tensors. A row of
    zeros gives the bias. TypeError for an `x` that holds no floats, ValueError for shapes that do not match.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must hold floats, got dtype {x.dtype}")
    if not x.ndim or x.shape[-1] != w_q.shape[-1] or w_scale.shape != (len(w_q),):
        raise ValueError(
            f"expected x (..., K), w_q (N, K) and w_scale (N,), got shapes {tuple(x.shape)}, {tuple(w_q.shape)} and "
            f"{tuple(w_scale.shape)}"
        )
    rows = x.detach().reshape(-1, x.shape[-1]).float()
    y = rows.new_zeros(len(rows), len(w_q))
    if len(rows):
        q, row_scale = quantize_per_token(rows)
        y = quantized_matmul(q, row_scale, w_q.t(), w_scale)
    y = y.reshape(*x.shape[:-1], len(w_q))
    return y if bias is None else y + bias


def _int8_cases() -> list[Case]:
    rng = np.random.default_rng(56)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def layer(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w = normal(rows, columns) * np.geomspace(0.1, 1, rows, dtype=np.float32)[:, None]
        return *answers.quantize_per_channel(w, 0), normal(rows)

    head, head_bias = _trained("head")
    hand = (np.array([[1, 2], [-3, 127]], np.int8), np.array([0.1, 0.01], np.float32), None)
    loud = normal(6, 20) * np.geomspace(0.01, 100, 6, dtype=np.float32)[:, None]
    silent = normal(3, 20)
    silent[1] = 0
    largest = (np.full((3, 600), 127, np.int8), np.array([0.01, 0.02, 0.03], np.float32), normal(3))
    cases = {
        "the worked example": (np.array([[1.27, 0.5]], np.float32), *hand),
        "the head of the digits network": (_pooled(), *answers.quantize_per_channel(head, 0), head_bias),
        "rows from quiet to loud": (loud, *layer(8, 20)),
        "square, rows from quiet to loud": (loud[:, :6].copy(), *layer(6, 6)),
        "no bias": (normal(4, 12), *layer(5, 12)[:2], None),
        "a row that is all zero": (silent, *layer(4, 20)),
        "the largest values are negative": (-np.abs(normal(3, 12)), *layer(4, 12)),
        "x with one axis": (normal(12), *layer(4, 12)),
        "x with three axes": (normal(2, 3, 12), *layer(4, 12)),
        "one input": (normal(5, 1), *layer(4, 1)),
        "600 of the largest codes": (np.ones((2, 600), np.float32), *largest),
        "an empty batch": (normal(0, 12), *layer(4, 12)),
    }
    return [Case(name, args) for name, args in cases.items()]


def _use_tensors(submission: Callable, *arrays: np.ndarray | None) -> Any:
    """The submission's answer to tensors, which share their memory with the arrays: a change of them shows."""
    import torch

    return submission(*(None if array is None else torch.from_numpy(array) for array in arrays))


def _row_codes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = np.abs(x).max(axis=-1, keepdims=True) / np.float32(127)
    scale = np.where(scale == 0, np.float32(1), scale)
    return np.round(x / scale), scale


def _judge_int8(answer: dict, case: Case) -> None:
    x, w_q, w_scale, bias = case.args
    y, shape = answer["y"], (*x.shape[:-1], len(w_q))
    if y.shape != shape:
        raise Wrong(f"for x of shape {x.shape} the result should have shape {shape}, but it has {y.shape}")
    if y.dtype.kind != "f":
        raise Wrong(f"the result should hold floats, but its dtype is {y.dtype}")
    steps, scale = _row_codes(x)
    sums = steps @ w_q.T.astype(np.float64)
    expected = sums * scale * w_scale + (0 if bias is None else bias)
    slack = 2**-20 * (np.abs(sums * scale * w_scale) + (0 if bias is None else np.abs(bias)))
    bad = ~(np.abs(y - expected) <= slack)
    if bad.any():
        worst = tuple(np.argwhere(bad)[0])
        raise Wrong(
            f"result[{place(worst)}] should be {expected[worst]:.7g}, the integer {sums[worst]:.0f} times its two "
            f"scales{'' if bias is None else ' plus the bias'}, but it is {y[worst]:.7g}"
        )


def _int8(
    span: Callable = lambda x: np.abs(x).max(axis=-1, keepdims=True),
    divisor: float = 127,
    zero: Callable = lambda scale: np.where(scale == 0, np.float32(1), scale),
    to_codes: Callable = np.round,
    total: Callable = lambda q, w: q.astype(np.int64) @ w.T.astype(np.int64),
    rescale: Callable = lambda sums, x_scale, w_scale, bias: sums * (x_scale * w_scale) + bias,
) -> Callable:
    """An integer layer in which one step can be replaced by a wrong one. It works on arrays; tensors come in."""

    def int8_linear(x, w_q, w_scale, bias):
        import torch

        x, w, w_scale = x.numpy(), w_q.numpy(), w_scale.numpy()
        b = np.float32(0) if bias is None else bias.numpy()
        if not x.size:
            return torch.zeros(*x.shape[:-1], len(w))
        x_scale = zero(span(x) / np.float32(divisor))
        q = np.clip(to_codes(x / x_scale), -128, 127)
        return torch.from_numpy(np.asarray(rescale(total(q, w), x_scale, w_scale, b), np.float32))

    return int8_linear


def _returning(change: Callable) -> Callable:
    right = _int8()
    return lambda x, w_q, w_scale, bias: change(right(x, w_q, w_scale, bias), x)


def _dequantized_linear(x, w_q, w_scale, bias):
    y = x @ (w_q * w_scale[:, None]).t()
    return y if bias is None else y + bias


def _only_matrices(x, w_q, w_scale, bias):
    if x.ndim != 2:
        raise ValueError("x must have two axes")
    return int8_linear(x, w_q, w_scale, bias)


def _raises_runtime(x, w_q, w_scale, bias):
    if x.ndim != 2:
        raise RuntimeError("self must be a matrix")
    return int8_linear(x, w_q, w_scale, bias)


MATRICES = (
    "only matrices can come in",
    "Integer kernels take matrices, but x may have one axis, or three. Make rows of it, and give its axes back at the "
    "end.",
)


INT8_LINEAR = (
    Misconception(
        "one scale for all rows",
        _int8(span=lambda x: np.abs(x).max()),
        "The loudest row sets the scale for all of them, and quiet rows become 0. Take the maximum of each row: the "
        "scale of a row leaves the sum.",
    ),
    Misconception(
        "a scale for each feature",
        _int8(
            span=lambda x: np.abs(x).max(axis=tuple(range(x.ndim - 1)), keepdims=True) if x.ndim > 1 else np.abs(x),
            rescale=lambda sums, x_scale, w_scale, bias: sums * (np.mean(x_scale) * w_scale) + bias,
        ),
        "The maximum was taken over the rows, so that each feature has a scale. It varies along the axis that is "
        "summed over, and cannot leave the sum. Take the maximum along the last axis.",
    ),
    Misconception(
        "x stays float",
        _dequantized_linear,
        "This dequantizes the weight and multiplies floats, as `QuantizedLinear` does. Here x gets codes, too, and "
        "integers are multiplied.",
    ),
    Misconception(
        "accumulates in int8",
        _int8(total=lambda q, w: q.astype(np.int8) @ w.T),
        "int8 by int8 in PyTorch is int8, and wraps around. `int_matmul` adds up in int32.",
    ),
    Misconception(
        "accumulates in int16",
        _int8(total=lambda q, w: q.astype(np.int16) @ w.T.astype(np.int16)),
        "Two products of large codes are already too many for 16 bits. Add up in 32.",
    ),
    Misconception(
        "accumulates in float16",
        _int8(total=lambda q, w: (q.astype(np.int64) @ w.T.astype(np.int64)).astype(np.float16).astype(np.float32)),
        "float16 knows whole numbers up to 2048 only. Add up in int32.",
    ),
    Misconception(
        "the scale of the weight is left out",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums * x_scale + bias),
        "A sum counts in steps of the row's scale times the output's scale. Multiply with both.",
    ),
    Misconception(
        "the scale of the row is left out",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums * w_scale + bias),
        "A sum counts in steps of the row's scale times the output's scale. Multiply with both.",
    ),
    Misconception(
        "the scales are left out",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums + bias),
        "The sums are integers, in steps of the row's scale times the output's scale. Multiply with both.",
    ),
    Misconception(
        "divides by the row's scale",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums / x_scale * w_scale + bias),
        "Dividing makes codes of values. On the way back, multiply.",
    ),
    Misconception(
        "the weight's scales lie along the rows",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums * x_scale * w_scale[:, None] + bias),
        "w_scale has a number for each output, and the outputs are the last axis of the result. Shape (N,) lines up "
        "with it by itself.",
    ),
    Misconception(
        "the bias is scaled, too",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: (sums + bias) * (x_scale * w_scale)),
        "The bias is in the units of the result. Rescale first, then add it.",
    ),
    Misconception(
        "the bias is left out",
        _int8(rescale=lambda sums, x_scale, w_scale, bias: sums * (x_scale * w_scale)),
        "A linear layer ends with `+ bias`, where there is one.",
    ),
    Misconception(
        "truncation instead of round",
        _int8(to_codes=np.trunc),
        "Casting to int8 cuts the fraction off. Round before you cast.",
    ),
    Misconception(
        "divides by 128",
        _int8(divisor=128),
        "The largest code is 127. A row whose largest value is positive then loses a whole step.",
    ),
    Misconception(
        "divides by 255",
        _int8(divisor=255),
        "255 counts the steps of the whole grid, but max|x| spans only its positive half: 127 steps.",
    ),
    Misconception(
        "max(x) instead of max|x|",
        _int8(span=lambda x: np.abs(x.max(axis=-1, keepdims=True))),
        "The scale must cover the largest magnitude of the row, and that may be a negative value.",
    ),
    Misconception(
        "the weight is not transposed",
        _int8(total=lambda q, w: q.astype(np.int64) @ w.astype(np.int64)),
        "The weight is (N, K), and rows of x have K values: multiply with its transpose.",
    ),
    Misconception(MATRICES[0], _only_matrices, MATRICES[1]),
    Misconception(MATRICES[0], _raises_runtime, MATRICES[1]),
    Misconception(
        "the result is flattened",
        _returning(lambda y, x: y.reshape(-1, y.shape[-1])),
        "Whatever axes x has before the last one must be there again in the result.",
    ),
)


EXERCISE = Exercise(
    name="int8_linear",
    lab=LESSON,
    place=30,
    points=2,
    reference=int8_linear,
    cases=_int8_cases,
    read=_read_product,
    judge=_judge_int8,
    misconceptions=INT8_LINEAR,
    stretch=True,
    run=_use_tensors,
)
