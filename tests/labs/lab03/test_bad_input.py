"""Lab 03: whatever comes in, the right answer, or an error that says what came and what was expected."""

import numpy as np
import pytest

from labutils.labs import answers
from tests.arrays.test_bad_input import BAD_CODES, BAD_WIDTHS, FINE, NOT_WHOLE, REFUSED, refuses, slack, table

pytestmark = pytest.mark.filterwarnings("error")

ONES = np.ones((2, 3), np.float32)
TAKE_ARRAYS = {
    "quantize_per_channel": lambda x: answers.quantize_per_channel(x, 0),
    "quantize_per_channel from the end": lambda x: answers.quantize_per_channel(x, -1),
    "compare_quantization_methods": answers.compare_quantization_methods,
    "quantize_per_token": answers.quantize_per_token,
}
TAKE_WIDTHS = {
    "quantize_per_channel": lambda bits: answers.quantize_per_channel(ONES, 0, bits),
    "compare_quantization_methods": lambda bits: answers.compare_quantization_methods(ONES, bits),
    "quantize_per_token": lambda bits: answers.quantize_per_token(ONES, bits),
}
CODES, SCALES = np.ones((2, 3), np.int8), np.array([0.1, 0.2], np.float32)
TAKE_AXES = {
    "quantize_per_channel": lambda axis: answers.quantize_per_channel(ONES, axis),
    "dequantize_per_channel": lambda axis: answers.dequantize_per_channel(CODES, SCALES, axis),
}


@pytest.mark.parametrize("function", **table(TAKE_ARRAYS))
@pytest.mark.parametrize("x, kind, words", **table(REFUSED))
def test_what_is_no_array_of_finite_floats_is_refused(function, x, kind, words):
    refuses(kind, words, function, x)


@pytest.mark.parametrize("function", **table(TAKE_WIDTHS))
@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(function, num_bits, kind, words):
    refuses(kind, words, function, num_bits)


@pytest.mark.parametrize("function", **table(TAKE_AXES))
@pytest.mark.parametrize("axis", **table(NOT_WHOLE))
def test_an_axis_is_a_whole_number(function, axis):
    refuses(TypeError, ("axis must be a whole number", repr(axis)), function, axis)


@pytest.mark.parametrize("function", **table(TAKE_AXES))
@pytest.mark.parametrize("axis", [2, -3, 10**30], ids=repr)
def test_an_axis_that_is_not_there_is_refused(function, axis):
    refuses(ValueError, (f"axis {axis} is not there", "shape (2, 3)", "axes 0 to 1"), function, axis)


@pytest.mark.parametrize("function", **table(TAKE_ARRAYS))
def test_a_number_has_no_channels(function):
    refuses(ValueError, ("needs at least one axis", "shape ()"), function, np.array(0.5))


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    refuses(kind, ("q ", *words), answers.dequantize_per_channel, codes, SCALES, 0)


NO_SCALES = "scales must be a NumPy array or a torch tensor, got"
BAD_SCALES = {
    "None": (None, TypeError, (NO_SCALES, "NoneType")),
    "a list": ([0.1, 0.2], TypeError, (NO_SCALES, "list")),
    "a float": (0.1, TypeError, (NO_SCALES, "float")),
    "integers": (np.array([1, 2]), TypeError, ("scales must hold floats", "int64")),
    "one number": (np.array(0.1), ValueError, ("scales must have shape (2,), got ()",)),
    "too few": (np.array([0.1]), ValueError, ("scales must have shape (2,), got (1,)",)),
    "as many as the other axis": (np.array([0.1, 0.2, 0.3]), ValueError, ("scales must have shape (2,), got (3,)",)),
    "with their reduced axis": (np.array([[0.1], [0.2]]), ValueError, ("scales must have shape (2,), got (2, 1)",)),
    "one is 0": (np.array([0.1, 0.0]), ValueError, ("scales must be positive and finite", "0.0 to 0.1")),
    "one is negative": (np.array([0.1, -0.5]), ValueError, ("scales must be positive and finite", "-0.5 to 0.1")),
    "one is NaN": (np.array([0.1, np.nan]), ValueError, ("scales must be positive and finite", "nan")),
    "one is Inf": (np.array([0.1, np.inf]), ValueError, ("scales must be positive and finite", "inf")),
    "empty": (np.zeros(0), ValueError, ("scales must not be empty",)),
}


@pytest.mark.parametrize("scales, kind, words", **table(BAD_SCALES))
def test_what_are_no_scales_is_refused(scales, kind, words):
    refuses(kind, words, answers.dequantize_per_channel, CODES, scales, 0)


def test_codes_and_scales_come_from_one_library():
    torch = pytest.importorskip("torch")
    refuses(
        TypeError, ("one library", "numpy", "torch"), answers.dequantize_per_channel, CODES, torch.tensor([0.1, 0.2]), 0
    )


@pytest.mark.parametrize("make", **table({name: make for name, make in FINE.items() if np.asarray(make()).ndim}))
def test_the_answers_are_right_about_unusual_arrays(make):
    x = np.asarray(make())
    for axis in range(-x.ndim, x.ndim):
        q, scales = answers.quantize_per_channel(make(), axis)
        off = np.abs(x.astype(float) - answers.dequantize_per_channel(q, scales, axis))
        assert np.all(np.moveaxis(off, axis, -1) <= scales.astype(float) / 2 + slack(x))
    q, scales = answers.quantize_per_token(make())
    assert np.all(np.abs(x.astype(float) - q * scales.astype(float)) <= scales.astype(float) / 2 + slack(x))
    for error in answers.compare_quantization_methods(make()).values():
        assert not any(map(np.isnan, error.values()))
