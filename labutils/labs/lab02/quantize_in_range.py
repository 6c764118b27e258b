"""quantize in range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import real_array, real_number
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception
from labutils.labs import answers
from labutils.labs.contract import read_asymmetric, trained_weights
from labutils.labs.lab02 import LESSON
from labutils.labs.lab02._shared import POSITIVE, _code_dtype, relu_activations
from labutils.labs.lab02.quantize_asymmetric import _clamped, _judge_on_the_grid_of, _limits, _rounded
from labutils.labs.recipes import wrapping

Array = Any  # a numpy.ndarray or a torch.Tensor


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


def _range_cases() -> list[Case]:
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


def _judge_in_range(answer: dict, case: Case) -> None:
    x, low, high = case.args
    _judge_on_the_grid_of(answer, x, low, high, case.kwargs.get("num_bits", 8), "high - low")


def _in_range(
    codes: Callable = lambda x, scale, zero: np.round(x / scale) + zero,
    ends: Callable = lambda x, low, high: (min(low, 0), max(high, 0)),
    limits: Callable | None = _limits,
    dtype: Callable | None = _code_dtype,
    levels: Callable = lambda bits: 2**bits - 1,
    zero: Callable = _rounded,
) -> Callable:
    """A quantizer for a given range in which one step can be replaced by a wrong one."""

    def quantize(x, low, high, num_bits=8):
        low, high = ends(x, low, high)
        scale = np.float32((high - low) / levels(num_bits)) or np.float32(1)
        zero_point = zero(low, scale, num_bits)
        q = codes(x, scale, zero_point)
        if limits is not None:
            q = np.clip(q, *limits(num_bits))
        return (q if dtype is None else wrapping(q, dtype(num_bits))), scale, zero_point

    return quantize


def _beforehand(change: Callable) -> Callable:
    """The right quantizer, after `change(x, low, high)` has been done to the values."""

    def quantize(x, low, high, num_bits=8):
        return quantize_in_range(change(x, low, high), low, high, num_bits)

    return quantize


QUANTIZE_IN_RANGE = (
    Misconception(
        "no clamp, and the cast wraps around",
        _in_range(limits=None),
        "A value beyond the range gets a code beyond the last one, and the cast wraps it around to somewhere else. "
        "Clamp the codes, then cast.",
    ),
    Misconception(
        "the cast comes before the clamp",
        _in_range(codes=lambda x, scale, zero: wrapping(np.round(x / scale) + zero, np.uint8)),
        "After the cast to uint8 everything lies in 0 to 255 already, wrapped around, and there is nothing left to "
        "clamp.",
    ),
    Misconception(
        "the cast to int8 comes before zero point and clamp",
        _in_range(codes=lambda x, scale, zero: wrapping(np.round(x / scale), np.int8).astype(np.int64) + zero),
        "Steps do not fit into int8: 200 wraps around to -56, and no clamp can tell. Cast at the end.",
    ),
    Misconception(
        "clamped to uint8 at every bit width",
        _in_range(limits=lambda bits: (0, 255)),
        "255 is the largest code at 8 bits only. Compute it from num_bits: 15 at 4 bits.",
    ),
    Misconception(
        "the range of the values, not the given one",
        lambda x, low, high, num_bits=8: answers.quantize_asymmetric(x, num_bits),
        "`low` and `high` say where the grid ends, whatever the values are.",
    ),
    Misconception(
        "the range of the clipped values",
        lambda x, low, high, num_bits=8: answers.quantize_asymmetric(np.clip(x, low, high), num_bits),
        "Where no value reaches the ends, the range of the clipped values is smaller than the given one. "
        "The scale must come from `low` and `high`.",
    ),
    Misconception(
        "the range is not widened to include 0",
        _in_range(ends=lambda x, low, high: (low, high)),
        "From 1 to 3, there is no code for 0.0, and the zero point fits nowhere. Widen the range first.",
    ),
    Misconception(
        "the range is not widened to include 0, and the zero point is clamped",
        _in_range(ends=lambda x, low, high: (low, high), zero=_clamped),
        "From 1 to 3, there is no code for 0.0, and clamping the zero point moves the grid away from the range. "
        "Widen the range first.",
    ),
    Misconception(
        "clips to the range before it was widened",
        _beforehand(lambda x, low, high: np.clip(x, low, high)),
        "The grid reaches to 0, so values between 0 and the given range have codes of their own.",
    ),
    Misconception(
        "values beyond the range become 0",
        _beforehand(lambda x, low, high: np.where((x < min(low, 0)) | (x > max(high, 0)), 0, x).astype(x.dtype)),
        "Saturating moves a value to the nearest end of the grid. 0 is further away.",
    ),
    Misconception(
        "values beyond the range are dropped",
        _beforehand(lambda x, low, high: np.append(x[(x >= min(low, 0)) & (x <= max(high, 0))], x.dtype.type(0))),
        "The tensor must keep its shape. Saturating moves a value to the nearest end of the grid.",
    ),
    Misconception(
        "a symmetric range",
        _in_range(ends=lambda x, low, high: (-max(-low, high), max(-low, high))),
        "The grid begins at `low` and ends at `high`; it need not reach equally far both ways.",
    ),
    Misconception(
        "divides by 2^b",
        _in_range(levels=lambda bits: 2**bits),
        "Between 2^b codes there are 2^b - 1 steps.",
    ),
    Misconception(
        "the zero point is truncated",
        _in_range(zero=lambda low, scale, bits: int(-low / scale)),
        "`int(...)` cuts the fraction off. Round first.",
    ),
    Misconception(
        "floor or a cast instead of round",
        _in_range(codes=lambda x, scale, zero: np.floor(x / scale + zero)),
        "`np.floor` and a cast of positive numbers go down. Go to the nearest integer.",
    ),
    Misconception(
        "codes left as floats",
        _in_range(dtype=None),
        "The values are whole numbers, but still stored as floats. Cast them to an unsigned dtype.",
    ),
)


EXERCISE = Exercise(
    name="quantize_in_range",
    lab=LESSON,
    place=30,
    points=2,
    reference=quantize_in_range,
    cases=_range_cases,
    read=read_asymmetric,
    judge=_judge_in_range,
    misconceptions=QUANTIZE_IN_RANGE,
    stretch=True,
)
