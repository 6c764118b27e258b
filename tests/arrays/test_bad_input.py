"""Whatever comes in: the right answer, or a ValueError or TypeError that says what came and what was expected.

Never a warning (they are errors in this file), never another exception, never a silent repair.
"""

import math

import numpy as np
import pytest

from labutils.arrays import theory
from labutils.arrays.affine import QuantizedArray, choose_qparams, dequantize, fake_quantize, quantize
from labutils.arrays.inputs import bit_width, code_array, positive_number, real_array, real_number, whole_number
from labutils.arrays.metrics import quantization_error, sqnr_db
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.labs import answers

pytestmark = pytest.mark.filterwarnings("error")

try:
    import torch
except ImportError:
    torch = None


def table(rows):
    """Arguments of parametrize: the rows, and their names as ids."""
    return {"argvalues": list(rows.values()), "ids": list(rows.keys())}


def refuses(kind, words, function, *args, **kwargs):
    """`function` raises exactly `kind`, and the message holds each of `words`."""
    with pytest.raises((ValueError, TypeError)) as told:
        function(*args, **kwargs)
    assert told.type is kind
    for word in words:
        assert word in str(told.value)


# --- arrays of floats ---

ASYMMETRIC, CHANNELS, GROUPS = Scheme(symmetric=False), Scheme(granularity=PerAxis(0)), Scheme(granularity=PerGroup(4))
QUANTIZERS = {
    "real_array": real_array,
    "choose_qparams": choose_qparams,
    "choose_qparams with a zero point": lambda x: choose_qparams(x, ASYMMETRIC),
    "quantize": quantize,
    "quantize with a zero point": lambda x: quantize(x, ASYMMETRIC),
    "quantize per channel": lambda x: quantize(x, CHANNELS),
    "quantize in groups": lambda x: quantize(x, GROUPS),
    "quantize with a static scale": lambda x: quantize(x, Scheme(), (np.float32(0.1), 0)),
    "fake_quantize": fake_quantize,
    "fake_quantize in groups": lambda x: fake_quantize(x, GROUPS),
    "quantize_symmetric": answers.quantize_symmetric,
    "quantize_clipped": lambda x: answers.quantize_clipped(x, 1.0),
    "best_clip": lambda x: answers.best_clip(x, 4),
    "quantize_stochastic": lambda x: answers.quantize_stochastic(x, 8, np.random.default_rng(0)),
    "quantize_asymmetric": answers.quantize_asymmetric,
    "quantize_in_range": lambda x: answers.quantize_in_range(x, -1.0, 2.0),
    "sqnr_db of an original": lambda x: sqnr_db(x, np.ones(3)),
    "sqnr_db of a reconstruction": lambda x: sqnr_db(np.ones(3), x),
    "quantization_error of an original": lambda x: quantization_error(x, np.ones(3, int), np.ones(3)),
    "quantization_error of a reconstruction": lambda x: quantization_error(np.ones(3), np.ones(3, int), x),
}

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


@pytest.mark.parametrize("function", **table(QUANTIZERS))
@pytest.mark.parametrize("row", REFUSED)
def test_what_is_no_array_of_finite_floats_is_refused(function, row):
    x, kind, words = REFUSED[row]
    if function is real_array and row in VALUES_MATTER:
        assert real_array(x)[1] is x  # it looks at the type, and leaves the values to others
    else:
        refuses(kind, words, function, x)


