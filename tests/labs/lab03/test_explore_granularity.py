"""Buttons decide which elements share a scale, and the picture shows what each channel gets of it."""

from functools import cache, partial

import numpy as np
import pytest

from labutils import PerAxis, PerTensor, Scheme, data, explore_granularity, fake_quantize, sqnr_db
from labutils.labs.answers import quantize_per_channel

WEIGHTS = np.random.default_rng(0).normal(size=(40, 60)).astype(np.float32)
SCHEMES = {"tensor": PerTensor(), "axis 0": PerAxis(0), "axis 1": PerAxis(1)}


TENSORS = {
    "a matrix": WEIGHTS,
    "a convolution": WEIGHTS[:20].reshape(20, 6, 5, 2),
    "tiny": WEIGHTS * np.float32(1e-30),
    "huge": WEIGHTS * np.float32(1e30),
}


@cache
def explored(name="a matrix"):
    """An explorer of which a test asks `compute` only: that does not depend on what other tests asked."""
    return explore_granularity(TENSORS[name])


@pytest.fixture(scope="module")
def explorer():
    return explore_granularity(WEIGHTS)


def at(num_bits=4, spread=1, granularity="tensor"):
    return {"num_bits": num_bits, "spread": spread, "granularity": granularity}


def sorted_by_loudness(w):
    return w[np.argsort(np.abs(w).reshape(len(w), -1).max(axis=1))]


def spread_out(w, spread):
    """As the slider does it: the quietest channel divided by the spread, the loudest left as it is."""
    ordered = sorted_by_loudness(w)
    gains = np.geomspace(1 / spread, 1, len(w)).astype(w.dtype)
    return ordered * gains.reshape(-1, *[1] * (w.ndim - 1))


def test_the_buttons_name_the_granularities_and_can_be_reached_by_keyboard_and_reader(explorer):
    buttons = explorer.controls["granularity"]
    assert tuple(buttons.options) == tuple(SCHEMES)
    assert all(control.description and control.tooltip for control in explorer.controls.values())
    assert len(explorer.controls) == 3


@pytest.mark.parametrize("granularity", SCHEMES)
@pytest.mark.parametrize(("num_bits", "spread"), [(2, 1), (4, 10), (8, 100)])
@pytest.mark.parametrize("tensor", ["a matrix", "a convolution"])
def test_the_readout_is_what_the_scheme_gives(granularity, num_bits, spread, tensor):
    result = explored(tensor).compute(at(num_bits, spread, granularity))
    x = spread_out(TENSORS[tensor], spread)
    back = fake_quantize(x, Scheme(num_bits, granularity=SCHEMES[granularity]))
    assert result.sqnr_db == pytest.approx(sqnr_db(x, back), abs=1e-3)
    assert result.channel_db == pytest.approx([sqnr_db(a, b) for a, b in zip(x, back)], abs=2e-3)
    assert result.lost == sum(not np.any(b) for b in back)
    assert result.peaks == pytest.approx(np.abs(x.reshape(len(x), -1)).max(axis=1), rel=1e-6)
    if granularity != "axis 1":  # there, a row has a scale for each column
        assert result.quietest_codes == len(np.unique(back[0]))


@pytest.mark.parametrize("granularity", SCHEMES)
def test_measurement_follows_the_law_where_steps_are_small(granularity):
    result = explored().compute(at(8, 4, granularity))
    # 60 squared errors a channel, each with a relative deviation of sqrt(4/5): 5 standard errors, in decibels.
    assert result.channel_db == pytest.approx(result.theory_db, abs=4.34 * 5 * np.sqrt(0.8 / 60))


def test_one_scale_costs_a_quiet_channel_what_it_is_quieter_by():
    explorer = explore_granularity(np.random.default_rng(1).uniform(-1, 1, (30, 2000)).astype(np.float32))
    even, quiet = (explorer.compute(at(8, spread)) for spread in (1, 10))
    assert even.quietest_db - quiet.quietest_db == pytest.approx(20, abs=0.5)
    own = explorer.compute(at(8, 10, "axis 0"))
    assert own.quietest_db == pytest.approx(even.quietest_db, abs=0.5)
    assert even.sqnr_db - quiet.sqnr_db < 8  # the loud channels hold most of the power


def test_the_wrong_axis_helps_a_quiet_channel_next_to_nothing():
    shared, right, wrong = (explored().compute(at(4, 100, granularity)).quietest_db for granularity in SCHEMES)
    assert wrong - shared < 1
    assert right - shared > 15


def test_steps_of_channels_are_their_ranges_over_the_largest_code():
    result = explored().compute(at(4, 20, "axis 0"))
    assert result.steps == pytest.approx(result.peaks / 7, rel=1e-6)
    shared = explored().compute(at(4, 20))
    assert np.ptp(shared.steps) == 0 and shared.steps[0] == pytest.approx(result.peaks.max() / 7, rel=1e-6)


