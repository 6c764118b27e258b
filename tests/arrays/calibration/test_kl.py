"""The range of least divergence: the fast sums are the definition, bin by bin, and the least is found."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labutils.arrays.calibration import KL, best_cut, cut_divergences
from tests.arrays.calibration.estimators import VALUES, symmetries

pytestmark = pytest.mark.filterwarnings("error")


def divergence(kept, below, above, num_levels):
    counts = np.concatenate([[below], kept, [above]])
    return cut_divergences(counts, np.array([1]), np.array([1 + len(kept)]), num_levels)[0]


def slowly_divergent(kept, below, above, num_levels):
    """The definition, bin by bin."""
    n = len(kept)
    q = [0.0] * n
    for level in range(num_levels):
        members = [j for j in range(n) if j * num_levels // n == level and kept[j] > 0]
        for j in members:
            q[j] = sum(kept[i] for i in members) / len(members)
    p = list(map(float, kept))
    p[0] += below
    p[-1] += above
    total_p, total_q, result = sum(p), sum(q), 0.0
    for p_j, q_j in zip(p, q):
        if p_j > 0:
            result += p_j / total_p * math.log(p_j / total_p / (q_j / total_q)) if q_j else math.inf
    return result


@given(
    kept=arrays(np.int64, st.integers(4, 30), elements=st.integers(0, 20)).filter(np.any),
    cut=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    num_levels=st.integers(2, 4),
)
def test_divergence_is_its_definition(kept, cut, num_levels):
    assert divergence(kept, *cut, num_levels) == pytest.approx(slowly_divergent(kept, *cut, num_levels), abs=1e-12)


@given(kept=arrays(np.int64, st.integers(4, 30), elements=st.integers(0, 20)).filter(np.any))
def test_divergence_is_never_negative_and_nothing_is_lost_with_a_level_for_each_bin(kept):
    assert divergence(kept, 0, 0, 3) >= -1e-12
    assert divergence(kept, 0, 0, kept.size) == pytest.approx(0, abs=1e-12)


def test_what_is_cut_off_onto_an_empty_bin_is_infinitely_unlike():
    assert divergence(np.array([5, 3, 2, 0]), 0, 1, 2) == math.inf
    assert math.isfinite(divergence(np.array([5, 3, 2, 1]), 0, 1, 2))


def test_the_best_cut_is_the_least_divergent_of_all():
    counts = np.histogram(np.abs(VALUES), 200)[0]
    cuts = {keep: divergence(counts[:keep], 0, counts[keep:].sum(), 8) for keep in range(8, 201)}
    assert cuts[best_cut(counts, 0, 8)] == min(cuts.values())


@pytest.mark.parametrize("filled", [1, 5, 8])
def test_no_more_bins_than_levels_are_all_kept(filled):
    counts = np.append(np.ones(filled, np.int64), np.zeros(20, np.int64))
    assert best_cut(counts, 0, 8) == filled


@symmetries
def test_zeros_do_not_decide_where_to_cut(symmetric):
    x = VALUES[VALUES > 0]
    many = np.append(x, np.zeros(10 * x.size, np.float32))
    assert KL(4, symmetric).observe(many).range() == KL(4, symmetric).observe(x).range()


SATURATED = {
    "a sigmoid near 1": 1 / (1 + np.exp(-np.random.default_rng(0).normal(4, 1, 50_000))),
    "most values in one bin": np.append(np.full(60_000, 0.4), np.random.default_rng(0).uniform(0.4, 1, 40_000)),
}


@symmetries
@pytest.mark.parametrize("x", SATURATED.values(), ids=SATURATED)
def test_a_bin_that_is_left_alone_is_no_match_for_all_that_is_cut_off(x, symmetric):
    assert KL(symmetric=symmetric).observe(x).range()[1] > 0.9
