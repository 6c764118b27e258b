"""Groups, packed bytes and prices: the right answer, or an error that says what came and what was expected."""

import math

import numpy as np
import pytest

from labutils.arrays import packing
from labutils.labs import answers
from labutils.labs.answers import bits_per_weight, dequantize_group, pack_int3, pack_int4, quantize_group, unpack_int4
from tests.arrays.test_bad_input import BAD_CODES, BAD_WIDTHS, FINE, NO_INT, REFUSED, refuses, slack, table

pytestmark = pytest.mark.filterwarnings("error")

try:
    import torch
except ImportError:
    torch = None

Q = np.array([[3, -7, 1, 5, 3, -7]], dtype=np.int8)
SCALES = np.array([[0.1, 1.0]], dtype=np.float32)


# --- what is quantized ---


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_no_array_of_finite_floats_is_refused(row):
    x, kind, words = REFUSED[row]
    refuses(kind, ("x ", *words) if "masked" not in words else words, quantize_group, x)


@pytest.mark.parametrize("make", **table(FINE))
@pytest.mark.parametrize("group_size", [1, 2, 5, 10**30])
def test_unusual_arrays_come_back_within_half_a_step_of_their_group(make, group_size):
    x = np.asarray(make())
    if x.ndim == 0:
        refuses(ValueError, ("needs at least one axis",), quantize_group, make(), 4, group_size)
        return
    q, scales = quantize_group(make(), 4, group_size)
    assert scales.shape == (*x.shape[:-1], -(-x.shape[-1] // group_size))
    each = np.repeat(scales, min(group_size, x.shape[-1]), axis=-1)[..., : x.shape[-1]]
    error = np.abs(x.astype(float) - dequantize_group(q, scales, group_size))
    assert np.all(error <= each / 2 + slack(x))


# --- group sizes ---

BAD_SIZES = {
    "0": (0, ValueError, ("group_size must be at least 1, got 0",)),
    "-1": (-1, ValueError, ("group_size must be at least 1, got -1",)),
    "1.5": (1.5, TypeError, ("group_size", NO_INT, "1.5 of type float")),
    "128.0": (128.0, TypeError, ("group_size", NO_INT, "128.0 of type float")),
    "None": (None, TypeError, ("group_size", NO_INT, "None")),
    "a string": ("128", TypeError, ("group_size", NO_INT, "'128'")),
    "True": (True, TypeError, ("group_size", NO_INT, "True")),
    "a list": ([128], TypeError, ("group_size", NO_INT, "[128]")),
    "NaN": (math.nan, TypeError, ("group_size", NO_INT, "nan")),
}
TAKE_SIZES = {
    "quantize_group": lambda size: quantize_group(np.ones((2, 6), np.float32), 4, size),
    "dequantize_group": lambda size: dequantize_group(Q, SCALES, size),
    "bits_per_weight": lambda size: bits_per_weight(4, size),
}


@pytest.mark.parametrize("function", **table(TAKE_SIZES))
@pytest.mark.parametrize("size, kind, words", **table(BAD_SIZES))
def test_what_is_no_group_size_is_refused(function, size, kind, words):
    refuses(kind, words, function, size)


@pytest.mark.parametrize("size, groups", [(4, 2), (5, 2), (6, 1), (7, 1), (10**30, 1), (np.int64(3), 2), (1, 6)])
def test_a_group_size_need_neither_divide_nor_fit_the_row(size, groups):
    x = np.linspace(-1, 2, 12, dtype=np.float32).reshape(2, 6)
    q, scales = quantize_group(x, 8, size)
    assert scales.shape == (2, groups)
    assert np.max(np.abs(x - dequantize_group(q, scales, size))) <= scales.max() / 2 * (1 + 1e-5)


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    for function in (lambda b: quantize_group(np.ones((2, 6)), b), lambda b: bits_per_weight(b, 128)):
        refuses(kind, words, function, num_bits)


# --- codes and scales ---


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    for function in (lambda q: dequantize_group(q, SCALES, 4), pack_int4, pack_int3, lambda q: packing.pack(q, 2)):
        refuses(kind, ("q ", *words), function, codes)
    refuses(kind, ("packed ", *words), unpack_int4, codes, 2)


BAD_SCALES = {
    "a scale a row": (SCALES[:, :1], ValueError, ("scale must have shape (1, 2), got (1, 1)",)),
    "one too many": (np.ones((1, 3), np.float32), ValueError, ("must have shape (1, 2), got (1, 3)",)),
    "a row too many": (np.ones((2, 2), np.float32), ValueError, ("must have shape (1, 2), got (2, 2)",)),
    "flat": (SCALES[0], ValueError, ("must have shape (1, 2), got (2,)",)),
    "an axis too many": (SCALES[..., None], ValueError, ("must have shape (1, 2), got (1, 2, 1)",)),
    "0": (np.array([[0.1, 0]]), ValueError, ("scales must be positive and finite",)),
    "negative": (np.array([[0.1, -1]]), ValueError, ("scales must be positive and finite",)),
    "NaN": (np.array([[0.1, np.nan]]), ValueError, ("scales must be positive and finite",)),
    "Inf": (np.array([[0.1, np.inf]]), ValueError, ("scales must be positive and finite",)),
    "integers": (np.array([[1, 1]]), TypeError, ("scales must hold floats", "int64")),
    "a float": (0.1, TypeError, ("scales must be a NumPy array or a torch tensor, got float",)),
    "a list": ([[0.1, 1.0]], TypeError, ("scales must be", "got list")),
    "None": (None, TypeError, ("scales must be", "got NoneType")),
}


@pytest.mark.parametrize("scales, kind, words", **table(BAD_SCALES))
def test_scales_that_do_not_belong_to_the_codes_are_refused(scales, kind, words):
    refuses(kind, words, dequantize_group, Q, scales, 4)


def test_scales_may_be_half_precision_and_the_result_is_not():
    back = dequantize_group(Q, SCALES.astype(np.float16), 4)
    assert back.dtype == np.float32
    assert np.allclose(back, dequantize_group(Q, SCALES, 4), rtol=2**-11)
    assert dequantize_group(Q, SCALES.astype(np.float64), 4).dtype == np.float64


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_codes_and_scales_come_from_one_library():
    refuses(TypeError, ("scales and q must come from one library",), dequantize_group, torch.from_numpy(Q), SCALES, 4)


# --- packed bytes ---


@pytest.mark.parametrize("code", [-9, 8, 100, -128])
def test_a_code_that_four_bits_cannot_hold_is_not_wrapped(code):
    refuses(ValueError, ("signed 4-bit codes lie between -8 and 7", f"q holds {code}"), pack_int4, np.array([1, code]))


def test_offset_binary_codes_are_not_taken_for_twos_complement():
    unsigned = np.array([0, 15], np.uint8)
    for function in (pack_int4, pack_int3):
        refuses(TypeError, ("q must hold signed codes", "uint8"), function, unsigned)
    assert packing.unpack(packing.pack(unsigned, 4), 4, 2, signed=False).tolist() == [0, 15]


BAD_BYTES = {
    "int8": (np.array([1, 2], np.int8), 4, TypeError, ("bytes of dtype uint8, got dtype int8",)),
    "int64": (np.array([1, 2]), 4, TypeError, ("bytes of dtype uint8, got dtype int64",)),
    "too short": (np.zeros(2, np.uint8), 5, ValueError, ("5 codes of 4 bits take 3 bytes", "shape (2,)")),
    "too long": (np.zeros((3, 4), np.uint8), 5, ValueError, ("5 codes of 4 bits take 3 bytes", "shape (3, 4)")),
    "0-d": (np.uint8(3), 1, ValueError, ("1 codes of 4 bits take 1 bytes", "shape ()")),
    "a code after the last": (np.array([0, 0x10], np.uint8), 3, ValueError, ("more than 3 codes", "are not 0")),
    "length 0": (np.zeros(1, np.uint8), 0, ValueError, ("length must be at least 1, got 0",)),
    "length -1": (np.zeros(1, np.uint8), -1, ValueError, ("length must be at least 1, got -1",)),
    "length 2.0": (np.zeros(1, np.uint8), 2.0, TypeError, ("length", NO_INT, "2.0")),
    "length True": (np.zeros(1, np.uint8), True, TypeError, ("length", NO_INT, "True")),
    "length None": (np.zeros(1, np.uint8), None, TypeError, ("length", NO_INT, "None")),
}


@pytest.mark.parametrize("packed, length, kind, words", **table(BAD_BYTES))
def test_bytes_that_are_not_these_codes_are_refused(packed, length, kind, words):
    refuses(kind, words, unpack_int4, packed, length)


@pytest.mark.parametrize("num_bits", [1, 9, 0, -4, 4.0, "4", None, True])
def test_only_widths_from_2_to_8_are_packed(num_bits):
    kind = ValueError if isinstance(num_bits, int) and num_bits is not True else TypeError
    refuses(kind, ("num_bits",), packing.pack, Q, num_bits)
    refuses(kind, ("num_bits",), packing.unpack, np.zeros(3, np.uint8), num_bits, 6)


def test_other_slips_of_packing_are_named():
    refuses(ValueError, ("at least one axis", "shape ()"), packing.pack, np.int8(3), 4)
    refuses(TypeError, ("signed must be True or False, got 1",), packing.unpack, np.zeros(3, np.uint8), 4, 6, 1)


# --- prices ---


@pytest.mark.parametrize("name", ["scale_bits", "zero_point_bits"])
@pytest.mark.parametrize("value, kind, words", [(-1, ValueError, ("got",)), (1.5, TypeError, (NO_INT,))])
def test_bits_are_whole_and_not_negative(name, value, kind, words):
    refuses(kind, (name, *words), lambda: bits_per_weight(4, 128, **{name: value}))


def test_prices_are_those_of_the_field():
    assert [bits_per_weight(4, size) for size in (32, 64, 128)] == [4.5, 4.25, 4.125]
    assert [bits_per_weight(4, size, 16, 4) for size in (32, 64, 128)] == [4.625, 4.3125, 4.15625]
    assert bits_per_weight(4, 32, scale_bits=8) == 4.25 and bits_per_weight(4, 16, scale_bits=8) == 4.5


# --- torch ---


@pytest.mark.skipif(torch is None, reason="torch is not installed")
@pytest.mark.parametrize("group_size", [4, 7, 64])
def test_tensors_get_the_same_answers(group_size):
    x = np.random.default_rng(0).normal(size=(3, 5, 30)).astype(np.float32)
    ours, theirs = quantize_group(x, 4, group_size), quantize_group(torch.from_numpy(x), 4, group_size)
    assert all(isinstance(part, torch.Tensor) for part in theirs)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))
    assert np.array_equal(dequantize_group(*ours, group_size), dequantize_group(*theirs, group_size))
    packed = answers.pack_int4(theirs[0])
    assert np.array_equal(packed, pack_int4(ours[0]))
    assert np.array_equal(unpack_int4(packed, 30), ours[0])
