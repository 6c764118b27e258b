"""A range is chosen from batches that pass by as it would be from all of them at once."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labutils.arrays.affine import choose_qparams, fake_quantize, qparams_of_range
from labutils.arrays.calibration import KL, MSE, MinMax, MovingAverage, Percentile
from labutils.arrays.scheme import PerAxis, Scheme
from tests.arrays.bad_inputs import REFUSED, all_refuse, refuses, table, torch
from tests.arrays.calibration.estimators import (
    DATA,
    ESTIMATORS,
    POOLING,
    VALUES,
    data,
    every,
    observed,
    pooling,
    symmetries,
)

pytestmark = pytest.mark.filterwarnings("error")

# --- streams ---


@pooling
@symmetries
@data
def test_a_stream_has_the_range_of_one_pass_in_any_order(make, symmetric, x):
    whole = make(symmetric=symmetric).observe(x).range()
    pieces = np.array_split(x, [1, 2, 50, 51, 4000])
    assert observed(make(symmetric=symmetric), pieces) == whole
    assert observed(make(symmetric=symmetric), pieces[::-1]) == whole
    assert observed(make(symmetric=symmetric), np.array_split(np.sort(x), 7)) == whole


@given(
    x=arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e300, 1e300)),
    cut=st.integers(0, 40),
)
def test_any_stream_has_the_range_of_one_pass(x, cut):
    pieces = [piece for piece in np.split(x, [min(cut, x.size)]) if piece.size]
    for name, make in POOLING.items():
        assert observed(make(symmetric=False), pieces) == make(symmetric=False).observe(x).range(), name


@given(x=arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_range_is_two_floats_that_lie_within_what_was_seen(x):
    for name, make in ESTIMATORS.items():
        low, high = make(symmetric=True).observe(x).range()
        assert type(low) is type(high) is float, name
        assert -low == high <= np.abs(x).max(), name
        low, high = make(symmetric=False).observe(x).range()
        assert type(low) is type(high) is float, name
        assert min(x.min(), 0) <= low <= high <= max(x.max(), 0), name


def test_memory_does_not_grow_with_the_stream():
    estimators = [make() for make in ESTIMATORS.values()]
    batch = np.random.default_rng(0).normal(size=20_000)

    def see(times):
        tracemalloc.start()
        for _ in range(times):
            for estimator in estimators:
                estimator.observe(batch)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return held

    see(1)
    assert see(20) - see(2) < 10_000  # bytes: 18 batches more are 2.9 million


@every
def test_asking_for_a_range_changes_nothing(make):
    estimator = make().observe(VALUES[:3000])
    assert estimator.range() == estimator.range()
    estimator.observe(VALUES[3000:])
    assert estimator.range() == observed(make(), [VALUES[:3000], VALUES[3000:]])


# --- min-max and moving average ---


@data
def test_min_max_is_what_the_quantizer_itself_would_choose(x):
    for symmetric in (True, False):
        scheme = Scheme(8, symmetric=symmetric)
        low, high = observed(MinMax(symmetric), np.array_split(x, 5))
        assert np.array_equal(qparams_of_range(low, high, scheme, like=x), choose_qparams(x, scheme))


def test_a_moving_average_forgets():
    quiet, loud = np.array([-1.0, 1.0]), np.array([-1.0, 101.0])
    estimator = MovingAverage(momentum=0.9, symmetric=False).observe(quiet).observe(loud)
    assert estimator.range() == pytest.approx((-1, 11))
    for _ in range(100):
        estimator.observe(quiet)
    assert estimator.range() == pytest.approx((-1, 1 + 10 * 0.9**100))


def test_a_moving_average_starts_at_its_first_batch_and_not_at_zero():
    assert MovingAverage(0.99, symmetric=False).observe(np.array([5.0, 6.0])).range() == (5.0, 6.0)
    assert MovingAverage(0.99).observe(np.array([-5.0, 4.0])).range() == (-5.0, 5.0)


def test_without_momentum_only_the_last_batch_counts():
    assert observed(MovingAverage(0.0), [np.array([9.0]), np.array([2.0])]) == (-2.0, 2.0)


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_a_moving_average_is_that_of_torch():
    from torch.ao.quantization.observer import MovingAverageMinMaxObserver

    theirs, ours = MovingAverageMinMaxObserver(averaging_constant=0.1), MovingAverage(0.9, symmetric=False)
    for batch in np.array_split(VALUES, 12):
        theirs(torch.from_numpy(batch))
        ours.observe(batch)
    assert ours.range() == pytest.approx((float(theirs.min_val), float(theirs.max_val)), rel=1e-5)


# --- libraries, layouts, units ---


@every
@symmetries
def test_torch_tensors_give_what_arrays_give(make, symmetric):
    pytest.importorskip("torch")
    x = DATA["lopsided"]
    tensor = torch.nn.Parameter(torch.from_numpy(x.reshape(69, 87)))
    assert make(symmetric=symmetric).observe(tensor).range() == make(symmetric=symmetric).observe(x).range()
    half = tensor.to(torch.bfloat16)
    widened = half.detach().float().numpy()
    assert make(symmetric=symmetric).observe(half).range() == make(symmetric=symmetric).observe(widened).range()


@every
def test_shape_and_strides_of_a_batch_do_not_matter(make):
    wide = np.repeat(VALUES.reshape(69, 87), 2, axis=1)[:, ::2]
    assert make().observe(wide).range() == make().observe(VALUES).range()


@every
@pytest.mark.parametrize("exponent", [-1000, -100, 100, 1000])
def test_the_unit_of_the_values_does_not_matter(make, exponent):
    x = VALUES.astype(np.float64)
    unit = 2.0**exponent
    scaled = make(symmetric=False).observe(x * unit).range()
    assert scaled == pytest.approx([unit * end for end in make(symmetric=False).observe(x).range()], rel=1e-9)


# --- unusual data ---


@every
@symmetries
@pytest.mark.parametrize("value", [0.3, -0.3, 1e-40, 3e38])
def test_one_constant_batch(make, symmetric, value):
    low, high = make(symmetric=symmetric).observe(np.full(9, value, np.float64)).range()
    back = fake_quantize(np.full(3, value), Scheme(4, symmetric=symmetric),
                         qparams_of_range(low, high, Scheme(4, symmetric=symmetric), like=np.zeros(1)))  # fmt: skip
    assert back == pytest.approx(value, rel=1e-3)


@every
@symmetries
def test_zeros_have_a_range_of_nothing_and_come_back_as_zeros(make, symmetric):
    low, high = make(symmetric=symmetric).observe(np.zeros((3, 4), np.float32)).range()
    assert (low, high) == (0.0, 0.0)
    scheme = Scheme(8, symmetric=symmetric)
    scale, _ = qparams_of_range(low, high, scheme, like=np.zeros(1, np.float32))
    assert scale == 1


@every
def test_no_batch_is_no_range(make):
    refuses(ValueError, ("has seen no batch", "observe(x) must come before range()"), make().range)


@pytest.mark.parametrize("bad, kind, words", **table(REFUSED))
def test_a_bad_batch_of_many_is_named_and_leaves_no_trace(bad, kind, words):
    estimators = {name: make().observe(VALUES[:10]).observe(VALUES[10:20]) for name, make in ESTIMATORS.items()}
    before = [estimator.range() for estimator in estimators.values()]
    third = {name: estimator.observe for name, estimator in estimators.items()}
    all_refuse(third, kind, words if "masked" in words else ("batch 2 ", *words), bad)
    assert [estimator.range() for estimator in estimators.values()] == before
    assert all(estimator.batches == 2 for estimator in estimators.values())
    first = {name: make().observe for name, make in ESTIMATORS.items()}
    all_refuse(first, kind, words if "masked" in words else ("batch 0 ", *words), bad)


BAD_CHOICES = {
    "percentile 0": (lambda: Percentile(0), ValueError, ("above 50 and up to 100, got 0",)),
    "percentile 50": (lambda: Percentile(50), ValueError, ("got 50",)),
    "percentile 101": (lambda: Percentile(101), ValueError, ("got 101",)),
    "a fraction": (lambda: Percentile(0.999), ValueError, ("in percent, such as 99.9", "got 0.999")),
    "percentile NaN": (lambda: Percentile(math.nan), ValueError, ("percentile must be finite, got nan",)),
    "percentile None": (lambda: Percentile(None), TypeError, ("percentile must be a number, got None",)),
    "percentile True": (lambda: Percentile(True), TypeError, ("percentile must be a number, got True",)),
    "momentum 1": (lambda: MovingAverage(1), ValueError, ("at least 0 and below 1, got 1",)),
    "momentum -0.1": (lambda: MovingAverage(-0.1), ValueError, ("got -0.1",)),
    "momentum NaN": (lambda: MovingAverage(math.nan), ValueError, ("momentum must be finite",)),
    "1 bit": (lambda: MSE(1), ValueError, ("num_bits must be between 2 and 16, got 1",)),
    "8.0 bits": (lambda: KL(8.0), TypeError, ("num_bits must be a whole number, got 8.0",)),
    "no bins": (lambda: KL(num_bins=0), ValueError, ("num_bins must be even and at least 2", "got 0")),
    "odd bins": (lambda: Percentile(num_bins=2047), ValueError, ("even", "got 2047")),
    "2048.0 bins": (lambda: MSE(num_bins=2048.0), TypeError, ("num_bins must be a whole number",)),
    "symmetric 1": (lambda: MinMax(1), TypeError, ("symmetric must be True or False, got 1",)),
}


@pytest.mark.parametrize("make, kind, words", **table(BAD_CHOICES))
def test_a_choice_that_makes_no_sense_is_refused(make, kind, words):
    refuses(kind, words, make)


# --- from a range to a grid ---


@symmetries
@pytest.mark.parametrize("num_bits", [2, 4, 8, 16])
def test_a_range_spans_the_grid(symmetric, num_bits):
    scheme = Scheme(num_bits, symmetric=symmetric)
    x = np.array([-0.75, 0.2, 1.5], np.float32)
    qparams = qparams_of_range(-0.75, 1.5, scheme, like=x)
    for ours, theirs in zip(qparams, choose_qparams(x, scheme), strict=True):
        assert np.array_equal(ours, theirs)
    assert np.all(np.abs(x - fake_quantize(x, scheme, qparams)) <= qparams[0] * (0.5 + 1e-3))


def test_one_range_makes_one_grid_whatever_the_granularity():
    scale, _ = qparams_of_range(-1, 1, Scheme(8, granularity=PerAxis(0)), like=np.ones((3, 4)))
    assert scale.shape == () and scale.dtype == np.float64


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_a_grid_is_made_for_arrays_like_the_given_one():
    scale, zero_point = qparams_of_range(-1, 3, Scheme(8, symmetric=False), like=torch.ones(2, dtype=torch.bfloat16))
    assert (scale.dtype, zero_point.dtype) == (torch.float32, torch.int32)
    assert (float(scale), int(zero_point)) == (pytest.approx(4 / 255), 64)
