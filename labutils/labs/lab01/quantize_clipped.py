"""quantize clipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import positive_number, real_array
from labutils.arrays.metrics import quantization_error as quantization_error  # a learner writes it in lab 01
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import answers
from labutils.labs.contract import judge_codes, judge_rounding, judge_scale, read_quantized, trained_weights
from labutils.labs.lab01 import LESSON
from labutils.labs.lab01._shared import _step
from labutils.labs.recipes import wrapping

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantize_clipped(x: Array, clip: float, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes on the grid of [-clip, clip]: scale = clip / (2^(b-1) - 1); values beyond it saturate.

    >>> quantize_clipped(np.array([-1.0, 0.5, 9.0], dtype=np.float32), 1.27)
    (array([-100,   50,  127], dtype=int8), array(0.01, dtype=float32))
    """
    scheme = Scheme(num_bits)
    xp, x = real_array(x)
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    scale = _step(xp, positive_number(clip, "clip") / scheme.quant_max, dtype, x)
    quantized = affine.quantize(x, scheme, (scale, 0))
    return quantized.codes, quantized.scale


def _clipped_cases() -> list[Case]:
    w = trained_weights()
    largest = float(np.abs(w).max())
    return [
        Case("the worked example", (np.array([-1.0, 0.504, 9.0], dtype=np.float32), 1.27), {"num_bits": 8}),
        Case("8 bits is the default", (np.array([-1.0, 0.504, 9.0], dtype=np.float32), 1.27)),
        Case("trained weights, clipped at half their range", (w, largest / 2), {"num_bits": 4}),
        Case("trained weights at 8 bits, clipped at a quarter", (w, largest / 4), {"num_bits": 8}),
        Case("trained weights at 2 bits, clipped at a third", (w, largest / 3), {"num_bits": 2}),
        Case("a clip beyond every value", (w[:4], 3 * largest), {"num_bits": 4}),
        Case("an outlier a million times the clip", (np.array([0.3, -1e6, 1e6, -0.7], dtype=np.float32), 1.0)),
        Case("16 bits", (w[0], largest / 2), {"num_bits": 16}),
        Case("all zero", (np.zeros(4, dtype=np.float32), 1.0)),
    ]


def _judge_clipped(answer: dict, case: Case) -> None:
    x, clip = case.args
    num_bits = case.kwargs.get("num_bits", 8)
    q, scale = answer["q"], answer["scale"]
    scheme = Scheme(num_bits)
    judge_codes(q, x, num_bits)
    judge_scale(scale, clip / scheme.quant_max, f"clip / {scheme.quant_max}")
    inside = np.abs(x) <= clip
    if inside.any():
        judge_rounding(q[inside], scale, x[inside], num_bits)
    ends = np.where(x > 0, scheme.quant_max, -scheme.quant_max)
    # Below -clip both -quant_max and the unused code beside it are clamped values.
    wrong = ~inside & (np.abs(q.astype(np.int64) - ends) > (x < 0))
    if wrong.any():
        i = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise Wrong(
            f"{x[i]:.4g} lies beyond the clip of {clip:.4g} and should saturate at code {ends[i]}, "
            f"but its code is {q[i]}"
        )


def _clipping(quantize: Callable) -> Callable:
    def clipped(x, clip, num_bits=8):
        scheme = Scheme(num_bits)
        return quantize(x, clip, scheme, np.float32(clip / scheme.quant_max))

    return clipped


def _saturate(steps: np.ndarray, scheme: Scheme) -> np.ndarray:
    return np.clip(steps, scheme.quant_min, scheme.quant_max).astype(scheme.code_dtype)


def _with_largest(change: Callable) -> Callable:
    """Quantizes change(x, clip) with the scale of x's own largest value."""

    def quantize(x, clip, scheme, scale):
        return answers.quantize_symmetric(change(x, clip), scheme.num_bits)

    return _clipping(quantize)


QUANTIZE_CLIPPED = (
    Misconception(
        "no clamp: codes wrap around",
        _clipping(lambda x, clip, s, scale: (wrapping(np.round(x / scale), np.dtype(s.code_dtype).type), scale)),
        "A value beyond the clip has no code. Without a clamp the cast wraps it around, to any code at all. "
        "Clamp to [quant_min, quant_max] before the cast.",
    ),
    Misconception(
        "cast before the clamp",
        _clipping(
            lambda x, clip, s, scale: (
                np.clip(wrapping(np.round(x / scale), np.dtype(s.code_dtype).type), s.quant_min, s.quant_max),
                scale,
            )
        ),
        "The cast came first and wrapped what was too large; the clamp then had nothing left to do. Clamp, then cast.",
    ),
    Misconception(
        "the clip is ignored",
        _with_largest(lambda x, clip: x),
        "The scale came from max|x|. Here the caller says how far the grid reaches: clip.",
    ),
    Misconception(
        "values are clipped, but the scale still comes from the tensor",
        _with_largest(lambda x, clip: np.clip(x, -clip, clip)),
        "Where no value reaches the clip, max|x| is smaller than it. The scale must come from clip itself.",
    ),
    Misconception(
        "outliers are set to zero",
        _clipping(lambda x, clip, s, scale: (_saturate(np.round(np.where(np.abs(x) > clip, 0, x) / scale), s), scale)),
        "Clipping moves a value to the nearest end of the grid. Zero is much further away.",
    ),
    Misconception(
        "outliers are dropped",
        _clipping(lambda x, clip, s, scale: (_saturate(np.round(x[np.abs(x) <= clip] / scale), s), scale)),
        "The tensor must keep its shape. Clipping moves a value to the nearest end of the grid.",
    ),
    Misconception(
        "divides the clip by 2^(b-1)",
        _clipping(
            lambda x, clip, s, scale: (
                _saturate(np.round(x / (clip / 2 ** (s.num_bits - 1))), s),
                np.float32(clip / 2 ** (s.num_bits - 1)),
            )
        ),
        "The largest code is 2^(b-1) - 1, so that is how many steps reach from 0 to clip.",
    ),
    Misconception(
        "127 at every bit width",
        _clipping(
            lambda x, clip, s, scale: (
                np.clip(np.round(x / (clip / 127)), -128, 127).astype(s.code_dtype),
                np.float32(clip / 127),
            )
        ),
        "127 is the largest code at 8 bits only. Compute it from num_bits.",
    ),
    Misconception(
        "truncation instead of round",
        _clipping(lambda x, clip, s, scale: (_saturate(np.trunc(x / scale), s), scale)),
        "Casting to an integer cuts the fraction off. Round before you cast.",
    ),
    Misconception(
        "floor instead of round",
        _clipping(lambda x, clip, s, scale: (_saturate(np.floor(x / scale), s), scale)),
        "`np.floor` always goes down. Go to the nearest integer.",
    ),
    Misconception(
        "codes left as floats",
        _clipping(lambda x, clip, s, scale: (np.clip(np.round(x / scale), s.quant_min, s.quant_max), scale)),
        "The values are whole numbers, but still stored as floats. Cast them to an integer dtype.",
    ),
)


EXERCISE = Exercise(
    name="quantize_clipped",
    lab=LESSON,
    place=40,
    points=2,
    reference=quantize_clipped,
    cases=_clipped_cases,
    read=read_quantized,
    judge=_judge_clipped,
    misconceptions=QUANTIZE_CLIPPED,
)
