"""All explorers: every control has an effect, and a learner's function that fails is reported and does no harm."""

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

EXPLORERS = {  # those that run a learner's function: how to open one, and a function that works
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
