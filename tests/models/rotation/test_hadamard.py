"""Hadamard matrices: signs and orthogonal rows, for every order that the constructions reach."""

import numpy as np
import pytest
import torch
from scipy import linalg

from labutils.models.rotation import hadamard
from labutils.models.rotation.hadamard import block_order, factor_orders
from tests.arrays.bad_inputs import refuses, table

SYLVESTER = [1, 2, 4, 8, 64, 256]
FIRST = [12, 20, 44, 60, 68, 108]  # one more than a prime of the form 4k + 3
SECOND = [28, 36, 76]  # twice one more than a prime of the form 4k + 1
COMBINED = [24, 56, 72, 384, 576, 768, 960, 1536]


@pytest.mark.parametrize("n", SYLVESTER + FIRST + SECOND + COMBINED)
def test_entries_are_signs_and_rows_are_orthogonal(n):
    signs = (hadamard(n) * n**0.5).double()
    assert torch.allclose(signs.abs(), torch.ones(n, n, dtype=torch.double), atol=1e-6)
    signs = signs.sign()
    assert torch.equal(signs @ signs.T, n * torch.eye(n, dtype=torch.double))


@pytest.mark.parametrize("n", SYLVESTER)
def test_powers_of_two_are_sylvesters(n):
    assert np.allclose(hadamard(n), linalg.hadamard(n) / n**0.5)


SIZES = {576: (36, 16), 1536: (12, 16, 8), 384: (12, 16, 2), 768: (12, 16, 4), 128: (16, 8), 36: (36,), 1: ()}


@pytest.mark.parametrize("n", SIZES)
def test_sizes_of_known_models_and_their_factors(n):
    assert factor_orders(n) == SIZES[n]


def test_the_multiples_of_4_below_200_that_are_not_reached():
    missing = []
    for n in range(4, 200, 4):
        try:
            block_order(n, blocks=False)
        except ValueError:
            missing.append(n)
    assert missing == [52, 92, 100, 116, 156, 172, 184, 188]


@pytest.mark.parametrize("n, order", [(10, 2), (6, 2), (92, 4), (52, 4), (184, 8), (576, 576), (1000, 1000)])
def test_in_blocks_the_largest_matrix_that_divides_is_repeated(n, order):
    matrix = hadamard(n, blocks=True)
    assert block_order(n, blocks=True) == order
    assert torch.equal(matrix, torch.block_diag(*[hadamard(order)] * (n // order)))
    assert torch.allclose(matrix @ matrix.T, torch.eye(n), atol=1e-5)


BAD = {
    "10": (10, ValueError, ("no Hadamard matrix of order 10", "nearest are 8 and 12", "5 blocks of order 2")),
    "6": (6, ValueError, ("nearest are 4 and 8", "3 blocks of order 2")),
    "92": (92, ValueError, ("order 92 is known to Sylvester's and Paley's", "88 and 96", "23 blocks of order 4")),
    "7": (7, ValueError, ("of order 7, only of orders 1, 2 and multiples of 4", "nearest are 4 and 8")),
    "0": (0, ValueError, ("n must be at least 1, got 0",)),
    "-4": (-4, ValueError, ("n must be at least 1, got -4",)),
    "4.0": (4.0, TypeError, ("n must be a whole number",)),
    "None": (None, TypeError, ("n must be a whole number",)),
}


@pytest.mark.parametrize("n, kind, words", **table(BAD))
def test_other_sizes_are_refused_and_the_nearest_named(n, kind, words):
    refuses(kind, words, hadamard, n)


def test_an_odd_size_has_no_blocks_either():
    refuses(ValueError, ("order 15", "nearest are 12 and 16"), hadamard, 15, blocks=True)
    refuses(TypeError, ("blocks must be True or False, got 1",), hadamard, 8, blocks=1)
