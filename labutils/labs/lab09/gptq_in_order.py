"""gptq_in_order: GPTQ that begins with the channels whose errors cost most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception
from labutils.labs.contract import arguments
from labutils.labs.lab09 import LESSON
from labutils.labs.lab09._columns import Columns, exchanged, passing_mistakes
from labutils.labs.lab09._problems import digits_layer, hessian_of, inputs, problem
from labutils.labs.lab09._replay import judge_columns, read
from labutils.labs.tensors import on_tensors

if TYPE_CHECKING:
    from torch import Tensor


def gptq_in_order(
    weight: Tensor, hessian: Tensor, num_bits: int = 4, group_size: int = 128, damping: float = 0.01
) -> tuple[Tensor, Tensor]:
    """`gptq_quantize` with the columns taken by falling H_jj, and the scales of groups of the weights as they came.

    >>> import torch
    >>> weight = torch.tensor([[1.0, 0.4, 0.3]])
    >>> hessian = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.6], [0.0, 1.6, 4.0]])
    >>> gptq_in_order(weight, hessian, num_bits=2)  # the last column first: it becomes 0, the second moves to 0.87
    (tensor([[1, 1, 0]], dtype=torch.int8), tensor([[1.]]))

    Codes and scales stand in the columns' own places ("static groups"). Otherwise as `gptq_quantize`.
    """
    import torch

    from labutils.models import gptq

    weight, hessian = (m.double() if isinstance(m, torch.Tensor) else m for m in (weight, hessian))
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    quantized = gptq.gptq_quantize(weight, hessian, scheme, damping, activation_order=True)
    return quantized.codes, quantized.scale.float()


HAND = np.array([[1.0, 0.4, 0.3]], np.float32), np.array([[1, 0, 0], [0, 1, 1.6], [0, 1.6, 4]], np.float32)


def uneven(outputs: int, channels: int, seed: int) -> tuple:
    """A layer whose channels are of very different loudness."""
    loudness = np.geomspace(8, 0.2, channels)[np.random.default_rng(seed).permutation(channels)]
    return problem(outputs, channels, seed, loudness=loudness)


def cases() -> list[Case]:
    some = uneven(6, 20, seed=22)
    silent = inputs(100, 20, seed=23)
    silent[:, 4] = 0
    hole = some[0].copy()
    hole[2, 5:10] = 0

    def case(name: str, layer: tuple, num_bits: int, group_size: int, damping: float = 0.01) -> Case:
        return Case(name, layer, {"num_bits": num_bits, "group_size": group_size, "damping": damping})

    return [
        case("the worked example", HAND, 2, 3, 0.0),
        case("uneven channels, 4 bits, groups of 5", some, 4, 5),
        case("uneven channels, 3 bits, one scale a row", some, 3, 20),
        case("a real layer, 4 bits, groups of 16", digits_layer(24), 4, 16),
        case("the last group is short", uneven(5, 20, seed=25), 3, 8),
        Case("the defaults: 4 bits, groups of 128, damping 0.01", uneven(4, 24, seed=26)),
        case("2 bits", uneven(8, 16, seed=27), 2, 4),
        case("much damping", some, 4, 10, 0.5),
        case("a dead channel, no damping", (some[0], hessian_of(silent)), 4, 10, 0.0),
        case("a dead channel, quiet inputs", (some[0], hessian_of(silent) * np.float32(1e-6)), 4, 10),
        case("a group that is all zero", (hole, some[1]), 4, 5),
        case("as many outputs as inputs", uneven(12, 12, seed=29), 3, 6),
        case("inputs a thousand times smaller", (some[0], some[1] * np.float32(1e-6)), 4, 5),
    ]


def judge(answer: dict, case: Case) -> None:
    judge_columns(answer, *arguments(gptq_in_order, case), in_order=True)


def loudest_first(hessian: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.argsort(-np.diag(hessian), kind="stable")


def back_in_place(q: np.ndarray, order: np.ndarray) -> np.ndarray:
    placed = np.empty_like(q)
    placed[:, order] = q
    return placed


@dataclass(frozen=True)
class InOrder(Columns):
    """`Columns` over permuted columns, with scales chosen beforehand."""

    order: Callable = loudest_first
    permuted: Callable = lambda hessian, order: hessian[order][:, order]
    groups: Callable = lambda weight, order: weight  # of which the scales are taken
    group_of: Callable = lambda place, order, size: order[place] // size
    placed: Callable = back_in_place

    def __call__(self, weight, hessian, num_bits=4, group_size=128, damping=0.01):
        w, h = weight.numpy().astype(np.float64), hessian.numpy().astype(np.float64)
        order = self.order(h, w)
        u = self.factor(self.permuted(self.dead(self.damp(self.hessian(h, w), damping)), order))
        grouped = self.groups(w, order)
        spans = [self.span(grouped, grouped, start, group_size) for start in range(0, w.shape[1], group_size)]
        scales = self.floor(np.stack(spans, axis=1) / self.divisor(num_bits))
        q = self.rounded(
            w[:, order].copy(), u, lambda place: scales[:, self.group_of(place, order, group_size)], num_bits
        )
        return self.result(self.placed(self.stored(q, num_bits), order), scales)


right = InOrder()

MISCONCEPTIONS = (
    Misconception("the order is not undone", right.but(placed=lambda q, order: q),
        "The codes stand in the order in which they were made. Each belongs back into the place of its own column."),
    Misconception("the order is applied again instead of undone", right.but(placed=lambda q, order: q[:, order]),
        "Taking q[:, order] sorts once more. To undo it, assign to those places, or take the argsort of the order."),
    Misconception("the quietest channels first",
        right.but(order=lambda h, w: np.argsort(np.diag(h), kind="stable")),
        "That is the other way round: the loudest channel first, while all others can still make up for its error."),
    Misconception("no order at all", right.but(order=lambda h, w: np.arange(len(h))),
        "The columns were taken from left to right. Take them by falling diagonal entry of H."),
    Misconception("ordered by the size of the weights",
        right.but(order=lambda h, w: np.argsort(-(w**2).sum(axis=0), kind="stable")),
        "It is the activations that say where an error costs most: the diagonal of H."),
    Misconception("ordered by the rows of H",
        right.but(order=lambda h, w: np.argsort(-np.abs(h).sum(axis=1), kind="stable")),
        "Only the diagonal of H counts: the squares of each channel, not its products with others."),
    Misconception("ordered by the inverse's diagonal",
        right.but(order=lambda h, w: np.argsort(-np.diag(np.linalg.pinv(h)), kind="stable")),
        "The order is that of the diagonal of H itself, the largest first."),
    Misconception("H is not permuted", right.but(permuted=lambda h, order: h),
        "The columns of the weight were sorted, and H was not: row and column j of it belong to another channel now."),
    Misconception("H is permuted on one side only", right.but(permuted=lambda h, order: h[order]),
        "H has a row *and* a column for each channel. Sort both."),
    Misconception("groups of columns in the new order",
        right.but(groups=lambda w, order: w[:, order], group_of=lambda place, order, size: place // size),
        "The groups are those of the columns' own places, so that a file needs no list of which column is in which "
        "group. Choose all scales first, from the weights as they came."),
    Misconception("a column takes the scale of its place in the new order",
        right.but(group_of=lambda place, order, size: place // size),
        "A column keeps the scale of the group in which it stood: its own place, divided by group_size."),
    *exchanged(right),
    *passing_mistakes(right),
)  # fmt: skip


EXERCISE = Exercise(
    name="gptq_in_order",
    lab=LESSON,
    place=40,
    points=2,
    reference=gptq_in_order,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
    run=on_tensors,
)
