"""quantize_clipped: a grid that ends where the caller says, and saturates there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array, positive_number, real_array, working_dtype
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import families
from labutils.labs.contract import (
    judge_codes,
    judge_rounding,
    judge_scale,
    largest_at,
    read_quantized,
    trained_weights,
)
from labutils.labs.lab01 import LESSON
from labutils.labs.lab01.dequantize_symmetric import as_scale
from labutils.labs.recipes import Symmetric, clamped, smallest_dtype, wrapping


def quantize_clipped(x: Array, clip: float, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes on the grid of [-clip, clip]: scale = clip / (2^(b-1) - 1); values beyond it saturate.

    >>> quantize_clipped(np.array([-1.0, 0.5, 9.0], dtype=np.float32), 1.27)
    (array([-100,   50,  127], dtype=int8), array(0.01, dtype=float32))
    """
    scheme = Scheme(num_bits)
    xp, x = real_array(x)
    scale = as_scale(xp, positive_number(clip, "clip") / scheme.quant_max, working_dtype(xp, x), x)
    quantized = affine.quantize(x, scheme, (scale, 0))
    return quantized.codes, quantized.scale


def cases() -> list[Case]:
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


def judge(answer: dict, case: Case) -> None:
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
        i = largest_at(wrong)
        raise Wrong(
            f"{x[i]:.4g} lies beyond the clip of {clip:.4g} and should saturate at code {ends[i]}, "
            f"but its code is {q[i]}"
        )


@dataclass(frozen=True)
class Clipped(Symmetric):
    """The recipe on the grid of the given clip: `span` is of x and clip."""

    span: Callable = lambda x, clip: clip

    def __call__(self, x, clip, num_bits=8):
        return self.quantize(x, self.span(x, clip), num_bits)


right = Clipped()


def after(change: Callable) -> Callable:
    """The right quantizer of `change(x, clip)`."""
    return lambda x, clip, num_bits=8: right(change(x, clip), clip, num_bits)


MISCONCEPTIONS = (
    Misconception("no clamp: codes wrap around", right.but(clamp=families.unclamped),
        "A value beyond the clip has no code. Without a clamp the cast wraps it around, to any code at all. "
        "Clamp to [quant_min, quant_max] before the cast."),
    Misconception("cast before the clamp",
        right.but(clamp=lambda steps, bits: clamped(wrapping(steps, smallest_dtype(bits)), bits)),
        "The cast came first and wrapped what was too large; the clamp then had nothing left to do. Clamp, then cast."),
    Misconception("the clip is ignored", right.but(span=lambda x, clip: np.abs(x).max()),
        "The scale came from max|x|. Here the caller says how far the grid reaches: clip."),
    Misconception("values are clipped, but the scale still comes from the tensor",
        right.but(span=lambda x, clip: np.abs(np.clip(x, -clip, clip)).max()),
        "Where no value reaches the clip, max|x| is smaller than it. The scale must come from clip itself."),
    Misconception("outliers are set to zero", after(lambda x, clip: np.where(np.abs(x) > clip, 0, x)),
        "Clipping moves a value to the nearest end of the grid. Zero is much further away."),
    Misconception("outliers are dropped", after(lambda x, clip: x[np.abs(x) <= clip]),
        "The tensor must keep its shape. Clipping moves a value to the nearest end of the grid."),
    *families.divisors(right, reach="clip"),
    *families.rounding(right),
    *families.units(right),
    *families.signed_dtypes(right),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_clipped",
    lab=LESSON,
    place=40,
    points=2,
    reference=quantize_clipped,
    cases=cases,
    read=read_quantized,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
