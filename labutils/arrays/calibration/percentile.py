"""The range that leaves out a chosen share of the values."""

from __future__ import annotations

import numpy as np

from labutils.arrays.calibration.histogram import HistogramEstimator, folded
from labutils.arrays.inputs import real_number


class Percentile(HistogramEstimator):
    """The range that holds `percentile` percent of the values.

    >>> x = np.arange(-500, 501) / 1000
    >>> low, high = Percentile(90).observe(x).range()
    >>> round(low, 2), round(high, 2)
    (-0.45, 0.45)

    symmetric: the percentile of |x|. Otherwise half of the remaining values lie beyond each end. Exact up to one bin of
    the histogram; 100 is min-max. ValueError for a percentile outside (50, 100]: 0.999 most likely means 99.9.
    """

    def __init__(self, percentile: float = 99.9, symmetric: bool = True, num_bins: int = 8192):
        super().__init__(symmetric, num_bins)
        self.percentile = real_number(percentile, "percentile")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile is in percent, such as 99.9: above 50 and up to 100, got {self.percentile:g}")

    def _search(self):
        counts, first = self.histogram.counts, -self.histogram.num_bins
        if self.symmetric:
            threshold = self._quantile(folded(counts), 0, self.percentile)
            return -threshold, threshold
        tails = (100 - self.percentile) / 2, (100 + self.percentile) / 2
        low, high = (min(max(self._quantile(counts, first, tail), self._low), self._high) for tail in tails)
        return low, high

    def _quantile(self, counts: np.ndarray, first: int, percent: float) -> float:
        """The value below which `percent` of the counts lie, with values spread evenly over each bin."""
        cumulative = np.cumsum(counts)
        target = percent * cumulative[-1] / 100
        k = min(int(np.searchsorted(cumulative, target)), counts.size - 1)
        into = 1 - (cumulative[k] - target) / counts[k] if counts[k] else 0.0
        return (first + k + into) * self.histogram.width
