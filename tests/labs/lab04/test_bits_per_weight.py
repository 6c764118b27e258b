"""bits_per_weight: the prices of the field, of whole bits that are not negative."""

from fractions import Fraction

import numpy as np
import pytest

from labutils.labs.answers import bits_per_weight
from tests.arrays.bad_inputs import BAD_WIDTHS, NO_INT, refuses, table
from tests.labs.lab04.group_sizes import NO_GROUP_SIZES
from tests.labs.right_answers import passes

pytestmark = pytest.mark.filterwarnings("error")


def test_prices_are_those_of_the_field():
    assert [bits_per_weight(4, size) for size in (32, 64, 128)] == [4.5, 4.25, 4.125]
    assert [bits_per_weight(4, size, 16, 4) for size in (32, 64, 128)] == [4.625, 4.3125, 4.15625]
    assert bits_per_weight(4, 32, scale_bits=8) == 4.25 and bits_per_weight(4, 16, scale_bits=8) == 4.5


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    refuses(kind, words, bits_per_weight, num_bits, 128)


@pytest.mark.parametrize("size, kind, words", **table(NO_GROUP_SIZES))
def test_what_is_no_group_size_is_refused(size, kind, words):
    refuses(kind, words, bits_per_weight, 4, size)


@pytest.mark.parametrize("name", ["scale_bits", "zero_point_bits"])
@pytest.mark.parametrize("value, kind, words", [(-1, ValueError, ("got",)), (1.5, TypeError, (NO_INT,))])
def test_bits_are_whole_and_not_negative(name, value, kind, words):
    refuses(kind, (name, *words), bits_per_weight, 4, 128, **{name: value})


# Right answers, however they are written.


def share_of_the_scale(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return num_bits + (scale_bits + zero_point_bits) / group_size


def whole_group(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return (num_bits * group_size + scale_bits + zero_point_bits) / group_size


def numpy_mean(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return np.mean([num_bits] * group_size) + np.float64(scale_bits) / group_size + zero_point_bits / group_size


def as_a_fraction(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return float(num_bits + Fraction(scale_bits + zero_point_bits, group_size))


def by_bytes(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return np.array(8 * (num_bits / 8 + scale_bits / 8 / group_size + zero_point_bits / 8 / group_size))


RIGHT = [share_of_the_scale, whole_group, numpy_mean, as_a_fraction, by_bytes]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("bits_per_weight", answer)
