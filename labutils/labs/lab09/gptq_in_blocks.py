"""gptq_in_blocks: GPTQ's codes, with the columns behind a block updated once for the whole block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs.contract import arguments
from labutils.labs.lab09 import LESSON
from labutils.labs.lab09 import _replay as replay
from labutils.labs.lab09._columns import Columns, exchanged, passing_mistakes, peaks_before
from labutils.labs.lab09._problems import hessian_of, inputs, loud_first, problem
from labutils.labs.lab09.gptq_quantize import HAND
from labutils.labs.tensors import Changed, on_tensors

if TYPE_CHECKING:
    from torch import Tensor


def gptq_in_blocks(
    weight: Tensor,
    hessian: Tensor,
    num_bits: int = 4,
    group_size: int = 128,
    damping: float = 0.01,
    block_size: int = 128,
) -> tuple[Tensor, Tensor]:
    """The codes and scales of `gptq_quantize`; columns behind a block are updated once, when the block is finished.

    >>> import torch
    >>> weight = torch.tensor([[1.0, 0.4, 0.3]])
    >>> hessian = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.8], [0.0, 0.8, 1.0]])
    >>> gptq_in_blocks(weight, hessian, num_bits=2, block_size=1)
    (tensor([[1, 0, 1]], dtype=torch.int8), tensor([[1.]]))

    Otherwise as `gptq_quantize`.
    """
    import torch

    from labutils.models import gptq

    weight, hessian = (m.double() if isinstance(m, torch.Tensor) else m for m in (weight, hessian))
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    quantized = gptq.gptq_quantize(weight, hessian, scheme, damping, block_size=block_size)
    return quantized.codes, quantized.scale.float()


def cases() -> list[Case]:
    some = problem(6, 24, seed=42)
    silent = inputs(100, 24, seed=42)
    silent[:, 9] = 0

    def case(name: str, layer: tuple, num_bits: int, group_size: int, block_size: int, damping: float = 0.01) -> Case:
        sizes = {"group_size": group_size, "damping": damping, "block_size": block_size}
        return Case(name, layer, {"num_bits": num_bits} | sizes)

    return [
        case("the worked example, blocks of one column", HAND, 2, 3, 1, 0.0),
        case("groups of 4 in blocks of 8", some, 4, 4, 8),
        case("blocks of 4 in groups of 12", some, 3, 12, 4),
        case("groups and blocks of 6", some, 4, 6, 6),
        case("one scale a row, blocks of 5: the last block is short", problem(5, 23, seed=43), 3, 23, 5),
        case("one block for all", some, 4, 8, 64),
        case("a row of zeros", (np.concatenate([some[0][:2], some[0][:1] * 0]), some[1]), 4, 4, 8),
        Case("the defaults: groups and blocks of 128", problem(4, 20, seed=44)),
        case("much damping", some, 4, 4, 8, 0.5),
        case("2 bits", problem(8, 16, seed=45), 2, 4, 8),
        case("2 bits: weights are moved below the lowest code", loud_first(8, 16, seed=48), 2, 16, 8),
        case("a dead channel, no damping", (some[0], hessian_of(silent)), 4, 4, 8, 0.0),
        case("a dead channel, quiet inputs", (some[0], hessian_of(silent) * np.float32(1e-6)), 4, 4, 8),
        case("inputs a thousand times smaller", (some[0], some[1] * np.float32(1e-6)), 4, 4, 8),
        case("192 inputs in blocks of 16: how much is computed", problem(256, 192, seed=46, rows=300), 4, 64, 16),
    ]


class Counted(NamedTuple):
    """An answer, and whether torch's operations wrote few enough numbers on the way to it."""

    answer: Any
    in_blocks: bool


def most_written(weight: np.ndarray, block_size: int) -> float:
    """Between what updates in blocks write and what updates column by column do, outputs · inputs² / 2 at least.

    No limit where there are few blocks: then the rest of the work counts as much.
    """
    outputs, inputs = weight.shape
    return 0.42 * outputs * inputs**2 if inputs >= 12 * block_size else np.inf


def on_counted_tensors(submission: Callable, *args: Any, **kwargs: Any) -> Counted | Changed:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        written = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and not function.is_view:
                self.written += result.numel()
            return result

    with Count() as count:
        answer = on_tensors(submission, *args, **kwargs)
    if isinstance(answer, Changed):
        return answer
    weight, *_, block_size = arguments(gptq_in_blocks, Case("", args, kwargs))
    return Counted(answer, count.written <= most_written(weight, block_size))


def read(value: Any) -> dict:
    if isinstance(value, Changed):
        return replay.read(value)
    return replay.read(value.answer) | {"in_blocks": value.in_blocks}


def judge(answer: dict, case: Case) -> None:
    *layer, block_size = arguments(gptq_in_blocks, case)
    replay.judge_columns(answer, *layer)
    if not answer["in_blocks"]:
        raise Wrong(
            f"codes and scales are right, but the columns behind a block are updated more than once: with blocks of "
            f"{block_size}, far fewer numbers need to be computed"
        )


