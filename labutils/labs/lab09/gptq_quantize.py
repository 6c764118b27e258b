"""gptq_quantize: columns rounded one by one, each column's error made up for by the columns to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception
from labutils.labs.contract import arguments
from labutils.labs.lab09 import LESSON
from labutils.labs.lab09._columns import (
    Columns,
    grid_mistakes,
    passed_on,
    passing_mistakes,
    peaks_before,
    peaks_now,
)
from labutils.labs.lab09._problems import digits_layer, hessian_of, inputs, loud_first, problem
from labutils.labs.lab09._replay import judge_columns, read
from labutils.labs.tensors import on_tensors

if TYPE_CHECKING:
    from torch import Tensor


def gptq_quantize(
    weight: Tensor, hessian: Tensor, num_bits: int = 4, group_size: int = 128, damping: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Codes and scales of a weight (N, K), chosen so that its layer's outputs lose little; `hessian` (K, K) is 2 X^T X.

    >>> import torch
    >>> weight = torch.tensor([[1.0, 0.4, 0.3]])
    >>> hessian = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.8], [0.0, 0.8, 1.0]])
    >>> gptq_quantize(weight, hessian, num_bits=2)  # to nearest: 1, 0, 0
    (tensor([[1, 0, 1]], dtype=torch.int8), tensor([[1.]]))

    Symmetric groups along the rows: scales (N, ceil(K / group_size)), each from the weights as they are when its first
    column is reached. `damping` times the mean of the diagonal is added to the diagonal. Computed in float64 by
    `models.gptq_quantize`, which says more, and which errors there are.
    """
    import torch

    from labutils.models import gptq

    weight, hessian = (m.double() if isinstance(m, torch.Tensor) else m for m in (weight, hessian))
    quantized = gptq.gptq_quantize(weight, hessian, Scheme(num_bits, granularity=PerGroup(group_size)), damping)
    return quantized.codes, quantized.scale.float()


# The lesson's example: the second weight becomes 0, the third moves from 0.3 to 0.62, and so to 1.
HAND = np.array([[1.0, 0.4, 0.3]], np.float32), np.array([[1, 0, 0], [0, 1, 0.8], [0, 0.8, 1]], np.float32)


def cases() -> list[Case]:
    some, hessian = problem(6, 20, seed=2)
    few = some, hessian_of(inputs(8, 20, seed=3))
    silent = inputs(100, 20, seed=2)
    silent[:, [4, 13]] = 0
    hole = some.copy()
    hole[3, 8:16] = 0
    free = np.diag(np.diag(hessian))
    f4 = np.float32

    def case(name: str, layer: tuple, num_bits: int, group_size: int, damping: float = 0.01) -> Case:
        return Case(name, layer, {"num_bits": num_bits, "group_size": group_size, "damping": damping})

    return [
        case("the worked example", HAND, 2, 3, 0.0),
        case("correlated inputs, 4 bits, groups of 10", (some, hessian), 4, 10),
        case("correlated inputs, 3 bits, one scale a row", (some, hessian), 3, 20, 0.03),
        case("a real layer, 4 bits, groups of 16", digits_layer(24), 4, 16),
        case("20 columns in groups of 8: the last group is short", problem(5, 20, seed=5), 3, 8),
        Case("the defaults: 4 bits, groups of 128, damping 0.01", problem(4, 24, seed=6)),
        case("8 bits", (some, hessian), 8, 5),
        case("2 bits: updates lead beyond the grid", problem(8, 16, seed=7), 2, 4),
        case("2 bits: weights are moved below the lowest code", loud_first(8, 16, seed=48), 2, 16),
        case("much damping", (some, hessian), 3, 10, 0.5),
        case("8 rows of inputs for 20 columns", few, 4, 10, 0.05),
        case("two dead channels", (some, hessian_of(silent)), 4, 10),
        case("two dead channels, no damping", (some, hessian_of(silent)), 4, 10, 0.0),
        case("two dead channels, inputs a thousand times smaller", (some, hessian_of(silent) * f4(1e-6)), 4, 10),
        case("uncorrelated inputs: to nearest", (some, free), 4, 10),
        case("a group that is all zero, and moves before it is reached", (hole, hessian), 4, 8),
        case("a row of zeros", (np.concatenate([some[:2], some[:1] * 0]), hessian), 4, 10),
        case("inputs a thousand times smaller", (some, hessian * f4(1e-6)), 4, 10),
        case("weights a million times smaller", (some * f4(1e-6), hessian), 4, 10),
        case("as many outputs as inputs", problem(12, 12, seed=9), 3, 6),
    ]


def judge(answer: dict, case: Case) -> None:
    judge_columns(answer, *arguments(gptq_quantize, case))


right = Columns()


def first_scale_for_all(w, weight, start, size):
    return np.abs(w[:, :size] if not start else weight[:, :size]).max(axis=1)


def from_the_original(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """The error of a column is taken from the weight as it came, not as it was moved."""
    original = weight.numpy().astype(np.float64)

    def update(w, j, error, u):
        passed_on(w, j, error + (original[:, j] - w[:, j]) / u[j, j], u)

    return right.but(update=update)(weight, hessian, num_bits, group_size, damping)


MISCONCEPTIONS = (
    Misconception("group scales from the weights before the updates", right.but(span=peaks_before),
        "The columns of a group have moved when the first of them is reached. Choose the scale then, from the weights "
        "as they are then."),
    Misconception("the scale of one column for its group",
        right.but(span=lambda w, weight, start, size: peaks_now(w, weight, start, 1)),
        "The first column alone sets the scale. All columns of the group share it, so look at all of them."),
    Misconception("the scale of all columns to come for a group",
        right.but(span=lambda w, weight, start, size: peaks_now(w, weight, start, w.shape[1])),
        "A group ends after group_size columns. Those behind it have groups of their own."),
    Misconception("one scale for all rows",
        right.but(span=lambda w, weight, start, size: np.full(len(w), peaks_now(w, weight, start, size).max())),
        "Each row has its own scale in each group: take the maximum along the columns only."),
    Misconception("max(w) instead of max|w|",
        right.but(span=lambda w, weight, start, size: w[:, start : start + size].max(axis=1)),
        "The largest magnitude may be a negative weight. Magnitudes first, then the maximum."),
    Misconception("the error against the weight as it came", from_the_original,
        "The errors of the columns before have moved this one on purpose. Its error is the weight as it is *now* minus "
        "what its code stands for."),
    *passing_mistakes(right),
    *grid_mistakes(right),
)  # fmt: skip

EXERCISE = Exercise(
    name="gptq_quantize",
    lab=LESSON,
    place=20,
    points=5,
    reference=gptq_quantize,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_tensors,
)
