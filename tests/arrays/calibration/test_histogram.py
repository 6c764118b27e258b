"""Bins merge without a loss, and the percentile that they give is exact up to one of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labutils.arrays.calibration import Histogram, MinMax, Percentile
from tests.arrays.calibration.estimators import data, symmetries

pytestmark = pytest.mark.filterwarnings("error")

# --- the histogram ---


@given(
    x=arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e3, 1e3)),
    cuts=st.lists(st.integers(0, 60), max_size=3),
)
def test_merged_bins_hold_what_bins_of_that_width_would_have_held(x, cuts):
    stream, once = Histogram(16), Histogram(16)
    for piece in np.split(x, sorted(min(cut, x.size) for cut in cuts)):
        if piece.size:
            stream.add(piece)
    once.add(x)
    assert stream.width == once.width
    assert np.array_equal(stream.counts, once.counts)
    if once.width:
        edges = once.width * np.arange(-16, 17)
        expected = np.histogram(np.where(x == edges[-1], np.nextafter(x, -np.inf), x), edges)[0]
        assert np.array_equal(once.counts, expected)


@pytest.mark.parametrize("peak", [5e-324, 1e-310, 1e-45, 1.0, 4096.0, 4095.999, 1e300, np.finfo(float).max])
def test_bins_reach_just_beyond_the_largest_magnitude(peak):
    histogram = Histogram(8)
    histogram.add(np.array([peak]))
    used = np.flatnonzero(histogram.counts)[-1] - 8 + 1
    assert 4 < used <= 8 or peak < 1e-300


def test_a_stream_of_zeros_waits_for_a_width():
    histogram = Histogram(4)
    histogram.add(np.zeros(3))
    assert (histogram.width, histogram.counts.tolist()) == (0.0, [0, 0, 0, 0, 3, 0, 0, 0])
    histogram.add(np.array([3.0]))
    assert (histogram.width, histogram.counts.tolist()) == (1.0, [0, 0, 0, 0, 3, 0, 0, 1])


def test_a_value_far_beyond_the_others_puts_them_into_the_bins_around_zero():
    histogram = Histogram(4)
    histogram.add(np.array([1e-30, 2e-30, -1e-30]))
    histogram.add(np.array([2.0**100]) * 0.9)
    assert histogram.counts.tolist() == [0, 0, 0, 1, 2, 0, 0, 1]


# --- percentile ---


@data
@pytest.mark.parametrize("percentile", [51, 90, 99, 99.9])
def test_a_percentile_is_exact_up_to_a_bin(x, percentile):
    estimator = Percentile(percentile).observe(x)
    bin_width = estimator.histogram.width
    expected = np.percentile(np.abs(x), percentile, method="inverted_cdf")
    assert estimator.range()[1] == pytest.approx(expected, abs=bin_width)
    apart = Percentile(percentile, symmetric=False).observe(x).range()
    tails = (100 - percentile) / 2, (100 + percentile) / 2
    assert apart == pytest.approx(np.percentile(x, tails, method="inverted_cdf"), abs=bin_width)


@data
@symmetries
def test_the_hundredth_percentile_is_min_max(x, symmetric):
    assert Percentile(100, symmetric).observe(x).range() == MinMax(symmetric).observe(x).range()
