"""layer_hessian: how much each error in a weight costs the outputs of its layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.arrays.inputs import real_array, require_finite
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import describe, distinct, place
from labutils.labs.contract import largest_at
from labutils.labs.floats import as_float64
from labutils.labs.lab09 import LESSON
from labutils.labs.lab09._problems import digits_inputs, inputs
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import Changed, as_tensors, require_unchanged

if TYPE_CHECKING:
    from torch import Tensor


def layer_hessian(batches: Iterable[Tensor]) -> Tensor:
    """H = 2 X^T X, (in_features, in_features) float32; X is all rows of all batches, tensors (..., in_features).

    >>> import torch
    >>> layer_hessian([torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0]])])
    tensor([[20.,  4.],
            [ 4., 10.]])

    A sum over rows, not a mean, so that Hessians of two calibration sets add up. 16-bit inputs are multiplied in
    float32. TypeError or ValueError for no batches, batches that do not fit together, NaN and Inf.
    """
    total, length = None, None
    for number, x in enumerate(batches):
        xp, x = real_array(x, f"batch {number}")
        require_finite(xp, x, f"batch {number}")
        if x.ndim == 0 or x.shape[-1] != (length := length or x.shape[-1]):
            raise ValueError(f"batch {number} must have shape (..., {length or 'in_features'}), got {tuple(x.shape)}")
        rows = x.reshape(-1, length).float()
        total = 2 * rows.T @ rows + (0 if total is None else total)
    if total is None:
        raise ValueError("batches must hold at least one tensor, got none")
    return total


HAND = [np.array([[1, 2], [0, 1]], np.float32), np.array([[3, 0]], np.float32)]  # the lesson's: [[20, 4], [4, 10]]


def cases() -> list[Case]:
    loud = inputs(40, 9, seed=3)
    loud[:, 4] *= 300  # its squares overflow float16
    silent = inputs(30, 8, seed=4)
    silent[:, [2, 5]] = 0
    shifted = inputs(25, 7, seed=5) + np.float32(3)
    rows = inputs(24, 10, seed=1)
    return [
        Case("the worked example", (HAND,)),
        Case("one batch of (tokens, channels)", ([rows],)),
        Case("the same rows in three batches of unequal length", ([rows[:5], rows[5:8], rows[8:]],)),
        Case(
            "batches of (sequences, tokens, channels)", ([inputs(24, 6, seed=2).reshape(2, 4, 3, 6)[0], rows[:, :6]],)
        ),
        Case("real activations", ([digits_inputs()[:200], digits_inputs()[200:300]],)),
        Case("rows whose mean is not 0", ([shifted[:12], shifted[12:]],)),
        Case("fewer rows than channels", ([rows[:3]],)),
        Case("one row alone, one axis", ([rows[0]],)),
        Case("channels that are always 0", ([silent],)),
        Case("float16 inputs, one channel 300 times as large", ([loud.astype(np.float16)],)),
    ]


def on_batches(submission: Callable, batches: list[np.ndarray]) -> Any:
    """What a submission makes of a list of tensors, or Changed where it does not leave them as they are."""
    given = as_tensors(*batches)
    value = submission(given)
    unchanged = len(given) == len(batches) and all(np.array_equal(g.numpy(), b) for g, b in zip(given, batches))
    return value if unchanged else Changed("batches")


def read(value: Any) -> dict:
    require_unchanged(value)
    if isinstance(value, (tuple, list)):
        raise Wrong(f"it should return one matrix, but it returned {len(value)} values")
    if isinstance(value, (int, float)):
        raise Wrong(f"it should return a matrix, but it returned {describe(value)}")
    return {"hessian": as_float64(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    found, batches = answer["hessian"], [np.atleast_2d(x).astype(np.float64) for x in case.args[0]]
    x = np.concatenate([x.reshape(-1, x.shape[-1]) for x in batches])
    wanted = 2 * x.T @ x
    if found.shape != wanted.shape:
        raise Wrong(
            f"the result should have shape {wanted.shape}, a row and a column for each channel, but has {found.shape}"
        )
    sizes = np.sqrt(np.diag(wanted))
    off = np.abs(found - wanted) - 1e-5 * np.outer(sizes, sizes)  # float32 sums of this many products
    off = np.where(np.isfinite(off), off, np.inf)
    worst = largest_at(off)
    if off[worst] > 0:
        expected, came = distinct(wanted[worst], found[worst])
        i, j = worst
        raise Wrong(
            f"H[{place(worst)}] should be 2 times the sum of x{i} · x{j} over {len(x)} rows = {expected}, but it is "
            f"{came}"
        )


def all_rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])


@dataclass(frozen=True)
class Gathered(Recipe):
    """result(total([product(rows(widen(x))) for x in taken(batches)]), number of rows)."""

    taken: Callable = list
    widen: Callable = lambda x: x.astype(np.float32)
    rows: Callable = all_rows
    product: Callable = lambda rows: 2 * rows.T @ rows
    total: Callable = sum
    result: Callable = lambda total, count: total

    def __call__(self, batches):
        arrays = [self.widen(x.numpy()) for x in self.taken(batches)]
        count = sum(x.size // x.shape[-1] for x in arrays)
        return self.result(self.total([self.product(self.rows(x)) for x in arrays]), count)


right = Gathered()


def centred(batches):
    x = np.concatenate([all_rows(np.atleast_2d(x.numpy())) for x in batches]).astype(np.float32)
    x = x - x.mean(axis=0)
    return 2 * x.T @ x


def correlations(total, count):
    sizes = np.sqrt(np.diag(total))
    sizes[sizes == 0] = 1
    return total / np.outer(sizes, sizes)


def in_place(batches):
    for x in batches:
        x.mul_(2**0.5)
    return right.but(product=lambda rows: rows.T @ rows)(batches)


MISCONCEPTIONS = (
    Misconception("the factor 2 is missing", right.but(product=lambda rows: rows.T @ rows),
        "That is the sum of products. H is the second derivative of a sum of squares, and a square's derivative has a "
        "2 in front."),
    Misconception("the factor 2 counts twice", right.but(product=lambda rows: (2 * rows).T @ (2 * rows)),
        "The 2 is in both factors, so it became 4. It belongs in front of the product, once."),
    Misconception("the mean over the rows", right.but(result=lambda total, count: total / count),
        "This divides by the number of rows. Here H is the sum: then Hessians of two calibration sets add up."),
    Misconception("divided by the number of rows minus 1",
        right.but(result=lambda total, count: total / max(count - 1, 1)),
        "That is how a covariance is estimated. H is a sum over rows, divided by nothing."),
    Misconception("the mean over the batches", right.but(total=lambda parts: sum(parts) / len(parts)),
        "The batches' Hessians are averaged. A short batch then counts as much as a long one; add them."),
    Misconception("only the last batch", right.but(taken=lambda batches: batches[-1:]),
        "Each batch replaces what was there before. Add its part to the sum of those that came."),
    Misconception("only the first batch", right.but(taken=lambda batches: batches[:1]),
        "The other batches are not in it. Look where the loop ends."),
    Misconception("only the first sequence of a batch",
        right.but(rows=lambda x: x.reshape(-1, *x.shape[-2:])[0] if x.ndim > 2 else all_rows(x)),
        "With (sequences, tokens, channels) only the first sequence is counted. Make rows of all axes but the last."),
    Misconception("the sequences of a batch are averaged first",
        right.but(rows=lambda x: x.mean(axis=0) if x.ndim > 2 else all_rows(x)),
        "Rows were averaged before the product. Large values of opposite sign cancel so; each row counts for itself."),
    Misconception("the rows are added up before the product",
        right.but(rows=lambda x: all_rows(x).sum(axis=0, keepdims=True)),
        "A product of sums is not the sum of products: each row has its own product with itself."),
    Misconception("centred, as a covariance is", centred,
        "The mean was subtracted. The layer multiplies the inputs as they are, mean included, and so must H."),
    Misconception("only the diagonal", right.but(result=lambda total, count: np.diag(np.diag(total))),
        "All products of two different channels are missing. They say which errors can cancel, and are what GPTQ "
        "lives on."),
    Misconception("only the diagonal, as a vector", right.but(result=lambda total, count: np.diag(total).copy()),
        "One number for each channel says how loud it is. H has a number for each *pair* of channels."),
    Misconception("correlations instead of products", right.but(result=correlations),
        "The channels' sizes are divided out. A loud channel must count more: its errors cost more."),
    Misconception("channels and rows exchanged", right.but(product=lambda rows: 2 * rows @ rows.T),
        "X X^T has a row and a column for each token. H is about channels: the tokens are what is summed over."),
    Misconception("magnitudes instead of values", right.but(widen=lambda x: np.abs(x.astype(np.float32))),
        "With magnitudes no two channels ever cancel. The sign of a product says which way an error must go."),
    Misconception("multiplied in 16 bits", right.but(widen=np.asarray),
        "float16 ends at 65504, and a square of 300 lies beyond. Turn the inputs to float32 before they are "
        "multiplied."),
    Misconception("the batches are changed", in_place,
        "Functions whose name ends in _, and assignments into a tensor, change what the caller gave. Work on a copy."),
)  # fmt: skip

EXERCISE = Exercise(
    name="layer_hessian",
    lab=LESSON,
    place=10,
    points=2,
    reference=layer_hessian,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_batches,
)