TENSORS = {
    "int64": (lambda: torch.tensor([1, 2, 3]), TypeError, (NO_FLOATS, "torch.int64")),
    "bool": (lambda: torch.tensor([True, False]), TypeError, (NO_FLOATS, "torch.bool")),
    "complex64": (lambda: torch.tensor([1j, 2]), TypeError, (NO_FLOATS, "torch.complex64")),
    "empty": (lambda: torch.zeros(0, 3), ValueError, ("must not be empty, got shape (0, 3)",)),
    "NaN": (lambda: torch.tensor([0.5, math.nan]), ValueError, ("must be finite", "NaN or Inf")),
    "Inf": (lambda: torch.tensor([0.5, -math.inf]), ValueError, ("must be finite", "NaN or Inf")),
    "NaN in bfloat16": (lambda: torch.tensor([math.nan]).bfloat16(), ValueError, ("must be finite", "bfloat16")),
}


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("make, kind, words", **table(TENSORS))
def test_what_is_no_tensor_of_finite_floats_is_refused(make, kind, words):
    static = (torch.tensor(0.1), 0) if torch is not None else None
    for function in (
        choose_qparams,
        quantize,
        fake_quantize,
        lambda x: quantize(x, ASYMMETRIC),
        lambda x: quantize(x, GROUPS),
        lambda x: quantize(x, Scheme(), static),
        answers.quantize_symmetric,
        lambda x: answers.quantize_clipped(x, 1.0),
        lambda x: answers.best_clip(x, 4),
        answers.quantize_asymmetric,
        lambda x: answers.quantize_in_range(x, -1.0, 2.0),
    ):
        refuses(kind, words, function, make())


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
WAYS = {
    "symmetric": Scheme(),
    "asymmetric": ASYMMETRIC,
    "at 2 bits": Scheme(2),
    "at 16 bits with a zero point": Scheme(16, symmetric=False),
    "per channel": CHANNELS,
    "in groups": GROUPS,
    "in groups of more than there are": Scheme(4, granularity=PerGroup(10**30)),
}


def slack(x):
    """Float rounding, in units of x: two dozen roundings of the largest value, and two to the dtype of x."""
    work, own = np.finfo(np.promote_types(x.dtype, np.float32)), np.finfo(x.dtype)
    peak = float(np.max(np.abs(x)))
    return (12 * float(work.eps) + float(own.eps)) * peak + float(own.smallest_subnormal)


@pytest.mark.parametrize("make", **table(FINE))
@pytest.mark.parametrize("scheme", **table(WAYS))
@pytest.mark.parametrize("library", ["NumPy", "torch"])
def test_the_quantizers_are_right_about_unusual_arrays(make, scheme, library):
    x = np.asarray(make())
    if library == "torch" and torch is None:
        pytest.skip("torch is not installed")
    given = make() if library == "NumPy" else torch.from_numpy(np.array(x))
    if x.ndim == 0 and scheme.granularity != PerTensor():
        refuses(ValueError, ("needs at least one axis, got an array of shape ()",), quantize, given, scheme)
        return
    quantized = quantize(given, scheme)
    y = np.asarray(dequantize(quantized))
    assert y.shape == x.shape and y.dtype == x.dtype
    assert np.all(np.isfinite(y))
    error = np.max(np.abs(x.astype(float) - y.astype(float)))
    assert error <= np.max(np.asarray(quantized.scale)) / 2 + slack(x)
    assert np.all(y[x == 0] == 0)


@pytest.mark.parametrize("make", **table(FINE))
def test_the_answers_are_right_about_unusual_arrays(make):
    x = np.asarray(make())

    def furthest_off(q, scale):
        return np.max(np.abs(x.astype(float) - answers.dequantize_symmetric(q, scale)))

    q, scale = answers.quantize_symmetric(make())
    assert furthest_off(q, scale) <= scale / 2 + slack(x)
    q, scale = answers.quantize_stochastic(make(), 8, np.random.default_rng(0))
    assert furthest_off(q, scale) <= scale + slack(x)  # to either neighbour
    q, scale, zero_point = answers.quantize_asymmetric(make())
    back = answers.dequantize_asymmetric(q, scale, zero_point)
    assert np.max(np.abs(x.astype(float) - back)) <= scale / 2 + slack(x)
    assert np.all(back[x == 0] == 0)
    q, _, _ = answers.quantize_in_range(make(), -1.0, 1.0)
    assert np.all(q[x > 1] == 255) and np.all(q[x < -1] == 0)
    q, _ = answers.quantize_clipped(make(), 1.0)
    assert np.all(q[x > 1] == 127) and np.all(q[x < -1] <= -127)
    best, largest = answers.best_clip(make(), 4), float(np.max(np.abs(x)))
    assert 0 < best <= largest or best == largest == 0


@pytest.mark.parametrize("make", **table(FINE))
def test_the_measures_are_right_about_unusual_arrays(make):
    x = np.asarray(make())
    lossless = quantization_error(make(), np.zeros(x.shape, np.int8), x.copy())
    assert [lossless[name] for name in ("mse", "mae", "max_error", "sqnr_db")] == [0, 0, 0, math.inf]
    halved = quantization_error(make(), np.zeros(x.shape, np.int8), np.zeros_like(x))
    if np.any(x):
        assert halved["sqnr_db"] == pytest.approx(0, abs=1e-9)
        assert halved["max_error"] == float(np.max(np.abs(x)))
    assert not any(map(math.isnan, halved.values()))


