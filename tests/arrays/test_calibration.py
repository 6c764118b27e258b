"""A range is chosen from batches that pass by as it would be from all of them at once."""

import math
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labutils.arrays import theory
from labutils.arrays.affine import choose_qparams, fake_quantize, qparams_of_range
from labutils.arrays.calibration import (
    KL,
    MSE,
    Histogram,
    MinMax,
    MovingAverage,
    Percentile,
    best_cut,
    cut_divergences,
    grid_losses,
)
from labutils.arrays.scheme import PerAxis, Scheme
from tests.arrays.test_bad_input import REFUSED, refuses, table

pytestmark = pytest.mark.filterwarnings("error")

ESTIMATORS = {
    "min-max": MinMax,
    "moving average": MovingAverage,
    "percentile": partial(Percentile, 99),
    "MSE at 4 bits": partial(MSE, 4),
    "MSE at 8 bits": partial(MSE, 8),
    "KL at 4 bits": partial(KL, 4),
    "KL at 8 bits": partial(KL, 8),
}
POOLING = {name: make for name, make in ESTIMATORS.items() if name != "moving average"}
every = pytest.mark.parametrize("make", **table(ESTIMATORS))
pooling = pytest.mark.parametrize("make", **table(POOLING))
symmetries = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])

RNG = np.random.default_rng(0)
SIZE = 6003  # no percentile of the tests falls exactly on one of the values
VALUES = (RNG.normal(size=SIZE) * np.exp(RNG.normal(size=SIZE))).astype(np.float32)  # with heavy tails
DATA = {
    "both signs": VALUES,
    "after a ReLU": np.maximum(VALUES, 0),
    "lopsided": np.where(VALUES < 0, VALUES / 16, VALUES),
    "negative": -np.abs(VALUES),
}
data = pytest.mark.parametrize("x", **table(DATA))

try:
    import torch
except ImportError:
    torch = None


def observed(estimator, batches):
    for batch in batches:
        estimator.observe(batch)
    return estimator.range()


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


@pooling
@given(
    x=arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e300, 1e300)),
    cut=st.integers(0, 40),
)
def test_any_stream_has_the_range_of_one_pass(make, x, cut):
    pieces = [piece for piece in np.split(x, [min(cut, x.size)]) if piece.size]
    assert observed(make(symmetric=False), pieces) == make(symmetric=False).observe(x).range()


