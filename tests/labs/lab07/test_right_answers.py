"""Right answers to lab 07, written as people write them, and mistakes in other words than the tables'."""

import math

import numpy as np
import pytest

from labutils import Scheme, fake_quantize, qparams_of_range
from labutils.course import engine
from labutils.labs.catalogue import EXERCISES

# --- percentile_range ---


def both_with_numpy(x, percentile=99.9, symmetric=True):
    if symmetric:
        t = np.percentile(np.abs(x), percentile)
        return -t, t
    rest = (100 - percentile) / 2
    return np.percentile(x, rest), np.percentile(x, 100 - rest)


def with_quantile(x, percentile=99.9, symmetric=True):
    share = percentile / 100
    if symmetric:
        return [sign * float(np.quantile(np.abs(x).ravel(), share, method="higher")) for sign in (-1, 1)]
    return tuple(np.quantile(x, [(1 - share) / 2, (1 + share) / 2], method="lower"))


def by_sorting(x, percentile=99.9, symmetric=True):
    values = np.sort(np.abs(x) if symmetric else x, axis=None)
    rest = (100 - percentile) / 100 * values.size
    if symmetric:
        t = values[max(0, values.size - 1 - int(rest))]
        return -t, t
    return values[int(rest / 2)], values[values.size - 1 - int(rest / 2)]


def with_partition(x, percentile=99.9, symmetric=True):
    flat = np.ravel(np.abs(x) if symmetric else x)
    last = flat.size - 1

    def at(share):
        k = min(last, max(0, round(share * last)))
        return flat.dtype.type(np.partition(flat, k)[k])

    if symmetric:
        return -at(percentile / 100), at(percentile / 100)
    return at((100 - percentile) / 200), at((100 + percentile) / 200)


def with_torch_quantile(x, percentile=99.9, symmetric=True):
    import torch

    t = torch.tensor(np.ascontiguousarray(x)).flatten().double()
    if symmetric:
        threshold = torch.quantile(t.abs(), percentile / 100)
        return -threshold, threshold
    return torch.quantile(t, (1 - percentile / 100) / 2), torch.quantile(t, (1 + percentile / 100) / 2)


# --- mse_range ---


def lost(x, low, high, num_bits, symmetric):
    scheme = Scheme(num_bits, symmetric=symmetric)
    return float(np.mean((x - fake_quantize(x, scheme, qparams_of_range(low, high, scheme, like=x))) ** 2))


def one_end_after_the_other(x, num_bits=8, symmetric=True):
    largest = np.abs(x).max()
    if symmetric:
        clips = np.linspace(0.02, 1, 60) * largest
        best = clips[np.argmin([lost(x, -c, c, num_bits, True) for c in clips])]
        return -best, best
    low, high = min(x.min(), 0), max(x.max(), 0)
    first, last = low, high
    for _ in range(3):
        highs = [f * last for f in np.linspace(0.02, 1, 60)]
        high = highs[int(np.argmin([lost(x, low, h, num_bits, False) for h in highs]))]
        lows = [f * first for f in np.linspace(0.02, 1, 60)]
        low = lows[int(np.argmin([lost(x, bottom, high, num_bits, False) for bottom in lows]))]
    return low, high


def every_pair(x, num_bits=8, symmetric=True):
    fractions = np.geomspace(0.03, 1, 30)
    if symmetric:
        best = min(
            np.geomspace(0.03, 1, 100), key=lambda f: lost(x, -f * np.abs(x).max(), f * np.abs(x).max(), num_bits, True)
        )
        return -best * np.abs(x).max(), best * np.abs(x).max()
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    pairs = [(f * low, g * high) for f in fractions for g in fractions]
    return min(pairs, key=lambda pair: lost(x, *pair, num_bits, False))


def coarse_then_fine(x, num_bits=8, symmetric=True):
    def search(ends, low, high):
        return min(((f * low, g * high) for f, g in ends), key=lambda r: lost(x, *r, num_bits, symmetric))

    if symmetric:
        low, high = -float(np.abs(x).max()), float(np.abs(x).max())
        coarse = search([(f, f) for f in np.linspace(0.04, 1, 25)], low, high)
        return search([(f, f) for f in np.linspace(0.94, 1.06, 13)], *coarse)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    grid = np.linspace(0.05, 1, 20)
    coarse = search([(f, g) for f in grid for g in grid], low, high)
    near = np.linspace(0.8, 1.2, 11)
    return search([(f, g) for f in near for g in near], *coarse)


def on_the_codes(x, num_bits=8, symmetric=True):
    """Spelled out, in float64, with levels as many above zero as below."""
    x = x.astype(np.float64).ravel()

    def error(low, high):
        if symmetric:
            step, least, most = high / (2 ** (num_bits - 1) - 1), -(2 ** (num_bits - 1)) + 1, 2 ** (num_bits - 1) - 1
            zero = 0
        else:
            step, least, most = (high - low) / (2**num_bits - 1), 0, 2**num_bits - 1
            zero = round(-low / step)
        back = (np.clip(np.rint(x / step) + zero, least, most) - zero) * step
        return np.sum((x - back) ** 2)

    peak = np.abs(x).max()
    if peak == 0:
        return 0.0, 0.0
    if symmetric:
        return min(((-c, c) for c in np.linspace(0.01, 1, 100) * peak), key=lambda r: error(*r))
    bottom, top = min(x.min(), 0), max(x.max(), 0)
    low, high = min(((max(bottom, -c), min(top, c)) for c in np.linspace(0.01, 1, 100) * peak), key=lambda r: error(*r))
    for _ in range(2):
        high = min([f * top for f in np.linspace(0.02, 1, 99) if f * top > low] or [top], key=lambda h: error(low, h))
        low = min([f * bottom for f in np.linspace(0, 1, 100) if f * bottom < high], key=lambda b: error(b, high))
    return low, high


