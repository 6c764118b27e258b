"""What the contracts of several exercises have in common: shapes, dtypes, ranges, scales, rounding."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numpy as np

from labutils import data
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Wrong
from labutils.course.reading import as_array, as_number, distinct, parts, place

REMEMBERED = 64  # inputs of a function whose answers are kept


def once_for_each_input(function: Callable) -> Callable:
    """Cache the last answers of a slow function by the contents of its arguments, which may be arrays."""
    answers: dict[tuple, Any] = {}

    @wraps(function)
    def cached(*args: Any) -> Any:
        key = tuple((a.tobytes(), a.shape, a.dtype.str) if isinstance(a, np.ndarray) else a for a in args)
        if key not in answers:
            if len(answers) >= REMEMBERED:
                answers.pop(next(iter(answers)))
            answers[key] = function(*args)
        return answers[key]

    return cached


@cache
def trained_weights() -> np.ndarray:
    """Real trained weights, (128, 64) float32."""
    return data.digits_network().weights["block3.pointwise.weight"].reshape(128, 64).copy()


def gelu(x: np.ndarray) -> np.ndarray:
    """Short below zero and long above it, as activations are."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def read_quantized(value: object) -> dict:
    """The answer of a symmetric quantizer: codes and one scale."""
    q, scale = parts(value, ("q", "scale"))
    return {"q": as_array(q, "q"), "scale": as_number(scale, "scale")}


def read_asymmetric(value: object) -> dict:
    """The answer of an asymmetric quantizer: codes, one scale, and one zero point, which stays the kind it came as."""
    q, scale, zero_point = parts(value, ("q", "scale", "zero_point"))
    zero = as_array(zero_point, "zero_point")
    as_number(zero, "zero_point")  # refuses several
    kind = np.int64 if zero.dtype.kind in "iu" else np.float64
    return {
        "q": as_array(q, "q"),
        "scale": as_number(scale, "scale"),
        "zero_point": zero.reshape(()).astype(kind)[()],
    }


def read_floats(value: object) -> dict:
    """The answer of a dequantizer: an array."""
    return {"x": as_array(value, "the result")}


def arguments(function: Callable, case: Case) -> tuple:
    """A case's arguments in the order of the function's parameters, with defaults for those that it leaves out.

    >>> arguments(lambda x, num_bits=8, symmetric=True: None, Case("", (1.5,), {"symmetric": False}))
    (1.5, 8, False)
    """
    bound = inspect.signature(function).bind(*case.args, **case.kwargs)
    bound.apply_defaults()
    return bound.args


def judge_codes(q: np.ndarray, x: np.ndarray, num_bits: int, symmetric: bool = True) -> None:
    """Shape, dtype and range of codes, which hold for every quantizer."""
    scheme = Scheme(num_bits, symmetric=symmetric)
    if q.shape != x.shape:
        raise Wrong(f"q should have the shape of x, {x.shape}, but has {q.shape}")
    if q.dtype.kind != ("i" if symmetric else "u"):
        sign = "signed" if symmetric else "unsigned"
        raise Wrong(f"q should hold {sign} integers ({scheme.code_dtype}), but its dtype is {q.dtype}")
    if q.dtype.name != scheme.code_dtype:
        raise Wrong(f"{num_bits}-bit codes belong into {scheme.code_dtype}, but q has dtype {q.dtype}")
    low, high = int(q.min()), int(q.max())
    if low < scheme.quant_min or high > scheme.quant_max:
        raise Wrong(
            f"{num_bits}-bit codes lie in [{scheme.quant_min}, {scheme.quant_max}], but q reaches from {low} to {high}"
        )


def judge_scale(scale: float, expected: float, meaning: str) -> None:
    """A positive number, and the expected one; where 0 is expected all values are 0, and any scale gives them back."""
    if not math.isfinite(scale) or scale <= 0:
        raise Wrong(f"scale should be a positive number, but it is {scale:g}")
    if expected and not math.isclose(scale, expected, rel_tol=1e-5):
        wanted, found = distinct(expected, scale)
        raise Wrong(f"scale should be {meaning} = {wanted}, but it is {found}")


def float32_noise(quant_max: int) -> float:
    """What float32 may be off by in x / scale, in steps: two roundings of 2^-24; twice that is allowed."""
    return 2.0**-22 * quant_max


def judge_rounding(
    q: np.ndarray,
    scale: float | np.ndarray,
    x: np.ndarray,
    num_bits: int,
    most: float = 0.5,
    zero_point: int | np.ndarray | None = None,
) -> None:
    """Every value comes back within `most` steps, half a step for rounding to the nearest, and what float32 loses.

    `scale` and `zero_point` are one number, or an array that broadcasts over `x`: one for each channel, token or group.
    """
    symmetric = zero_point is None
    scale = np.broadcast_to(np.asarray(scale, dtype=np.float64), x.shape)
    zero = np.broadcast_to(0 if symmetric else zero_point, x.shape)
    steps = np.abs(x.astype(np.float64) / scale + zero - q)
    worst = largest_at(steps)
    if steps[worst] > most + float32_noise(Scheme(num_bits, symmetric=symmetric).quant_max):
        from_zero = "" if symmetric else f" and 0.0 has the code {zero[worst]},"
        off = f"{steps[worst]:.3g} step{'s' if steps[worst] > 1 else ''}"
        raise Wrong(
            f"x[{place(worst)}] = {x[worst]:.6g} is {x[worst] / scale[worst] + 0.0:.4g} steps of scale,{from_zero} "
            f"but its code is {q[worst]}: off by {off}, where at most {most:g} is lost"
        )


def judge_floats(x: np.ndarray, q: np.ndarray, why_float64: str = "") -> None:
    """Shape and dtype of what the codes `q` stand for; `why_float64` says what makes a float64 of it in NumPy."""
    if x.shape != q.shape:
        raise Wrong(f"the result should have the shape of q, {q.shape}, but has {x.shape}")
    if x.dtype != np.float32:
        why = f": {why_float64} is float64 in NumPy" if why_float64 and x.dtype == np.float64 else ""
        raise Wrong(f"the result should be float32, but its dtype is {x.dtype}{why}")


def largest_at(values: np.ndarray) -> tuple:
    """The index of the largest element."""
    return np.unravel_index(np.argmax(values), values.shape)


def read_scaled(value: object) -> dict:
    """The answer of a quantizer with many scales: codes, and an array of scales of any float dtype, as float64."""
    q, scales = parts(value, ("q", "scales"))
    return {"q": as_array(q, "q"), "scales": as_array(scales, "scales").astype(np.float64)}


def judge_scales(scales: np.ndarray, lengths: np.ndarray, num_bits: int, meaning: str, symmetric: bool = True) -> None:
    """Each scale is the length that its slice's codes cover / the largest code; a slice of zeros may have any.

    That is the largest magnitude for symmetric codes, and the range for unsigned ones.
    """
    positive = np.isfinite(scales) & (scales > 0)
    if not positive.all():
        where = largest_at(~positive)
        raise Wrong(f"scales[{place(where)}] should be a positive number, but it is {scales[where]:g}")
    quant_max = Scheme(num_bits, symmetric=symmetric).quant_max
    expected = np.where(lengths > 0, lengths / quant_max, scales)
    off = np.abs(scales / expected - 1)
    worst = largest_at(off)
    if off[worst] > 1e-5:
        wanted, found = distinct(expected[worst], scales[worst])
        raise Wrong(f"scales[{place(worst)}] should be {meaning} / {quant_max} = {wanted}, but it is {found}")