@dataclass(frozen=True)
class InBlocks(Columns):
    """`Columns` whose `update` reaches to `within`; `behind` updates the columns behind the block, in place."""

    behind: Callable = lambda w, u, start, stop, errors: np.subtract(
        w[:, stop:], errors @ u[start:stop, stop:], out=w[:, stop:]
    )
    within: Callable = lambda stop, length: stop  # where the columns end that are updated at each column

    def __call__(self, weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
        original = weight.numpy().astype(np.float64)
        u = self.prepared(hessian, original, damping)
        w, q, scales = original.copy(), np.zeros_like(original), []
        length = w.shape[1]
        for start in range(0, length, block_size):
            stop = min(start + block_size, length)
            end = self.within(stop, length)
            errors = np.zeros((len(w), stop - start))
            for j in range(start, stop):
                if j % group_size == 0:
                    scales.append(self.floor(self.span(w, original, j, group_size) / self.divisor(num_bits)))
                q[:, j] = self.clamp(self.round(w[:, j] / scales[-1]), num_bits)
                errors[:, j - start] = self.error(w[:, j], q[:, j] * scales[-1]) / self.pivot(u, j)
                self.update(w[:, :end], j, errors[:, j - start], u[:, :end])
            self.behind(w, u, start, stop, errors)
        return self.result(self.stored(q, num_bits), np.stack(scales, axis=1))


right = InBlocks()


def column_by_column(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    return gptq_in_blocks(weight, hessian, num_bits, group_size, damping, block_size=1)


def behind(update: Callable) -> InBlocks:
    """`update(u, start, stop, errors)` is subtracted from the columns behind the block."""

    def changed(w, u, start, stop, errors):
        w[:, stop:] -= update(u, start, stop, errors)

    return right.but(behind=changed)


def next_block(w, u, start, stop, errors):
    end = 2 * stop - start
    w[:, stop:end] -= errors @ u[start:stop, stop:end]


def scales_before_the_block(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    """As in the published code, which updates a copy of the block."""
    begun = {}  # the weights as they were when the block began; at first, as they came

    def behind_and_kept(w, u, start, stop, errors):
        right.behind(w, u, start, stop, errors)
        begun["w"] = w.copy()

    def span(w, original, start, size):
        return peaks_before(w, begun.get("w", original), start, size)

    return right.but(behind=behind_and_kept, span=span)(weight, hessian, num_bits, group_size, damping, block_size)


MISCONCEPTIONS = (
    Misconception("the columns behind the block are updated at every column", column_by_column,
        "That is `gptq_quantize` again, or blocks that are not of `block_size`: right, and slower. Inside the block "
        "update its own columns only, keep the errors, and when it is finished update all columns behind it with one "
        "product."),
    Misconception("the columns behind a block are never updated", right.but(behind=lambda *args: None),
        "When a block is finished, all of its errors still have to reach the columns behind it."),
    Misconception("the columns behind a block are updated twice", right.but(within=lambda stop, length: length),
        "The columns behind the block get each error twice: at its column, and when the block is finished."),
    Misconception("only the last error of a block is passed on",
        behind(lambda u, start, stop, errors: np.outer(errors[:, -1], u[stop - 1, stop:])),
        "Every column of the block has an error. Keep them all, and pass all of them on."),
    Misconception("the sum of the block's errors is passed on with its first row",
        behind(lambda u, start, stop, errors: np.outer(errors.sum(axis=1), u[start, stop:])),
        "Each error goes with its own row of the factor. The sum over the block is a matrix product."),
    Misconception("the block's errors are not divided when they are passed on",
        behind(lambda u, start, stop, errors: errors * np.diag(u)[start:stop] @ u[start:stop, stop:]),
        "The errors that go to the columns behind the block are the same as inside it: each divided by its diagonal "
        "entry."),
    Misconception("the first rows of the factor for every block",
        behind(lambda u, start, stop, errors: errors @ u[: stop - start, stop:]),
        "The errors of a block belong to the block's own rows of the factor."),
    Misconception("only the next block is updated", right.but(behind=next_block),
        "All columns behind the block get its errors, not only those of the next one."),
    Misconception("the block's errors are added", behind(lambda u, start, stop, errors: -errors @ u[start:stop, stop:]),
        "The sign of the last update is turned. It is subtracted, as inside the block."),
    Misconception("group scales from the weights before their block", scales_before_the_block,
        "A group that begins inside a block has been moved by the block's columns before it. If you work on a copy of "
        "the block, take the scale from there."),
    Misconception("a group of zeros divides by zero", right.but(floor=lambda scale: scale),
        "A row whose group is all zero has the scale 0, and 0 / 0 is NaN. Its scale is 1."),
    Misconception("group scales from the weights before the updates", right.but(span=peaks_before),
        "The columns of a group have moved when the first of them is reached. Choose the scale then, from the weights "
        "as they are then."),
    *exchanged(right),
    *(m for m in passing_mistakes(right) if m.name != "the update stops at the end of the group"),
)  # fmt: skip

EXERCISE = Exercise(
    name="gptq_in_blocks",
    lab=LESSON,
    place=50,
    points=2,
    reference=gptq_in_blocks,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
    run=on_counted_tensors,
)
