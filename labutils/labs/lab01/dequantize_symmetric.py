"""dequantize symmetric."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import MAX_BITS, code_array, positive_number
from labutils.arrays.metrics import quantization_error as quantization_error  # a learner writes it in lab 01
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array
from labutils.labs.lab01 import LESSON
from labutils.labs.lab01._shared import _step
from labutils.labs.recipes import wrapping

Array = Any  # a numpy.ndarray or a torch.Tensor


def dequantize_symmetric(q: Array, scale: float | Array) -> Array:
    """Floats from codes: x' = q * scale, in float32 (float64 where `scale` is a float64 array).

    >>> dequantize_symmetric(np.array([-50, 25, 127], dtype=np.int8), 0.02)
    array([-1.  ,  0.5 ,  2.54], dtype=float32)
    """
    return reconstruct(q, scale, 0, Scheme(MAX_BITS))


def reconstruct(q: Array, scale: float | Array, zero_point: int, scheme: Scheme) -> Array:
    """x' = scale * (q - zero_point), for codes, a number and an int that come from a learner and may be anything."""
    xp, q = code_array(q)
    dtype = xp.float64 if getattr(scale, "dtype", None) == xp.float64 else xp.float32
    step = _step(xp, positive_number(scale, "scale"), dtype, q)
    zero = 0 if scheme.symmetric else xp.asarray(zero_point, dtype=xp.int32, device=array_api_compat.device(q))
    return affine.dequantize(affine.QuantizedArray(q, step, zero, scheme, dtype))


def _dequantizer_cases() -> list[Case]:
    rng = np.random.default_rng(1)
    q = rng.integers(-127, 128, (16, 8)).astype(np.int8)
    return [
        Case("the worked example", (np.array([-50, 15, 38, 127], dtype=np.int8), np.float32(0.02))),
        Case("a matrix of 8-bit codes", (q, np.float32(0.0123))),
        Case("a scale that is a Python float", (q, 0.0123)),
        Case("a scale larger than 1", (q, np.float32(3.7))),
        Case("16-bit codes", (rng.integers(-32767, 32768, 50).astype(np.int16), np.float32(2e-4))),
        Case("the code -128", (np.array([-128, 0, 127], dtype=np.int8), np.float32(0.5))),
        Case("all zero", (np.zeros((2, 3), dtype=np.int8), np.float32(1))),
        Case("a tiny scale", (q[0], np.float32(1e-12))),
    ]


def _read_floats(value: object) -> dict:
    return {"x": as_array(value, "the result")}


def _judge_dequantized(answer: dict, case: Case) -> None:
    q, scale = case.args
    x = answer["x"]
    if x.shape != q.shape:
        raise Wrong(f"the result should have the shape of q, {q.shape}, but has {x.shape}")
    if x.dtype != np.float32:
        why = ": int8 times a Python float is float64 in NumPy" if x.dtype == np.float64 else ""
        raise Wrong(f"the result should be float32, but its dtype is {x.dtype}{why}")
    expected = q.astype(np.float64) * float(scale)
    error = np.abs(x - expected)
    worst = np.unravel_index(np.argmax(error), error.shape)
    if not error[worst] <= 2.0**-22 * abs(expected[worst]):  # two roundings to float32
        raise Wrong(
            f"code {q[worst]} at scale {float(scale):.4g} stands for {expected[worst]:.6g}, "
            f"but came back as {x[worst]:.6g}"
        )


DEQUANTIZE_SYMMETRIC = (
    Misconception(
        "divides by the scale",
        lambda q, scale: (q / scale).astype(np.float32),
        "Quantizing divided by the scale; the way back multiplies.",
    ),
    Misconception(
        "a float64 result",
        lambda q, scale: q.astype(np.float64) * float(scale),
        "float64 takes twice the memory of the float32 that was quantized. Turn the codes to float32 first.",
    ),
    Misconception(
        "a float64 result where the scale is a Python float",
        lambda q, scale: q * scale,
        "NumPy makes int8 times a Python float a float64. Turn the codes to float32 first.",
    ),
    Misconception(
        "the scale is lost in an integer",
        lambda q, scale: (q * np.int8(scale)).astype(np.float32),
        "A scale such as 0.02 is 0 as an integer. Turn the codes to float, not the scale to int.",
    ),
    Misconception(
        "the product is cast back to integers",
        lambda q, scale: wrapping(np.trunc(q * np.float32(scale)), q.dtype.type),
        "The point of coming back is to have floats again: leave the product as float32.",
    ),
    Misconception(
        "the scale is not used",
        lambda q, scale: q.astype(np.float32),
        "A code counts steps. What it stands for is that many steps of size scale.",
    ),
    Misconception(
        "adds the scale",
        lambda q, scale: q.astype(np.float32) + np.float32(scale),
        "A code counts steps. What it stands for is that many steps of size scale: a product.",
    ),
    Misconception(
        "divides by 127 as well",
        lambda q, scale: q.astype(np.float32) * np.float32(scale) / 127,
        "The division by 127 is in the scale already.",
    ),
)


EXERCISE = Exercise(
    name="dequantize_symmetric",
    lab=LESSON,
    place=20,
    points=1,
    reference=dequantize_symmetric,
    cases=_dequantizer_cases,
    read=_read_floats,
    judge=_judge_dequantized,
    misconceptions=DEQUANTIZE_SYMMETRIC,
)
