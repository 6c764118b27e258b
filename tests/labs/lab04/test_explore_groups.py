"""explore_groups shows what the quantizer under it does to the groups of a matrix, and what they cost."""

import base64
import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from labutils import explore_groups
from labutils.arrays.metrics import sqnr_db
from labutils.labs.answers import bits_per_weight, dequantize_group, quantize_group
from labutils.labs.lab04.explore_groups import BITS, GROUP_SIZES

W = np.random.default_rng(0).normal(size=(24, 600)).astype(np.float32)
W[5, 300] = 40.0


@pytest.fixture(scope="module")
def explorer():
    return explore_groups(W)


def test_bits_and_group_size_are_the_controls_and_move_everything(explorer):
    assert list(explorer.controls) == ["num_bits", "group_size"]
    assert explorer.controls["group_size"].options == GROUP_SIZES
    for name, value in (("num_bits", 3), ("group_size", 32)):
        before = explorer.picture.value, explorer.readout.value, explorer.result
        explorer.controls[name].value = value
        assert explorer.picture.value != before[0]
        assert explorer.readout.value != before[1]
        assert explorer.result != before[2]
        assert explorer.controls[name].description and explorer.controls[name].tooltip


@pytest.mark.parametrize("num_bits", BITS)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_the_readout_is_what_the_function_gives(explorer, num_bits, group_size):
    result = explorer.compute({"num_bits": num_bits, "group_size": group_size})
    q, scales = quantize_group(W, num_bits, group_size)
    assert result.sqnr_db == pytest.approx(sqnr_db(W, dequantize_group(q, scales, group_size)), abs=1e-3)
    assert result.num_scales == scales.size
    assert result.zeros == pytest.approx(np.mean(q == 0))
    assert result.bits_per_weight == pytest.approx((q.size * num_bits + scales.size * 16) / q.size)


def test_bits_per_weight_are_those_of_the_lab_where_groups_are_full():
    explorer = explore_groups(W[:, :512])
    for size in GROUP_SIZES:
        assert explorer.compute({"num_bits": 4, "group_size": size}).bits_per_weight == bits_per_weight(4, size)


def test_the_law_holds_group_by_group_where_steps_are_small(explorer):
    result = explorer.compute({"num_bits": 8, "group_size": 32})
    # 14400 squared errors, of which the outlier's group holds most: 5 standard errors of its 32 would be 4 dB, so the
    # outlier's group is left out here.
    clean = explore_groups(np.delete(W, 5, axis=0)).compute({"num_bits": 8, "group_size": 32})
    assert clean.theory_db == pytest.approx(clean.sqnr_db, abs=4.34 * 5 * np.sqrt(0.8 / 13800) * 1.5)
    assert result.sqnr_db > 20


def test_the_window_shows_the_row_with_the_outlier_and_starts_with_a_group(explorer):
    assert explorer._row == 5
    assert explorer._window.start % max(GROUP_SIZES) == 0
    assert explorer._window.start <= 300 < explorer._window.stop
    result = explorer.compute({"num_bits": 4, "group_size": 128})
    q, scales = quantize_group(W, 4, 128)
    assert np.array_equal(result.codes, q[5, explorer._window])
    assert result.scales.max() == scales.max()


def test_small_groups_contain_the_damage(explorer):
    results = [explorer.compute({"num_bits": 4, "group_size": size}) for size in (256, 64, 16)]
    lost = [np.mean(result.codes == 0) for result in results]
    assert lost == sorted(lost, reverse=True)
    assert [result.spoilt for result in results] == [1, 1, 1], "the outlier spoils its group, however small"
    assert all(np.count_nonzero(result.spoilt_seen) == 1 for result in results)
    assert "1 of 912 (0.11%)" in dict(explorer.describe(results[-1]))["spoilt groups"]


@pytest.mark.parametrize("num_bits", [2, 4])
@pytest.mark.parametrize("group_size", [256, 16])
def test_a_group_is_spoilt_if_more_than_half_of_its_weights_become_0(explorer, num_bits, group_size):
    q, _ = quantize_group(W, num_bits, group_size)
    groups = [row[start : start + group_size] for row in q for start in range(0, W.shape[1], group_size)]
    result = explorer.compute({"num_bits": num_bits, "group_size": group_size})
    assert result.spoilt == sum(np.mean(group == 0) > 0.5 for group in groups)


def test_a_group_that_was_zero_before_is_not_spoilt():
    pruned = W[:2, :512] * (np.arange(512) % 4 == 0)  # three quarters are 0, and stay what they are
    pruned[0, :256] = 0
    assert explore_groups(pruned).compute({"num_bits": 8, "group_size": 256}).spoilt == 0


