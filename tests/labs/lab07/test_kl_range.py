"""kl_range: the cut at which an explicit P and Q are most alike."""

import math

import numpy as np
import pytest

from labutils.course import engine
from labutils.labs.answers import kl_range
from labutils.labs.catalogue import EXERCISES
from labutils.labs.lab07.kl_range import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

X = np.append(np.random.default_rng(0).laplace(size=3000), [25.0, 30.0]).astype(np.float32)


def straight(x, num_bits=8, num_bins=2048):
    magnitudes = np.abs(x[x != 0])
    if magnitudes.size == 0:
        return 0.0, 0.0
    counts, edges = np.histogram(magnitudes, bins=num_bins, range=(0, magnitudes.max()))
    levels = 2 ** (num_bits - 1)
    best, least = num_bins, np.inf
    for keep in range(levels, num_bins + 1):
        kept = counts[:keep]
        p = kept.astype(float)
        p[-1] += counts[keep:].sum()
        level = np.arange(keep) * levels // keep
        filled = np.bincount(level, kept > 0)
        q = np.where(kept > 0, (np.bincount(level, kept) / np.maximum(filled, 1))[level], 0)
        p, q = p / p.sum(), q / q.sum()
        with np.errstate(divide="ignore"):
            divergence = np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0]))
        if divergence < least:
            best, least = keep, divergence
    return -edges[best], edges[best]


def with_scipy_entropy(x, num_bits=8, num_bins=2048):
    from scipy.stats import entropy

    largest = float(np.abs(x).max())
    if not largest:
        return -0.0, 0.0
    counts = np.histogram(np.abs(x)[np.abs(x) > 0], np.linspace(0, largest, num_bins + 1))[0]
    levels = 2 ** (num_bits - 1)
    scores = []
    for keep in range(levels, num_bins + 1):
        level = np.arange(keep) * levels // keep
        starts = np.searchsorted(level, np.arange(levels))
        sums = np.add.reduceat(counts[:keep], starts)
        filled = np.add.reduceat((counts[:keep] > 0).astype(int), starts)
        q = np.repeat(sums / np.maximum(filled, 1), np.diff(np.append(starts, keep))) * (counts[:keep] > 0)
        p = np.append(counts[: keep - 1], counts[keep - 1 :].sum())
        scores.append(entropy(p, q))
    t = (levels + int(np.argmin(scores))) * largest / num_bins
    return -t, t


def middle_of_the_last_bin(x, num_bits=8, num_bins=2048):
    """As TensorRT's slides put it: (m + 0.5) bins; one that is kept whole ends at the largest value."""
    low, high = straight(x, num_bits, num_bins)
    width = float(np.abs(x).max()) / num_bins
    return low + width / 2 * (high > 0), high - width / 2 * (high > 0)


def level_by_level(x, num_bits=8, num_bins=2048):
    x = np.abs(np.asarray(x, dtype=np.float64)).ravel()
    top = x.max()
    if top == 0:
        return 0.0, 0.0
    bins = np.minimum((x[x > 0] / top * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins).tolist()
    levels, best = 2 ** (num_bits - 1), (math.inf, num_bins)
    for keep in range(levels, num_bins + 1):
        rest = sum(counts[keep:])
        if rest and not counts[keep - 1]:
            continue  # infinite
        total_q = sum(counts[:keep])
        total_p, score = total_q + rest, 0.0
        for level in range(levels):
            first, end = -(-level * keep // levels), -(-(level + 1) * keep // levels)
            members = [j for j in range(first, end) if counts[j]]
            share = sum(counts[j] for j in members) / max(len(members), 1) / total_q
            for j in members:
                p = (counts[j] + (rest if j == keep - 1 else 0)) / total_p
                score += p * math.log(p / share)
        best = min(best, (score, keep))
    return -best[1] / num_bins * top, best[1] / num_bins * top


def with_torch_kl(x, num_bits=8, num_bins=2048):
    import torch

    t = torch.tensor(x.astype(np.float64)).abs().flatten()
    largest = float(t.max())
    if largest == 0:
        return torch.tensor(0.0), torch.tensor(0.0)
    counts = torch.histc(t[t > 0] / largest, bins=num_bins, min=0, max=1).double()
    levels = 2 ** (num_bits - 1)
    scores = []
    for keep in range(levels, num_bins + 1):
        kept = counts[:keep]
        level = torch.arange(keep) * levels // keep
        sums = torch.zeros(levels, dtype=torch.float64).index_add(0, level, kept)
        filled = torch.zeros(levels, dtype=torch.float64).index_add(0, level, (kept > 0).double())
        q = torch.where(kept > 0, (sums / filled.clamp(min=1))[level], 0)
        p = kept.clone()
        p[-1] += counts[keep:].sum()
        p, q = p / p.sum(), q / q.sum()
        scores.append(torch.where(p > 0, p * (p / q).log(), 0).sum())
    keep = levels + int(torch.stack(scores).argmin())
    return -keep / num_bins * largest, keep / num_bins * largest


def the_recipe(x, num_bits=8, num_bins=2048):
    return right(x, num_bits, num_bins)


@pytest.mark.parametrize("num_bits, num_bins", [(3, 64), (4, 256), (6, 100)])
def test_the_cut_is_that_of_the_search_spelled_out(num_bits, num_bins):
    assert kl_range(X, num_bits, num_bins) == pytest.approx(straight(X, num_bits, num_bins))


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    assert kl_range(torch.tensor(X), 4, 128) == kl_range(X, 4, 128)


BAD = {
    "a list": (([0.5, 1.0],), TypeError, ("x must be a NumPy array or a torch tensor, got list",)),
    "Inf": ((np.array([0.5, np.inf]),), ValueError, ("x must be finite", "(2,)")),
    "17 bits": ((X, 17), ValueError, ("num_bits must be between 2 and 16, got 17",)),
    "no bins": ((X, 4, 0), ValueError, ("num_bins must be at least 1, got 0",)),
    "half a bin": ((X, 4, 0.5), TypeError, ("num_bins must be a whole number, got 0.5",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_bad_input_is_refused(args, kind, words):
    refuses(kind, words, kl_range, *args)


RIGHT = [straight, with_scipy_entropy, middle_of_the_last_bin, level_by_level, with_torch_kl, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("kl_range", answer)


def without_outliers(x, num_bits=8, num_bins=2048):
    counts, edges = np.histogram(np.abs(x[x != 0]), num_bins, range=(0, max(np.abs(x).max(), 1e-30)))
    levels, best = 2 ** (num_bits - 1), (np.inf, 0)
    for i in range(levels, num_bins + 1):
        p = counts[:i] / max(counts[:i].sum(), 1)
        level = np.arange(i) * levels // i
        q = (np.bincount(level, p) / np.maximum(np.bincount(level, p > 0), 1))[level] * (p > 0)
        best = min(best, (np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])), i))
    return -edges[best[1]], edges[best[1]]


def test_a_histogram_without_its_outliers_in_other_words():
    report = engine.examine(without_outliers, EXERCISES["kl_range"])
    assert not report.passed
    assert report.diagnosis == "what was cut off is in neither P nor Q, or in both"
