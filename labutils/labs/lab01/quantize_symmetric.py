"""quantize_symmetric: one scale for a tensor, zero at code 0."""

from __future__ import annotations

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception
from labutils.labs import families
from labutils.labs.contract import judge_codes, judge_rounding, judge_scale, read_quantized, trained_weights
from labutils.labs.lab01 import LESSON
from labutils.labs.recipes import Symmetric

HAND = np.array([-1.013, 0.3, 0.786, 2.54], dtype=np.float32)  # the worked example of the lesson: scale 0.02 at 8 bits


def quantize_symmetric(x: Array, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes and the one scale of a tensor: scale = max|x| / (2^(b-1) - 1), q = clamp(round(x / scale)).

    >>> quantize_symmetric(np.array([-1.0, 0.5, 2.54], dtype=np.float32))
    (array([-50,  25, 127], dtype=int8), array(0.02, dtype=float32))
    """
    quantized = affine.quantize(x, Scheme(num_bits))
    return quantized.codes, quantized.scale


def cases() -> list[Case]:
    w = trained_weights()
    return [
        Case("the worked example", (HAND,), {"num_bits": 8}),
        Case("trained weights at 8 bits", (w,), {"num_bits": 8}),
        Case("trained weights at 4 bits", (w,), {"num_bits": 4}),
        Case("trained weights at 2 bits", (w,), {"num_bits": 2}),
        Case("trained weights at 16 bits", (w,), {"num_bits": 16}),
        Case("8 bits is the default", (HAND,)),
        Case("the largest magnitude is negative", (np.array([0.4, -3.0, 1.1, 0.05], dtype=np.float32),)),
        Case("only negative values", (-np.abs(w[0]),), {"num_bits": 6}),
        Case("only positive values", (np.abs(w[1]),), {"num_bits": 6}),
        Case("all zero", (np.zeros((3, 4), dtype=np.float32),)),
        Case("one element", (np.array([-0.7], dtype=np.float32),)),
        Case("a constant", (np.full(5, 0.3, dtype=np.float32),), {"num_bits": 5}),
        Case("weights a billion times smaller", (w[:4] * np.float32(1e-9),)),
        Case("weights 1e20 times smaller", (w[:4] * np.float32(1e-20),)),
        Case("weights near the largest float32", (w[:4] * np.float32(1e37),)),
        Case("a strided view, 3 axes", (w[:6].reshape(6, 8, 8)[:, :, ::2],), {"num_bits": 7}),
        Case("float64 input", (w[0].astype(np.float64),)),
    ]


def judge(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.kwargs.get("num_bits", 8)
    q, scale = answer["q"], answer["scale"]
    judge_codes(q, x, num_bits)
    quant_max = Scheme(num_bits).quant_max
    judge_scale(scale, float(np.abs(x).max()) / quant_max, f"max|x| / {quant_max}")
    judge_rounding(q, scale, x, num_bits)


right = Symmetric()


def in_place(x, num_bits=8):
    q, scale = right(x, num_bits)
    x /= scale
    return q, scale


MISCONCEPTIONS = (
    *families.rounding(right),
    Misconception("max(x) instead of max|x|", right.but(span=np.max),
        "The scale must cover the largest magnitude. Here that one is negative, and `max` does not see it."),
    Misconception("the whole range max - min for the span",
        right.but(span=lambda x: x.max() - x.min(), divisor=lambda bits: 2**bits - 1),
        "`(max - min) / (2^b - 1)` belongs to asymmetric quantization, which also has a zero point (lab 02). "
        "The symmetric grid reaches equally far both ways, as far as max|x|."),
    *families.divisors(right),
    *families.signed_dtypes(right),
    *families.scale_floors(right),
    Misconception("an epsilon in the division", right.but(steps=lambda x, scale: x / (scale + np.float32(1e-8))),
        "x / (scale + 1e-8) is not x / scale: tensors of small values lose their steps. Replace a scale of exactly 0, "
        "and divide by the scale itself."),
    *families.units(right),
    *families.results(right),
    Misconception("a scale for each row",
        right.but(span=lambda x: np.abs(x).max(axis=-1, keepdims=True), floor=lambda scale: scale),
        "One scale for the whole tensor here: take the maximum over all elements, without an axis. "
        "A scale a row is lab 03."),
    Misconception("the input is changed", in_place,
        "`x /= scale` writes into the caller's array. `x / scale` makes a new one."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_symmetric",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_symmetric,
    cases=cases,
    read=read_quantized,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
