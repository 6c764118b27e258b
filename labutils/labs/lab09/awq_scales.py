"""awq_scales: how much larger the columns of loud channels become before the weight is rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.arrays.affine import fake_quantize
from labutils.arrays.scheme import PerGroup, PerTensor, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct
from labutils.labs.contract import arguments
from labutils.labs.floats import as_float64
from labutils.labs.lab09 import LESSON
from labutils.labs.lab09._problems import digits_layer, hessian_of, inputs, problem
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import on_tensors, require_unchanged

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 20


def awq_scales(weight: Tensor, hessian: Tensor, num_bits: int = 4, group_size: int = 128) -> Tensor:
    """s (K,): of the candidates m^alpha, the one with which the outputs lose least; m_j = sqrt(H_jj).

    >>> import torch
    >>> weight = torch.tensor([[0.3, 0.7, 0.2, 0.4]])
    >>> hessian = torch.diag(torch.tensor([256.0, 1.0, 1.0, 1.0]))  # the first channel is 16 times as large
    >>> awq_scales(weight, hessian, num_bits=3)
    tensor([1.5157, 0.6598, 0.6598, 0.6598])

    The columns of `weight` (N, K) are multiplied by s, rounded in groups, and divided by s again. alpha is one of 0,
    0.05, ..., 1; each candidate is divided by the root of its largest times its smallest element; a channel that was
    always 0 keeps 1. By `models.awq_scales`, which says more, and which errors there are.
    """
    from labutils.models import awq

    return awq.awq_scales(weight, hessian, Scheme(num_bits, granularity=PerGroup(group_size)), steps=STEPS)


# The lesson's example: at alpha = 0 (nearest) the loud channel's error is 0.067, at 0.5 it is 0.017.
HAND = np.array([[0.3, 0.7, 0.2, 0.4]], np.float32), np.diag(np.array([256, 1, 1, 1], np.float32))


def loud(
    outputs: int, channels: int, seed: int, factor: float = 12, which: tuple[int, ...] = (2, 7), weights: float = 1
) -> tuple:
    """A layer of which a few channels are `factor` times as loud as the others, their weights `weights` times."""
    x, (weight, _) = inputs(100, channels, seed), problem(outputs, channels, seed)
    x[:, list(which)] *= np.float32(factor)
    weight[:, list(which)] *= np.float32(weights)
    return weight, hessian_of(x)


def cases() -> list[Case]:
    some = loud(8, 24, seed=60)
    silent = inputs(100, 24, seed=61)
    silent[:, [5, 11]] = 0
    silent[:, 3] *= 10

    def case(name: str, layer: tuple, num_bits: int, group_size: int) -> Case:
        return Case(name, layer, {"num_bits": num_bits, "group_size": group_size})

    return [
        case("the worked example", HAND, 3, 4),
        case("two loud channels, 3 bits, groups of 8", some, 3, 8),
        case("two loud channels, 4 bits, groups of 12", some, 4, 12),
        case("a real layer, 4 bits, groups of 16", digits_layer(32), 4, 16),
        case("one very loud channel", loud(6, 20, seed=62, factor=60, which=(4,)), 3, 20),
        case("the last group is short", loud(6, 20, seed=63), 3, 8),
        Case("the defaults: 4 bits, groups of 128", loud(6, 24, seed=64)),
        case("2 bits", loud(12, 24, seed=65), 2, 6),
        case("the loud channel has the largest weights", loud(6, 20, 79, factor=30, which=(4,), weights=5), 3, 10),
        case("the loud channel has the smallest weights", loud(6, 20, 72, 30, which=(4,), weights=0.05), 3, 10),
        case("a quiet channel", loud(8, 20, seed=66, factor=0.05, which=(1,)), 3, 10),
        case("all channels equally loud", (problem(6, 16, seed=67)[0], np.eye(16, dtype=np.float32)), 3, 8),
        case("two channels that were always 0", (problem(6, 24, seed=61)[0], hessian_of(silent)), 3, 8),
        case("as many outputs as inputs", loud(12, 12, seed=68), 3, 6),
        case("inputs a thousand times smaller", (some[0], some[1] * np.float32(1e-6)), 3, 8),
    ]


def read(value: Any) -> dict:
    require_unchanged(value)
    if isinstance(value, (tuple, list)):
        raise Wrong(f"it should return one tensor, the scales, but it returned {len(value)} values")
    return {"scales": as_float64(value, "the result")}


def candidates(hessian: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """alpha and its scales."""
    size = np.sqrt(np.diag(hessian))
    alive = size > 0
    for alpha in np.arange(STEPS + 1) / STEPS:
        s = np.where(alive, size, 1.0) ** alpha
        yield float(alpha), np.where(alive, s / np.sqrt(s[alive].max() * s[alive].min()), 1.0)


def output_loss(error: np.ndarray, hessian: np.ndarray) -> float:
    return float(np.sum((error @ hessian) * error)) / 2


def loss_with(s: np.ndarray, weight: np.ndarray, hessian: np.ndarray, scheme: Scheme) -> float:
    return output_loss(weight - fake_quantize(weight * s, scheme) / s, hessian)


def judge(answer: dict, case: Case) -> None:
    weight, hessian, num_bits, group_size = arguments(awq_scales, case)
    weight, hessian = weight.astype(np.float64), hessian.astype(np.float64)
    scheme, s = Scheme(num_bits, granularity=PerGroup(group_size)), answer["scales"]
    if s.shape != (weight.shape[1],):
        raise Wrong(
            f"the result should have shape {(weight.shape[1],)}, a scale for each input channel, but has {s.shape}"
        )
    if not (np.isfinite(s) & (s > 0)).all():
        channel = int(np.argmin(np.isfinite(s) & (s > 0)))
        raise Wrong(f"scales are positive numbers, but that of channel {channel} is {s[channel]:g}")
    losses = {alpha: loss_with(c, weight, hessian, scheme) for alpha, c in candidates(hessian)}
    best = min(losses, key=losses.get)
    chosen = next((alpha for alpha, c in candidates(hessian) if np.allclose(s, c, rtol=1e-4)), None)
    if chosen is None:
        wanted = dict(candidates(hessian))[best]
        channel = int(np.argmax(np.abs(np.log(s / wanted))))
        expected, found = distinct(wanted[channel], s[channel], 4)
        raise Wrong(
            f"these are the scales of no alpha on the grid: least is lost at {best:g}, with {expected} for channel "
            f"{channel}, but that one is {found}"
        )
    if losses[chosen] > losses[best] * (1 + 1e-3):
        expected, found = distinct(losses[best], losses[chosen], 4)
        raise Wrong(
            f"these are the scales of alpha = {chosen:g}, with which the outputs lose {found}; at {best:g} they lose "
            f"{expected}"
        )


@dataclass(frozen=True)
class Searched(Recipe):
    """The candidate normed(size(H, W)^alpha) with the least loss(error(W, s, scheme), H), for alpha among `alphas`."""

    size: Callable = lambda h, w: np.sqrt(np.diag(h))
    alphas: tuple = tuple(np.arange(STEPS + 1) / STEPS)
    guarded: Callable = lambda size: np.where(size == 0, 1.0, size)
    normed: Callable = lambda s, alive: np.where(alive, s / np.sqrt(s[alive].max() * s[alive].min()), 1.0)
    scheme: Callable = lambda num_bits, group_size: Scheme(num_bits, granularity=PerGroup(group_size))
    error: Callable = lambda w, s, scheme: w - fake_quantize(w * s, scheme) / s
    loss: Callable = output_loss
    choose: Callable = min
    result: Callable = lambda s, alpha, w: s

    def __call__(self, weight, hessian, num_bits=4, group_size=128):
        w, h = weight.numpy().astype(np.float64), hessian.numpy().astype(np.float64)
        size, scheme = self.size(h, w), self.scheme(num_bits, group_size)
        tried = []
        for place, alpha in enumerate(self.alphas):
            s = self.normed(self.guarded(size) ** alpha, size > 0)
            tried.append((self.loss(self.error(w, s, scheme), h), place, s, alpha))
        _, _, s, alpha = self.choose(tried, key=lambda one: one[0])
        return self.result(s, alpha, w)


right = Searched()


def half_or_nothing(alpha: float) -> Searched:
    return right.but(alphas=(alpha,))


MISCONCEPTIONS = (
    Misconception("multiplied where it is divided",
        right.but(error=lambda w, s, scheme: w - fake_quantize(w * s, scheme) * s),
        "The scale goes in before rounding and must come out after it. Multiplied twice, the weight is another one."),
    Misconception("the weight is divided, and multiplied afterwards",
        right.but(error=lambda w, s, scheme: w - fake_quantize(w / s, scheme) * s),
        "Loud channels get *smaller* weights so, and lose more. Their columns are multiplied before they are rounded, "
        "and divided afterwards."),
    Misconception("the scale is not taken out again",
        right.but(error=lambda w, s, scheme: w * s - fake_quantize(w * s, scheme)),
        "This is the error of the scaled weight. The inputs are divided by s, so the error counts 1/s as much: divide "
        "by s before you compare with the weight."),
    Misconception("the scaled weight compared with the weight",
        right.but(error=lambda w, s, scheme: w - fake_quantize(w * s, scheme)),
        "The rounded weight still has s in it. Divide by s before you compare with the weight."),
    Misconception("the search judged on the weights", right.but(loss=lambda error, h: float((error**2).sum())),
        "The error of the weights treats all channels alike. What counts is what the *outputs* lose: the error's "
        "quadratic form with H."),
    Misconception("the search judged on the largest error", right.but(loss=lambda error, h: float(np.abs(error).max())),
        "One largest error of a weight says little. What counts is what the *outputs* lose: the error's quadratic form "
        "with H."),
    Misconception("only the diagonal of H is judged",
        right.but(loss=lambda error, h: float((error**2 * np.diag(h)).sum())),
        "Products of two channels are left out. Errors of channels that go together add up or cancel: use all of H."),
    Misconception("the loss of the mean error",
        right.but(loss=lambda error, h: output_loss(error.mean(axis=0, keepdims=True), h)),
        "Each output has an error of its own. Add up the quadratic forms of all rows, not the form of their mean."),
    Misconception("the loss of the worst output alone",
        right.but(loss=lambda error, h: float(np.sum(error @ h * error, axis=1).max())),
        "One output of the layer does not stand for the others. Add up the quadratic forms of all rows."),
    Misconception("the size without its root", right.but(size=lambda h, w: np.diag(h)),
        "H_jj is a sum of squares. The size of a channel is its root; otherwise the grid reaches to alpha = 2."),
    Misconception("the size from the weights", right.but(size=lambda h, w: np.sqrt((w**2).sum(axis=0))),
        "AWQ looks at the *activations*: a channel matters because its inputs are loud. Their size is the root of "
        "H_jj."),
    Misconception("the size from the rows of H", right.but(size=lambda h, w: np.sqrt(np.abs(h).sum(axis=1))),
        "Only the diagonal of H holds squares of a channel with itself."),
    Misconception("alpha = 0.5 without a search", half_or_nothing(0.5),
        "These are the scales of one alpha, whatever comes of them. Try all of the grid, and keep the best."),
    Misconception("alpha = 1 without a search", half_or_nothing(1.0),
        "These are the scales of one alpha, whatever comes of them. Try all of the grid, and keep the best."),
    Misconception("the last alpha is missing", right.but(alphas=tuple(np.arange(STEPS) / STEPS)),
        "The grid ends at 1, and 1 belongs to it: 21 values."),
    Misconception("the first alpha is missing", right.but(alphas=tuple(np.arange(1, STEPS + 1) / STEPS)),
        "alpha = 0, no scaling at all, belongs to the grid. It is what makes the search safe."),
    Misconception("a coarse grid", right.but(alphas=tuple(np.arange(11) / 10)),
        "The grid has steps of 0.05: 21 values from 0 to 1."),
    Misconception("the worst instead of the best", right.but(choose=max),
        "The largest loss was kept. Keep the smallest."),
    Misconception("alpha instead of the scales", right.but(result=lambda s, alpha, w: np.full(len(s), alpha)),
        "What is asked for are the scales that belong to the best alpha, a number for each channel."),
    Misconception("the reciprocal", right.but(result=lambda s, alpha, w: 1 / s),
        "The scales multiply the weight, so a loud channel has a large one."),
    Misconception("the scaled weight instead of the scales", right.but(result=lambda s, alpha, w: w * s),
        "Return the scales alone. Whoever gets them multiplies."),
    Misconception("the scales are not brought to the middle", right.but(normed=lambda s, alive: s),
        "Divide each candidate by the root of its largest times its smallest element, so that they lie around 1."),
    Misconception("the scales are divided by their largest",
        right.but(normed=lambda s, alive: np.where(alive, s / s[alive].max(), 1.0)),
        "Divide by the root of the largest *times the smallest* element."),
    Misconception("the scales are divided by their mean",
        right.but(normed=lambda s, alive: np.where(alive, s / s[alive].mean(), 1.0)),
        "Divide by the root of the largest times the smallest element."),
    Misconception("a silent channel sets the middle",
        right.but(normed=lambda s, alive: s / np.sqrt(s.max() * s.min())),
        "A channel that was always 0 has no size. Leave it out of the largest and the smallest, and give it the scale "
        "1."),
    Misconception("a silent channel is not looked after",
        right.but(guarded=lambda size: size, normed=lambda s, alive: s / np.sqrt(s.max() * s.min())),
        "A channel that was always 0 has the size 0: its scale is 0, and the middle of all of them, too. Give it 1."),
    Misconception("one scale a row instead of groups",
        right.but(scheme=lambda num_bits, group_size: Scheme(num_bits, granularity=PerGroup(10**6))),
        "The weight is rounded in groups of group_size along its rows, here as in the model."),
    Misconception("one scale for the weight",
        right.but(scheme=lambda num_bits, group_size: Scheme(num_bits, granularity=PerTensor())),
        "The weight is rounded in groups of group_size along its rows, here as in the model."),
    Misconception("8 bits at every width",
        right.but(scheme=lambda num_bits, group_size: Scheme(8, granularity=PerGroup(group_size))),
        "The search must round as the model will: with `num_bits`."),
    Misconception("4 bits at every width",
        right.but(scheme=lambda num_bits, group_size: Scheme(4, granularity=PerGroup(group_size))),
        "The search must round as the model will: with `num_bits`."),
)  # fmt: skip

EXERCISE = Exercise(
    name="awq_scales",
    lab=LESSON,
    place=30,
    points=3,
    reference=awq_scales,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_tensors,
)
