"""Whatever comes in: the right answer, or a ValueError or TypeError that says what came and what was expected.

Never a warning (they are errors in this file), never another exception, never a silent repair.
"""

import math

import numpy as np
import pytest

from labutils.arrays import theory
from labutils.arrays.affine import QuantizedArray, choose_qparams, dequantize, fake_quantize, quantize
from labutils.arrays.metrics import quantization_error, sqnr_db
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.labs import answers
from tests.arrays.bad_inputs import (
    BAD_CODES,
    BAD_NUMBERS,
    BAD_WIDTHS,
    FINE,
    NOT_WHOLE,
    REFUSED,
    TENSORS,
    all_refuse,
    refuses,
    slack,
    table,
    torch,
)

pytestmark = pytest.mark.filterwarnings("error")

# --- arrays of floats ---

ASYMMETRIC, CHANNELS, GROUPS = Scheme(symmetric=False), Scheme(granularity=PerAxis(0)), Scheme(granularity=PerGroup(4))
QUANTIZERS = {
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


@pytest.mark.parametrize("x, kind, words", **table(REFUSED))
def test_what_is_no_array_of_finite_floats_is_refused(x, kind, words):
    all_refuse(QUANTIZERS, kind, words, x)


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("make, kind, words", **table(TENSORS))
def test_what_is_no_tensor_of_finite_floats_is_refused(make, kind, words):
    functions = {
        "choose_qparams": choose_qparams,
        "quantize": quantize,
        "fake_quantize": fake_quantize,
        "quantize with a zero point": lambda x: quantize(x, ASYMMETRIC),
        "quantize in groups": lambda x: quantize(x, GROUPS),
        "quantize with a static scale": lambda x: quantize(x, Scheme(), (torch.tensor(0.1), 0)),
        "quantize_symmetric": answers.quantize_symmetric,
        "quantize_clipped": lambda x: answers.quantize_clipped(x, 1.0),
        "best_clip": lambda x: answers.best_clip(x, 4),
        "quantize_asymmetric": answers.quantize_asymmetric,
        "quantize_in_range": lambda x: answers.quantize_in_range(x, -1.0, 2.0),
    }
    all_refuse(functions, kind, words, make())


# --- arrays that are unusual, and fine ---

WAYS = {
    "symmetric": Scheme(),
    "asymmetric": ASYMMETRIC,
    "at 2 bits": Scheme(2),
    "at 16 bits with a zero point": Scheme(16, symmetric=False),
    "per channel": CHANNELS,
    "in groups": GROUPS,
    "in groups of more than there are": Scheme(4, granularity=PerGroup(10**30)),
}


@pytest.mark.parametrize("make", **table(FINE))
@pytest.mark.parametrize("library", ["NumPy", "torch"])
def test_the_quantizers_are_right_about_unusual_arrays(make, library):
    x = np.asarray(make())
    if library == "torch" and torch is None:
        pytest.skip("torch is not installed")
    given = make() if library == "NumPy" else torch.from_numpy(np.array(x))
    for way, scheme in WAYS.items():
        if x.ndim == 0 and scheme.granularity != PerTensor():
            refuses(ValueError, ("needs at least one axis, got an array of shape ()",), quantize, given, scheme)
            continue
        quantized = quantize(given, scheme)
        y = np.asarray(dequantize(quantized))
        assert y.shape == x.shape and y.dtype == x.dtype, way
        assert np.all(np.isfinite(y)), way
        error = np.max(np.abs(x.astype(float) - y.astype(float)))
        assert error <= np.max(np.asarray(quantized.scale)) / 2 + slack(x), way
        assert np.all(y[x == 0] == 0), way


@pytest.mark.parametrize("make", **table(FINE))
def test_the_answers_are_right_about_unusual_arrays(make):
    x = np.asarray(make())

    def furthest_off(q, scale, zero_point=0):  # in float64: the labs' float32 holds less
        return np.max(np.abs(x.astype(float) - (np.asarray(q, float) - float(zero_point)) * float(scale)))

    q, scale = answers.quantize_symmetric(make())
    assert furthest_off(q, scale) <= scale / 2 + slack(x)
    q, scale = answers.quantize_stochastic(make(), 8, np.random.default_rng(0))
    assert furthest_off(q, scale) <= scale + slack(x)  # to either neighbour
    q, scale, zero_point = answers.quantize_asymmetric(make())
    assert furthest_off(q, scale, zero_point) <= scale / 2 + slack(x)
    assert np.all(np.asarray(q)[x == 0] == zero_point)
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


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    refuses(kind, ("q ", *words), answers.dequantize_symmetric, codes, 0.1)
    refuses(kind, ("q ", *words), answers.dequantize_asymmetric, codes, 0.1, 0)
    refuses(kind, ("quantized ", *words), quantization_error, np.ones(2), codes, np.ones(2))


@pytest.mark.parametrize("held", [None, 3, np.zeros(3, np.int8), (np.zeros(3, np.int8), 0.1)], ids=type)
def test_dequantize_asks_for_what_quantize_returns(held):
    refuses(TypeError, ("must be a QuantizedArray", f"got {type(held).__name__}"), dequantize, held)
    assert isinstance(quantize(np.ones(3)), QuantizedArray)


# --- bit widths ---

ONES = np.ones(3, np.float32)
TAKE_WIDTHS = {
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


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    all_refuse(TAKE_WIDTHS, kind, words, num_bits)


@pytest.mark.parametrize("num_bits", [2, np.int64(8), np.uint8(16), np.array(4)], ids=repr)
def test_every_whole_number_from_2_to_16_is_a_bit_width(num_bits):
    assert all(function(num_bits) is not None for function in TAKE_WIDTHS.values())


# --- steps, clips and powers: positive numbers ---

TAKE_NUMBERS = {
    "rounding_noise": theory.rounding_noise,
    "predicted_sqnr_db of a power": lambda value: theory.predicted_sqnr_db(value, 0.1),
    "predicted_sqnr_db at a scale": lambda value: theory.predicted_sqnr_db(1.0, value),
    "gaussian_noise": lambda value: theory.gaussian_noise(4, value),
    "gaussian_sqnr_db": lambda value: theory.gaussian_sqnr_db(4, value),
    "quantize_clipped": lambda value: answers.quantize_clipped(ONES, value),
    "dequantize_symmetric": lambda value: answers.dequantize_symmetric(np.ones(3, np.int8), value),
    "dequantize_asymmetric": lambda value: answers.dequantize_asymmetric(np.ones(3, np.uint8), value, 0),
}


@pytest.mark.parametrize("value, kind, words", **table(BAD_NUMBERS))
def test_what_is_no_positive_number_is_refused(value, kind, words):
    all_refuse(TAKE_NUMBERS, kind, words, value)


@pytest.mark.parametrize("value", [1, 0.5, np.float16(0.5), np.array(0.5), 1e-38, 1e38], ids=repr)
def test_every_positive_number_is_taken(value):
    for name, function in TAKE_NUMBERS.items():
        found = function(value)
        assert np.all(np.isfinite(np.asarray(found[-1] if isinstance(found, tuple) else found))), name


def test_a_message_names_the_argument():
    refuses(ValueError, ("scale must be positive",), theory.rounding_noise, 0)
    refuses(ValueError, ("mean_square must be positive",), theory.predicted_sqnr_db, 0, 1)
    refuses(ValueError, ("clip must be positive",), theory.gaussian_noise, 4, 0)
    refuses(ValueError, ("clip must be positive",), answers.quantize_clipped, ONES, -1)
    refuses(ValueError, ("scale must be positive",), answers.dequantize_symmetric, np.ones(3, np.int8), 0)
    refuses(TypeError, ("original must be",), sqnr_db, None, ONES)
    refuses(TypeError, ("dequantized must be",), sqnr_db, ONES, None)


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
