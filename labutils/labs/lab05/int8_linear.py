"""int8_linear: a linear layer that quantizes each row of activations as it comes, and multiplies integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays.inputs import Array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct, place
from labutils.labs import answers
from labutils.labs.lab03.quantize_per_token import quantize_per_token
from labutils.labs.lab05 import LESSON
from labutils.labs.lab05._head import head, pooled
from labutils.labs.lab05.quantized_matmul import integer_sums, quantized_matmul, read_product
from labutils.labs.recipes import Recipe, Symmetric
from labutils.labs.tensors import NAN_CODES, watching_casts


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


def cases() -> list[Case]:
    rng = np.random.default_rng(56)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    def layer(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w = normal(rows, columns) * np.geomspace(0.1, 1, rows, dtype=np.float32)[:, None]
        return *answers.quantize_per_channel(w, 0), normal(rows)

    weight, bias = head()
    hand = (np.array([[1, 2], [-3, 127]], np.int8), np.array([0.1, 0.01], np.float32), None)
    loud = normal(6, 20) * np.geomspace(0.01, 100, 6, dtype=np.float32)[:, None]
    silent = normal(3, 20)
    silent[1] = 0
    largest = (np.full((3, 600), 127, np.int8), np.array([0.01, 0.02, 0.03], np.float32), normal(3))
    inputs = {
        "the worked example": (np.array([[1.27, 0.5]], np.float32), *hand),
        "the head of the digits network": (pooled(), *answers.quantize_per_channel(weight, 0), bias),
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
        "tiny values": (normal(4, 12) * np.float32(1e-9), *layer(5, 12)[:2], None),
    }
    return [Case(name, args) for name, args in inputs.items()]


def on_tensors(submission: Callable, *arrays: np.ndarray | None) -> Any:
    """The submission's answer to tensors, which share their memory with the arrays: a change of them shows."""
    import torch

    return watching_casts(submission, *(None if array is None else torch.from_numpy(array) for array in arrays))


def read(value: tuple) -> dict:
    answer, casts_nan = value
    seen = read_product(answer)
    if casts_nan:
        raise Wrong(NAN_CODES)
    return seen


rows = Symmetric(span=lambda x: np.abs(x).max(axis=-1, keepdims=True))


def judge(answer: dict, case: Case) -> None:
    x, w_q, w_scale, bias = case.args
    y, shape = answer["y"], (*x.shape[:-1], len(w_q))
    if y.shape != shape:
        raise Wrong(f"for x of shape {x.shape} the result should have shape {shape}, but it has {y.shape}")
    if y.dtype.kind != "f":
        raise Wrong(f"the result should hold floats, but its dtype is {y.dtype}")
    q, scale = rows(x)
    sums = integer_sums(q, w_q.T).astype(np.float64)
    expected = sums * scale * w_scale + (0 if bias is None else bias)
    slack = 2**-20 * (np.abs(sums * scale * w_scale) + (0 if bias is None else np.abs(bias)))
    bad = ~(np.abs(y - expected) <= slack)
    if bad.any():
        worst = tuple(np.argwhere(bad)[0])
        wanted, found = distinct(expected[worst], y[worst], 7)
        raise Wrong(
            f"result[{place(worst)}] should be {wanted}, the integer {sums[worst]:.0f} times its two "
            f"scales{'' if bias is None else ' plus the bias'}, but it is {found}"
        )


@dataclass(frozen=True)
class Dynamic(Recipe):
    """result(rescale(sums(q, w_q), row scale, output scale, bias)) with q and row scale from `quantize`, on arrays."""

    quantize: Callable = rows
    sums: Callable = lambda q, w: integer_sums(q, w.T)
    rescale: Callable = lambda sums, row, output, bias: sums * (row * output) + bias
    result: Callable = lambda y: y

    def __call__(self, x, w_q, w_scale, bias):
        import torch

        x, w, w_scale = x.numpy(), w_q.numpy(), w_scale.numpy()
        bias = np.float32(0) if bias is None else bias.numpy()
        if not x.size:
            return torch.zeros(*x.shape[:-1], len(w))
        q, row_scale = self.quantize(x)
        y = self.rescale(self.sums(q, w), row_scale, w_scale, bias)
        return self.result(torch.from_numpy(np.asarray(y, np.float32)))


right = Dynamic()


def largest_of_features(x):
    return np.abs(x).max(axis=tuple(range(x.ndim - 1)), keepdims=True) if x.ndim > 1 else np.abs(x)


def dequantized(x, w_q, w_scale, bias):
    y = x @ (w_q * w_scale[:, None]).t()
    return y if bias is None else y + bias


def fake_quantized(x, w_q, w_scale, bias):
    scale = x.abs().amax(-1, keepdim=True) / 127
    scale = scale.masked_fill(scale == 0, 1)
    return dequantized((x / scale).round() * scale, w_q, w_scale, bias)


def unguarded(x, w_q, w_scale, bias):
    scale = x.abs().amax(-1, keepdim=True) / 127
    y = ((x / scale).round().char().float() @ w_q.float().t()) * (scale * w_scale)
    return y if bias is None else y + bias


