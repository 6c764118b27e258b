"""normal_float: the published table, an exact 0, and about as many weights of a Gaussian at each value."""

from statistics import NormalDist

import numpy as np
import pytest

from labutils.arrays.grids import NF4
from labutils.labs.answers import normal_float
from labutils.labs.lab11.normal_float import right
from tests.labs.right_answers import passes

pytestmark = pytest.mark.filterwarnings("error")


def test_four_bits_are_the_published_table():
    assert np.allclose(normal_float(4), NF4.levels, atol=1e-6)


@pytest.mark.parametrize("num_bits", [2, 3, 4, 8])
def test_it_ascends_from_minus_1_to_1_with_one_exact_0_and_one_number_more_above_it(num_bits):
    values = normal_float(num_bits)
    assert values.shape == (2**num_bits,)
    assert (values[0], values[-1]) == pytest.approx((-1, 1))
    assert np.all(np.diff(values) > 0)
    assert np.count_nonzero(values == 0) == 1
    assert np.count_nonzero(values > 0) == np.count_nonzero(values < 0) + 1


def test_no_value_is_used_twice_as_often_as_another():
    """Of a Gaussian as wide as the table was made for, without what lies beyond its ends."""
    x = np.random.default_rng(0).normal(size=200_000)
    x = x / NormalDist().inv_cdf(1 - (1 / 16 + 1 / 15) / 4)
    codes = NF4.to_codes(np, x[np.abs(x) < 1])
    counts = np.bincount(codes, minlength=16)[1:-1]  # the ends have half a cell
    assert counts.max() < 2 * counts.min()


@pytest.mark.parametrize("num_bits, error", [(1, ValueError), (0, ValueError), (2.5, TypeError), ("4", TypeError)])
def test_what_is_no_bit_width_is_refused(num_bits, error):
    with pytest.raises(error):
        normal_float(num_bits)


# Right answers, however they are written.


def with_scipy(num_bits=4):
    from scipy.stats import norm

    offset = 1 - (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    above = norm.ppf(np.linspace(offset, 0.5, 2 ** (num_bits - 1) + 1)[:-1])
    below = -norm.ppf(np.linspace(offset, 0.5, 2 ** (num_bits - 1))[:-1])
    values = np.sort(np.concatenate([above, [0], below]))
    return values / values.max()


def one_by_one(num_bits=4):
    half, d = 2 ** (num_bits - 1), (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    inverse, values = NormalDist().inv_cdf, []
    for k in range(half - 1):
        values.append(inverse(d + k * (0.5 - d) / (half - 1)))
    values.append(0)
    for k in range(1, half + 1):
        values.append(inverse(0.5 + k * (0.5 - d) / half))
    return np.array([value / max(values) for value in values])


def in_float32(num_bits=4):
    return one_by_one(num_bits).astype(np.float32)


def in_torch(num_bits=4):
    import torch

    half, d = 2 ** (num_bits - 1), (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    p = torch.cat(
        [
            torch.linspace(d, 0.5, half, dtype=torch.float64)[:-1],
            torch.linspace(0.5, 1 - d, half + 1, dtype=torch.float64),
        ]
    )
    values = torch.special.ndtri(p)
    values[half - 1] = 0
    return values / values.max()


def mirrored(num_bits=4):
    """The inverse of the error function, by bisection of math.erf."""
    import math

    def inverse(p):
        low, high = 0.0, 8.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if 0.5 + 0.5 * math.erf(middle / 2**0.5) < p else (low, middle)
        return low

    half, d = 2 ** (num_bits - 1), (1 / 2**num_bits + 1 / (2**num_bits - 1)) / 4
    above = [inverse(p) for p in np.linspace(0.5, 1 - d, half + 1)[1:]]
    below = [-inverse(p) for p in np.linspace(0.5, 1 - d, half)[1:]]
    return np.array([*below[::-1], 0.0, *above]) / above[-1]


RIGHT = [right, with_scipy, one_by_one, in_float32, in_torch, mirrored]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("normal_float", answer)
