"""Choosing a range from data that passes by: estimators that see batches, keep none, and say from where to where.

    estimator = Percentile(99.9)
    for batch in batches:
        estimator.observe(batch)
    low, high = estimator.range()

All have this one interface, take NumPy arrays and torch tensors alike, and need the same memory however much they see.
Min-max and the moving average keep two numbers. The others keep a histogram, and search on it. Whatever range is found,
`affine.qparams_of_range` makes a scale and a zero point of it.

Min-max and moving average: Jacob et al. 2018 (arXiv:1712.05877), section 3.1. Percentile: McKinstry et al. 2018
(arXiv:1809.04191). Mean squared error: Choukroun et al. 2019, "Low-bit quantization of neural networks for efficient
inference" (arXiv:1902.06822). KL divergence: Migacz 2017, "8-bit inference with TensorRT" (GTC talk). All of them side
by side: Wu et al. 2020 (arXiv:2004.09602).
"""

from __future__ import annotations

import math
from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays.inputs import Array, real_array, real_number, whole_number
from labutils.arrays.layout import TILE
from labutils.arrays.scheme import Scheme

Range = tuple[float, float]

FINER = 0.99  # between neighbouring candidates of a search


class RangeEstimator:
    """What all estimators share: batches are checked, counted, and handed to `_add`; `_range` answers.

    symmetric  True: the range is [-t, t]. False: its ends are chosen apart, for a grid with a zero point; a range that
               leaves 0 out is what was seen, and is widened when a scale is made of it
    batches    how many were observed
    """

    def __init__(self, symmetric: bool = True):
        if not isinstance(symmetric, bool):
            raise TypeError(f"symmetric must be True or False, got {symmetric!r}")
        self.symmetric = symmetric
        self.batches = 0
        self._low, self._high = math.inf, -math.inf

    def observe(self, x: Array) -> RangeEstimator:
        """Take in a batch, an array of floats of any shape; return the estimator.

        TypeError or ValueError for what is no array of floats, empty, or holds NaN or Inf: the message counts batches
        from 0, and the batch leaves no trace.
        """
        name = f"batch {self.batches}"
        xp, x = real_array(x, name)
        low, high = float(xp.min(x)), float(xp.max(x))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name} must be finite, but holds NaN or Inf (shape {tuple(x.shape)}, dtype {x.dtype})")
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._add(xp, x, low, high)
        self.batches += 1
        return self

    def range(self) -> Range:
        """The range for all that was observed, (low, high) as Python floats. ValueError where nothing was."""
        if not self.batches:
            raise ValueError(f"{type(self).__name__} has seen no batch: observe(x) must come before range()")
        return self._range()

    def _add(self, xp: Any, x: Array, low: float, high: float) -> None:
        raise NotImplementedError

    def _range(self) -> Range:
        raise NotImplementedError

    def _both_ways(self, threshold: float) -> Range:
        return -threshold, threshold

    @property
    def _peak(self) -> float:
        """The largest magnitude seen."""
        return max(-self._low, self._high)


class MinMax(RangeEstimator):
    """Everything that was seen lies in the range.

    >>> MinMax().observe(np.array([-1.0, 0.5])).observe(np.array([2.0, 0.0])).range()
    (-2.0, 2.0)
    >>> MinMax(symmetric=False).observe(np.array([-1.0, 0.5])).observe(np.array([2.0, 0.0])).range()
    (-1.0, 2.0)
    """

    def _add(self, xp, x, low, high):
        pass

    def _range(self):
        return self._both_ways(self._peak) if self.symmetric else (self._low, self._high)