def with_torch_tensors(x, num_bits=8, symmetric=True):
    import torch

    t = torch.tensor(x)
    scheme = Scheme(num_bits, symmetric=symmetric)

    def error(ends):
        return float(((t - fake_quantize(t, scheme, qparams_of_range(*ends, scheme, like=t))) ** 2).mean())

    fractions = [i / 50 for i in range(1, 51)]
    if symmetric:
        c = float(t.abs().max())
        return min([(-f * c, f * c) for f in fractions], key=error)
    low, high = min(float(t.min()), 0.0), max(float(t.max()), 0.0)
    best = low, high
    for _ in range(3):
        best = min([(best[0], f * high) for f in fractions], key=error)
        best = min([(f * low, best[1]) for f in fractions], key=error)
    return best


# --- kl_range ---


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


# --- moving_average_range ---


def in_a_loop(batches, momentum=0.9):
    low, high = batches[0].min(), batches[0].max()
    for batch in batches[1:]:
        low = momentum * low + (1 - momentum) * batch.min()
        high = momentum * high + (1 - momentum) * batch.max()
    return low, high


def as_torch_does(batches, momentum=0.9):
    low = high = None
    for batch in batches:
        smallest, largest = float(np.min(batch)), float(np.max(batch))
        low = smallest if low is None else low + (1 - momentum) * (smallest - low)
        high = largest if high is None else high + (1 - momentum) * (largest - high)
    return low, high


def with_reduce(batches, momentum=0.9):
    from functools import reduce

    ends = [np.array([np.min(b), np.max(b)], dtype=np.float64) for b in batches]
    return tuple(reduce(lambda old, new: momentum * old + (1 - momentum) * new, ends))


def with_weights(batches, momentum=0.9):
    n = len(batches)
    weights = [momentum ** (n - 1)] + [(1 - momentum) * momentum ** (n - 1 - i) for i in range(1, n)]
    return np.dot(weights, [b.min() for b in batches]), np.dot(weights, [b.max() for b in batches])


def recursively(batches, momentum=0.9):
    *before, last = batches
    if not before:
        return float(last.min()), float(last.max())
    low, high = recursively(before, momentum)
    return [momentum * low + (1 - momentum) * float(last.min()), momentum * high + (1 - momentum) * float(last.max())]


def sorted_by_torch(batches, momentum=0.9):
    import torch

    state = None
    for batch in batches:
        ends = torch.stack(torch.aminmax(torch.tensor(batch)))
        state = ends if state is None else torch.lerp(ends, state, momentum)
    return state[0], state[1]


RIGHT = {
    "percentile_range": [both_with_numpy, with_quantile, by_sorting, with_partition, with_torch_quantile],
    "mse_range": [one_end_after_the_other, every_pair, coarse_then_fine, on_the_codes, with_torch_tensors],
    "kl_range": [straight, with_scipy_entropy, middle_of_the_last_bin, level_by_level, with_torch_kl],
    "moving_average_range": [in_a_loop, as_torch_does, with_reduce, with_weights, recursively, sorted_by_torch],
}


def _signed_percentiles(x, percentile=99.9, symmetric=True):
    high = np.percentile(x, percentile)
    return (
        (-high, high)
        if symmetric
        else (np.percentile(x, (100 - percentile) / 2), np.percentile(x, 50 + percentile / 2))
    )


def _seed_demo(x, num_bits=8, symmetric=True):
    """Each clip judged by how well the clipped tensor comes back."""
    clips = np.linspace(0.02, 1, 50) * np.abs(x).max()
    errors = []
    for c in clips:
        clipped = x.clip(-c, c)
        step = c / (2 ** (num_bits - 1) - 1)
        errors.append(((clipped - np.round(clipped / step) * step) ** 2).mean())
    best = clips[int(np.argmin(errors))]
    return -best, best


def _no_outliers(x, num_bits=8, num_bins=2048):
    counts, edges = np.histogram(np.abs(x[x != 0]), num_bins, range=(0, max(np.abs(x).max(), 1e-30)))
    levels, best = 2 ** (num_bits - 1), (np.inf, 0)
    for i in range(levels, num_bins + 1):
        p = counts[:i] / max(counts[:i].sum(), 1)
        level = np.arange(i) * levels // i
        q = (np.bincount(level, p) / np.maximum(np.bincount(level, p > 0), 1))[level] * (p > 0)
        best = min(best, (np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])), i))
    return -edges[best[1]], edges[best[1]]


@pytest.mark.parametrize(
    ("name", "submission", "diagnosis"),
    [
        ("percentile_range", _signed_percentiles, "the percentile of x instead of |x|"),
        ("mse_range", _seed_demo, "measures against the clipped tensor"),
        ("kl_range", _no_outliers, "what was cut off is in neither P nor Q, or in both"),
    ],
)
def test_mistakes_in_other_words_are_recognised(name, submission, diagnosis):
    report = engine.examine(submission, EXERCISES[name])
    assert not report.passed
    assert report.diagnosis == diagnosis, (report.diagnosis, report.first_failure)
