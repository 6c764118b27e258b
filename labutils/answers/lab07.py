"""Lab 07: a range from data, by percentile, by squared error, by KL divergence, and as a moving average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np

from labutils import affine, calibration
from labutils.scheme import Scheme, whole_number

Array = Any  # a numpy.ndarray or a torch.Tensor
Range = tuple[float, float]


def percentile_range(x: Array, percentile: float = 99.9, symmetric: bool = True) -> Range:
    """The range in which `percentile` percent of the values lie.

    >>> x = np.arange(-100, 301, dtype=np.float32)
    >>> percentile_range(x, 75), percentile_range(x, 75, symmetric=False)
    ((-200.0, 200.0), (-50.0, 250.0))

    symmetric: [-t, t], t the percentile of |x|. Otherwise half of the rest lies below the range and half above. Between
    two values it is interpolated. ValueError for a percentile outside (50, 100].
    """
    values = _values(x)
    percentile = calibration.Percentile(percentile, symmetric).percentile  # checked there
    if symmetric:
        threshold = float(np.percentile(np.abs(values), percentile))
        return -threshold, threshold
    low, high = np.percentile(values, [(100 - percentile) / 2, (100 + percentile) / 2])
    return float(low), float(high)


def mse_range(x: Array, num_bits: int = 8, symmetric: bool = True) -> Range:
    """The range whose grid loses least: mean squared error, against `x` itself.

    >>> x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    >>> low, high = mse_range(x, num_bits=4)
    >>> low == -high, round(high, 1)
    (True, 2.4)

    symmetric: [-c, c], for the grid of lab 01. Otherwise both ends are searched, for the grid of lab 02.
    """
    return calibration.MSE(num_bits, symmetric).observe(x).range()


def kl_range(x: Array, num_bits: int = 8, num_bins: int = 2048) -> Range:
    """The range [-t, t] for which the histogram of |x| on the grid is most like the one before: least KL divergence.

    >>> x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    >>> low, high = kl_range(x, num_bits=4, num_bins=512)
    >>> low == -high, 2.5 < high < 4
    (True, True)

    The histogram has `num_bins` bins from 0 to max|x|, and zeros are left out of it; `calibration.best_cut` does the
    rest. All-zero data have the range (0, 0). Migacz 2017, "8-bit inference with TensorRT".
    """
    magnitudes, scheme = np.abs(_values(x)), Scheme(num_bits)
    bins = whole_number(num_bins, "num_bins")
    if bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {bins}")
    peak = float(magnitudes.max())
    if peak == 0:
        return 0.0, 0.0
    # On [0, 1]: the width of a bin of tiny values would vanish.
    counts, _ = np.histogram(magnitudes[magnitudes > 0] / peak, bins, range=(0, 1))
    threshold = calibration.best_cut(counts, 0, scheme.quant_max + 1) / bins * peak
    return -threshold, threshold


def moving_average_range(batches: Sequence[Array], momentum: float = 0.9) -> Range:
    """Each end as a moving average of the batches' ends: end = momentum * end + (1 - momentum) * end of the batch.

    >>> moving_average_range([np.array([-1.0, 1.0]), np.array([-1.0, 3.0])], momentum=0.75)
    (-1.0, 1.5)

    The first batch's ends are where it starts. ValueError for no batches, or a momentum outside [0, 1).
    """
    estimator = calibration.MovingAverage(momentum, symmetric=False)
    for batch in batches:
        estimator.observe(batch)
    return estimator.range()


def _values(x: Array) -> np.ndarray:
    """`x` as a flat float64 array; raises for what has no range."""
    _, x = affine.real_array(x)
    if array_api_compat.is_torch_array(x):
        x = x.cpu().double().numpy()
    values = x.reshape(-1).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"x must be finite, but holds NaN or Inf (shape {tuple(x.shape)}, dtype {x.dtype})")
    return values