@every
@symmetries
@given(x=arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_range_is_two_floats_that_lie_within_what_was_seen(make, symmetric, x):
    low, high = make(symmetric=symmetric).observe(x).range()
    assert type(low) is type(high) is float
    if symmetric:
        assert -low == high <= np.abs(x).max()
    else:
        assert min(x.min(), 0) <= low <= high <= max(x.max(), 0)


def test_memory_does_not_grow_with_the_stream():
    estimators = [make() for make in ESTIMATORS.values()]
    batch = RNG.normal(size=20_000)

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


# --- MSE ---


@pytest.mark.parametrize("num_bits", [2, 3, 4, 6, 8], ids=lambda b: f"{b} bits")
@pytest.mark.parametrize("source", ["normal", "laplace"])
def test_a_million_samples_are_clipped_where_theory_says(source, num_bits):
    x = getattr(np.random.default_rng(0), source)(size=10**6)
    predicted = {"normal": theory.gaussian_best_clip, "laplace": theory.laplace_best_clip}[source](num_bits)
    # At 8 bits some fifty of the million lie beyond a Laplace source's best clip, and decide where it is: their number
    # varies by 14%, which moves the clip by 1.4%.
    assert MSE(num_bits).observe(x).range()[1] == pytest.approx(predicted, rel=0.02)


def lost(x, low, high, scheme):
    inside = np.clip(x.astype(np.float64), low, high)  # so that the code -2^(b-1) is not used
    return np.mean((x - fake_quantize(inside, scheme, qparams_of_range(low, high, scheme, like=inside))) ** 2)


@data
@symmetries
@pytest.mark.parametrize("num_bits", [3, 4, 8], ids=lambda b: f"{b} bits")
def test_no_range_nearby_or_of_another_method_loses_less(x, symmetric, num_bits):
    scheme = Scheme(num_bits, symmetric=symmetric)
    low, high = MSE(num_bits, symmetric).observe(x).range()
    best = lost(x, low, high, scheme)
    others = [(f * low, f * high) for f in (0.7, 0.9, 1.1, 1.4)]
    others += [make(symmetric=symmetric).observe(x).range() for make in ESTIMATORS.values()]
    # The histogram, candidates 1% apart, and ends that are moved in turns: 4% for all of that.
    assert all(best <= 1.04 * lost(x, *other, scheme) for other in others)


@pytest.mark.parametrize("clip, num_levels", [(80.0, 8), (150.0, 4), (200.0, 128)])
def test_the_loss_on_a_grid_is_that_of_rounding_every_value(clip, num_levels):
    x = np.abs(RNG.normal(size=200_000)) * 50
    counts, _ = np.histogram(x, np.arange(513))
    step = clip / (num_levels - 1)  # down to 1.6 bins
    (loss,) = grid_losses(counts, 0, step * np.arange(num_levels)[None])
    assert loss == pytest.approx(np.mean((x - np.clip(np.rint(x / step), 0, num_levels - 1) * step) ** 2), rel=0.01)


def test_at_16_bits_nothing_is_clipped():
    assert MSE(16).observe(VALUES).range()[1] == np.abs(VALUES).max()


# --- KL ---


def divergence(kept, below, above, num_levels):
    counts = np.concatenate([[below], kept, [above]])
    return cut_divergences(counts, np.array([1]), np.array([1 + len(kept)]), num_levels)[0]


def slowly_divergent(kept, below, above, num_levels):
    """The definition, bin by bin."""
    n = len(kept)
    q = [0.0] * n
    for level in range(num_levels):
        members = [j for j in range(n) if j * num_levels // n == level and kept[j] > 0]
        for j in members:
            q[j] = sum(kept[i] for i in members) / len(members)
    p = list(map(float, kept))
    p[0] += below
    p[-1] += above
    total_p, total_q, result = sum(p), sum(q), 0.0
    for p_j, q_j in zip(p, q):
        if p_j > 0:
            result += p_j / total_p * math.log(p_j / total_p / (q_j / total_q)) if q_j else math.inf
    return result


@given(
    kept=arrays(np.int64, st.integers(4, 30), elements=st.integers(0, 20)).filter(np.any),
    cut=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    num_levels=st.integers(2, 4),
)
def test_divergence_is_its_definition(kept, cut, num_levels):
    assert divergence(kept, *cut, num_levels) == pytest.approx(slowly_divergent(kept, *cut, num_levels), abs=1e-12)


@given(kept=arrays(np.int64, st.integers(4, 30), elements=st.integers(0, 20)).filter(np.any))
def test_divergence_is_never_negative_and_nothing_is_lost_with_a_level_for_each_bin(kept):
    assert divergence(kept, 0, 0, 3) >= -1e-12
    assert divergence(kept, 0, 0, kept.size) == pytest.approx(0, abs=1e-12)


def test_what_is_cut_off_onto_an_empty_bin_is_infinitely_unlike():
    assert divergence(np.array([5, 3, 2, 0]), 0, 1, 2) == math.inf
    assert math.isfinite(divergence(np.array([5, 3, 2, 1]), 0, 1, 2))


def test_the_best_cut_is_the_least_divergent_of_all():
    counts = np.histogram(np.abs(VALUES), 200)[0]
    cuts = {keep: divergence(counts[:keep], 0, counts[keep:].sum(), 8) for keep in range(8, 201)}
    assert cuts[best_cut(counts, 0, 8)] == min(cuts.values())


@pytest.mark.parametrize("filled", [1, 5, 8])
def test_no_more_bins_than_levels_are_all_kept(filled):
    counts = np.append(np.ones(filled, np.int64), np.zeros(20, np.int64))
    assert best_cut(counts, 0, 8) == filled


@symmetries
def test_zeros_do_not_decide_where_to_cut(symmetric):
    x = VALUES[VALUES > 0]
    many = np.append(x, np.zeros(10 * x.size, np.float32))
    assert KL(4, symmetric).observe(many).range() == KL(4, symmetric).observe(x).range()


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


@every
@pytest.mark.parametrize("row", REFUSED)
def test_a_bad_batch_of_many_is_named_and_leaves_no_trace(make, row):
    bad, kind, words = REFUSED[row]
    estimator = make().observe(VALUES[:10]).observe(VALUES[10:20])
    before = estimator.range()
    refuses(kind, words if "masked" in words else ("batch 2 ", *words), estimator.observe, bad)
    assert estimator.range() == before
    assert estimator.batches == 2
    refuses(kind, words if "masked" in words else ("batch 0 ", *words), make().observe, bad)


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
