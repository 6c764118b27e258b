"""asymmetric_gain: between nothing and one bit, and what is measured on values that fill the range evenly."""

import math

import numpy as np
import pytest

from labutils import Scheme, fake_quantize, sqnr_db
from labutils.course import engine
from labutils.labs.answers import asymmetric_gain
from labutils.labs.catalogue import EXERCISES
from tests.labs.right_answers import passes


@pytest.mark.parametrize("low, high", [(-1, 1), (-0.25, 1), (0, 6), (-3, -2), (2, 3)])
@pytest.mark.parametrize("num_bits", [5, 8])
def test_the_gain_is_what_values_spread_evenly_show(low, high, num_bits):
    x = np.append(np.random.default_rng(0).uniform(low, high, 100_000), [low, high]).astype(np.float32)
    levels = [sqnr_db(x, fake_quantize(x, Scheme(num_bits, symmetric=kind))) for kind in (False, True)]
    # 100002 squared errors, each with a relative deviation of sqrt(4/5); a step may not divide the range: 0.1 dB.
    assert levels[0] - levels[1] == pytest.approx(asymmetric_gain(low, high, num_bits), abs=0.2)


@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_it_goes_from_the_unused_code_to_one_bit_more(num_bits):
    unused = 20 * math.log10((2**num_bits - 1) / (2**num_bits - 2))
    assert asymmetric_gain(-1, 1, num_bits) == pytest.approx(unused)
    assert asymmetric_gain(0, 1, num_bits) == pytest.approx(unused + 20 * math.log10(2))
    assert asymmetric_gain(5, 6, num_bits) == asymmetric_gain(0, 6, num_bits)


@pytest.mark.parametrize(
    "args, error, words",
    [
        ((1, -1), ValueError, "the range must reach from low up to high, and be more than 0, got [1, -1]"),
        ((0, 0), ValueError, "more than 0, got [0, 0]"),
        ((math.nan, 1), ValueError, "low must be finite, got nan"),
        ((0, "1"), TypeError, "high must be a number, got '1'"),
        ((0, 1, 1), ValueError, "num_bits"),
    ],
)
def test_what_is_no_range_is_refused(args, error, words):
    with pytest.raises(error) as raised:
        asymmetric_gain(*args)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "answer, words",
    [
        (np.array([3.7]), "the result should be a number, but it is an array of shape (1,)"),
        (None, "the result should be a number, but it is None"),
        ("3.7 dB", "the result should be a number, but it is the str '3.7 dB'"),
    ],
)
def test_what_is_no_number_is_refused(answer, words):
    report = engine.examine(lambda low, high, num_bits=8: answer, EXERCISES["asymmetric_gain"])
    assert words in report.first_failure.detail


# Right answers, however they are written.


def ratio_of_the_scales(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    symmetric = max(abs(low), abs(high)) / (2 ** (num_bits - 1) - 1)
    return 20 * np.log10(symmetric / ((high - low) / (2**num_bits - 1)))


def ratio_of_the_noises(low, high, num_bits=8):
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scales = np.array([max(-low, high) / (2 ** (num_bits - 1) - 1), (high - low) / (2**num_bits - 1)], dtype=np.float64)
    noise = scales**2 / 12
    return 10 * np.log10(noise[0] / noise[1])


def by_the_imbalance(low, high, num_bits=8):
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    r = abs(high + low) / (high - low)
    return 20 * math.log10(1 + r) + 20 * math.log10((2**num_bits - 1) / (2**num_bits - 2))


def difference_of_logarithms(low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    reach, length = float(max(-low, high)), float(high - low)
    steps = math.log10(2**num_bits - 1) - math.log10(2 ** (num_bits - 1) - 1)
    return 20 * (math.log10(reach) - math.log10(length) + steps)


def as_an_array(low, high, num_bits=8):
    ends = np.array([low, high, 0.0])
    scales = np.abs(ends).max() / (2 ** (num_bits - 1) - 1), np.ptp(ends) / (2**num_bits - 1)
    return np.array(20 * np.log10(scales[0] / scales[1]))


RIGHT = [ratio_of_the_scales, ratio_of_the_noises, by_the_imbalance, difference_of_logarithms, as_an_array]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("asymmetric_gain", answer)
