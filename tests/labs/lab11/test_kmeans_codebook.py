"""kmeans_codebook: values that are the means of what is nearest to them, however they are found."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from labutils.labs.answers import kmeans_codebook, normal_float
from labutils.labs.lab11.kmeans_codebook import HAND, loss, next_round, right, spread
from tests.labs.right_answers import passes

pytestmark = pytest.mark.filterwarnings("error")
X = np.random.default_rng(0).normal(size=3000)


def test_the_worked_example():
    assert np.allclose(kmeans_codebook(HAND, 2), [-8, 0, 4.5, 8])
    assert np.allclose(right(HAND, 2), [-8, 0, 4.5, 8])


@pytest.mark.parametrize("num_bits", [2, 3, 4])
def test_another_round_moves_nothing(num_bits):
    values = kmeans_codebook(X, num_bits)
    assert values.shape == (2**num_bits,)
    assert loss(X, next_round(X, values)) == pytest.approx(loss(X, values), rel=1e-3)


def test_a_gaussian_in_2_bits_is_the_quantizer_of_lloyd_and_max():
    # Max, 1960: outputs at 0.4528 and 1.510 standard deviations, noise 0.1175
    values = kmeans_codebook(np.random.default_rng(1).normal(size=200_000), 2)
    assert values == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=0.02)
    assert loss(X, values) == pytest.approx(0.1175, rel=0.05)


def test_it_loses_less_than_quantiles_and_than_normal_float():
    fitted = loss(X, kmeans_codebook(X, 4))
    assert fitted < loss(X, spread(X, 16))
    assert fitted < loss(X, normal_float(4) * np.abs(X).max())


@pytest.mark.parametrize("x", [np.zeros(8), np.array([1.0, np.nan]), np.ones(3)], ids=["zeros", "NaN", "one value"])
def test_what_has_no_codebook_is_refused(x):
    with pytest.raises(ValueError):
        kmeans_codebook(x)


# Right answers, however they are written.


def with_sklearn(x, num_bits=4):
    found = KMeans(2**num_bits, n_init=1, random_state=0).fit(x.reshape(-1, 1)).cluster_centers_
    return np.sort(found.ravel())


def from_quantiles(x, num_bits=4):
    values = np.quantile(x, np.linspace(0, 1, 2 ** (num_bits + 1) + 1)[1::2])
    for _ in range(80):
        nearest = np.abs(x.reshape(-1, 1) - values).argmin(axis=1)
        values = np.array([x.reshape(-1)[nearest == k].mean() for k in range(len(values))])
    return values


def until_nothing_moves(x, num_bits=4):
    flat = np.sort(x.ravel().astype(np.float64))
    sums = np.concatenate([[0], np.cumsum(flat)])
    values = np.linspace(flat[0], flat[-1], 2**num_bits)
    while True:
        edges = np.concatenate([[0], np.searchsorted(flat, (values[1:] + values[:-1]) / 2), [len(flat)]])
        count, total = np.diff(edges), np.diff(sums[edges])
        moved = np.where(count, total / np.maximum(count, 1), values)
        if np.allclose(moved, values, rtol=1e-9, atol=0):
            return moved
        values = moved


def from_random_values(x, num_bits=4):
    values = np.sort(np.random.default_rng(5).choice(np.unique(x), 2**num_bits, replace=False).astype(np.float64))
    for _ in range(100):
        values = next_round(x, values)
    return values


def in_torch(x, num_bits=4):
    import torch

    t = torch.tensor(np.ascontiguousarray(x)).double().flatten()
    values = torch.quantile(t, (torch.arange(2**num_bits, dtype=torch.float64) + 0.5) / 2**num_bits)
    for _ in range(100):
        place = torch.bucketize(t, (values[1:] + values[:-1]) / 2)
        count = torch.bincount(place, minlength=len(values))
        values = torch.bincount(place, weights=t, minlength=len(values)) / count.clamp(min=1)
    return values


RIGHT = [
    right,
    right.but(start=spread),
    with_sklearn,
    from_quantiles,
    until_nothing_moves,
    from_random_values,
    in_torch,
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("kmeans_codebook", answer)
