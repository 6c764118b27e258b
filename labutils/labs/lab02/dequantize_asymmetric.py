"""dequantize_asymmetric: from codes back to floats, where zero has a code of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labutils.arrays.inputs import MAX_BITS, Array, code_array, whole_number
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct
from labutils.labs.contract import judge_floats, largest_at, read_floats
from labutils.labs.lab01.dequantize_symmetric import reconstruct
from labutils.labs.lab02 import LESSON


def dequantize_asymmetric(q: Array, scale: float | Array, zero_point: int | Array) -> Array:
    """Floats from codes: x' = (q - zero_point) * scale, in float32.

    >>> dequantize_asymmetric(np.array([0, 60, 104, 255], dtype=np.uint8), 0.25, 60)
    array([-15.  ,   0.  ,  11.  ,  48.75], dtype=float32)

    ValueError for a zero point that the dtype of `q` cannot hold: it would not be the code of anything.
    """
    xp, q = code_array(q)
    zero, info = whole_number(zero_point, "zero_point"), xp.iinfo(q.dtype)
    if not max(info.min, -(2**31)) <= zero <= min(info.max, 2**31 - 1):
        raise ValueError(f"zero_point must be a code, {info.min} to {info.max} for {q.dtype}, got {zero}")
    return reconstruct(q, scale, zero, Scheme(MAX_BITS, symmetric=False))


def cases() -> list[Case]:
    rng = np.random.default_rng(2)
    q = rng.integers(0, 256, (16, 8)).astype(np.uint8)
    return [
        Case("the worked example", (np.array([0, 47, 60, 104, 255], dtype=np.uint8), np.float32(0.01), 60)),
        Case("a matrix of 8-bit codes", (q, np.float32(0.0123), 97)),
        Case("a zero point that is an int32 array", (q, np.float32(0.0123), np.array(97, dtype=np.int32))),
        Case("a zero point that is a uint8", (q, np.float32(0.0123), np.uint8(200))),
        Case("a scale that is a Python float", (q, 0.0123, 31)),
        Case("zero point 0, as after a ReLU", (q, np.float32(3.7), 0)),
        Case("zero point 255, only negative values", (q, np.float32(0.5), 255)),
        Case("4-bit codes", (np.arange(16, dtype=np.uint8), np.float32(0.3), 11)),
        Case("16-bit codes", (rng.integers(0, 2**16, 50).astype(np.uint16), np.float32(2e-4), 40_000)),
        Case("a tiny scale", (q[0], np.float32(1e-12), 128)),
    ]


def judge(answer: dict, case: Case) -> None:
    (q, scale, zero_point), x = case.args, answer["x"]
    judge_floats(x, q, why_float64="an integer array times a Python float")
    expected = (q.astype(np.float64) - int(zero_point)) * float(scale)
    error = np.abs(x - expected)
    worst = largest_at(error)
    # Roundings to float32: of q * scale and zero_point * scale, where somebody multiplies out, and of the difference.
    if not error[worst] <= 2.0**-22 * float(scale) * max(int(q.max()), int(zero_point)):
        wanted, found = distinct(expected[worst], x[worst])
        raise Wrong(
            f"code {q[worst]} at scale {float(scale):.4g} and zero point {zero_point} stands for "
            f"{wanted}, but came back as {found}"
        )


def floats_of(formula: Callable) -> Callable:
    """`formula(q, scale, zero_point)` of float64 numbers, as float32."""

    def dequantize(q, scale, zero_point):
        return np.asarray(formula(q.astype(np.float64), float(scale), int(zero_point))).astype(np.float32)

    return dequantize


right = floats_of(lambda q, scale, zero_point: (q - zero_point) * scale)

WRAPS = (
    "In uint8, 47 - 60 is 243: there are no negative numbers, so it wraps around. "
    "Turn the codes to float32 before you subtract."
)
A_CODE = "The zero point is a code, not a value of x: subtract it from the codes, before the scale is used."

MISCONCEPTIONS = (
    Misconception("the difference wraps around in an unsigned dtype",
        lambda q, scale, zero_point: (q - q.dtype.type(zero_point)).astype(np.float32) * np.float32(scale), WRAPS),
    Misconception("the difference wraps around in an unsigned dtype",
        lambda q, scale, zero_point: (q - zero_point).astype(np.float32) * np.float32(scale), WRAPS),
    Misconception("q * scale + zero_point", floats_of(lambda q, scale, zero_point: q * scale + zero_point), A_CODE),
    Misconception("q * scale - zero_point", floats_of(lambda q, scale, zero_point: q * scale - zero_point), A_CODE),
    Misconception("the zero point is added", floats_of(lambda q, scale, zero_point: (q + zero_point) * scale),
        "Quantizing added the zero point; the way back takes it off. The code zero_point must come back as 0.0."),
    Misconception("the signs are turned", floats_of(lambda q, scale, zero_point: (zero_point - q) * scale),
        "A larger code stands for a larger value."),
    Misconception("the zero point is not used", floats_of(lambda q, scale, zero_point: q * scale),
        "Then code 0 comes back as 0.0. It is the code zero_point that must."),
    Misconception("the scale is not used", floats_of(lambda q, scale, zero_point: q - zero_point),
        "q - zero_point counts steps. What it stands for is that many steps of size scale."),
    Misconception("divides by the scale", floats_of(lambda q, scale, zero_point: (q - zero_point) / scale),
        "Quantizing divided by the scale; the way back multiplies."),
    Misconception("128 subtracted as well", floats_of(lambda q, scale, zero_point: (q - 128 - zero_point) * scale),
        "That offset belongs to signed codes. Here codes begin at 0, and the zero point says all."),
    Misconception("the codes are read as signed",
        lambda q, scale, zero_point: right(q.view(f"i{q.itemsize}"), scale, zero_point),
        "As int8, the code 200 reads as -56. Turn the codes to float32 directly: it holds them all."),
    Misconception("a float64 result",
        lambda q, scale, zero_point: (q.astype(np.float64) - int(zero_point)) * float(scale),
        "float64 takes twice the memory of the float32 that was quantized. Turn the codes to float32 first."),
    Misconception("a float64 result where the zero point is an int32",
        lambda q, scale, zero_point: (q.astype(np.float32) - zero_point) * np.float32(scale),
        "NumPy makes float32 minus an int32 array a float64. Turn the zero point to float32 too."),
    Misconception("the result is cast back to integers",
        lambda q, scale, zero_point: ((q.astype(np.int32) - int(zero_point)) * np.float32(scale)).astype(np.int32),
        "The point of coming back is to have floats again: leave the product as float32."),
)  # fmt: skip

EXERCISE = Exercise(
    name="dequantize_asymmetric",
    lab=LESSON,
    place=20,
    points=1,
    reference=dequantize_asymmetric,
    cases=cases,
    read=read_floats,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
