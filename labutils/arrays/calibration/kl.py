"""The range of least KL divergence, as TensorRT searches for it: the histogram is cut, and compared with its grid."""

from __future__ import annotations

import numpy as np

from labutils.arrays.calibration.histogram import HistogramEstimator, folded
from labutils.arrays.scheme import Scheme

MOST_UNSEEN = 0.01  # of the counts: what may be cut off where the divergence does not see it


class KL(HistogramEstimator):
    """The range with the least KL divergence between the histogram and the same histogram on the grid.

    >>> x = np.random.default_rng(0).normal(size=100_000)
    >>> low, high = KL(num_bits=8).observe(x).range()
    >>> 3 < high < 4.5
    True

    `cut_divergences` compares the two for every cut of the histogram that leaves at least as many bins as the grid has
    levels. symmetric: the histogram of |x|, with 2^(num_bits - 1) levels, as TensorRT does at 8 bits. Otherwise that of
    x, with 2^b levels, cut at the same magnitude on both sides. Values of exactly 0, of which a ReLU leaves many, are
    not counted: 0 is on every grid. The result depends on `num_bins`, as it is histograms that are compared; 2048 is
    TensorRT's choice.
    """

    def __init__(self, num_bits: int = 8, symmetric: bool = True, num_bins: int = 2048):
        super().__init__(symmetric, num_bins)
        self.scheme = Scheme(num_bits, symmetric=symmetric)
        self._zeros = 0

    def _add(self, xp, x, low, high):
        super()._add(xp, x, low, high)
        self._zeros += int(xp.sum(xp.astype(x == 0, xp.int64)))

    def _search(self):
        width, middle = self.histogram.width, self.histogram.num_bins
        counts = self.histogram.counts.copy()
        counts[middle] -= self._zeros
        if self.symmetric:
            threshold = best_cut(folded(counts), 0, self.scheme.quant_max + 1) * width
            return -threshold, threshold
        threshold = best_cut(counts, middle, self.scheme.quant_max + 1) * width
        return max(min(self._low, 0.0), -threshold), min(max(self._high, 0.0), threshold)


def best_cut(counts: np.ndarray, zero: int, num_levels: int) -> int:
    """How many bins to keep on each side of bin edge `zero` for the least divergence; the wider cut wins a tie.

    >>> best_cut(np.array([40, 30, 20, 10, 6, 3, 1, 0, 0, 0, 0, 1]), 0, num_levels=4)
    6

    Where no more bins are occupied than there are levels, all of them are kept. A cut that leaves fewer occupied bins
    than levels may saturate one value in a hundred at most: those bins are on the grid as they are, so the divergence
    does not see how far the others move, and is 0 where a single bin is left. See `cut_divergences`.
    """
    filled = np.flatnonzero(counts)
    first, last = min(int(filled[0]), zero), max(int(filled[-1]) + 1, zero)
    keep = np.arange(max(zero - first, last - zero), 0, -1)
    low, high = np.maximum(first, zero - keep), np.minimum(last, zero + keep)
    held, occupied = (np.append(0, np.cumsum(part)) for part in (counts, counts > 0))
    kept, bins = held[high] - held[low], occupied[high] - occupied[low]
    enough = (high - low >= num_levels) & ((bins >= num_levels) | (held[-1] - kept <= MOST_UNSEEN * held[-1]))
    if not enough.any():
        return int(keep[0])
    return int(keep[np.argmin(cut_divergences(counts, low[enough], high[enough], num_levels))])


def cut_divergences(counts: np.ndarray, low: np.ndarray, high: np.ndarray, num_levels: int) -> np.ndarray:
    """KL(P || Q) in nats for each cut of a histogram to bins `low` to `high` - 1, on a grid of `num_levels`.

    >>> cut_divergences(np.array([6, 4, 4, 2, 0, 0, 1, 0, 1]), np.array([0, 0]), np.array([4, 9]), 2).round(3)
    array([0.021, 0.058])

    counts (B,), low and high (C,), at least `num_levels` bins apart -> (C,).

    P is the part that is kept, plus the counts cut off, which go to the outermost bins: that is where values saturate.
    Q is the part that is kept, on the grid: bin j of n belongs to level floor(j * num_levels / n), and the count of a
    level is spread evenly over those of its bins that were not empty. Both are normalised. The result is infinite where
    counts are cut off into an empty bin, as Q is 0 there.

    All bins of a level share one ln Q, so the sum of P ln Q takes one term for each level, from cumulative sums.
    """
    logs = counts * np.log(np.maximum(counts, 1))
    held, filled, entropy = (np.append(0, np.cumsum(part)) for part in (counts, counts > 0, logs))
    total, first, last = int(held[-1]), counts[low], counts[high - 1]
    below, above = held[low], total - held[high]

    bounds = low[:, None] - (np.arange(num_levels + 1) * (low - high)[:, None]) // num_levels  # rounded up
    mass, bins = np.diff(held[bounds], axis=1), np.diff(filled[bounds], axis=1)  # (C, L)
    log_q = np.log(np.maximum(mass, 1) / np.maximum(bins, 1))  # before normalising; 0 for a level of empty bins
    mass[:, 0] += below
    mass[:, -1] += above

    def growth(count, more):  # of count * ln(count)
        return (count + more) * np.log(np.maximum(count + more, 1)) - count * np.log(np.maximum(count, 1))

    p_log_p = entropy[high] - entropy[low] + growth(first, below) + growth(last, above)
    kept = np.maximum(total - below - above, 1)
    divergences = (p_log_p - (mass * log_q).sum(axis=1)) / total - np.log(total / kept)
    return np.where((below > 0) & (first == 0) | (above > 0) & (last == 0), np.inf, divergences)