# --- codes, and what holds them ---

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


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    refuses(kind, ("q ", *words), code_array, codes)
    refuses(kind, ("q ", *words), answers.dequantize_symmetric, codes, 0.1)
    refuses(kind, ("q ", *words), answers.dequantize_asymmetric, codes, 0.1, 0)
    refuses(kind, ("quantized ", *words), quantization_error, np.ones(2), codes, np.ones(2))


@pytest.mark.parametrize("held", [None, 3, np.zeros(3, np.int8), (np.zeros(3, np.int8), 0.1)], ids=type)
def test_dequantize_asks_for_what_quantize_returns(held):
    refuses(TypeError, ("must be a QuantizedArray", f"got {type(held).__name__}"), dequantize, held)
    assert isinstance(quantize(np.ones(3)), QuantizedArray)


# --- bit widths ---

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
ONES = np.ones(3, np.float32)
TAKE_WIDTHS = {
    "bit_width": bit_width,
    "Scheme": Scheme,
    "asymmetric Scheme": lambda bits: Scheme(bits, symmetric=False),
    "quantize_symmetric": lambda bits: answers.quantize_symmetric(ONES, bits),
    "quantize_clipped": lambda bits: answers.quantize_clipped(ONES, 1.0, bits),
    "best_clip": lambda bits: answers.best_clip(ONES, bits),
    "quantize_stochastic": lambda bits: answers.quantize_stochastic(ONES, bits, np.random.default_rng(0)),
    "quantize_asymmetric": lambda bits: answers.quantize_asymmetric(ONES, bits),
    "quantize_in_range": lambda bits: answers.quantize_in_range(ONES, 0.0, 1.0, bits),
    "uniform_sqnr_db": theory.uniform_sqnr_db,
    "gaussian_noise": lambda bits: theory.gaussian_noise(bits, 2.0),
    "gaussian_sqnr_db": lambda bits: theory.gaussian_sqnr_db(bits, 2.0),
    "gaussian_best_clip": theory.gaussian_best_clip,
}


@pytest.mark.parametrize("function", **table(TAKE_WIDTHS))
@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(function, num_bits, kind, words):
    refuses(kind, words, function, num_bits)


@pytest.mark.parametrize("function", **table(TAKE_WIDTHS))
@pytest.mark.parametrize("num_bits", [2, np.int64(8), np.uint8(16), np.array(4)], ids=repr)
def test_every_whole_number_from_2_to_16_is_a_bit_width(function, num_bits):
    assert function(num_bits) is not None


# --- steps, clips and powers: positive numbers ---

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
TAKE_NUMBERS = {
    "positive_number": lambda value: positive_number(value, "the number"),
    "rounding_noise": theory.rounding_noise,
    "predicted_sqnr_db of a power": lambda value: theory.predicted_sqnr_db(value, 0.1),
    "predicted_sqnr_db at a scale": lambda value: theory.predicted_sqnr_db(1.0, value),
    "gaussian_noise": lambda value: theory.gaussian_noise(4, value),
    "gaussian_sqnr_db": lambda value: theory.gaussian_sqnr_db(4, value),
    "quantize_clipped": lambda value: answers.quantize_clipped(ONES, value),
    "dequantize_symmetric": lambda value: answers.dequantize_symmetric(np.ones(3, np.int8), value),
    "dequantize_asymmetric": lambda value: answers.dequantize_asymmetric(np.ones(3, np.uint8), value, 0),
}


@pytest.mark.parametrize("function", **table(TAKE_NUMBERS))
@pytest.mark.parametrize("value, kind, words", **table(BAD_NUMBERS))
def test_what_is_no_positive_number_is_refused(function, value, kind, words):
    refuses(kind, words, function, value)


@pytest.mark.parametrize("function", **table(TAKE_NUMBERS))
@pytest.mark.parametrize("value", [1, 0.5, np.float16(0.5), np.array(0.5), 1e-38, 1e38], ids=repr)
def test_every_positive_number_is_taken(function, value):
    found = function(value)
    assert np.all(np.isfinite(np.asarray(found[-1] if isinstance(found, tuple) else found)))