def test_memory_counts_packed_codes_and_float32_scales():
    held = [explored().compute(at(4, 1, granularity)).nbytes for granularity in SCHEMES]
    assert held == [1200 + 4, 1200 + 160, 1200 + 240]


def test_buttons_run_the_function_that_they_were_given():
    seen = []

    def noted(x, axis, num_bits=8):
        seen.append((x.shape, axis, num_bits))
        return quantize_per_channel(x, axis, num_bits)

    explorer = explore_granularity(WEIGHTS, quantize=noted)
    for granularity in ("axis 0", "axis 1"):
        explorer.controls["granularity"].value = granularity
    assert seen == [((1, 2400), 0, 4), ((40, 60), 0, 4), ((40, 60), 1, 4)]


def test_real_convolution_weights_and_a_torch_tensor_are_explored_alike():
    torch = pytest.importorskip("torch")
    w = data.digits_network().weights["block3.depthwise.weight"]
    assert repr(explore_granularity(torch.tensor(w))) == repr(explore_granularity(w))


def test_the_explored_tensor_is_not_changed():
    w = WEIGHTS.copy()
    explore_granularity(w).controls["spread"].value = 60
    assert np.array_equal(w, WEIGHTS)


@pytest.mark.parametrize("tensor", ["tiny", "huge"])
@pytest.mark.parametrize("granularity", SCHEMES)
def test_the_unit_of_the_values_does_not_matter(tensor, granularity):
    plain, scaled = (explored(name).compute(at(4, 5, granularity)) for name in ("a matrix", tensor))
    assert scaled.sqnr_db == pytest.approx(plain.sqnr_db, abs=0.01)
    assert scaled.channel_db == pytest.approx(plain.channel_db, abs=0.05)


# --- whatever the learner's function does ---


def zeros(x):
    return np.zeros(x.shape, np.int8)


BROKEN = {
    "codes only": (lambda x, axis, num_bits: x, "expected 2 values"),
    "a list of scales": (lambda x, axis, num_bits: (zeros(x), [1.0]), "scales should be an array"),
    "a shape": (lambda x, axis, num_bits: (np.zeros(3, np.int8), np.ones(1)), "q has shape (3,), but x has"),
    "too many scales": (lambda x, axis, num_bits: (zeros(x), np.ones(7)), "scales has shape (7,), but x of shape"),
    "scales kept": (lambda x, axis, num_bits: (zeros(x), np.ones((1, 1))), "scales has shape (1, 1), but x of shape"),
    "a scale of 0": (lambda x, axis, num_bits: (zeros(x), np.zeros(1)), "should be positive"),
    "a scale of NaN": (lambda x, axis, num_bits: (zeros(x), np.array([np.nan])), "should be positive"),
    "codes NaN": (lambda x, axis, num_bits: (np.full(x.shape, np.nan), np.ones(1)), "q holds NaN or Inf"),
    "huge codes": (lambda x, axis, num_bits: (np.full(x.shape, 10**12), np.ones(1)), "those are not codes"),
}


@pytest.mark.parametrize(("broken", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_function_is_reported_and_the_buttons_live_on(outlives, broken, sentence):
    outlives(partial(explore_granularity, WEIGHTS), quantize_per_channel, broken, sentence)


def test_codes_left_as_floats_can_be_dragged_all_the_same():
    def floats(x, axis, num_bits):
        q, scales = quantize_per_channel(x, axis, num_bits)
        return q.astype(np.float32), scales

    assert explore_granularity(WEIGHTS, quantize=floats).result.quietest_codes > 1


def test_a_channel_of_zeros_can_be_explored():
    w = WEIGHTS.copy()
    w[5] = 0
    result = explore_granularity(w).compute(at(4, 10, "axis 0"))
    assert result.lost == 1 and result.peaks[0] == 0 and result.quietest_codes == 1


@pytest.mark.parametrize(
    ("w", "error", "sentence"),
    [
        (None, TypeError, "got NoneType"),
        ([[1.0, 2.0]], TypeError, "got list"),
        (np.arange(6).reshape(2, 3), TypeError, "got dtype int64"),
        (np.zeros((0, 3), np.float32), ValueError, "must not be empty"),
        (np.array([[1.0, np.nan]]), ValueError, "NaN or Inf"),
        (np.zeros((2, 5), np.float32), ValueError, "a value that is not zero"),
        (np.ones(5, np.float32), ValueError, r"two axes or more, .* got shape \(5,\)"),
    ],
    ids=["None", "a list", "integers", "empty", "NaN", "zeros", "one axis"],
)
def test_a_tensor_that_cannot_be_explored_is_refused(w, error, sentence):
    with pytest.raises(error, match=sentence):
        explore_granularity(w)