class MovingAverage(RangeEstimator):
    """Each end is an exponential moving average of the batches' ends: an extreme batch is forgotten again.

    >>> batches = np.array([-1.0, 1.0]), np.array([-1.0, 3.0])
    >>> estimator = MovingAverage(momentum=0.75, symmetric=False)
    >>> for batch in batches:
    ...     estimator = estimator.observe(batch)
    >>> estimator.range()
    (-1.0, 1.5)

    The first batch is taken as it is; from then on end = momentum * end + (1 - momentum) * end of the batch. The only
    estimator here that depends on how the data are cut into batches, and on their order.
    """

    def __init__(self, momentum: float = 0.9, symmetric: bool = True):
        super().__init__(symmetric)
        self.momentum = real_number(momentum, "momentum")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum:g}")
        self._ends: Range | None = None

    def _add(self, xp, x, low, high):
        new = self._both_ways(max(-low, high)) if self.symmetric else (low, high)
        old = self._ends or new
        self._ends = tuple(self.momentum * o + (1 - self.momentum) * n for o, n in zip(old, new))

    def _range(self):
        return self._ends


class Histogram:
    """Counts of values in bins of one width, `num_bins` below 0 and as many from 0 on: memory that never grows.

    >>> histogram = Histogram(num_bins=4)
    >>> histogram.add(np.array([-0.3, 0.1, 0.9]))
    >>> histogram.width, histogram.counts
    (0.25, array([0, 0, 1, 0, 1, 0, 0, 1]))
    >>> histogram.add(np.array([1.7]))  # too large: bins merge in pairs until it fits
    >>> histogram.width, histogram.counts
    (0.5, array([0, 0, 0, 1, 1, 1, 0, 1]))

    The width is the power of two with which the bins just reach beyond the largest magnitude. It does not depend on the
    order of the values, and merged bins hold what finer ones would have held: a stream has exactly the counts of one
    pass. Between a half and all of the bins on the larger side are in use.
    """

    def __init__(self, num_bins: int):
        self.num_bins = whole_number(num_bins, "num_bins")
        if self.num_bins < 2 or self.num_bins % 2:
            raise ValueError(f"num_bins must be even and at least 2, so that bins can merge, got {self.num_bins}")
        self.counts = np.zeros(2 * self.num_bins, dtype=np.int64)
        self.width = 0.0  # as long as all values are 0

    def add(self, x: Array) -> None:
        """Count the finite floats of `x`."""
        xp, x = real_array(x)
        self._reach(max(-float(xp.min(x)), float(xp.max(x))))
        flat = xp.reshape(x, (-1,))
        for start in range(0, flat.shape[0], TILE):
            steps = xp.astype(flat[start : start + TILE], xp.float64) / (self.width or 1.0)
            bins = xp.astype(xp.floor(steps), xp.int64) + self.num_bins
            counts = xp.bincount(bins, minlength=self.counts.size)
            self.counts += np.asarray(counts.cpu() if array_api_compat.is_torch_array(counts) else counts)

    def _reach(self, peak: float) -> None:
        """Widen the bins until a magnitude of `peak` lies in one of them."""
        if peak == 0:
            return
        smallest = 2.0**-1074
        width = math.ldexp(1.0, math.frexp(max(peak / self.num_bins, smallest))[1])  # peak < num_bins * width
        merges = math.frexp(width)[1] - math.frexp(self.width)[1] if self.width else 0
        for _ in range(min(merges, self.counts.size.bit_length())):  # by then all are in the two bins around 0
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[self.num_bins // 2 : -self.num_bins // 2] = pairs
        self.width = max(self.width, width)


def folded(counts: np.ndarray) -> np.ndarray:
    """Counts of |x| from those of x: (2n,) -> (n,)."""
    below, above = np.split(counts, 2)
    return above + below[::-1]


class _OnHistogram(RangeEstimator):
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
        """The range that looks best on the histogram; it may reach beyond what was seen by less than a bin."""
        raise NotImplementedError


class Percentile(_OnHistogram):
    """`percentile` percent of the values lie in the range, and the rest beyond it.

    >>> x = np.arange(-500, 501) / 1000
    >>> low, high = Percentile(90).observe(x).range()
    >>> round(low, 2), round(high, 2)
    (-0.45, 0.45)

    symmetric: the percentile of |x|. Otherwise half of the rest lies beyond either end. Exact up to a bin of the
    histogram; 100 is min-max. ValueError for a percentile outside (50, 100]: 0.999 is most likely meant to be 99.9.
    """

    def __init__(self, percentile: float = 99.9, symmetric: bool = True, num_bins: int = 8192):
        super().__init__(symmetric, num_bins)
        self.percentile = real_number(percentile, "percentile")
        if not 50 < self.percentile <= 100:
            raise ValueError(f"percentile is in percent, such as 99.9: above 50 and up to 100, got {self.percentile:g}")

    def _search(self):
        counts, first = self.histogram.counts, -self.histogram.num_bins
        if self.symmetric:
            return self._both_ways(self._quantile(folded(counts), 0, self.percentile))
        tails = (100 - self.percentile) / 2, (100 + self.percentile) / 2
        low, high = (min(max(self._quantile(counts, first, tail), self._low), self._high) for tail in tails)
        return low, high

    def _quantile(self, counts: np.ndarray, first: int, percent: float) -> float:
        """The value below which this share of the counts lies, where values fill their bins evenly."""
        cumulative = np.cumsum(counts)
        target = percent * cumulative[-1] / 100
        k = min(int(np.searchsorted(cumulative, target)), counts.size - 1)
        into = 1 - (cumulative[k] - target) / counts[k] if counts[k] else 0.0
        return (first + k + into) * self.histogram.width


class MSE(_OnHistogram):
    """The range whose grid of 2^num_bits values loses least, in mean squared error of all that was seen.

    >>> x = np.random.default_rng(0).normal(size=100_000)
    >>> low, high = MSE(num_bits=4).observe(x).range()
    >>> round(high, 1)
    2.5

    symmetric: the levels are -quant_max to quant_max; the code -2^(b-1), to which values far below may saturate, is not
    counted. Otherwise the range includes 0; both ends are cut at one magnitude, and then moved in turns.
    Candidates are 1% apart, from min-max down to a grid with a step of one bin: a finer one could not be told apart.
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
            return self._both_ways(float(clips[np.argmin(lost)]) * width)
        first, last = min(self._low, 0.0) / width, max(self._high, 0.0) / width  # in bins, as all that follows
        cuts = _candidates(self._peak / width, quant_max / 2)
        low, high = self._least([(max(first, -cut), min(last, cut)) for cut in cuts])
        for _ in range(4):
            before = low, high
            high = self._least([(low, end) for end in _candidates(last, quant_max + low)])[1]
            low = self._least([(-end, high) for end in _candidates(-first, quant_max - high)])[0]
            if (low, high) == before:
                break
        return low * width, high * width

    def _least(self, ranges: list[Range]) -> Range:
        low, high = np.array(ranges).T
        scale = (high - low) / self.scheme.quant_max
        zero_point = np.round(-low / scale)
        levels = (np.arange(self.scheme.quant_max + 1) - zero_point[:, None]) * scale[:, None]
        return ranges[int(np.argmin(grid_losses(self.histogram.counts, -self.histogram.num_bins, levels)))]


def _candidates(widest: float, narrowest: float) -> np.ndarray:
    """Ends of a range from `widest` down, each 1% nearer to 0; `widest` alone where `narrowest` is beyond it."""
    if widest <= max(narrowest, 1):
        return np.array([widest])
    count = math.floor(math.log(max(narrowest, 1) / widest) / math.log(FINER))
    return widest * FINER ** np.arange(count + 1)


def grid_losses(counts: np.ndarray, first: int, levels: np.ndarray) -> np.ndarray:
    """The mean squared error of rounding a histogram to the nearest level, for each row of `levels`, in squared bins.

    >>> grid_losses(np.array([3, 0, 1]), 0, np.array([[0.5, 2.5], [0.5, 3.5]])).round(3)  # 1/12 is lost within bins
    array([0.083, 0.333])

    counts (B,), bin k reaches from first + k to first + k + 1, and its values fill it evenly; levels (C, L), ascending,
    in units of a bin -> (C,). With cumulative sums of 1, x and x^2, the error of each level's cell is two subtractions
    and a square, however many values the cell holds.
    """
    start = first + np.arange(counts.size + 1.0)  # of each bin; the last is the end of them all
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


class KL(_OnHistogram):
    """The range for which the histogram on the grid is most like the histogram before: least KL divergence.

    >>> x = np.random.default_rng(0).normal(size=100_000)
    >>> low, high = KL(num_bits=8).observe(x).range()
    >>> 3 < high < 4.5
    True

    For every cut of the histogram that leaves at least as many bins as the grid has levels, `cut_divergences` compares
    the two. symmetric: of |x|, with 2^(num_bits - 1) levels, as TensorRT does at 8 bits. Otherwise of x, with 2^b
    levels, cut at the same magnitude on both sides. Values of exactly 0, of which a ReLU leaves many, are not counted:
    0 is on every grid. As the histogram is what is compared, the result depends on `num_bins`; 2048 is TensorRT's.
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
            return self._both_ways(best_cut(folded(counts), 0, self.scheme.quant_max + 1) * width)
        threshold = best_cut(counts, middle, self.scheme.quant_max + 1) * width
        return max(min(self._low, 0.0), -threshold), min(max(self._high, 0.0), threshold)


def best_cut(counts: np.ndarray, zero: int, num_levels: int) -> int:
    """How many bins to keep on each side of bin edge `zero`, for the least divergence; ties go to the wider.

    >>> best_cut(np.array([40, 30, 20, 10, 6, 3, 1, 0, 0, 0, 0, 1]), 0, num_levels=4)
    6

    All bins that hold something are kept where they are no more than the levels. `cut_divergences` says what is least.
    """
    filled = np.flatnonzero(counts)
    first, last = min(int(filled[0]), zero), max(int(filled[-1]) + 1, zero)
    keep = np.arange(max(zero - first, last - zero), 0, -1)
    low, high = np.maximum(first, zero - keep), np.minimum(last, zero + keep)
    enough = high - low >= num_levels
    if not enough.any():
        return int(keep[0])
    return int(keep[np.argmin(cut_divergences(counts, low[enough], high[enough], num_levels))])


def cut_divergences(counts: np.ndarray, low: np.ndarray, high: np.ndarray, num_levels: int) -> np.ndarray:
    """KL(P || Q) in nats for each cut of a histogram to bins `low` to `high` - 1, on a grid of `num_levels`.

    >>> cut_divergences(np.array([6, 4, 4, 2, 0, 0, 1, 0, 1]), np.array([0, 0]), np.array([4, 9]), 2).round(3)
    array([0.021, 0.058])

    counts (B,), low and high (C,), at least `num_levels` bins apart -> (C,).

    P is what was kept, with what was cut off put into the outermost bins: that is where values saturate. Q is what was
    kept, on the grid: bin j of n belongs to level floor(j * num_levels / n), and what a level holds is spread evenly
    over those of its bins that were not empty. Both are normalised. Infinite where a cut puts something into an empty
    bin, as Q has nothing there.

    All bins of a level have one ln Q, so the sum of P ln Q takes a term for each level, from cumulative sums.
    """
    logs = counts * np.log(np.maximum(counts, 1))
    held, filled, entropy = (np.append(0, np.cumsum(part)) for part in (counts, counts > 0, logs))
    total, first, last = int(held[-1]), counts[low], counts[high - 1]
    below, above = held[low], total - held[high]

    bounds = low[:, None] - (np.arange(num_levels + 1) * (low - high)[:, None]) // num_levels  # rounded up
    mass, bins = np.diff(held[bounds], axis=1), np.diff(filled[bounds], axis=1)  # (C, L)
    log_q = np.log(np.maximum(mass, 1) / np.maximum(bins, 1))  # up to the norm; 0 for a level of empty bins
    mass[:, 0] += below
    mass[:, -1] += above

    def grown(count, more):
        return (count + more) * np.log(np.maximum(count + more, 1)) - count * np.log(np.maximum(count, 1))

    p_log_p = entropy[high] - entropy[low] + grown(first, below) + grown(last, above)
    kept = np.maximum(total - below - above, 1)
    divergences = (p_log_p - (mass * log_q).sum(axis=1)) / total - np.log(total / kept)
    return np.where((below > 0) & (first == 0) | (above > 0) & (last == 0), np.inf, divergences)
