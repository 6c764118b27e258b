"""hadamard: orthogonal, all entries of one size."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from scipy import linalg

from labutils.labs.answers import hadamard
from labutils.labs.lab12.hadamard import right
from labutils.models import rotation
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

ORDERS = [2**k for k in range(10)]


@pytest.mark.parametrize("n", ORDERS)
def test_it_is_scipys_matrix_with_rows_of_length_one(n):
    h = hadamard(n)
    np.testing.assert_allclose(h, linalg.hadamard(n) / np.sqrt(n), rtol=1e-6)
    np.testing.assert_allclose(h @ h, np.eye(n), atol=1e-5)
    assert h.dtype == np.float32


@pytest.mark.parametrize("n", ORDERS)
def test_an_outlier_gets_smaller_by_the_root_of_n_and_lengths_stay(n):
    x = np.zeros(n, np.float32)
    x[n // 2] = 100
    assert np.abs(x @ hadamard(n)).max() == pytest.approx(100 / np.sqrt(n), rel=1e-5)
    assert np.linalg.norm(x @ hadamard(n)) == pytest.approx(100, rel=1e-4)


def test_it_is_the_librarys():
    np.testing.assert_array_equal(hadamard(64), rotation.hadamard(64).numpy())


BAD = {
    "no power of two": ((12,), ValueError, ("n must be a power of two, got 12",)),
    "zero": ((0,), ValueError, ("n", "0")),
    "negative": ((-4,), ValueError, ("n", "-4")),
    "a float": ((4.5,), TypeError, ("n", "4.5")),
    "a string": (("4",), TypeError, ("n",)),
    "None": ((None,), TypeError, ("n",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_other_orders_are_refused(args, kind, words):
    refuses(kind, words, hadamard, *args)


def doubled(n):
    h = torch.ones(1, 1)
    while h.shape[0] < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0) / 2**0.5
    return h


def recursive(n):
    if n == 1:
        return np.array([[1.0]])
    half = recursive(n // 2)
    return np.vstack([np.hstack([half, half]), np.hstack([half, -half])]) / np.sqrt(2)


def by_kronecker_products(n):
    h, two = np.ones((1, 1)), np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    for _ in range(int(np.log2(n))):
        h = np.kron(two, h)
    return h.astype(np.float32)


def by_parity_of_bits(n):
    return np.array([[(-1) ** bin(i & j).count("1") for j in range(n)] for i in range(n)]) / n**0.5


def from_scipy(n):
    return linalg.hadamard(n) * n**-0.5


def the_minus_elsewhere(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[-h, h], [h, h]])
    return h / np.sqrt(n)


def rows_in_another_order(n):
    return hadamard(n)[np.random.default_rng(0).permutation(n)]


def the_recipe(n):
    return right(n)


RIGHT = [
    doubled, recursive, by_kronecker_products, by_parity_of_bits, from_scipy, the_minus_elsewhere,
    rows_in_another_order, the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("hadamard", answer)
