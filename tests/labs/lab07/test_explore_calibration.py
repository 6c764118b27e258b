"""explore_calibration: two kinds of noise and their sum, exactly, and where each method cuts."""

import numpy as np
import pytest

from labutils import explore_calibration
from labutils.arrays.calibration import KL, MSE, Percentile
from labutils.labs.answers import kl_range, mse_range, percentile_range, quantize_clipped
from labutils.labs.values import Magnitudes

RNG = np.random.default_rng(0)
X = np.append(RNG.laplace(size=4000), [30.0, -25.0]).astype(np.float32)
REACH = 30.0
METHODS = {"percentile": lambda x, num_bits: percentile_range(x), "MSE": mse_range, "KL": kl_range}


@pytest.fixture(scope="module")
def explorer():
    """For `compute`, which depends on the state alone."""
    return explore_calibration(X)


def rounded(x, clip, quant_max):
    step = clip / quant_max
    return np.clip(np.rint(x / step), -quant_max, quant_max) * step


@pytest.mark.parametrize("clip", [0.1, 1.7, 9.0, 30.0])
@pytest.mark.parametrize("quant_max", [1, 7, 127])
def test_sums_over_sorted_magnitudes_give_the_noise_of_every_value(clip, quant_max):
    magnitudes, x = Magnitudes(X), X.astype(np.float64)
    (noise,) = magnitudes.noise(np.array([clip]), quant_max)
    assert noise == pytest.approx(np.mean((x - rounded(x, clip, quant_max)) ** 2), rel=1e-9)
    (clipping,) = magnitudes.clipping_noise(np.array([clip]))
    assert clipping == pytest.approx(np.mean(np.clip(np.abs(x) - clip, 0, None) ** 2), rel=1e-9, abs=1e-15)
    assert magnitudes.beyond(np.array([clip]))[0] == np.count_nonzero(np.abs(x) > clip)


@pytest.mark.parametrize("num_bits", range(2, 9))
def test_the_curves_add_up_and_their_minimum_is_the_best_clip(explorer, num_bits):
    result = explorer.compute({"num_bits": num_bits, "clip": 0.5})
    power = np.mean(X.astype(np.float64) ** 2)
    total = result.rounding + result.clipping
    here = 60
    clip = explorer.fractions[here] * REACH
    noise = np.mean((X - rounded(X.astype(np.float64), clip, 2 ** (num_bits - 1) - 1)) ** 2)
    assert total[here] == pytest.approx(noise / power, rel=1e-6)
    assert result.best_clip == explorer.fractions[np.argmin(total)] * REACH
    assert result.best_db == pytest.approx(-10 * np.log10(total.min()), abs=1e-6)
    assert np.all(result.rounding >= 0) and np.all(np.diff(result.clipping) <= 0)


@pytest.mark.parametrize("num_bits", [2, 4, 8])
def test_marks_are_where_the_estimators_cut_and_lie_on_the_curve(explorer, num_bits):
    result = explorer.compute({"num_bits": num_bits, "clip": 1.0})
    expected = {"min-max": REACH, "99.9%": Percentile(99.9), "MSE": MSE(num_bits), "KL": KL(num_bits)}
    for name, mark in result.marks.items():
        estimator = expected[name]
        assert mark.clip == (estimator if name == "min-max" else estimator.observe(X).range()[1])
        noise = np.mean((X - rounded(X.astype(np.float64), mark.clip, 2 ** (num_bits - 1) - 1)) ** 2)
        assert mark.sqnr_db == pytest.approx(10 * np.log10(np.mean(X.astype(np.float64) ** 2) / noise), abs=1e-4)
    assert result.marks["MSE"].sqnr_db == pytest.approx(result.best_db, abs=0.1)
    assert max(mark.sqnr_db for mark in result.marks.values()) == result.marks["MSE"].sqnr_db


def test_what_is_measured_is_what_the_function_gives(explorer):
    result = explorer.compute({"num_bits": 4, "clip": 0.2})
    q, scale = quantize_clipped(X, 0.2 * REACH, 4)
    noise = np.mean((X - q * scale).astype(np.float64) ** 2)
    assert result.sqnr_db == pytest.approx(10 * np.log10(np.mean(X.astype(np.float64) ** 2) / noise), abs=1e-3)
    assert result.clipped == np.count_nonzero(np.abs(X) > 0.2 * REACH)


def test_methods_of_ones_own_are_marked_in_their_place():
    result = explore_calibration(X, methods=METHODS).compute({"num_bits": 4, "clip": 1.0})
    assert list(result.marks) == list(METHODS)
    for name, mark in result.marks.items():
        assert mark.clip == METHODS[name](X, 4)[1]


def test_an_asymmetric_range_is_marked_at_its_farther_end():
    explorer = explore_calibration(X, methods={"apart": lambda x, num_bits: (-1.0, 7.0)})
    assert explorer.result.marks["apart"].clip == 7.0


BROKEN = {
    "undone": (lambda: (_ for _ in ()).throw(NotImplementedError()), "is not done yet"),
    "raises": (lambda: 1 / 0, "raised ZeroDivisionError"),
    "one number": (lambda: 3.0, "expected 2 values"),
    "None": (lambda: None, "returned None"),
    "no range": (lambda: (0.0, 0.0), "has no clip to draw"),
    "NaN": (lambda: (np.nan, np.nan), "has no clip to draw"),
    "arrays": (lambda: (np.zeros(3), np.ones(3)), "low should be one number"),
}


@pytest.mark.parametrize(("answer", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_method_is_reported_and_the_slider_lives_on(answer, sentence):
    def method(x, num_bits):
        return answer() if num_bits == 5 else (-2.0, 2.0)

    explorer = explore_calibration(X, methods={"mine": method})
    good = explorer.picture.value
    explorer.controls["num_bits"].value = 5
    assert sentence in explorer.readout.value
    explorer.controls["num_bits"].value = 4
    assert explorer.picture.value == good


@pytest.mark.parametrize("methods", [{}, {str(i): mse_range for i in range(7)}], ids=["none", "seven"])
def test_as_many_methods_as_there_are_markers(methods):
    with pytest.raises(ValueError, match="methods must be 1 to 6 functions by name"):
        explore_calibration(X, methods=methods)


def test_a_torch_tensor_is_explored_like_an_array(explorer):
    torch = pytest.importorskip("torch")
    assert repr(explore_calibration(torch.nn.Parameter(torch.tensor(X)))) == repr(explorer)
