"""explore_block shows the bytes that the function under it makes of a block, and what comes back of them."""

import numpy as np
import pytest

from labutils import explore_block
from labutils.arrays.metrics import sqnr_db
from labutils.labs.answers import q4_0_blocks
from labutils.labs.lab13.explore_block import BLOCKS
from tests.arrays.bad_inputs import refuses

W = np.random.default_rng(0).normal(size=(5, 96)).astype(np.float32)


@pytest.fixture(scope="module")
def explorer():
    return explore_block(W)


@pytest.mark.parametrize(
    ("weight", "byte", "half"), [(0, 2, "low"), (15, 17, "low"), (16, 2, "high"), (31, 17, "high")]
)
def test_it_points_at_the_half_byte_in_which_a_weight_is(explorer, weight, byte, half):
    result = explorer.compute({"block": 4, "weight": weight, "outlier": 1})
    assert (result.byte, result.half) == (byte, half)
    stored = int(result.stored[byte])
    assert result.code == (stored & 15 if half == "low" else stored >> 4)
    assert abs(W[1, 32 + weight] - result.returned[weight]) < 0.51 * abs(result.scale)


def test_the_blocks_are_neighbours_along_rows_and_the_bytes_those_of_the_exercise(explorer):
    for block in (0, 3, 14):
        result = explorer.compute({"block": block, "weight": 0, "outlier": 1})
        assert np.array_equal(result.values, W[block // 3, block % 3 * 32 :][:32])
        assert np.array_equal(result.stored, q4_0_blocks(W)[block // 3, block % 3])
        assert result.sqnr_db == pytest.approx(sqnr_db(result.values, result.returned), abs=1e-3)


def test_an_outlier_takes_the_other_weights_with_it(explorer):
    zeros = [
        (explorer.compute({"block": 2, "weight": 0, "outlier": outlier}).codes == 8).sum() for outlier in (1, 2, 4, 8)
    ]
    assert zeros == sorted(zeros) and zeros[-1] > 20 > zeros[0]


def test_every_control_moves_the_picture_and_the_readout():
    explorer = explore_block(W)
    for name, value in (("block", 7), ("weight", 20), ("outlier", 4)):
        before = explorer.picture.value, explorer.readout.value
        explorer.controls[name].value = value
        assert explorer.picture.value != before[0]
        assert explorer.readout.value != before[1]


def test_a_block_of_zeros_comes_back_without_error():
    assert "no error" in repr(explore_block(np.zeros((1, 32), np.float32)))


def test_at_most_sixteen_blocks_are_shown():
    assert explore_block(np.ones((10, 64), np.float32)).controls["block"].max == BLOCKS - 1


BROKEN = {
    "one axis": (lambda x: q4_0_blocks(x)[0, 0], "one block is (1, 1, 18) uint8"),
    "signed": (lambda x: q4_0_blocks(x).view(np.int8), "int8"),
    "a d of Inf": (lambda x: np.full((1, 1, 18), 0x7C, np.uint8), "read as a float16"),
    "None": (lambda x: None, "should be an array"),
    "raises": (lambda x: 1 / 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize(("broken", "sentence"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_block_is_reported(broken, sentence):
    explorer = explore_block(W, broken)
    explorer.controls["block"].value = 3
    assert explorer.result is None
    assert sentence in repr(explorer)


@pytest.mark.parametrize("w", [np.ones(64, np.float32), np.ones((4, 31), np.float32), np.full((2, 32), np.nan)])
def test_what_is_no_matrix_of_blocks_is_refused(w):
    refuses(ValueError, (), explore_block, w)