def only_matrices(error: type[Exception]) -> Callable:
    def linear(x, w_q, w_scale, bias):
        if x.ndim != 2:
            raise error("x must be a matrix")
        return int8_linear(x, w_q, w_scale, bias)

    return linear


ONE_SCALE = "A sum counts in steps of the row's scale times the output's scale. Multiply with both."
MATRICES = (
    "Integer kernels take matrices, but x may have one axis, or three. Make rows of it, and give its axes back at the "
    "end."
)

MISCONCEPTIONS = (
    Misconception("one scale for all rows", right.but(quantize=Symmetric()),
        "The loudest row sets the scale for all of them, and quiet rows become 0. Take the maximum of each row: the "
        "scale of a row leaves the sum."),
    Misconception("a scale for each feature",
        right.but(quantize=rows.but(span=largest_of_features),
                  rescale=lambda sums, row, output, bias: sums * (np.mean(row) * output) + bias),
        "The maximum was taken over the rows, so that each feature has a scale. It varies along the axis that is "
        "summed over, and cannot leave the sum. Take the maximum along the last axis."),
    Misconception("x stays float", dequantized,
        "This dequantizes the weight and multiplies floats, as `QuantizedLinear` does. Here x gets codes, too, and "
        "integers are multiplied."),
    Misconception("floats made of the codes are multiplied", fake_quantized,
        "The codes of x became floats again before the product: this is fake quantization, whose sums are rounded. "
        "Multiply the codes, and scale the integer sums once."),
    Misconception("a row of zeros gives NaN, cast to an integer", unguarded,
        "The scale of that row is 0, and 0 / 0 is NaN. What an integer is made of NaN differs from machine to machine. "
        "Use 1 where a scale is 0."),
    Misconception("accumulates in int8", right.but(sums=lambda q, w: q.astype(np.int8) @ w.T),
        "int8 by int8 in PyTorch is int8, and wraps around. `int_matmul` adds up in int32."),
    Misconception("accumulates in int16", right.but(sums=lambda q, w: q.astype(np.int16) @ w.T.astype(np.int16)),
        "Two products of large codes are already too many for 16 bits. Add up in 32."),
    Misconception("accumulates in float16",
        right.but(sums=lambda q, w: integer_sums(q, w.T).astype(np.float16).astype(np.float32)),
        "float16 knows whole numbers up to 2048 only. Add up in int32."),
    Misconception("the scale of the weight is left out",
        right.but(rescale=lambda sums, row, output, bias: sums * row + bias), ONE_SCALE),
    Misconception("the scale of the row is left out",
        right.but(rescale=lambda sums, row, output, bias: sums * output + bias), ONE_SCALE),
    Misconception("the scales are left out", right.but(rescale=lambda sums, row, output, bias: sums + bias),
        "The sums are integers, in steps of the row's scale times the output's scale. Multiply with both."),
    Misconception("divides by the row's scale",
        right.but(rescale=lambda sums, row, output, bias: sums / row * output + bias),
        "Dividing makes codes of values. On the way back, multiply."),
    Misconception("the weight's scales lie along the rows",
        right.but(rescale=lambda sums, row, output, bias: sums * row * output[:, None] + bias),
        "w_scale has a number for each output, and the outputs are the last axis of the result. Shape (N,) lines up "
        "with it by itself."),
    Misconception("the bias is scaled, too",
        right.but(rescale=lambda sums, row, output, bias: (sums + bias) * (row * output)),
        "The bias is in the units of the result. Rescale first, then add it."),
    Misconception("the bias is left out",
        right.but(rescale=lambda sums, row, output, bias: sums * (row * output)),
        "A linear layer ends with `+ bias`, where there is one."),
    Misconception("truncation instead of round", right.but(quantize=rows.but(round=np.trunc)),
        "Casting to int8 cuts the fraction off. Round before you cast."),
    Misconception("divides by 128", right.but(quantize=rows.but(divisor=lambda bits: 128)),
        "The largest code is 127. A row whose largest value is positive then loses a whole step."),
    Misconception("divides by 255", right.but(quantize=rows.but(divisor=lambda bits: 255)),
        "255 counts the steps of the whole grid, but max|x| spans only its positive half: 127 steps."),
    Misconception("max(x) instead of max|x|",
        right.but(quantize=rows.but(span=lambda x: np.abs(x.max(axis=-1, keepdims=True)))),
        "The scale must cover the largest magnitude of the row, and that may be a negative value."),
    Misconception("the weight is not transposed", right.but(sums=integer_sums),
        "The weight is (N, K), and rows of x have K values: multiply with its transpose."),
    Misconception("only matrices can come in", only_matrices(ValueError), MATRICES),
    Misconception("only matrices can come in", only_matrices(RuntimeError), MATRICES),
    Misconception("the result is flattened", right.but(result=lambda y: y.reshape(-1, y.shape[-1])),
        "Whatever axes x has before the last one must be there again in the result."),
)  # fmt: skip

EXERCISE = Exercise(
    name="int8_linear",
    lab=LESSON,
    place=30,
    points=2,
    reference=int8_linear,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
    run=on_tensors,
)
