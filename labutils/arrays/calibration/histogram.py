"""A histogram that takes batches in bounded memory, and what the estimators that search in one share."""

from __future__ import annotations

import math

import array_api_compat
import numpy as np

from labutils.arrays.calibration.estimators import Range, RangeEstimator
from labutils.arrays.inputs import Array, real_array, whole_number
from labutils.arrays.layout import TILE


class Histogram:
    """Counts of values in bins of one width, `num_bins` of them below 0 and `num_bins` from 0 on.

    >>> histogram = Histogram(num_bins=4)
    >>> histogram.add(np.array([-0.3, 0.1, 0.9]))
    >>> histogram.width, histogram.counts
    (0.25, array([0, 0, 1, 0, 1, 0, 0, 1]))
    >>> histogram.add(np.array([1.7]))  # too large: bins merge in pairs until it fits
    >>> histogram.width, histogram.counts
    (0.5, array([0, 0, 0, 1, 1, 1, 0, 1]))

    The width is the smallest power of two with which the bins reach beyond the largest magnitude. It does not depend on
    the order of the values, and merging bins adds their counts exactly: a stream gives the same counts as one pass over
    all values. Between half and all of the bins on the larger side are in use.
    """

    def __init__(self, num_bins: int):
        self.num_bins = whole_number(num_bins, "num_bins")
        if self.num_bins < 2 or self.num_bins % 2:
            raise ValueError(f"num_bins must be even and at least 2, so that bins can merge, got {self.num_bins}")
        self.counts = np.zeros(2 * self.num_bins, dtype=np.int64)
        self.width = 0.0  # until a value other than 0 comes

    def add(self, x: Array) -> None:
        """Count the finite floats of `x`."""
        xp, x = real_array(x)
        self._widen(max(-float(xp.min(x)), float(xp.max(x))))
        flat = xp.reshape(x, (-1,))
        for start in range(0, flat.shape[0], TILE):
            steps = xp.astype(flat[start : start + TILE], xp.float64) / (self.width or 1.0)
            bins = xp.astype(xp.floor(steps), xp.int64) + self.num_bins
            counts = xp.bincount(bins, minlength=self.counts.size)
            self.counts += np.asarray(counts.cpu() if array_api_compat.is_torch_array(counts) else counts)

    def _widen(self, peak: float) -> None:
        """Merge bins in pairs until a magnitude of `peak` falls into one of them."""
        if peak == 0:
            return
        smallest = 2.0**-1074
        width = math.ldexp(1.0, math.frexp(max(peak / self.num_bins, smallest))[1])  # peak < num_bins * width
        merges = math.frexp(width)[1] - math.frexp(self.width)[1] if self.width else 0
        # After as many merges as its length has bits, all counts lie in the two bins around 0, and stay there.
        for _ in range(min(merges, self.counts.size.bit_length())):
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[self.num_bins // 2 : -self.num_bins // 2] = pairs
        self.width = max(self.width, width)


def folded(counts: np.ndarray) -> np.ndarray:
    """Counts of |x| from those of x: (2n,) -> (n,)."""
    below, above = np.split(counts, 2)
    return above + below[::-1]


class HistogramEstimator(RangeEstimator):
    """An estimator that keeps a histogram of `num_bins` bins on either side of 0; a subclass writes `_search`."""

    def __init__(self, symmetric: bool, num_bins: int):
        super().__init__(symmetric)
        self.histogram = Histogram(num_bins)

    def _add(self, xp, x, low, high):
        self.histogram.add(x)

    def _range(self):
        if self._peak == 0:
            return 0.0, 0.0
        low, high = self._search()
        return float(max(low, -self._peak)), float(min(high, self._peak))

    def _search(self) -> Range:
        """The best range by the histogram. It may exceed the observed values by less than a bin: `_range` cuts that."""
        raise NotImplementedError
