"""What must be refused, with which error and which words, and what is unusual and yet fine: tables for all tests."""

import math

import numpy as np
import pytest

try:
    import torch
except ImportError:
    torch = None


def table(rows):
    """Arguments of parametrize: the rows, and their names as ids."""
    return {"argvalues": list(rows.values()), "ids": list(rows.keys())}


def refuses(kind, words, function, *args, **kwargs):
    """`function` raises exactly `kind`, and the message holds each of `words`."""
    with pytest.raises((ValueError, TypeError)) as raised:
        function(*args, **kwargs)
    assert raised.type is kind
    for word in words:
        assert word in str(raised.value)


def all_refuse(functions, kind, words, *args):
    """Each of the named `functions` raises exactly `kind`, and its message holds each of `words`."""
    wrong = {}
    for name, function in functions.items():
        try:
            wrong[name] = f"returned {function(*args)!r}"
        except Exception as error:
            if type(error) is not kind or not all(word in str(error) for word in words):
                wrong[name] = repr(error)
    assert wrong == {}


# --- arrays of floats ---

NO_ARRAY = "must be a NumPy array or a torch tensor, got"
NO_FLOATS = "must hold floats (float16, bfloat16, float32 or float64), got dtype"
REFUSED = {
    "None": (None, TypeError, (NO_ARRAY, "NoneType")),
    "a string": ("0.5", TypeError, (NO_ARRAY, "str")),
    "bytes": (b"0.5", TypeError, (NO_ARRAY, "bytes")),
    "a float": (0.5, TypeError, (NO_ARRAY, "float")),
    "an int": (3, TypeError, (NO_ARRAY, "int")),
    "a list of floats": ([0.5, 1.0, 2.0], TypeError, (NO_ARRAY, "list")),
    "a tuple": ((0.5, 1.0, 2.0), TypeError, (NO_ARRAY, "tuple")),
    "a dict": ({"x": 0.5}, TypeError, (NO_ARRAY, "dict")),
    "the class of arrays": (np.ndarray, TypeError, (NO_ARRAY, "type")),
    "int64": (np.array([1, 2, 3]), TypeError, (NO_FLOATS, "int64")),
    "int8": (np.array([1, 2, 3], np.int8), TypeError, (NO_FLOATS, "int8")),
    "bool": (np.array([True, False, True]), TypeError, (NO_FLOATS, "bool")),
    "complex64": (np.array([1j, 2, 3], np.complex64), TypeError, (NO_FLOATS, "complex64")),
    "complex128": (np.array([1j, 2, 3]), TypeError, (NO_FLOATS, "complex128")),
    "object": (np.array([0.5, None, "x"], object), TypeError, (NO_FLOATS, "object")),
    "strings": (np.array(["0.5", "1", "2"]), TypeError, (NO_FLOATS, "<U")),
    "dates": (np.array(["2024-01-01"], "datetime64[D]"), TypeError, (NO_FLOATS, "datetime64")),
    "records": (np.zeros(3, [("a", np.float32)]), TypeError, (NO_FLOATS, "[('a'")),
    "a masked array": (np.ma.array([0.5, 1, 2], mask=[0, 1, 0]), TypeError, ("masked", "filled", "compressed")),
    "empty": (np.zeros(0), ValueError, ("must not be empty, got shape (0,)",)),
    "no rows": (np.zeros((0, 3)), ValueError, ("must not be empty, got shape (0, 3)",)),
    "no columns": (np.zeros((3, 0), np.float32), ValueError, ("must not be empty, got shape (3, 0)",)),
    "NaN": (np.array([0.5, np.nan, 2]), ValueError, ("must be finite", "NaN or Inf", "(3,)")),
    "NaN first": (np.array([np.nan, 1, 2], np.float32), ValueError, ("must be finite", "NaN or Inf")),
    "NaN last": (np.array([0, 1, np.nan], np.float16), ValueError, ("must be finite", "NaN or Inf")),
    "Inf": (np.array([0.5, np.inf, 2], np.float32), ValueError, ("must be finite", "NaN or Inf")),
    "-Inf": (np.array([0.5, -np.inf, 2]), ValueError, ("must be finite", "NaN or Inf")),
    "NaN between Infs": (np.array([np.inf, np.nan, -np.inf]), ValueError, ("must be finite", "NaN or Inf")),
}
if np.dtype(np.longdouble) != np.float64:  # on some systems it is the same
    REFUSED["longdouble"] = (np.ones(3, np.longdouble), TypeError, (NO_FLOATS, np.dtype(np.longdouble).name))
