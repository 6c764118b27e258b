"""Weights rounded column by column, each column's error passed on: the recipe, and mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.course.exercise import Misconception
from labutils.labs.recipes import Recipe, clamped, largest_code, ones_for_zeros, smallest_dtype, wrapping


def damped(hessian: np.ndarray, damping: float) -> np.ndarray:
    return hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian))


def ones_for_dead(hessian: np.ndarray) -> np.ndarray:
    return hessian + np.diag(np.where(np.diag(hessian) == 0, 1.0, 0.0))


def factor_of_inverse(hessian: np.ndarray) -> np.ndarray:
    """U, upper triangular, with U^T U the inverse; with torch, whose errors a learner's line raises as well."""
    import torch

    return torch.linalg.cholesky(torch.linalg.inv(torch.from_numpy(hessian)), upper=True).numpy()


def inverse(hessian: np.ndarray) -> np.ndarray:
    import torch

    return torch.linalg.inv(torch.from_numpy(hessian)).numpy()


def peaks_now(w: np.ndarray, weight: np.ndarray, start: int, size: int) -> np.ndarray:
    """The largest magnitudes of a group's columns as they are when the first of them is reached."""
    return np.abs(w[:, start : start + size]).max(axis=1)


def peaks_before(w: np.ndarray, weight: np.ndarray, start: int, size: int) -> np.ndarray:
    return np.abs(weight[:, start : start + size]).max(axis=1)


def passed_on(w: np.ndarray, j: int, error: np.ndarray, u: np.ndarray) -> None:
    w[:, j:] -= np.outer(error, u[j, j:])


@dataclass(frozen=True)
class Columns(Recipe):
    """GPTQ's steps, in float64: H damped and factored; then for each column scale, code, error, `update` in place."""

    hessian: Callable = lambda h, w: h
    damp: Callable = damped
    dead: Callable = ones_for_dead
    factor: Callable = factor_of_inverse
    span: Callable = peaks_now
    divisor: Callable = largest_code
    floor: Callable = ones_for_zeros
    round: Callable = np.round
    clamp: Callable = clamped
    error: Callable = lambda w, back: w - back
    pivot: Callable = lambda u, j: u[j, j]
    update: Callable = passed_on
    dtype: Callable = smallest_dtype
    result: Callable = lambda q, scales: (q, scales)

    def __call__(self, weight, hessian, num_bits=4, group_size=128, damping=0.01):
        original = weight.numpy().astype(np.float64)
        u = self.prepared(hessian, original, damping)
        w, scales = original.copy(), []

        def scale_at(j: int) -> np.ndarray:
            if j % group_size == 0:
                scales.append(self.floor(self.span(w, original, j, group_size) / self.divisor(num_bits)))
            return scales[-1]

        q = self.rounded(w, u, scale_at, num_bits)
        return self.result(self.stored(q, num_bits), np.stack(scales, axis=1))

    def prepared(self, hessian: Any, weight: np.ndarray, damping: float) -> np.ndarray:
        h = self.hessian(hessian.numpy().astype(np.float64), weight)
        return self.factor(self.dead(self.damp(h, damping)))

    def rounded(self, w: np.ndarray, u: np.ndarray, scale_at: Callable, num_bits: int) -> np.ndarray:
        """The codes of all columns, still floats; `w` holds the updated weights afterwards."""
        q = np.zeros_like(w)
        for j in range(w.shape[1]):
            scale = scale_at(j)
            q[:, j] = self.clamp(self.round(w[:, j] / scale), num_bits)
            self.update(w, j, self.error(w[:, j], q[:, j] * scale) / self.pivot(u, j), u)
        return q

    def stored(self, q: np.ndarray, num_bits: int) -> np.ndarray:
        dtype = self.dtype(num_bits)
        return q if dtype is None else wrapping(q, dtype)


def not_passed_on(w, j, error, u):
    pass


def with_one_row_of_the_inverse(w, j, error, inverse):
    w[:, j:] -= np.outer(error, inverse[j, j:])


