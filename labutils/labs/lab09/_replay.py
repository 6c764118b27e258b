"""What holds for any exercise that rounds column by column: GPTQ is replayed with the codes that were given."""

from __future__ import annotations

from typing import Any

import numpy as np

from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Wrong
from labutils.course.reading import distinct
from labutils.labs.contract import judge_codes, judge_scales, read_scaled
from labutils.labs.lab09._columns import damped, ones_for_dead
from labutils.labs.tensors import require_unchanged

NEAR = 0.01  # steps: what float32 may be off by, where the contract's float64 is not followed


def read(value: Any) -> dict:
    require_unchanged(value)
    return read_scaled(value)


def judge_columns(
    answer: dict, weight: np.ndarray, hessian: np.ndarray, num_bits: int, group_size: int, damping: float,
    in_order: bool = False,
) -> None:  # fmt: skip
    """Every scale and code is the one that follows from the codes before it, whatever these are.

    So a tie that was rounded the other way, and all that follows from it, is right as well. `in_order`: columns are
    taken by falling H_jj, and scales are those of the weights as they came.
    """
    q, scales = answer["q"], answer["scales"]
    w, h = weight.astype(np.float64), hessian.astype(np.float64)
    (outputs, length), scheme = w.shape, Scheme(num_bits)
    judge_codes(q, w, num_bits)
    shape = (outputs, -(-length // group_size))
    if scales.shape != shape:
        raise Wrong(f"scales should have shape {shape}, a scale for each group of each row, but has {scales.shape}")
    if in_order:
        peaks = [np.abs(w[:, start : start + group_size]).max(axis=1) for start in range(0, length, group_size)]
        judge_scales(scales, np.stack(peaks, axis=1), num_bits, "max|group| of the weights as they came")
    order = np.argsort(-np.diag(h), kind="stable") if in_order else np.arange(length)
    factor = np.linalg.cholesky(np.linalg.inv(ones_for_dead(damped(h, damping))[order][:, order])).T
    for place, j in enumerate(order):
        if not in_order and j % group_size == 0:
            _judge_scale_of_group(scales, w, weight, int(j), group_size, scheme.quant_max)
        scale = scales[:, j // group_size]
        steps = w[:, j] / scale
        off = np.abs(np.clip(steps, scheme.quant_min, scheme.quant_max) - q[:, j])
        row = int(off.argmax())
        if off[row] > 0.5 + NEAR:
            raise Wrong(_wrong_code(row, int(j), place, weight, w, scale, q, scheme))
        error = (w[:, j] - q[:, j] * scale) / factor[place, place]
        w[:, order[place:]] -= np.outer(error, factor[place, place:])


def _judge_scale_of_group(
    scales: np.ndarray, w: np.ndarray, weight: np.ndarray, j: int, size: int, quant_max: int
) -> None:
    peaks, before = (np.abs(m[:, j : j + size]).max(axis=1) for m in (w, weight.astype(np.float64)))
    group = scales[:, j // size]
    if not (np.isfinite(group) & (group > 0)).all():
        row = int(np.argmin(np.isfinite(group) & (group > 0)))
        raise Wrong(f"scales[{row}, {j // size}] should be a positive number, but it is {group[row]:g}")
    off = np.where(peaks > 0, np.abs(group * quant_max / np.where(peaks > 0, peaks, 1) - 1), 0)
    row = int(off.argmax())
    if off[row] > 1e-3:
        wanted, found = distinct(peaks[row] / quant_max, group[row], 4)
        came = f" (it was {before[row]:.4g} before the updates)" if abs(before[row] / peaks[row] - 1) > 1e-3 else ""
        raise Wrong(
            f"scales[{row}, {j // size}] should be max|group| / {quant_max} = {peaks[row]:.4g} / {quant_max} = "
            f"{wanted}{came}, but it is {found}"
        )


def _wrong_code(
    row: int, j: int, place: int, weight: np.ndarray, w: np.ndarray, scale: np.ndarray, q: np.ndarray, scheme: Scheme
) -> str:
    steps = w[row, j] / scale[row]
    wanted = int(np.clip(np.round(steps), scheme.quant_min, scheme.quant_max))
    came, now = float(weight[row, j]), float(w[row, j])
    if place == 0:
        told = f"the weight {came:.4g} of the first column to be rounded is {steps:.3f} steps"
    else:
        told = (
            f"the errors of the {place} column{'s' if place > 1 else ''} before it have moved this weight from "
            f"{came:.4g} to {now:.4g}, that is {steps:.3f} steps"
        )
    return f"q[{row}, {j}] should be {wanted}, but it is {q[row, j]}: {told}"
