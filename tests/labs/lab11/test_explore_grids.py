"""explore_grids shows what a format makes of a matrix, and runs the rounding that it was given."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from labutils import explore_grids
from labutils.arrays.affine import fake_quantize
from labutils.arrays.block_formats import bits_per_weight
from labutils.arrays.metrics import sqnr_db
from labutils.labs.answers import round_to_grid
from labutils.labs.lab11.explore_grids import BLOCK_SIZES, FORMATS

W = np.random.default_rng(0).normal(size=(24, 320)).astype(np.float32)
W[5, 300] = 40.0


@pytest.fixture(scope="module")
def explorer():
    return explore_grids(W)


def test_format_and_block_size_are_the_controls_and_move_everything(explorer):
    assert list(explorer.controls) == ["format", "block_size"]
    for name, value in (("format", "NVFP4"), ("block_size", 16), ("format", "INT8")):
        before = explorer.picture.value, explorer.readout.value, explorer.result
        explorer.controls[name].value = value
        assert explorer.picture.value != before[0]
        assert explorer.readout.value != before[1]
        assert explorer.result is not before[2]
        assert explorer.controls[name].description and explorer.controls[name].tooltip


@pytest.mark.parametrize(("columns", "sizes"), [(8, (16, 32)), (64, (16, 32, 64)), (320, BLOCK_SIZES)])
def test_no_block_is_longer_than_a_row(columns, sizes):
    """It would be the row, and the slider would move nothing."""
    slider = explore_grids(W[:, -columns:]).controls["block_size"]
    assert tuple(slider.options) == sizes


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_the_readout_is_what_the_library_makes_of_the_matrix(explorer, name, block_size):
    result = explorer.compute({"format": name, "block_size": block_size})
    scheme = FORMATS[name].scheme(block_size)
    x = W / np.float32(40)  # in units of the largest magnitude, as float16 scales have an end
    back = fake_quantize(x, scheme)
    assert result.sqnr_db == pytest.approx(sqnr_db(x, back), abs=0.01)
    assert result.zeros == pytest.approx(np.mean(back == 0), abs=1e-4)
    assert result.bits_per_value == bits_per_weight(scheme, W.shape)
    assert result.density.sum() * (2.8 / 101) == pytest.approx(1, abs=1e-6)


def test_only_scales_of_few_bits_leave_values_beyond_the_grid(explorer):
    beyond = {name: explorer.compute({"format": name, "block_size": 32}).beyond for name in FORMATS}
    assert beyond["INT4"] == beyond["NF4"] == beyond["INT8"] == 0
    assert beyond["MXFP4"] > beyond["NVFP4"] > 0


def test_without_a_kernel_there_is_a_picture_and_a_text(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width >= 900
    assert "bits per value" in bundle["text/plain"] and "0x" not in bundle["text/plain"]


@pytest.mark.parametrize("shape", [(7, 40), (300,), (2, 3, 100), (1, 2), (3, 5000), (300_000,)], ids=str)
def test_arrays_of_every_shape_can_be_explored(shape):
    explorer = explore_grids(np.random.default_rng(1).normal(size=shape).astype(np.float32))
    for size in explorer.controls["block_size"].options:
        explorer.controls["block_size"].value = size
        assert explorer.result.sqnr_db > 10


@pytest.mark.parametrize("factor", [1e-30, 1e30], ids=["tiny", "huge"])
def test_the_unit_of_the_values_does_not_matter(explorer, factor):
    state = {"format": "MXFP4", "block_size": 64}
    assert explore_grids(W * np.float32(factor)).compute(state).sqnr_db == pytest.approx(
        explorer.compute(state).sqnr_db,
        abs=0.01,
    )


def test_a_torch_tensor_is_explored_like_an_array():
    torch = pytest.importorskip("torch")
    assert repr(explore_grids(torch.nn.Parameter(torch.tensor(W)))) == repr(explore_grids(W))


def test_it_runs_the_function_that_it_was_given_and_leaves_the_matrix_alone(explorer):
    def coarse(x, levels):
        return round_to_grid(x, levels[::2])

    w, state = W.copy(), {"format": "INT8", "block_size": 32}
    assert explore_grids(w, coarse).compute(state).sqnr_db < explorer.compute(state).sqnr_db - 5
    assert np.array_equal(w, W)


BROKEN = {
    "another shape": (lambda x, levels: x[0], "the result has shape"),
    "NaN": (lambda x, levels: np.full(x.shape, np.nan), "holds NaN or Inf"),
    "nothing": (lambda x, levels: None, "should be an array"),
    "codes": (lambda x, levels: np.zeros(x.shape, int), "should hold floats"),
}


@pytest.mark.parametrize(("broken", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_function_is_reported_and_the_slider_lives_on(outlives, broken, sentence):
    def explore(quantize):
        return explore_grids(W, round_to_grid=quantize)

    outlives(explore, round_to_grid, broken, sentence, control="block_size", step=64)


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (None, TypeError, "got NoneType"),
        ([[1.0, 2.0]], TypeError, "got list"),
        (np.arange(6).reshape(2, 3), TypeError, "got dtype int64"),
        (np.zeros((0, 3), np.float32), ValueError, "must not be empty"),
        (np.array([[1.0, np.nan]]), ValueError, "NaN or Inf"),
        (np.zeros((2, 5), np.float32), ValueError, "not all zero"),
        (np.float32(3), ValueError, "rows of at least two values"),
    ],
    ids=str,
)
def test_what_cannot_be_explored_is_refused(x, error, sentence):
    with pytest.raises(error, match=sentence):
        explore_grids(x)
