"""A slider shows what the function under it does, and outlives whatever that function does."""

import base64
import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from labutils import (
    explore_bits,
    explore_calibration,
    explore_clipping,
    explore_digit,
    explore_granularity,
    explore_groups,
    explore_linear,
    explore_smoothing,
    explore_zero_point,
)
from labutils.arrays import theory
from labutils.labs.answers import (
    quantize_asymmetric,
    quantize_clipped,
    quantize_group,
    quantize_per_channel,
    quantize_symmetric,
)
from labutils.labs.lab05.explore_linear import Roofs

WEIGHTS = np.random.default_rng(0).normal(size=4000).astype(np.float32)
MATRIX = (WEIGHTS.reshape(20, 200) * np.geomspace(0.3, 3, 20)[:, None]).astype(np.float32)

EXPLORERS = {  # what runs a learner's function: how it is opened, and a function that works
    "bits": (partial(explore_bits, WEIGHTS), quantize_symmetric),
    "clipping": (partial(explore_clipping, WEIGHTS), quantize_clipped),
    "calibration": (partial(explore_calibration, WEIGHTS), quantize_clipped),
    "zero point": (partial(explore_zero_point, WEIGHTS), quantize_asymmetric),
    "granularity": (partial(explore_granularity, MATRIX), quantize_per_channel),
    "groups": (partial(explore_groups, MATRIX), quantize_group),
}
ROOFS = Roofs(memory=1e10, float32=1e11, bfloat16=3e11, int8=8e11)
EVERY = {name: explore for name, (explore, _) in EXPLORERS.items()} | {
    "digit": partial(explore_digit, 7),
    "linear": partial(explore_linear, roofs=ROOFS),
    "smoothing": partial(explore_smoothing, MATRIX.T.copy(), MATRIX[:, :20].copy()),
}


@pytest.fixture(params=EVERY, scope="module")
def explorer(request):
    return EVERY[request.param]()


def another(control):
    """A value of a control that is not its present one."""
    options = getattr(control, "options", None) or (control.min, control.max)
    return next(option for option in options if option != control.value)


def image_of(explorer):
    return np.asarray(Image.open(io.BytesIO(explorer.picture.value)))


def test_every_control_moves_picture_readout_and_result(explorer):
    for name, control in explorer.controls.items():
        before = explorer.picture.value, explorer.readout.value, explorer.result
        control.value = another(control)
        assert explorer.picture.value != before[0], name
        assert explorer.readout.value != before[1], name
        assert repr(explorer.result) != repr(before[2]), name


def test_a_picture_depends_on_the_state_alone(explorer):
    for control in explorer.controls.values():
        start, first = control.value, explorer.picture.value
        control.value = another(control)
        control.value = start
        assert explorer.picture.value == first


def test_there_are_at_most_three_controls_and_each_has_a_name(explorer):
    assert 1 <= len(explorer.controls) <= 3
    assert all(control.description and control.tooltip for control in explorer.controls.values())


def test_without_a_kernel_there_is_a_picture_and_a_text(explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == bundle["text/plain"]
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert image.width >= 900
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "0x" not in bundle["text/plain"], "an address would differ from run to run"
    assert "bits" in bundle["text/plain"]


def test_compute_is_pure(explorer):
    state = explorer.state
    value = explorer.picture.value
    first, second = explorer.compute(state), explorer.compute(state)
    assert explorer.picture.value == value
    for name in vars(first):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)  # NaN is like NaN


# --- explore_bits ---


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_the_readout_is_what_the_function_gives(num_bits):
    result = explore_bits(WEIGHTS).compute({"num_bits": num_bits, "outlier": 1.0})
    q, scale = quantize_symmetric(WEIGHTS, num_bits)
    error = WEIGHTS - q * scale
    assert result.scale == pytest.approx(float(scale))
    assert result.codes_used == len(np.unique(q))
    assert result.mse == pytest.approx(np.mean(error.astype(np.float64) ** 2), rel=1e-4)
    assert result.max_error <= result.scale / 2 * (1 + 1e-4)
    assert result.curve_db[num_bits - 2] == pytest.approx(result.sqnr_db, abs=1e-3)