VALUES_MATTER = {"NaN", "NaN first", "NaN last", "Inf", "-Inf", "NaN between Infs"}

TENSORS = {
    "int64": (lambda: torch.tensor([1, 2, 3]), TypeError, (NO_FLOATS, "torch.int64")),
    "bool": (lambda: torch.tensor([True, False]), TypeError, (NO_FLOATS, "torch.bool")),
    "complex64": (lambda: torch.tensor([1j, 2]), TypeError, (NO_FLOATS, "torch.complex64")),
    "empty": (lambda: torch.zeros(0, 3), ValueError, ("must not be empty, got shape (0, 3)",)),
    "NaN": (lambda: torch.tensor([0.5, math.nan]), ValueError, ("must be finite", "NaN or Inf")),
    "Inf": (lambda: torch.tensor([0.5, -math.inf]), ValueError, ("must be finite", "NaN or Inf")),
    "NaN in bfloat16": (lambda: torch.tensor([math.nan]).bfloat16(), ValueError, ("must be finite", "bfloat16")),
}


# --- arrays that are unusual, and fine ---


def readonly(x):
    x.flags.writeable = False
    return x


FINE = {
    "0-d": lambda: np.array(-0.7),
    "a NumPy scalar": lambda: np.float32(0.7),
    "one element": lambda: np.array([3.0], np.float32),
    "float16": lambda: np.array([0.1, -0.5, 1], np.float16),
    "float32": lambda: np.array([0.1, -0.5, 1], np.float32),
    "float64": lambda: np.array([0.1, -0.5, 1]),
    "five axes": lambda: np.linspace(-1, 2, 32, dtype=np.float32).reshape(2, 2, 2, 2, 2),
    "non-contiguous": lambda: np.linspace(-1, 2, 24, dtype=np.float32).reshape(4, 6)[::2, ::3],
    "transposed": lambda: np.linspace(-1, 2, 24, dtype=np.float32).reshape(4, 6).T,
    "reversed": lambda: np.linspace(-1, 2, 24, dtype=np.float32)[::-1],
    "read-only": lambda: readonly(np.linspace(-1, 2, 6, dtype=np.float32)),
    "huge": lambda: np.array([1e38, -3e38, 1], np.float32),
    "huge float64": lambda: np.array([1.7e308, -1e308, 1]),
    "huge float16": lambda: np.array([65504, -65504, 1], np.float16),
    "tiny": lambda: np.array([1e-38, -3e-38, 0], np.float32),
    "subnormal": lambda: np.array([1e-45, -1e-44, 0], np.float32),
    "subnormal float64": lambda: np.array([5e-324, -1e-322, 0]),
    "subnormal float16": lambda: np.array([6e-8, -6e-7, 0], np.float16),
    "huge and tiny": lambda: np.array([1e38, 1e-38, -1e-45], np.float32),
    "all zero": lambda: np.zeros((2, 3), np.float32),
    "negative zero": lambda: np.array([-0.0, 0.0]),
    "constant": lambda: np.full((2, 3), 0.7, np.float32),
    "positive only": lambda: np.array([5.0, 6.0, 7.0], np.float32),
    "negative only": lambda: np.array([-5.0, -6.0, -7.0], np.float32),
}


def slack(x):
    """Float rounding, in units of x: two dozen roundings of the largest value, and two to the dtype of x."""
    work, own = np.finfo(np.promote_types(x.dtype, np.float32)), np.finfo(x.dtype)
    peak = float(np.max(np.abs(x)))
    return (12 * float(work.eps) + float(own.eps)) * peak + float(own.smallest_subnormal)


