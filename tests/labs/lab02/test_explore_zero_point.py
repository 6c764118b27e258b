"""explore_zero_point: where 0.0 lies, what a shift costs either grid, and a warning when 0.0 has no code."""

from functools import partial

import numpy as np
import pytest

from labutils import explore_zero_point, quantization_error
from labutils.course.palette import INK, QUANTIZED
from labutils.labs.answers import dequantize_asymmetric, dequantize_symmetric, quantize_asymmetric, quantize_symmetric

WEIGHTS = np.random.default_rng(0).normal(size=4000).astype(np.float32)
HALF = (WEIGHTS.max() - WEIGHTS.min()) / 2


@pytest.fixture(scope="module")
def explorer():
    return explore_zero_point(WEIGHTS)


def without_zero(x, num_bits=8):
    """The range from min to max as it is, and a zero point that is not clamped."""
    scale = (x.max() - x.min()) / (2**num_bits - 1)
    zero_point = int(np.round(-x.min() / scale))
    return (np.round(x / scale) + zero_point).astype(np.uint8), scale, zero_point


def flattened(x, num_bits=8):
    """The same, with the zero point clamped."""
    quant_max = 2**num_bits - 1
    scale = (x.max() - x.min()) / quant_max
    zero_point = int(np.clip(np.round(-x.min() / scale), 0, quant_max))
    return np.clip(np.round(x / scale) + zero_point, 0, quant_max).astype(np.uint8), scale, zero_point