def test_without_a_kernel_there_is_a_picture_and_a_text(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width >= 900
    assert "bits per weight" in bundle["text/plain"] and "0x" not in bundle["text/plain"]


@pytest.mark.parametrize("shape", [(7, 40), (300,), (2, 3, 100), (1, 2), (3, 5000)], ids=str)
def test_matrices_of_every_shape_can_be_explored(shape):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    explorer = explore_groups(x)
    for size in GROUP_SIZES:
        explorer.controls["group_size"].value = size
        assert explorer.result.num_scales == x.size // shape[-1] * -(-shape[-1] // size)


@pytest.mark.parametrize("factor", [1e-30, 1e30], ids=["tiny", "huge"])
def test_the_unit_of_the_values_does_not_matter(explorer, factor):
    state = {"num_bits": 4, "group_size": 64}
    scaled = explore_groups(W * np.float32(factor)).compute(state)
    assert scaled.sqnr_db == pytest.approx(explorer.compute(state).sqnr_db, abs=0.01)


def test_a_torch_tensor_is_explored_like_an_array():
    torch = pytest.importorskip("torch")
    assert repr(explore_groups(torch.nn.Parameter(torch.tensor(W)))) == repr(explore_groups(W))


def test_the_explored_matrix_is_not_changed():
    w = W.copy()
    explore_groups(w).controls["group_size"].value = 16
    assert np.array_equal(w, W)


def test_sliders_run_the_function_that_they_were_given(explorer):
    def coarse(x, num_bits, group_size):
        return quantize_group(x, 2, group_size)

    state = {"num_bits": 8, "group_size": 32}
    assert explore_groups(W, quantize=coarse).compute(state).sqnr_db < explorer.compute(state).sqnr_db - 20


# --- whatever the learner's function does ---


def raises(x, *args):
    raise RuntimeError("oh dear")


BROKEN = {
    "codes of another shape": (lambda x, b, g: (np.zeros(3, np.int8), np.ones(3)), "q has shape (3,), but w has"),
    "codes left in groups": (lambda x, b, g: (quantize_group(x, b, g)[0][..., None], np.ones(3)), "q has shape"),
    "one scale": (lambda x, b, g: (quantize_group(x, b, g)[0], 0.1), "scales has shape (), and should have"),
    "scales keep an axis": (lambda x, b, g: (np.zeros(x.shape), np.ones((24, 5, 1))), "a scale for each group"),
    "scale 0": (lambda x, b, g: _with(quantize_group(x, b, g), 0.0), "not a positive number"),
    "scale NaN": (lambda x, b, g: _with(quantize_group(x, b, g), np.nan), "not a positive number"),
    "codes NaN": (lambda x, b, g: (np.full(x.shape, np.nan), quantize_group(x, b, g)[1]), "q holds NaN or Inf"),
    "huge codes": (lambda x, b, g: (np.full(x.shape, 10**12), quantize_group(x, b, g)[1]), "those are not codes"),
}


def _with(answer, scale):
    q, scales = answer
    scales[0, 0] = scale
    return q, scales


@pytest.mark.parametrize(("broken", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_function_is_reported_and_the_slider_lives_on(outlives, broken, sentence):
    outlives(partial(explore_groups, W), quantize_group, broken, sentence)


def test_a_broken_function_does_not_keep_an_explorer_from_opening():
    explorer = explore_groups(W, quantize=raises)
    assert "oh dear" in repr(explorer)
    left = np.asarray(Image.open(io.BytesIO(explorer.picture.value)))[:, :640].astype(int)
    assert np.count_nonzero(left[..., 2] - left[..., 0] > 100) > 500, "the weights are drawn, in blue"


@pytest.mark.parametrize(
    ("w", "error", "sentence"),
    [
        (None, TypeError, "got NoneType"),
        ([[1.0, 2.0]], TypeError, "got list"),
        (np.arange(6).reshape(2, 3), TypeError, "got dtype int64"),
        (np.zeros((0, 3), np.float32), ValueError, "must not be empty"),
        (np.array([[1.0, np.nan]]), ValueError, "NaN or Inf"),
        (np.zeros((2, 5), np.float32), ValueError, "not all zero"),
        (np.float32(3), ValueError, "rows of at least two values"),
        (np.ones((5, 1), np.float32), ValueError, "rows of at least two values"),
    ],
    ids=str,
)
def test_a_matrix_that_cannot_be_explored_is_refused(w, error, sentence):
    with pytest.raises(error, match=sentence):
        explore_groups(w)