def test_a_message_names_the_argument():
    refuses(ValueError, ("scale must be positive",), theory.rounding_noise, 0)
    refuses(ValueError, ("mean_square must be positive",), theory.predicted_sqnr_db, 0, 1)
    refuses(ValueError, ("clip must be positive",), theory.gaussian_noise, 4, 0)
    refuses(ValueError, ("clip must be positive",), answers.quantize_clipped, ONES, -1)
    refuses(ValueError, ("scale must be positive",), answers.dequantize_symmetric, np.ones(3, np.int8), 0)
    refuses(TypeError, ("original must be",), sqnr_db, None, ONES)
    refuses(TypeError, ("dequantized must be",), sqnr_db, ONES, None)
    refuses(TypeError, ("width must be",), whole_number, None, "width")
    refuses(TypeError, ("height must be",), real_number, None, "height")


# --- schemes ---

BAD_SCHEMES = {
    "symmetric=1": ({"symmetric": 1}, TypeError, ("symmetric must be True or False, got 1",)),
    "symmetric=None": ({"symmetric": None}, TypeError, ("True or False, got None",)),
    "symmetric='yes'": ({"symmetric": "yes"}, TypeError, ("True or False, got 'yes'",)),
    "no granularity": ({"granularity": None}, TypeError, ("PerTensor(), PerAxis(axis) or PerGroup", "None")),
    "a word for a granularity": ({"granularity": "tensor"}, TypeError, ("PerTensor(), PerAxis", "'tensor'")),
    "a class for a granularity": ({"granularity": PerTensor}, TypeError, ("PerTensor(), PerAxis", "class")),
    "a group size for a granularity": ({"granularity": 32}, TypeError, ("PerTensor(), PerAxis", "32")),
    "clip=0": ({"clip": 0}, ValueError, ("0 < clip <= 1, got 0.0",)),
    "clip=-0.5": ({"clip": -0.5}, ValueError, ("0 < clip <= 1, got -0.5",)),
    "clip=1.5": ({"clip": 1.5}, ValueError, ("0 < clip <= 1, got 1.5",)),
    "clip=NaN": ({"clip": math.nan}, ValueError, ("clip must be finite, got nan",)),
    "clip=Inf": ({"clip": math.inf}, ValueError, ("clip must be finite, got inf",)),
    "clip=True": ({"clip": True}, TypeError, ("clip must be a number, got True",)),
    "clip=None": ({"clip": None}, TypeError, ("clip must be a number, got None",)),
    "clip='1'": ({"clip": "1"}, TypeError, ("clip must be a number, got '1'",)),
}


@pytest.mark.parametrize("choice, kind, words", **table(BAD_SCHEMES))
def test_a_scheme_is_right_or_does_not_exist(choice, kind, words):
    refuses(kind, words, Scheme, **choice)


NOT_WHOLE = {"1.0": 1.0, "a string": "0", "None": None, "True": True, "NaN": math.nan, "a list": [0]}


@pytest.mark.parametrize("value", **table(NOT_WHOLE))
def test_axes_and_group_sizes_are_whole_numbers(value):
    refuses(TypeError, ("axis must be a whole number", repr(value)), PerAxis, value)
    refuses(TypeError, ("group_size must be a whole number", repr(value)), PerGroup, value)


@pytest.mark.parametrize("size", [0, -1, -(10**30)], ids=repr)
def test_a_group_holds_something(size):
    refuses(ValueError, ("group_size must be at least 1", f"got {size}"), PerGroup, size)


@pytest.mark.parametrize("function", [choose_qparams, quantize, fake_quantize], ids=lambda f: f.__name__)
@pytest.mark.parametrize("axis", [2, -3, 10**30], ids=repr)
def test_an_axis_that_is_not_there_is_refused(function, axis):
    words = (f"axis {axis} is not there", "shape (2, 3)", "axes 0 to 1")
    refuses(ValueError, words, function, np.ones((2, 3)), Scheme(granularity=PerAxis(axis)))


@pytest.mark.parametrize("function", [choose_qparams, quantize, fake_quantize], ids=lambda f: f.__name__)
@pytest.mark.parametrize("scheme", [8, None, "int8", PerTensor(), Scheme], ids=repr)
def test_what_is_no_scheme_is_refused(function, scheme):
    refuses(TypeError, ("scheme must be a Scheme", repr(scheme)), function, np.ones((2, 3)), scheme)