def test_without_a_kernel_there_is_a_picture_and_a_text(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert len(bundle["image/png"]) > 10_000
    assert "zero point" in bundle["text/plain"] and "0x" not in bundle["text/plain"]
    assert list(explorer.controls) == ["num_bits", "shift"]
    assert all(control.description and control.tooltip for control in explorer.controls.values())


@pytest.mark.parametrize("num_bits", range(2, 9))
@pytest.mark.parametrize("shift", [-2.0, -0.3, 0.0, 1.0])
def test_the_readout_is_what_the_two_functions_give(explorer, num_bits, shift):
    result = explorer.compute({"num_bits": num_bits, "shift": shift})
    x = WEIGHTS + np.float32(shift * (WEIGHTS.max() / 2 - WEIGHTS.min() / 2))
    q, scale, zero_point = quantize_asymmetric(x, num_bits)
    p, symmetric_scale = quantize_symmetric(x, num_bits)
    asymmetric = quantization_error(x, q, dequantize_asymmetric(q, scale, zero_point))
    symmetric = quantization_error(x, p, dequantize_symmetric(p, symmetric_scale))
    power = np.mean(WEIGHTS.astype(float) ** 2)
    assert result.zero_point == zero_point and result.zero_is_exact
    assert result.codes_used == asymmetric["codes_used"]
    assert result.symmetric_codes_used == symmetric["codes_used"]
    assert result.sqnr_db == pytest.approx(10 * np.log10(power / asymmetric["mse"]), abs=1e-2)
    assert result.symmetric_db == pytest.approx(10 * np.log10(power / symmetric["mse"]), abs=1e-2)


def test_blocks_cover_every_value_once(explorer):
    result = explorer.compute({"num_bits": 4, "shift": 0.7})
    assert np.sum(result.density) * result.scale == pytest.approx(1)


@pytest.mark.parametrize("shift", [-2.0, -1.2, 0.0, 0.5, 1.2, 2.0])
def test_theory_and_measurement_agree_where_steps_are_small(explorer, shift):
    result = explorer.compute({"num_bits": 8, "shift": shift})
    here = np.argmin(np.abs(explorer.shifts - shift))
    # 4000 squared errors, each with a relative deviation of sqrt(4/5) of its mean: 5 standard errors, in decibels.
    tolerance = 4.34 * 5 * np.sqrt(0.8 / 4000)
    assert result.sqnr_db == pytest.approx(result.curve_db[here], abs=tolerance)
    assert result.symmetric_db == pytest.approx(result.symmetric_curve_db[here], abs=tolerance)


def test_the_asymmetric_step_stays_until_the_values_leave_zero_behind(explorer):
    scales = {s: explorer.compute({"num_bits": 6, "shift": s}).scale for s in (-0.5, 0.0, 0.5, 1.5, 2.0)}
    assert scales[-0.5] == pytest.approx(scales[0.0], rel=1e-5) == pytest.approx(scales[0.5], rel=1e-5)
    assert scales[0.5] < scales[1.5] < scales[2.0]


def test_beyond_zero_asymmetric_is_symmetric_with_one_bit_more(explorer):
    asymmetric = explorer.compute({"num_bits": 5, "shift": 1.5})
    more = explorer.compute({"num_bits": 6, "shift": 1.5})
    assert asymmetric.sqnr_db == pytest.approx(more.symmetric_db, abs=1e-3)


# --- a grid without 0.0 ---


def test_a_grid_without_zero_is_warned_of():
    explorer = explore_zero_point(WEIGHTS, quantize=without_zero)
    assert explorer.result.zero_is_exact and "⚠" not in explorer.readout.value
    assert explorer._left_title.get_color() == INK
    explorer.controls["shift"].value = 1.5
    smallest = float(WEIGHTS.min() + 1.5 * HALF)
    assert explorer.result.zero_back == pytest.approx(smallest, abs=explorer.result.scale)
    assert "⚠" in explorer.readout.value and "is not one of the codes 0 to 15" in explorer.readout.value
    assert explorer._left_title.get_color() == QUANTIZED
    assert "comes back as" in explorer._left_title.get_text()


def test_a_zero_point_between_two_codes_is_warned_of():
    def unrounded(x, num_bits=8):
        q, scale, zero_point = quantize_asymmetric(x, num_bits)
        return q, scale, float(zero_point) + 0.25

    result = explore_zero_point(WEIGHTS, quantize=unrounded).result
    assert result.zero_back == pytest.approx(-0.25 * result.scale)
    assert not result.zero_is_exact


def test_a_clamped_zero_point_costs_decibels():
    right, wrong = (explore_zero_point(WEIGHTS, quantize=q) for q in (quantize_asymmetric, flattened))
    state = {"num_bits": 8, "shift": 2.0}
    assert wrong.compute(state).sqnr_db < right.compute(state).sqnr_db - 20


# --- whatever the learner's function does ---


BROKEN = {
    "two values": (lambda x, num_bits=8: (x, 1.0), "returned 2 values; expected 3"),
    "a string": (lambda x, num_bits=8: (np.zeros(x.shape, np.uint8), 1.0, "0"), "zero_point should be an array"),
    "several": (lambda x, num_bits=8: (np.zeros(x.shape, np.uint8), 1.0, np.zeros(2)), "should be one number"),
    "NaN": (lambda x, num_bits=8: (np.zeros(x.shape, np.uint8), 1.0, np.nan), "zero_point is nan"),
    "scale 0": (lambda x, num_bits=8: (np.zeros(x.shape, np.uint8), 0.0, 0), "scale is 0"),
    "a shape": (lambda x, num_bits=8: (np.zeros(3, np.uint8), 1.0, 0), "q has shape (3,), but x has"),
    "huge zero point": (lambda x, num_bits=8: (np.zeros(x.shape, np.uint8), 1.0, 10**12), ""),
}


@pytest.mark.parametrize(("broken", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_function_is_reported_and_the_slider_lives_on(outlives, broken, sentence):
    outlives(partial(explore_zero_point, WEIGHTS), quantize_asymmetric, broken, sentence)


def test_a_constant_is_refused_because_its_shift_has_no_unit():
    with pytest.raises(ValueError, match="at least two different values, but all are 0.3"):
        explore_zero_point(np.full(9, 0.3))


@pytest.mark.parametrize("factor", [1e-30, 1e30], ids=["tiny", "huge"])
def test_the_unit_of_the_values_does_not_matter(factor, explorer):
    state = {"num_bits": 4, "shift": 0.5}
    scaled = explore_zero_point(WEIGHTS * np.float32(factor))
    assert scaled.compute(state).sqnr_db == pytest.approx(explorer.compute(state).sqnr_db, abs=0.01)


def test_a_torch_tensor_is_explored_like_an_array():
    torch = pytest.importorskip("torch")
    assert repr(explore_zero_point(torch.tensor(WEIGHTS))) == repr(explore_zero_point(WEIGHTS))


def test_the_explored_tensor_is_not_changed():
    x = WEIGHTS.copy()
    explore_zero_point(x).controls["shift"].value = 2.0
    assert np.array_equal(x, WEIGHTS)
