"""explore_bits measures what the learner's quantizer does, and that follows the theory."""

import numpy as np
import pytest

from labutils import explore_bits
from labutils.arrays import theory
from labutils.labs.answers import quantize_symmetric

WEIGHTS = np.random.default_rng(0).normal(size=4000).astype(np.float32)


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


@pytest.mark.parametrize("sign", [1, -1])
def test_the_outlier_stays_in_the_picture_however_far_it_is_dragged(sign):
    explorer = explore_bits(sign * np.append(WEIGHTS, np.float32(6)))
    low, high = explorer._grid.get_xlim()
    for factor in (1.0, 3.0, 20.0):
        explorer.controls["outlier"].value = factor
        (seen,), _ = explorer._outlier.get_data()
        assert seen == explorer.result.outlier == pytest.approx(6 * sign * factor)
        assert low < seen < high
