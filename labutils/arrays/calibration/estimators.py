"""The interface that all range estimators share, and the two that keep nothing but the ends of the range."""

from __future__ import annotations

import math
from typing import Any

from labutils.arrays.inputs import Array, real_array, real_number, require_finite, true_or_false

Range = tuple[float, float]


class RangeEstimator:
    """The interface of all estimators. It checks and counts the batches; a subclass writes `_add` and `_range`.

    symmetric  True: the range is [-t, t]. False: its ends are chosen separately, for a grid with a zero point. Such a
               range need not contain 0; it is widened to 0 when a scale is computed from it
    batches    how many were observed
    """

    def __init__(self, symmetric: bool = True):
        self.symmetric = true_or_false(symmetric, "symmetric")
        self.batches = 0
        self._low, self._high = math.inf, -math.inf

    def observe(self, x: Array) -> RangeEstimator:
        """Take in a batch, an array of floats of any shape, and return the estimator.

        TypeError or ValueError for anything else, for an empty array, and for NaN or Inf. The message gives the number
        of the batch, counted from 0; the estimator is then as it was before.
        """
        name = f"batch {self.batches}"
        xp, x = real_array(x, name)
        low, high = require_finite(xp, x, name)
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._add(xp, x, low, high)
        self.batches += 1
        return self

    def range(self) -> Range:
        """The range of everything observed so far, (low, high) as Python floats. ValueError where nothing was."""
        if not self.batches:
            raise ValueError(f"{type(self).__name__} has seen no batch: observe(x) must come before range()")
        return self._range()

    def _add(self, xp: Any, x: Array, low: float, high: float) -> None:
        """Take in the checked batch `x`, which reaches from `low` to `high`."""
        raise NotImplementedError

    def _range(self) -> Range:
        raise NotImplementedError

    @property
    def _peak(self) -> float:
        """The largest magnitude seen."""
        return max(-self._low, self._high)


class MinMax(RangeEstimator):
    """The range from the smallest to the largest value observed.

    >>> MinMax().observe(np.array([-1.0, 0.5])).observe(np.array([2.0, 0.0])).range()
    (-2.0, 2.0)
    >>> MinMax(symmetric=False).observe(np.array([-1.0, 0.5])).observe(np.array([2.0, 0.0])).range()
    (-1.0, 2.0)
    """

    def _add(self, xp, x, low, high):
        pass

    def _range(self):
        return (-self._peak, self._peak) if self.symmetric else (self._low, self._high)


class MovingAverage(RangeEstimator):
    """Each end is an exponential moving average of that end of the batches, so that an extreme batch fades.

    >>> batches = np.array([-1.0, 1.0]), np.array([-1.0, 3.0])
    >>> estimator = MovingAverage(momentum=0.75, symmetric=False)
    >>> for batch in batches:
    ...     estimator = estimator.observe(batch)
    >>> estimator.range()
    (-1.0, 1.5)

    The first batch sets the ends; after that, end = momentum * end + (1 - momentum) * end of the batch. This is the
    only estimator here that depends on how the data are split into batches, and on their order.
    """

    def __init__(self, momentum: float = 0.9, symmetric: bool = True):
        super().__init__(symmetric)
        self.momentum = real_number(momentum, "momentum")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, got {self.momentum:g}")
        self._ends: Range | None = None

    def _add(self, xp, x, low, high):
        peak = max(-low, high)
        new = (-peak, peak) if self.symmetric else (low, high)
        old = self._ends or new
        self._ends = tuple(self.momentum * o + (1 - self.momentum) * n for o, n in zip(old, new))

    def _range(self):
        return self._ends