def test_measurement_follows_the_law_where_steps_are_small():
    result = explore_bits(WEIGHTS).compute({"num_bits": 8, "outlier": 1.0})
    # 4000 squared errors, each with a relative deviation of sqrt(4/5) of its mean: 5 standard errors.
    assert result.mse == pytest.approx(theory.rounding_noise(result.scale), rel=5 * np.sqrt(0.8 / 4000))


def test_blocks_cover_every_value_once():
    result = explore_bits(WEIGHTS).compute({"num_bits": 4, "outlier": 1.0})
    assert np.sum(result.density) * result.scale == pytest.approx(1)


def test_an_outlier_ten_times_the_peak_costs_20_db():
    explorer = explore_bits(WEIGHTS)
    plain, hurt = (explorer.compute({"num_bits": 8, "outlier": outlier}) for outlier in (1.0, 10.0))
    assert hurt.scale == pytest.approx(10 * plain.scale)
    assert plain.theory_db - hurt.theory_db == pytest.approx(20)
    assert plain.sqnr_db - hurt.sqnr_db == pytest.approx(20, abs=0.5)


def test_a_large_tensor_is_measured_whole_and_its_curve_on_a_sample_with_the_same_scale():
    x = np.random.default_rng(1).normal(size=200_000).astype(np.float32)
    result = explore_bits(x).compute({"num_bits": 4, "outlier": 1.0})
    q, scale = quantize_symmetric(x, 4)
    assert result.mse == pytest.approx(float(np.mean((x - q * scale) ** 2)), rel=1e-4)
    # 16384 of the values: 5 standard errors of a mean square, in decibels.
    assert result.curve_db[2] == pytest.approx(result.sqnr_db, abs=4.34 * 5 * np.sqrt(2 / 16384))


def test_sliders_run_the_function_that_they_were_given():
    def coarse(x, num_bits=8):
        return quantize_symmetric(x, 2)

    assert explore_bits(WEIGHTS, quantize=coarse).compute({"num_bits": 8, "outlier": 1.0}).codes_used == 3


def test_a_torch_tensor_is_explored_like_an_array():
    torch = pytest.importorskip("torch")
    tensor = torch.nn.Parameter(torch.tensor(WEIGHTS))
    assert repr(explore_bits(tensor)) == repr(explore_bits(WEIGHTS))


def test_the_explored_tensor_is_not_changed():
    x = WEIGHTS.copy()
    explorer = explore_bits(x)
    explorer.controls["outlier"].value = 20
    assert np.array_equal(x, WEIGHTS)


# --- explore_clipping ---


@pytest.mark.parametrize(("num_bits", "clip"), [(2, 0.3), (4, 0.6), (6, 0.8), (8, 1.0)])
def test_clipping_is_measured_with_the_function_and_predicted_by_its_parts(num_bits, clip):
    explorer = explore_clipping(WEIGHTS)
    result = explorer.compute({"num_bits": num_bits, "clip": clip})
    reach = float(np.abs(WEIGHTS).max())
    q, scale = quantize_clipped(WEIGHTS, clip * reach, num_bits)
    noise = np.mean((WEIGHTS - q * scale).astype(np.float64) ** 2)
    assert result.sqnr_db == pytest.approx(10 * np.log10(np.mean(WEIGHTS.astype(np.float64) ** 2) / noise), abs=1e-3)
    assert result.clipped == np.count_nonzero(np.abs(WEIGHTS) > clip * reach)
    if num_bits >= 6:  # below, the one code beyond -clip and the coarse steps make the sum of the parts a rough guide
        # 4000 squared errors: 5 standard errors, in decibels.
        assert result.theory_db == pytest.approx(result.sqnr_db, abs=4.34 * 5 * np.sqrt(0.8 / 4000))


def test_clipping_noise_is_exact_at_every_threshold():
    explorer = explore_clipping(WEIGHTS)
    power = np.mean(WEIGHTS.astype(np.float64) ** 2)
    for fraction, noise in zip(explorer.fractions[::10], explorer._clipping[::10], strict=True):
        clip = fraction * np.abs(WEIGHTS).max()
        beyond = np.clip(np.abs(WEIGHTS).astype(np.float64) - clip, 0, None)
        assert noise == pytest.approx(np.mean(beyond**2) / power, rel=1e-6, abs=1e-12)


def test_fewer_bits_want_a_tighter_clip():
    explorer = explore_clipping(WEIGHTS)
    best = [explorer.compute({"num_bits": bits, "clip": 1.0}).best_clip for bits in range(2, 9)]
    assert best == sorted(best)


