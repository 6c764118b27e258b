"""search_clip: for each group, the range with which its part of the outputs loses least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct, place
from labutils.labs.contract import arguments, largest_at
from labutils.labs.floats import as_float64
from labutils.labs.lab09 import LESSON
from labutils.labs.lab09._problems import digits_layer, problem
from labutils.labs.recipes import Recipe, clamped, largest_code
from labutils.labs.tensors import on_tensors, require_unchanged

if TYPE_CHECKING:
    from torch import Tensor

CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


def search_clip(
    weight: Tensor, hessian: Tensor, num_bits: int = 4, group_size: int = 128, clips: tuple[float, ...] = CLIPS
) -> Tensor:
    """Scales (N, ceil(K / group_size)): clip · max|group| / (2^(b-1) - 1), at the clip at which the group loses least.

    >>> import torch
    >>> search_clip(torch.tensor([[1.0, 0.4, 0.4, 0.4, -0.4]]), torch.eye(5), num_bits=2)
    tensor([[0.5000]])

    A group's loss is e H e^T of its own errors e, with its own block of H. By `models.clip_search`, which says more,
    and which errors there are.
    """
    from labutils.models import awq

    return awq.clip_search(weight, hessian, Scheme(num_bits, granularity=PerGroup(group_size)), clips)[0]


HAND = np.array([[1, 0.4, 0.4, 0.4, -0.4]], np.float32), np.eye(5, dtype=np.float32)


def cases() -> list[Case]:
    some = problem(8, 24, seed=80)
    hole = some[0].copy()
    hole[2, 8:16] = 0
    f4 = np.float32

    def case(name: str, layer: tuple, num_bits: int, group_size: int, **more: Any) -> Case:
        return Case(name, layer, {"num_bits": num_bits, "group_size": group_size} | more)

    return [
        case("the worked example", HAND, 2, 5),
        case("3 bits, groups of 8", some, 3, 8),
        case("2 bits, groups of 6", some, 2, 6),
        case("a real layer, 3 bits, groups of 16", digits_layer(32), 3, 16),
        case("one group a row", problem(10, 20, seed=81), 2, 20),
        case("the last group is short", problem(8, 20, seed=82), 3, 8),
        Case("the defaults: 4 bits, groups of 128", problem(8, 40, seed=83)),
        case("other clips", some, 3, 8, clips=(1.0, 0.85, 0.75, 0.4)),
        case("only the full range", some, 3, 8, clips=(1.0,)),
        case("the largest weights are negative", (-np.abs(some[0]), some[1]), 3, 8),
        case("a group that is all zero", (hole, some[1]), 3, 8),
        case("weights a million times smaller", (some[0] * f4(1e-6), some[1]), 3, 8),
        case("as many outputs as inputs", problem(12, 12, seed=84), 2, 6),
    ]


def read(value: Any) -> dict:
    require_unchanged(value)
    if isinstance(value, (tuple, list)):
        raise Wrong(f"it should return one tensor, the scales, but it returned {len(value)} values")
    return {"scales": as_float64(value, "the result")}


def groups_of(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def judge(answer: dict, case: Case) -> None:
    weight, hessian, num_bits, size, clips = arguments(search_clip, case)
    weight, hessian, scales = weight.astype(np.float64), hessian.astype(np.float64), answer["scales"]
    groups = groups_of(weight.shape[1], size)
    if scales.shape != (shape := (len(weight), len(groups))):
        raise Wrong(f"the result should have shape {shape}, a scale for each group of each row, but has {scales.shape}")
    if not (np.isfinite(scales) & (scales > 0)).all():
        where = largest_at(~(np.isfinite(scales) & (scales > 0)))
        raise Wrong(f"scales[{place(where)}] should be a positive number, but it is {scales[where]:g}")
    for g, group in enumerate(groups):
        w, peaks = weight[:, group], np.abs(weight[:, group]).max(axis=1)
        tried = np.multiply.outer(clips, peaks / largest_code(num_bits))  # (C, N)
        losses = np.stack([loss_of_rows(w, np.where(s > 0, s, 1), hessian[group, group], num_bits) for s in tried])
        for row in np.flatnonzero(peaks > 0):
            near = np.isclose(tried[:, row], scales[row, g], rtol=1e-4)
            best = int(losses[:, row].argmin())
            if not near.any():
                expected, found = distinct(tried[best, row], scales[row, g], 4)
                raise Wrong(
                    f"scales[{row}, {g}] is that of no clip: least is lost at {clips[best]:g} · {peaks[row]:.4g} / "
                    f"{largest_code(num_bits)} = {expected}, but it is {found}"
                )
            chosen = int(near.argmax())
            if losses[chosen, row] > losses[best, row] * (1 + 1e-3) + 1e-30:
                raise Wrong(
                    f"scales[{row}, {g}] is that of clip {clips[chosen]:g}, with which the group loses "
                    f"{losses[chosen, row]:.4g}; at {clips[best]:g} it loses {losses[best, row]:.4g}"
                )


def loss_of_rows(w: np.ndarray, scale: np.ndarray, hessian: np.ndarray, num_bits: int) -> np.ndarray:
    """e H e^T of each row, rounded with its `scale` (N,)."""
    error = w - clamped(np.round(w / scale[:, None]), num_bits) * scale[:, None]
    return np.sum(error @ hessian * error, axis=1)


def to_grid(w: np.ndarray, scale: np.ndarray, num_bits: int) -> np.ndarray:
    return clamped(np.round(w / scale), num_bits) * scale


@dataclass(frozen=True)
class Searched(Recipe):
    """result(the scale of the clip that `choose` picks by loss(error(w, scale), H of the group)), for each group."""

    peak: Callable = lambda w: np.abs(w).max(axis=1)
    divisor: Callable = largest_code
    block: Callable = lambda h, group: h[group, group]
    rounded: Callable = to_grid
    loss: Callable = lambda error, h: np.sum(error @ h * error, axis=1)
    share: Callable = lambda losses: losses  # (C, G, N): who shares a clip
    choose: Callable = lambda losses: losses.argmin(axis=0)
    floor: Callable = lambda scale: np.where(scale == 0, 1.0, scale)
    result: Callable = lambda scale, clip: scale

    def __call__(self, weight, hessian, num_bits=4, group_size=128, clips=CLIPS):
        w, h = weight.numpy().astype(np.float64), hessian.numpy().astype(np.float64)
        groups = groups_of(w.shape[1], group_size)
        full = np.stack([self.floor(self.peak(w[:, g]) / self.divisor(num_bits)) for g in groups])  # (G, N)
        losses = np.stack([
            [self.loss(w[:, g] - self.rounded(w[:, g], clip * s[:, None], num_bits), self.block(h, g))
             for g, s in zip(groups, full)]
            for clip in clips
        ])  # fmt: skip
        best = np.asarray(clips)[self.choose(self.share(losses))]  # (G, N)
        return self.result(full * best, best).T


right = Searched()


def first_block(h: np.ndarray, group: slice) -> np.ndarray:
    length = min(group.stop, len(h)) - group.start
    return h[:length, :length]


def error_of_clipped(w: np.ndarray, scale: np.ndarray, num_bits: int) -> np.ndarray:
    """What rounding alone does, to weights that are clipped already."""
    clipped = np.clip(w, -scale * largest_code(num_bits), scale * largest_code(num_bits))
    return clipped - to_grid(clipped, scale, num_bits)


def shared_by(axis: int | tuple[int, ...]) -> Callable:
    return lambda losses: np.broadcast_to(losses.sum(axis=axis, keepdims=True), losses.shape)


MISCONCEPTIONS = (
    Misconception("the full range without a search", right.but(choose=lambda losses: np.zeros(losses.shape[1:], int)),
        "These are the scales of the full range. Try every clip for every group, and keep the one that loses least."),
    Misconception("the search judged on the weights", right.but(loss=lambda error, h: np.sum(error**2, axis=1)),
        "The squared error of the weights treats all channels alike. What counts is what the outputs lose: the error's "
        "quadratic form with H."),
    Misconception("only the diagonal of H is judged",
        right.but(loss=lambda error, h: np.sum(error**2 * np.diag(h), axis=1)),
        "Products of two channels of the group are left out. Use the group's whole block of H."),
    Misconception("the same block of H for every group", right.but(block=first_block),
        "Each group has its own block of H: its own rows and its own columns."),
    Misconception("one clip for a row", right.but(share=shared_by(1)),
        "Every group of every row has a clip of its own."),
    Misconception("one clip for all rows", right.but(share=shared_by(2)),
        "Every group of every row has a clip of its own: rows do not meet in the loss."),
    Misconception("one clip for the weight", right.but(share=shared_by((1, 2))),
        "Every group of every row has a clip of its own."),
    Misconception("clips of your own instead of those given",
        lambda weight, hessian, num_bits=4, group_size=128, clips=CLIPS: right(weight, hessian, num_bits, group_size),
        "1, 0.9, ..., 0.5 is the default. Use `clips`."),
    Misconception("the error of the clipped weight",
        right.but(rounded=lambda w, scale, num_bits: w - error_of_clipped(w, scale, num_bits)),
        "What a weight loses by being clipped is part of its error. Compare with the weight as it came."),
    Misconception("the worst clip instead of the best", right.but(choose=lambda losses: losses.argmax(axis=0)),
        "The largest loss was kept. Keep the smallest."),
    Misconception("codes are not clamped", right.but(rounded=lambda w, scale, num_bits: np.round(w / scale) * scale),
        "Without a clamp nothing is clipped: large weights get codes that do not exist, and the smallest scale always "
        "looks best."),
    Misconception("the clip instead of the scale", right.but(result=lambda scale, clip: clip),
        "The best clips were returned. A scale is clip times max|group| over the largest code."),
    Misconception("the threshold instead of the scale",
        lambda weight, hessian, num_bits=4, group_size=128, clips=CLIPS: right(
            weight, hessian, num_bits, group_size, clips) * largest_code(num_bits),
        "This is where the range ends. A scale is that over the largest code, 2^(b-1) - 1."),
    Misconception("divided by the clip", right.but(result=lambda scale, clip: scale / clip**2),
        "A clip below 1 makes the range smaller, and so the scale: multiply."),
    Misconception("the scale is divided by 2^(b-1)", right.but(divisor=lambda num_bits: largest_code(num_bits) + 1),
        "The end of the range belongs on the largest code, 2^(b-1) - 1."),
    Misconception("max(w) instead of max|w|", right.but(peak=lambda w: w.max(axis=1)),
        "The largest magnitude may be a negative weight. Magnitudes first, then the maximum."),
    Misconception("one range for all rows", right.but(peak=lambda w: np.full(len(w), np.abs(w).max())),
        "Each row has its own range in each group: take the maximum along the columns only."),
    Misconception("the whole row's range", lambda weight, hessian, num_bits=4, group_size=128, clips=CLIPS: right.but(
            peak=lambda w: np.abs(weight.numpy()).max(axis=1).astype(np.float64))(
                weight, hessian, num_bits, group_size, clips),
        "The range is that of the group, not of the row."),
    Misconception("floor instead of round",
        right.but(rounded=lambda w, scale, num_bits: clamped(np.floor(w / scale), num_bits) * scale),
        "The search must round as the model will: to nearest."),
    Misconception("4 bits at every width",
        lambda weight, hessian, num_bits=4, group_size=128, clips=CLIPS: right(weight, hessian, 4, group_size, clips),
        "Range and rounding depend on `num_bits`."),
    Misconception("a group of zeros gets the scale 0", right.but(floor=lambda scale: scale),
        "A group that is all zero has nothing to span. Its scale is 1."),
)  # fmt: skip

EXERCISE = Exercise(
    name="search_clip",
    lab=LESSON,
    place=60,
    points=2,
    reference=search_clip,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
    run=on_tensors,
)
