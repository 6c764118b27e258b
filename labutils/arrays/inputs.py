"""Checks of arguments: numbers, bit widths, flags and arrays. Every error says what came and what was expected.

Each function returns its argument in the form that the rest of the package computes with, or raises: TypeError for an
argument of the wrong kind, ValueError for one of the right kind whose value cannot be used. No value is ever repaired.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import array_api_compat
import numpy as np

Array = Any  # a numpy.ndarray or a torch.Tensor

MIN_BITS, MAX_BITS = 2, 16
FLOATS = ("float16", "bfloat16", "float32", "float64")


# --- numbers ----------------------------------------------------------------------------------------------------------


def whole_number(value: object, name: str, least: int | None = None) -> int:
    """Return `value` as an int of at least `least`, or raise: 8 and np.int64(8) pass; True, 4.0 and "8" do not."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r} of type {type(value).__name__}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def real_number(value: object, name: str) -> float:
    """Return `value` as a finite float, or raise: 1, 0.5 and np.float32(0.5) pass; True, NaN and "1" do not."""
    try:
        if isinstance(value, (bool, str, bytes, np.bool_, np.complexfloating)) or not hasattr(value, "__float__"):
            raise TypeError
        number = float(value)
    except TypeError:  # from float(), for an array of several numbers
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}") from None
    except OverflowError:  # an int beyond the largest float
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def positive_number(value: object, name: str) -> float:
    """Return `value` as a finite float above 0, or raise."""
    number = real_number(value, name)
    if number <= 0:
        raise ValueError(f"{name} must be positive, got {number}")
    return number


def bit_width(num_bits: object, most: int = MAX_BITS, purpose: str = "") -> int:
    """Return `num_bits` as an int in [2, most], or raise; `purpose` says in the error why the limit is `most`.

    >>> bit_width(9, most=8, purpose="to be packed")
    Traceback (most recent call last):
    ValueError: num_bits must be between 2 and 8 to be packed, got 9
    """
    bits = whole_number(num_bits, "num_bits")
    if not MIN_BITS <= bits <= most:
        allowed = f"between {MIN_BITS} and {most} {purpose}".rstrip()
        raise ValueError(f"num_bits must be {allowed}, got {bits}")
    return bits


def true_or_false(value: object, name: str) -> bool:
    """Return `value` if it is a bool, or raise: 1, 0 and None are not."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


# --- arrays -----------------------------------------------------------------------------------------------------------


def real_array(x: object, name: str = "x") -> tuple[Any, Array]:
    """Return `(namespace, x)` for a non-empty NumPy or torch array of real floats, or raise.

    >>> real_array([0.5, 1.0])
    Traceback (most recent call last):
    TypeError: x must be a NumPy array or a torch tensor, got list
    """
    xp, x = _array(x, name)
    if str(x.dtype).removeprefix("torch.") not in FLOATS:
        raise TypeError(f"{name} must hold floats (float16, bfloat16, float32 or float64), got dtype {x.dtype}")
    return xp, x


def code_array(q: object, name: str = "q") -> tuple[Any, Array]:
    """Return `(namespace, q)` for a non-empty NumPy or torch array of integers, or raise.

    >>> code_array(np.array([0.5, 1.0]))
    Traceback (most recent call last):
    TypeError: q must hold integer codes, got dtype float64
    """
    xp, q = _array(q, name)
    if not xp.isdtype(q.dtype, "integral"):
        raise TypeError(f"{name} must hold integer codes, got dtype {q.dtype}")
    return xp, q


def _array(x: object, name: str) -> tuple[Any, Array]:
    if not isinstance(x, (np.ndarray, np.generic)) and not array_api_compat.is_torch_array(x):
        raise TypeError(f"{name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array: its mask would be lost; pass x.filled(...) or x.compressed()")
    x = x.detach() if array_api_compat.is_torch_array(x) else np.asarray(x)
    if 0 in x.shape:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    return array_api_compat.array_namespace(x), x


def require_one_library(**arrays: Array) -> None:
    """Raise TypeError unless the named arrays are all NumPy's or all torch's.

    >>> require_one_library(x=np.zeros(2), scale=torch.ones(1))
    Traceback (most recent call last):
    TypeError: x and scale must come from one library, got numpy.ndarray and torch.Tensor
    """
    if len({array_api_compat.is_torch_array(array) for array in arrays.values()}) > 1:
        types = " and ".join(f"{type(array).__module__}.{type(array).__name__}" for array in arrays.values())
        raise TypeError(f"{' and '.join(arrays)} must come from one library, got {types}")


def require_finite(xp: Any, x: Array, name: str = "x") -> tuple[float, float]:
    """Return the smallest and the largest element of `x`, or raise ValueError where it holds NaN or Inf.

    >>> require_finite(np, np.array([0.5, -2.0, 1.0]))
    (-2.0, 1.0)

    NaN or Inf anywhere shows in one of the two: no mask is made.
    """
    low, high = float(xp.min(x)), float(xp.max(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name} must be finite, but holds NaN or Inf (shape {tuple(x.shape)}, dtype {x.dtype})")
    return low, high


def working_dtype(xp: Any, *arrays: Array) -> Any:
    """The dtype to compute in: float64 where one of the arrays is float64, else float32 (16-bit floats included)."""
    return xp.float64 if any(array.dtype == xp.float64 for array in arrays) else xp.float32


def numpy_on_cpu(xp: Any, x: Array) -> tuple[Any, Array]:
    """`(namespace, x)`, a tensor in main memory as a NumPy array of the same bytes.

    NumPy's overhead per operation is smaller, and it compares with a number several times as fast.
    """
    if array_api_compat.is_torch_array(x) and x.device.type == "cpu":
        x = x.resolve_neg().numpy()
        return array_api_compat.array_namespace(x), x
    return xp, x
