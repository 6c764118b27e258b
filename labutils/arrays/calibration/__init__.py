"""Choosing a range from data: estimators that observe batches one by one, keep none of them, and return a range.

    estimator = Percentile(99.9)
    for batch in batches:
        estimator.observe(batch)
    low, high = estimator.range()

All estimators share this interface, take NumPy arrays and torch tensors, and use a fixed amount of memory: min-max and
the moving average keep two numbers, the others a histogram, in which they search. `affine.qparams_of_range` turns the
range into a scale and a zero point.

Min-max and moving average: Jacob et al. 2018 (arXiv:1712.05877), section 3.1. Percentile: McKinstry et al. 2018
(arXiv:1809.04191). Mean squared error: Choukroun et al. 2019, "Low-bit quantization of neural networks for efficient
inference" (arXiv:1902.06822). KL divergence: Migacz 2017, "8-bit inference with TensorRT" (GTC talk). All of them side
by side: Wu et al. 2020 (arXiv:2004.09602).
"""

from labutils.arrays.calibration.estimators import MinMax, MovingAverage, Range, RangeEstimator
from labutils.arrays.calibration.histogram import Histogram, folded
from labutils.arrays.calibration.kl import KL, best_cut, cut_divergences
from labutils.arrays.calibration.mse import MSE, grid_losses
from labutils.arrays.calibration.percentile import Percentile

__all__ = [
    "KL",
    "MSE",
    "Histogram",
    "MinMax",
    "MovingAverage",
    "Percentile",
    "Range",
    "RangeEstimator",
    "best_cut",
    "cut_divergences",
    "folded",
    "grid_losses",
]
