"""storage_bytes: packed bits fill whole bytes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.labs.answers import storage_bytes
from tests.arrays.bad_inputs import refuses
from tests.labs.right_answers import passes


@given(st.integers(0, 10**12), st.integers(1, 64))
def test_packed_bits_fill_whole_bytes(num_values, num_bits):
    whole = storage_bytes(num_values, num_bits)
    assert 8 * (whole - 1) < num_values * num_bits <= 8 * whole


@pytest.mark.parametrize(
    "num_values, num_bits, expected",
    [(7 * 10**9, 16, 14 * 10**9), (7 * 10**9, 4, 3_500_000_000), (3, 3, 2), (1, 1, 1), (9, 1, 2), (0, 8, 0)],
    ids=["7B in 16 bits", "7B in 4 bits", "3 of 3 bits", "a bit", "9 bits", "nothing"],
)
def test_bytes_by_hand(num_values, num_bits, expected):
    assert storage_bytes(num_values, num_bits) == expected


@pytest.mark.parametrize(
    "num_values, num_bits, kind, words",
    [
        (-1, 8, ValueError, "expected num_values >= 0 and num_bits >= 1, got -1 and 8"),
        (8, 0, ValueError, "expected num_values >= 0 and num_bits >= 1, got 8 and 0"),
        (8.0, 8, TypeError, "num_values must be a whole number, got 8.0 of type float"),
        (8, 4.5, TypeError, "num_bits must be a whole number, got 4.5 of type float"),
        (None, 8, TypeError, "num_values must be a whole number, got None"),
        (8, "8", TypeError, "num_bits must be a whole number, got '8'"),
        (True, 8, TypeError, "num_values must be a whole number, got True"),
        (np.ones(2), 8, TypeError, "num_values must be a whole number, got array"),
    ],
    ids=["-1 values", "0 bits", "8.0 values", "4.5 bits", "None", "a string", "True", "an array"],
)
def test_storage_is_of_a_whole_number_of_whole_bits(num_values, num_bits, kind, words):
    refuses(kind, (words,), storage_bytes, num_values, num_bits)


# Right answers, however they are written.


def ceil_of_float(num_values, num_bits):
    return math.ceil(num_values * num_bits / 8)


def floor_of_more(num_values, num_bits):
    return (num_values * num_bits + 7) // 8


def minus_floor_of_minus(num_values, num_bits):
    return -(-num_values * num_bits // 8)


def with_remainder(num_values, num_bits):
    full, rest = divmod(num_values * num_bits, 8)
    return full + (1 if rest else 0)


def numpy_int(num_values, num_bits):
    return np.int64(np.ceil(num_values * num_bits / 8))


RIGHT = [ceil_of_float, floor_of_more, minus_floor_of_minus, with_remainder, numpy_int]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("storage_bytes", answer)