def passing_mistakes(right: Columns) -> tuple[Misconception, ...]:
    """Mistakes of damping, factor, error and update, which all exercises on columns share."""
    return (
        Misconception("nothing is passed on", right.but(update=not_passed_on),
            "This is rounding to nearest, with scales for groups. The error of a column must move the columns to come. "
            "If your loop does subtract something, look at what: a lower triangular factor, and one made of the "
            "diagonal alone, hold only zeros behind the diagonal entry."),
        Misconception("the error is added to the columns to come",
            right.but(error=lambda w, back: back - w),
            "The sign of the error is turned: an error that a column made is made again by the others. With error = "
            "weight minus what its code stands for, the update is subtracted."),
        Misconception("the error is not divided by the diagonal entry", right.but(pivot=lambda u, j: 1.0),
            "Row j of the factor begins with its diagonal entry. The error is divided by it, so that the update of "
            "column j itself is just the error."),
        Misconception("the error is divided by the square of the diagonal entry",
            right.but(pivot=lambda u, j: u[j, j] ** 2),
            "The OBS formula divides by an entry of the inverse. Row j of the factor is already divided by its root: "
            "only the root is left."),
        Misconception("the error is multiplied by the diagonal entry", right.but(pivot=lambda u, j: 1 / u[j, j]),
            "The error is divided by the diagonal entry of the factor, not multiplied."),
        Misconception("the error is divided by the next diagonal entry",
            right.but(pivot=lambda u, j: u[min(j + 1, len(u) - 1), min(j + 1, len(u) - 1)]),
            "The diagonal entry belongs to the column that has just been rounded: row j, column j."),
        Misconception("the error is divided by the first diagonal entry", right.but(pivot=lambda u, j: u[0, 0]),
            "Each column has a diagonal entry of its own: row j, column j of the factor."),
        Misconception("a code's error instead of the weight's",
            lambda weight, hessian, num_bits=4, group_size=128, damping=0.01: in_codes(
                right, weight, hessian, num_bits, group_size, damping),
            "The error is measured between the weight and the code. Take the code back to a weight first: code times "
            "scale."),
        Misconception("the error in steps instead of the weight's units", in_steps(right),
            "What is passed on moves weights, so it must be in their units: the weight minus code times scale, not the "
            "steps minus the code."),
        Misconception("the inverse without its factor",
            right.but(factor=inverse, update=with_one_row_of_the_inverse),
            "Once a column is rounded it is no longer free, and the inverse of the Hessian of the *others* is another "
            "one. The rows of the Cholesky factor of the inverse are right for all columns; rows of the inverse only "
            "for the first."),
        Misconception("the factor of H instead of its inverse",
            right.but(factor=lambda h: factor_of_inverse(np.linalg.inv(h))),
            "The Cholesky factor is to be that of the *inverse* of the damped Hessian."),
        Misconception("columns already rounded are updated, too", rounded_again(right),
            "What is rounded stays rounded. Only the columns behind j are still free to move."),
        Misconception("only the next column is updated",
            right.but(update=lambda w, j, error, u: passed_on(w[:, : j + 2], j, error, u[:, : j + 2])),
            "The error goes to *all* columns to come, each by its own entry of row j."),
        Misconception("the update stops at the end of the group",
            lambda weight, hessian, num_bits=4, group_size=128, damping=0.01: right.but(
                update=lambda w, j, error, u: passed_on(
                    w[:, : (j // group_size + 1) * group_size], j, error, u[:, : (j // group_size + 1) * group_size])
            )(weight, hessian, num_bits, group_size, damping),
            "A group shares a scale, no more. Errors also move the columns of all groups behind it."),
        Misconception("H from the weights", right.but(hessian=lambda h, w: 2 * w.T @ w),
            "The Hessian that was given was not used. It comes from the layer's inputs: they say what an error costs."),
        Misconception("no damping", right.but(damp=lambda h, damping: h),
            "damping times the mean of the diagonal belongs on the diagonal. Without it, a Hessian of few rows cannot "
            "be inverted, and that of many may be inverted badly."),
        Misconception("damping without the mean of the diagonal",
            right.but(damp=lambda h, damping: h + damping * np.eye(len(h))),
            "The damping is a fraction of the diagonal's mean. As a number it would be nothing for loud inputs and "
            "everything for quiet ones."),
        Misconception("a fraction of each diagonal entry",
            right.but(damp=lambda h, damping: h + damping * np.diag(np.diag(h))),
            "Every entry of the diagonal gets the same amount, damping times the *mean*."),
        Misconception("damping on every entry",
            right.but(damp=lambda h, damping: h + damping * np.diag(h).mean()),
            "Only the diagonal gets the damping. A number added to a matrix is added to all of its entries."),
        Misconception("the mean of all of H instead of its diagonal",
            right.but(damp=lambda h, damping: h + damping * h.mean() * np.eye(len(h))),
            "The mean of the *diagonal* says how large a usual square is. Beside the diagonal, entries cancel."),
        Misconception("the damping is fixed at 0.01",
            right.but(damp=lambda h, damping: damped(h, 0.01)),
            "0.01 is the default. Use `damping`."),
        Misconception("a dead channel is not looked after", right.but(dead=lambda h: h),
            "A channel that was always 0 leaves a 0 on the diagonal, where damping is 0, and then nothing can be "
            "inverted. Put a 1 there."),
        Misconception("a dead channel gets its 1 before the damping",
            right.but(damp=lambda h, damping: damped(ones_for_dead(h), damping)),
            "The 1 of a dead channel then counts in the mean, and with quiet inputs it is the largest entry. Add the "
            "damping first, and look for zeros that are still there."),
        Misconception("the weights of a dead channel become 0", dead_weights_to_zero(right),
            "The published GPTQ does so. Here a channel that was silent in calibration keeps its weights, rounded to "
            "nearest: it may speak later."),
    )  # fmt: skip


def grid_mistakes(right: Columns) -> tuple[Misconception, ...]:
    """Mistakes of codes and scales, and of what is returned."""
    return (
        Misconception("codes are not clamped", right.but(clamp=lambda steps, num_bits: steps),
            "Updates can push a weight beyond the grid that its group's scale was made for. Clamp the codes."),
        Misconception("the lowest code is left out",
            right.but(clamp=lambda steps, num_bits: np.clip(steps, -largest_code(num_bits), largest_code(num_bits))),
            "The codes begin at -2^(b-1). With max|w| / (2^(b-1) - 1) it looks unused, but an update may lead there."),
        Misconception("floor instead of round", right.but(round=np.floor),
            "Rounding down makes errors twice as large, all of one sign. Round to nearest."),
        Misconception("truncation instead of round", right.but(round=np.trunc),
            "A cast to int cuts towards zero. Round to nearest first."),
        Misconception("the scale is divided by 2^(b-1)", right.but(divisor=lambda num_bits: largest_code(num_bits) + 1),
            "The largest magnitude belongs on the largest code, 2^(b-1) - 1."),
        Misconception("a group of zeros divides by zero", right.but(floor=lambda scale: scale),
            "A row whose group is all zero has the scale 0, and 0 / 0 is NaN. Its scale is 1."),
        Misconception("codes left as floats", right.but(dtype=lambda num_bits: None),
            "Codes are integers: int8 up to 8 bits."),
        Misconception("returns the weights instead of the codes", weights_for_codes(right),
            "Codes and scales are asked for. What they stand for together is for whoever uses them."),
        *exchanged(right),
        Misconception("scales of shape (groups, rows)", right.but(result=lambda q, scales: (q, scales.T)),
            "A row of scales for each row of the weight: stack the groups along the last axis."),
    )  # fmt: skip


def exchanged(right: Columns) -> tuple[Misconception, ...]:
    """Of both widths, as a diagnosis compares dtypes, and scales may have either."""
    return tuple(
        Misconception(
            "returns scales and codes in the wrong order",
            right.but(result=lambda q, scales, dtype=dtype: (scales.astype(dtype), q)),
            "The contract is `return q, scales`: codes first.",
        )
        for dtype in (np.float64, np.float32)
    )


def in_steps(right: Columns) -> Callable:
    def wrong(weight, hessian, num_bits=4, group_size=128, damping=0.01):
        seen = []

        def remembered(steps):
            seen.append(steps)
            return np.round(steps)

        def error(w, back):
            return seen[-1] - clamped(np.round(seen[-1]), num_bits)

        return right.but(round=remembered, error=error)(weight, hessian, num_bits, group_size, damping)

    return wrong


def rounded_again(right: Columns) -> Callable:
    """Rounded columns are kept in `w`, the inverse's rows move them again, and codes are made of `w` at the end."""

    def wrong(weight, hessian, num_bits=4, group_size=128, damping=0.01):
        scales = []

        def everywhere(w, j, error, inverse):
            w -= np.outer(error, inverse[j])

        def final(q, per_group):
            scales.append(per_group)
            return q, per_group

        kept = {}
        recipe = right.but(
            factor=inverse, update=lambda w, *step: kept.update(w=w) or everywhere(w, *step), result=final
        )
        q, per_group = recipe(weight, hessian, num_bits, group_size, damping)
        columns = np.repeat(per_group, group_size, axis=1)[:, : q.shape[1]]
        return right.stored(clamped(np.round(kept["w"] / columns), num_bits), num_bits), per_group

    return wrong


def weights_for_codes(right: Columns) -> Callable:
    def wrong(weight, hessian, num_bits=4, group_size=128, damping=0.01):
        q, scales = right(weight, hessian, num_bits, group_size, damping)
        back = q * np.repeat(scales, group_size, axis=1)[:, : q.shape[1]]
        return back.astype(np.float32), scales

    return wrong


def in_codes(right: Columns, weight: Any, hessian: Any, num_bits: int, group_size: int, damping: float) -> tuple:
    """`error` gets codes in place of what they stand for."""
    seen = []

    def remembered(steps, num_bits):
        seen.append(clamped(steps, num_bits))
        return seen[-1]

    return right.but(clamp=remembered, error=lambda w, back: w - seen[-1])(
        weight, hessian, num_bits, group_size, damping
    )


def dead_weights_to_zero(right: Columns) -> Callable:
    def wrong(weight, hessian, num_bits=4, group_size=128, damping=0.01):
        alive = (hessian.diagonal() != 0).to(weight)
        return right(weight * alive, hessian, num_bits, group_size, damping)

    return wrong
