"""dequantize_symmetric: from codes back to floats."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import MAX_BITS, Array, code_array, positive_number
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct
from labutils.labs.contract import judge_floats, largest_at, read_floats
from labutils.labs.lab01 import LESSON
from labutils.labs.recipes import wrapping


def dequantize_symmetric(q: Array, scale: float | Array) -> Array:
    """Floats from codes: x' = q * scale, in float32.

    >>> dequantize_symmetric(np.array([-50, 25, 127], dtype=np.int8), 0.02)
    array([-1.  ,  0.5 ,  2.54], dtype=float32)
    """
    return reconstruct(q, scale, 0, Scheme(MAX_BITS))


def reconstruct(q: Array, scale: float | Array, zero_point: int, scheme: Scheme) -> Array:
    """x' = scale * (q - zero_point), for codes, a number and an int that come from a learner and may be anything."""
    xp, q = code_array(q)
    step = as_scale(xp, positive_number(scale, "scale"), xp.float32, q)
    zero = 0 if scheme.symmetric else xp.asarray(zero_point, dtype=xp.int32, device=array_api_compat.device(q))
    return affine.dequantize(affine.QuantizedArray(q, step, zero, scheme, xp.float32))


def as_scale(xp: Any, scale: float, dtype: Any, beside: Array) -> Array:
    """`scale` as a 0-d array of `dtype` on the device of `beside`; ValueError where `dtype` cannot hold it."""
    if scale > float(xp.finfo(dtype).max):
        raise ValueError(f"scale must be at most {float(xp.finfo(dtype).max):g}, got {scale:g}")
    return xp.asarray(scale, dtype=dtype, device=array_api_compat.device(beside))


def cases() -> list[Case]:
    rng = np.random.default_rng(1)
    q = rng.integers(-127, 128, (16, 8)).astype(np.int8)
    return [
        Case("the worked example", (np.array([-50, 15, 38, 127], dtype=np.int8), np.float32(0.02))),
        Case("a matrix of 8-bit codes", (q, np.float32(0.0123))),
        Case("a scale that is a Python float", (q, 0.0123)),
        Case("a scale that is a NumPy float64", (q, np.float64(0.0123))),
        Case("a scale larger than 1", (q, np.float32(3.7))),
        Case("16-bit codes", (rng.integers(-32767, 32768, 50).astype(np.int16), np.float32(2e-4))),
        Case("the code -128", (np.array([-128, 0, 127], dtype=np.int8), np.float32(0.5))),
        Case("all zero", (np.zeros((2, 3), dtype=np.int8), np.float32(1))),
        Case("a tiny scale", (q[0], np.float32(1e-12))),
    ]


def judge(answer: dict, case: Case) -> None:
    (q, scale), x = case.args, answer["x"]
    judge_floats(x, q, why_float64="int8 times a Python float")
    expected = q.astype(np.float64) * float(scale)
    error = np.abs(x - expected)
    worst = largest_at(error)
    if not error[worst] <= 2.0**-22 * abs(expected[worst]):  # two roundings to float32
        wanted, found = distinct(expected[worst], x[worst])
        raise Wrong(f"code {q[worst]} at scale {float(scale):.4g} stands for {wanted}, but came back as {found}")


MISCONCEPTIONS = (
    Misconception("divides by the scale", lambda q, scale: (q / scale).astype(np.float32),
        "Quantizing divided by the scale; the way back multiplies."),
    Misconception("a float64 result", lambda q, scale: q.astype(np.float64) * float(scale),
        "float64 takes twice the memory of the float32 that was quantized. Turn the codes to float32 first."),
    Misconception("a float64 result where the scale is a Python float", lambda q, scale: q * scale,
        "NumPy makes int8 times a Python float a float64. Turn the codes to float32 first."),
    Misconception("a float64 result where the scale is a NumPy float64",
        lambda q, scale: q.astype(np.float32) * scale,
        "NumPy makes float32 times np.float64 a float64, where a Python float leaves it float32. "
        "Turn the product, or the scale, to float32."),
    Misconception("the scale is lost in an integer", lambda q, scale: (q * np.int8(scale)).astype(np.float32),
        "A scale such as 0.02 is 0 as an integer. Turn the codes to float, not the scale to int."),
    Misconception("the result is rounded to decimals",
        lambda q, scale: np.round(q.astype(np.float32) * np.float32(scale), 4),
        "Decimals are for printing. A tensor of small values is lost by it: leave the product as it is."),
    Misconception("the product is cast back to integers",
        lambda q, scale: wrapping(np.trunc(q * np.float32(scale)), q.dtype.type),
        "The point of coming back is to have floats again: leave the product as float32."),
    Misconception("the scale is not used", lambda q, scale: q.astype(np.float32),
        "A code counts steps. What it stands for is that many steps of size scale."),
    Misconception("adds the scale", lambda q, scale: q.astype(np.float32) + np.float32(scale),
        "A code counts steps. What it stands for is that many steps of size scale: a product."),
    Misconception("divides by 127 as well", lambda q, scale: q.astype(np.float32) * np.float32(scale) / 127,
        "The division by 127 is in the scale already."),
)  # fmt: skip

EXERCISE = Exercise(
    name="dequantize_symmetric",
    lab=LESSON,
    place=20,
    points=1,
    reference=dequantize_symmetric,
    cases=cases,
    read=read_floats,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
