"""quantize_in_range: an asymmetric grid for a range that the caller gives, as calibration does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array, real_array, real_number
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception
from labutils.labs import answers, families
from labutils.labs.contract import read_asymmetric, trained_weights
from labutils.labs.lab02 import LESSON
from labutils.labs.lab02.quantize_asymmetric import (
    POSITIVE,
    clamped_zero_point,
    judge_on_grid,
    relu_activations,
)
from labutils.labs.recipes import Asymmetric, wrapping


def quantize_in_range(x: Array, low: float, high: float, num_bits: int = 8) -> tuple[Array, Array, Array]:
    """As `quantize_asymmetric`, with the grid of [low, high] instead of [min(x), max(x)]; values beyond it saturate.

    >>> quantize_in_range(np.array([-0.6, 0.5, 2.0, 9.0], dtype=np.float32), 0, 2.55)
    (array([  0,  50, 200, 255], dtype=uint8), array(0.01, dtype=float32), array(0, dtype=int32))

    The range is first widened to include 0. ValueError where low > high, or where both are 0 in
    the dtype of `scale`.
    """
    scheme = Scheme(num_bits, symmetric=False)
    _, x = real_array(x)
    if real_number(low, "low") == real_number(high, "high") == 0:
        raise ValueError(f"the range must be more than 0, got [{low:g}, {high:g}]")
    quantized = affine.quantize(x, scheme, affine.qparams_of_range(low, high, scheme, like=x))
    return quantized.codes, quantized.scale, quantized.zero_point


def cases() -> list[Case]:
    w, a = trained_weights(), relu_activations()
    outlier = np.array([0.3, -1e6, 1e6, 0.9, -0.2], dtype=np.float32)
    return [
        Case("the worked example", (np.array([-0.7, 0.5, 2.0, 9.0], np.float32), -0.25, 2.3), {"num_bits": 8}),
        Case("8 bits is the default", (np.array([-0.7, 0.5, 2.0, 9.0], np.float32), -0.25, 2.3)),
        Case("ReLU activations, cut at 2", (a, 0.0, 2.0), {"num_bits": 4}),
        Case("trained weights, cut unevenly", (w, -0.3, 0.2), {"num_bits": 4}),
        Case("trained weights at 8 bits, cut below only", (w, -0.1, 1.0), {"num_bits": 8}),
        Case("the range is wider than the values", (w[:4], -3.0, 5.0), {"num_bits": 6}),
        Case("outliers a million times the range", (outlier, -1.0, 1.0)),
        Case("a range without 0 is widened", (np.linspace(0, 4, 50, dtype=np.float32), 1.0, 3.0), {"num_bits": 5}),
        Case("a range below 0 is widened", (np.linspace(-4, 1, 50, dtype=np.float32), -3.0, -1.0), {"num_bits": 5}),
        Case("16 bits", (w[0], -0.25, 0.3), {"num_bits": 16}),
        Case("all values lie above the range", (POSITIVE, -1.0, 2.0)),
        Case("all zero", (np.zeros(4, dtype=np.float32), -1.0, 2.0)),
    ]


def judge(answer: dict, case: Case) -> None:
    x, low, high = case.args
    judge_on_grid(answer, x, low, high, case.kwargs.get("num_bits", 8), "high - low")


@dataclass(frozen=True)
class InRange(Asymmetric):
    """The recipe on the grid of the given range: `ends` is of x, low and high."""

    ends: Callable = lambda x, low, high: (min(low, 0), max(high, 0))

    def __call__(self, x, low, high, num_bits=8):
        return self.quantize(x, self.ends(x, low, high), num_bits)


right = InRange()
not_widened = right.but(ends=lambda x, low, high: (low, high))


def after(change: Callable) -> Callable:
    """The right quantizer of `change(x, low, high)`."""
    return lambda x, low, high, num_bits=8: right(change(x, low, high), low, high, num_bits)


def beyond(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return (x < min(low, 0)) | (x > max(high, 0))


MISCONCEPTIONS = (
    Misconception("no clamp, and the cast wraps around", right.but(clamp=families.unclamped),
        "A value beyond the range gets a code beyond the last one, and the cast wraps it around to somewhere else. "
        "Clamp the codes, then cast."),
    Misconception("the cast comes before the clamp",
        right.but(shift=lambda steps, zero_point: wrapping(steps + zero_point, np.uint8)),
        "After the cast to uint8 everything lies in 0 to 255 already, wrapped around, and there is nothing left to "
        "clamp."),
    Misconception("the cast to int8 comes before zero point and clamp",
        right.but(round=lambda steps: wrapping(np.round(steps), np.int8).astype(np.int64)),
        "Steps do not fit into int8: 200 wraps around to -56, and no clamp can tell. Cast at the end."),
    Misconception("clamped to uint8 at every bit width", right.but(clamp=lambda codes, bits: np.clip(codes, 0, 255)),
        "255 is the largest code at 8 bits only. Compute it from num_bits: 15 at 4 bits."),
    Misconception("the range of the values, not the given one",
        lambda x, low, high, num_bits=8: answers.quantize_asymmetric(x, num_bits),
        "`low` and `high` say where the grid ends, whatever the values are."),
    Misconception("the range of the clipped values",
        lambda x, low, high, num_bits=8: answers.quantize_asymmetric(np.clip(x, low, high), num_bits),
        "Where no value reaches the ends, the range of the clipped values is smaller than the given one. "
        "The scale must come from `low` and `high`."),
    Misconception("the range is not widened to include 0", not_widened,
        "From 1 to 3, there is no code for 0.0, and the zero point fits nowhere. Widen the range first."),
    Misconception("the range is not widened to include 0, and the zero point is clamped",
        not_widened.but(zero_point=clamped_zero_point),
        "From 1 to 3, there is no code for 0.0, and clamping the zero point moves the grid away from the range. "
        "Widen the range first."),
    Misconception("clips to the range before it was widened", after(lambda x, low, high: np.clip(x, low, high)),
        "The grid reaches to 0, so values between 0 and the given range have codes of their own."),
    Misconception("values beyond the range become 0",
        after(lambda x, low, high: np.where(beyond(x, low, high), 0, x).astype(x.dtype)),
        "Saturating moves a value to the nearest end of the grid. 0 is further away."),
    Misconception("values beyond the range are dropped",
        after(lambda x, low, high: np.append(x[~beyond(x, low, high)], x.dtype.type(0))),
        "The tensor must keep its shape. Saturating moves a value to the nearest end of the grid."),
    Misconception("a symmetric range", right.but(ends=lambda x, low, high: (-max(-low, high), max(-low, high))),
        "The grid begins at `low` and ends at `high`; it need not reach equally far both ways."),
    *families.levels(right),
    *families.zero_points(right),
    *families.unsigned_rounding(right),
    *families.units(right),
    *families.unsigned_dtypes(right),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_in_range",
    lab=LESSON,
    place=30,
    points=2,
    reference=quantize_in_range,
    cases=cases,
    read=read_asymmetric,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
)