# --- whatever the learner's function does ---


def undone(x, *args):
    raise NotImplementedError()


def raises(x, *args):
    raise RuntimeError("oh dear")


def endless(x, *args):
    while True:
        pass


ANYWHERE = {
    "undone": (undone, "is not done yet"),
    "raises": (raises, "raised RuntimeError: oh dear"),
    "endless": (endless, "no answer within"),
    "None": (lambda x, *args: None, "returned None"),
    "one value": (lambda x, *args: x, "values: <code>return q, scale"),
    "exits": (lambda x, *args: exit(), "raised SystemExit"),
}


@pytest.mark.parametrize(("broken", "sentence"), ANYWHERE.values(), ids=ANYWHERE)
@pytest.mark.parametrize(("explore", "working"), EXPLORERS.values(), ids=EXPLORERS)
def test_a_broken_function_is_reported_and_the_slider_lives_on(outlives, explore, working, broken, sentence):
    outlives(explore, working, broken, sentence)


BROKEN = {
    "a string": (lambda x, *args: ("q", 1.0), "q should be an array"),
    "a shape": (lambda x, *args: (np.zeros(3, np.int8), 1.0), "q has shape (3,), but x has"),
    "scale 0": (lambda x, *args: (np.zeros(x.shape, np.int8), 0.0), "scale is 0"),
    "scale NaN": (lambda x, *args: (np.zeros(x.shape, np.int8), np.nan), "scale is nan"),
    "codes NaN": (lambda x, *args: (np.full(x.shape, np.nan), 1.0), "q holds NaN or Inf"),
    "huge codes": (lambda x, *args: (np.full(x.shape, 10**12), 1.0), "those are not codes"),
}


@pytest.mark.parametrize(("broken", "sentence"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["bits", "clipping", "calibration"])
def test_codes_that_cannot_be_drawn_are_reported(outlives, name, broken, sentence):
    outlives(*EXPLORERS[name], broken, sentence)


def test_a_broken_function_does_not_keep_an_explorer_from_opening():
    explorer = explore_bits(WEIGHTS, quantize=raises)
    assert "oh dear" in repr(explorer)
    assert image_of(explorer).std() > 0, "the original is drawn"


def test_codes_left_as_floats_can_be_dragged_all_the_same():
    def floats(x, num_bits):
        q, scale = quantize_symmetric(x, num_bits)
        return q.astype(np.float32), scale

    assert explore_bits(WEIGHTS, quantize=floats).result.codes_used > 1


@pytest.mark.parametrize("explore", [explore_bits, explore_calibration, explore_clipping, explore_zero_point])
@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (None, TypeError, "got NoneType"),
        ([1.0, 2.0], TypeError, "got list"),
        (np.arange(5), TypeError, "got dtype int64"),
        (np.zeros((0, 3), np.float32), ValueError, "must not be empty"),
        (np.array([1.0, np.nan]), ValueError, "NaN or Inf"),
        (np.zeros(5, np.float32), ValueError, "not all zero"),
        (np.float32(3), ValueError, "at least two values"),
    ],
    ids=str,
)
def test_a_tensor_that_cannot_be_explored_is_refused(explore, x, error, sentence):
    with pytest.raises(error, match=sentence):
        explore(x)


@pytest.mark.parametrize("factor", [1e-30, 1e30], ids=["tiny", "huge"])
@pytest.mark.parametrize("explore", [explore_bits, explore_calibration, explore_clipping])
def test_the_unit_of_the_values_does_not_matter(explore, factor):
    plain, scaled = explore(WEIGHTS), explore(WEIGHTS * np.float32(factor))
    assert scaled.result.sqnr_db == pytest.approx(plain.result.sqnr_db, abs=0.01)


# --- explore_digit ---


def test_the_network_reads_less_and_less():
    explorer = explore_digit(7)
    eight, two = (explorer.compute({"num_bits": bits}) for bits in (8, 2))
    assert eight.accuracy > 0.95 > two.accuracy
    assert len(np.unique(two.image)) <= two.grey_levels == 4
    assert eight.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("index", [-1, 540, "0", None, 1.0, True])
def test_an_index_outside_the_test_set_is_refused(index):
    with pytest.raises((TypeError, ValueError), match="index"):
        explore_digit(index)
