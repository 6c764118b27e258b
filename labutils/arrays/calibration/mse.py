"""The range of least mean squared error, computed on a histogram."""

from __future__ import annotations

import math

import numpy as np

from labutils.arrays.calibration.estimators import Range
from labutils.arrays.calibration.histogram import HistogramEstimator, folded
from labutils.arrays.scheme import Scheme

RATIO = 0.99  # of one candidate of the search to the next


class MSE(HistogramEstimator):
    """The range whose grid of 2^num_bits values has the least mean squared error over everything observed.

    >>> x = np.random.default_rng(0).normal(size=100_000)
    >>> low, high = MSE(num_bits=4).observe(x).range()
    >>> round(high, 1)
    2.5

    symmetric: the levels are -quant_max to quant_max; the code -2^(b-1), to which values far below may saturate, is not
    counted. Otherwise the range includes 0; both ends are cut at the same magnitude first, then moved in turns.
    Candidates are 1% apart, from min-max down to a grid whose step is one bin: the histogram cannot resolve finer ones.
    """

    def __init__(self, num_bits: int = 8, symmetric: bool = True, num_bins: int = 8192):
        super().__init__(symmetric, num_bins)
        self.scheme = Scheme(num_bits, symmetric=symmetric)

    def _search(self):
        width, quant_max = self.histogram.width, self.scheme.quant_max
        if self.symmetric:
            clips = _candidates(self._peak / width, quant_max)
            levels = np.arange(quant_max + 1) * clips[:, None] / quant_max
            lost = grid_losses(folded(self.histogram.counts), 0, levels)
            threshold = float(clips[np.argmin(lost)]) * width
            return -threshold, threshold
        first, last = min(self._low, 0.0) / width, max(self._high, 0.0) / width  # in bins, like everything below
        cuts = _candidates(self._peak / width, quant_max / 2)
        low, high = self._best_of([(max(first, -cut), min(last, cut)) for cut in cuts])
        for _ in range(4):
            before = low, high
            high = self._best_of([(low, end) for end in _candidates(last, quant_max + low)])[1]
            low = self._best_of([(-end, high) for end in _candidates(-first, quant_max - high)])[0]
            if (low, high) == before:
                break
        return low * width, high * width

    def _best_of(self, ranges: list[Range]) -> Range:
        low, high = np.array(ranges).T
        scale = (high - low) / self.scheme.quant_max
        zero_point = np.round(-low / scale)
        levels = (np.arange(self.scheme.quant_max + 1) - zero_point[:, None]) * scale[:, None]
        return ranges[int(np.argmin(grid_losses(self.histogram.counts, -self.histogram.num_bins, levels)))]


def _candidates(widest: float, narrowest: float) -> np.ndarray:
    """Ends of a range from `widest` down to `narrowest`, each 1% nearer to 0; `widest` alone if it is the smaller."""
    if widest <= max(narrowest, 1):
        return np.array([widest])
    count = math.floor(math.log(max(narrowest, 1) / widest) / math.log(RATIO))
    return widest * RATIO ** np.arange(count + 1)


def grid_losses(counts: np.ndarray, first: int, levels: np.ndarray) -> np.ndarray:
    """The mean squared error of rounding a histogram to the nearest level, for each row of `levels`, in squared bins.

    >>> grid_losses(np.array([3, 0, 1]), 0, np.array([[0.5, 2.5], [0.5, 3.5]])).round(3)  # 1/12 is lost within bins
    array([0.083, 0.333])

    counts (B,): bin k reaches from first + k to first + k + 1, its values spread evenly; levels (C, L): ascending, in
    units of a bin -> (C,). From cumulative sums of 1, x and x^2, the error of a level's cell takes two subtractions and
    a square, however many values the cell holds.
    """
    start = first + np.arange(counts.size + 1.0)  # of each bin, and the end of the last
    mass = np.append(counts, 0).astype(np.float64)

    def powers(x, share):  # the sums of 1, x and x^2 over the first `share` of a bin that starts at x and holds 1
        return share, share * (x + share / 2), share * (x * x + share * (x + share / 3))

    whole = [np.append(0.0, np.cumsum(mass[:-1] * part)) for part in powers(start[:-1], 1.0)]
    edges = (levels[:, 1:] + levels[:, :-1]) / 2
    edges = np.pad(edges, ((0, 0), (1, 1)), constant_values=(first, start[-1])).clip(first, start[-1])  # (C, L + 1)
    k = np.floor(edges - first).astype(np.int64)
    pieces = powers(start[k], edges - start[k])
    ones, linear, squares = (np.diff(full[k] + mass[k] * piece, axis=1) for full, piece in zip(whole, pieces))
    return (squares - 2 * levels * linear + levels**2 * ones).sum(axis=1) / counts.sum()
