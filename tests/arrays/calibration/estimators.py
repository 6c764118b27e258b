"""Every estimator, and data to observe: for all tests of calibration."""

from functools import partial

import numpy as np
import pytest

from labutils.arrays.calibration import KL, MSE, MinMax, MovingAverage, Percentile
from tests.arrays.bad_inputs import table

BINS = 512  # what is stated of every estimator holds for any number of bins: few are searched faster
ESTIMATORS = {
    "min-max": MinMax,
    "moving average": MovingAverage,
    "percentile": partial(Percentile, 99, num_bins=BINS),
    "MSE at 4 bits": partial(MSE, 4, num_bins=BINS),
    "MSE at 8 bits": partial(MSE, 8, num_bins=BINS),
    "KL at 4 bits": partial(KL, 4, num_bins=BINS),
    "KL at 8 bits": partial(KL, 8, num_bins=BINS),
}
POOLING = {name: make for name, make in ESTIMATORS.items() if name != "moving average"}
every = pytest.mark.parametrize("make", **table(ESTIMATORS))
pooling = pytest.mark.parametrize("make", **table(POOLING))
symmetries = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])

rng = np.random.default_rng(0)
SIZE = 6003  # no percentile of the tests falls exactly on one of the values
VALUES = (rng.normal(size=SIZE) * np.exp(rng.normal(size=SIZE))).astype(np.float32)  # with heavy tails
DATA = {
    "both signs": VALUES,
    "after a ReLU": np.maximum(VALUES, 0),
    "lopsided": np.where(VALUES < 0, VALUES / 16, VALUES),
    "negative": -np.abs(VALUES),
}
data = pytest.mark.parametrize("x", **table(DATA))


def observed(estimator, batches):
    for batch in batches:
        estimator.observe(batch)
    return estimator.range()