# --- codes, bit widths, numbers ---

BAD_CODES = {
    "None": (None, TypeError, (NO_ARRAY, "NoneType")),
    "a list": ([1, 2], TypeError, (NO_ARRAY, "list")),
    "an int": (3, TypeError, (NO_ARRAY, "int")),
    "floats": (np.array([1.0, 2]), TypeError, ("integer codes", "float64")),
    "bool": (np.array([True]), TypeError, ("integer codes", "bool")),
    "complex": (np.array([1j]), TypeError, ("integer codes", "complex128")),
    "object": (np.array([1, None]), TypeError, ("integer codes", "object")),
    "masked": (np.ma.array([1, 2], mask=[0, 1]), TypeError, ("masked",)),
    "empty": (np.zeros(0, np.int8), ValueError, ("must not be empty, got shape (0,)",)),
}

NO_INT = "must be a whole number, got"
BAD_WIDTHS = {
    "1": (1, ValueError, ("num_bits must be between 2 and 16, got 1",)),
    "0": (0, ValueError, ("between 2 and 16, got 0",)),
    "-3": (-3, ValueError, ("between 2 and 16, got -3",)),
    "17": (17, ValueError, ("between 2 and 16, got 17",)),
    "10^30": (10**30, ValueError, ("between 2 and 16, got 1000",)),
    "4.0": (4.0, TypeError, ("num_bits", NO_INT, "4.0 of type float")),
    "np.float64(4)": (np.float64(4), TypeError, (NO_INT, "float64")),
    "a string": ("8", TypeError, (NO_INT, "'8' of type str")),
    "None": (None, TypeError, (NO_INT, "None")),
    "True": (True, TypeError, (NO_INT, "True of type bool")),
    "np.True_": (np.True_, TypeError, (NO_INT, "True")),
    "NaN": (math.nan, TypeError, (NO_INT, "nan of type float")),
    "a list": ([8], TypeError, (NO_INT, "[8] of type list")),
    "an array": (np.array([8, 4]), TypeError, (NO_INT, "of type ndarray")),
    "a 0-d array of floats": (np.array(8.0), TypeError, (NO_INT, "of type ndarray")),
    "complex": (8j, TypeError, (NO_INT, "8j")),
    "a type": (int, TypeError, (NO_INT, "int")),
}

NO_NUMBER = "must be a number, got"
BAD_NUMBERS = {
    "0": (0, ValueError, ("must be positive, got 0.0",)),
    "-0.1": (-0.1, ValueError, ("must be positive, got -0.1",)),
    "NaN": (math.nan, ValueError, ("must be finite, got nan",)),
    "Inf": (math.inf, ValueError, ("must be finite, got inf",)),
    "-Inf": (-math.inf, ValueError, ("must be finite, got -inf",)),
    "NaN in float32": (np.float32("nan"), ValueError, ("must be finite, got nan",)),
    "an int beyond floats": (10**400, ValueError, ("must be finite, got inf",)),
    "None": (None, TypeError, (NO_NUMBER, "None of type NoneType")),
    "a string": ("0.1", TypeError, (NO_NUMBER, "'0.1' of type str")),
    "a NumPy string": (np.str_("0.1"), TypeError, (NO_NUMBER, "0.1")),
    "bytes": (b"0.1", TypeError, (NO_NUMBER, "b'0.1'")),
    "True": (True, TypeError, (NO_NUMBER, "True of type bool")),
    "np.True_": (np.True_, TypeError, (NO_NUMBER, "True")),
    "a list": ([0.1], TypeError, (NO_NUMBER, "[0.1] of type list")),
    "complex": (1j, TypeError, (NO_NUMBER, "1j of type complex")),
    "complex64": (np.complex64(1), TypeError, (NO_NUMBER, "complex64")),
    "several": (np.array([0.1, 0.2]), TypeError, (NO_NUMBER, "of type ndarray")),
    "a type": (float, TypeError, (NO_NUMBER, "float")),
}

NOT_WHOLE = {"1.0": 1.0, "a string": "0", "None": None, "True": True, "NaN": math.nan, "a list": [0]}
