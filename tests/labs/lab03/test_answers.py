"""Lab 03's references agree with one line of NumPy each, with lab 01 channel by channel, and with the lab's numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils import PerAxis, Scheme, fake_quantize
from labutils.arrays.metrics import quantization_error, sqnr_db
from labutils.labs.answers import (
    compare_quantization_methods,
    dequantize_per_channel,
    quantize_per_channel,
    quantize_per_token,
    quantize_symmetric,
)

values = st.floats(-100, 100, width=32)
arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), elements=values)
any_width = st.integers(2, 16)
RESOLUTION = 3 * 2.0**-24  # of a value: scale, quotient and product are each rounded to float32
LEAST = np.finfo(np.float32).smallest_subnormal


@st.composite
def arrays_and_axes(draw):
    x = draw(arrays)
    return x, draw(st.integers(-x.ndim, x.ndim - 1))


# --- quantize_per_channel ---


@given(arrays_and_axes(), any_width)
def test_a_channel_is_quantized_as_if_it_were_alone(given_, num_bits):
    x, axis = given_
    q, scales = quantize_per_channel(x, axis, num_bits)
    assert q.shape == x.shape and scales.shape == (x.shape[axis],)
    for c in range(x.shape[axis]):
        alone, scale = quantize_symmetric(np.take(x, c, axis), num_bits)
        assert np.array_equal(np.take(q, c, axis), alone) and scales[c] == scale
        assert q.dtype == alone.dtype and scales.dtype == scale.dtype


@given(arrays_and_axes(), any_width)
def test_no_value_is_off_by_more_than_half_the_step_of_its_channel(given_, num_bits):
    x, axis = given_
    q, scales = quantize_per_channel(x, axis, num_bits)
    back = dequantize_per_channel(q, scales, axis)
    steps = np.moveaxis(np.broadcast_to(scales, (*np.moveaxis(x, axis, -1).shape,)), -1, axis)
    slack = RESOLUTION * 2**num_bits * steps + LEAST
    assert np.all(np.abs(x.astype(float) - back) <= steps / 2 + slack)
    assert np.all(back[x == 0] == 0)


@given(arrays_and_axes(), any_width)
def test_an_axis_counted_from_the_end_is_the_same_axis(given_, num_bits):
    x, axis = given_
    here, there = (quantize_per_channel(x, a, num_bits) for a in (axis % x.ndim, axis % x.ndim - x.ndim))
    assert np.array_equal(here[0], there[0]) and np.array_equal(here[1], there[1])


@given(arrays_and_axes(), any_width)
def test_channels_may_be_put_in_another_order(given_, num_bits):
    x, axis = given_
    q, scales = quantize_per_channel(x, axis, num_bits)
    flipped = quantize_per_channel(np.flip(x, axis), axis, num_bits)
    assert np.array_equal(np.flip(flipped[0], axis), q) and np.array_equal(flipped[1][::-1], scales)


def test_the_worked_example_of_the_lab():
    x = np.array([[0.05, -0.254, 0.1015], [2.54, 0.3, -1.013]], np.float32)
    q, scales = quantize_per_channel(x, 0)
    assert q.tolist() == [[25, -127, 51], [127, 15, -51]]
    assert scales == pytest.approx([0.002, 0.02], rel=1e-6)


def test_a_channel_does_not_feel_the_others():
    x = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    louder = x.copy()
    louder[2] *= 1e6
    q, scales = quantize_per_channel(x, 0)
    other, others = quantize_per_channel(louder, 0)
    assert np.array_equal(q[[0, 1, 3]], other[[0, 1, 3]]) and np.array_equal(scales[[0, 1, 3]], others[[0, 1, 3]])


@pytest.mark.parametrize("spread", [2, 10, 100], ids=lambda r: f"{r} times quieter")
def test_a_quiet_channel_wins_20_log10_of_how_quiet_it_is(spread):
    # At 12 bits even a hundredth of the range has 40 steps, so that noise is step^2 / 12 with one scale too.
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (2, 50_000)) * [[1], [1 / spread]]
    q, scales = quantize_per_channel(x, 0, 12)
    own, shared = dequantize_per_channel(q, scales, 0), fake_quantize(x, Scheme(12))
    won = sqnr_db(x[1], own[1]) - sqnr_db(x[1], shared[1])
    assert won == pytest.approx(20 * np.log10(spread), abs=0.15)  # a few standard errors of 50 000 squared errors


def test_over_all_the_gain_is_the_mean_square_of_the_scales():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(256, 1024)) * rng.uniform(0.1, 10, 256)[:, None]
    q, scales = quantize_per_channel(x, 0)
    won = sqnr_db(x, dequantize_per_channel(q, scales, 0)) - sqnr_db(x, fake_quantize(x))
    assert won == pytest.approx(10 * np.log10(scales.max() ** 2 / np.mean(scales**2)), abs=0.1)


def test_scales_of_outputs_leave_a_matrix_product_and_scales_of_inputs_do_not():
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(20, 16)).astype(np.float32), rng.normal(size=(16, 16)).astype(np.float32)
    x_q, x_scales = quantize_per_channel(x, 0)
    for axis, leaves in ((0, True), (1, False)):
        w_q, w_scales = quantize_per_channel(w, axis)
        floats = dequantize_per_channel(x_q, x_scales, 0) @ dequantize_per_channel(w_q, w_scales, axis).T
        outside = (x_q.astype(int) @ w_q.astype(int).T) * x_scales[:, None] * w_scales
        assert np.allclose(outside, floats, atol=1e-5) == leaves


# --- dequantize_per_channel ---


@given(arrays_and_axes(), any_width)
def test_dequantize_per_channel_is_a_product_along_the_axis(given_, num_bits):
    x, axis = given_
    q, scales = quantize_per_channel(x, axis, num_bits)
    back = dequantize_per_channel(q, scales, axis)
    assert back.dtype == np.float32
    assert np.array_equal(np.moveaxis(back, axis, -1), np.moveaxis(q, axis, -1) * scales)


@pytest.mark.parametrize(
    "held, dtype", [("float16", "float32"), ("float32", "float32"), ("float64", "float64")], ids=str
)
def test_the_scales_decide_the_precision(held, dtype):
    x = dequantize_per_channel(np.array([[1, 2]], np.int8), np.array([0.5, 0.25], held), 1)
    assert (x.dtype, x.tolist()) == (np.dtype(dtype), [[0.5, 0.5]])


# --- compare_quantization_methods ---


@given(arrays, st.integers(2, 10))
def test_the_comparison_is_four_schemes(x, num_bits):
    errors = compare_quantization_methods(x, num_bits)
    assert list(errors) == [
        "symmetric_per_tensor", "asymmetric_per_tensor", "symmetric_per_channel", "asymmetric_per_channel",
    ]  # fmt: skip
    q, scales = quantize_per_channel(x, 0, num_bits)
    assert errors["symmetric_per_channel"] == quantization_error(x, q, dequantize_per_channel(q, scales, 0))


@given(arrays, any_width)
def test_scales_of_channels_are_never_coarser_than_one_scale(x, num_bits):
    _, scales = quantize_per_channel(x, 0, num_bits)
    _, scale = quantize_symmetric(x, num_bits)
    assert np.all(scales[scales != 1] <= scale)  # 1 stands for a channel of zeros


def test_one_sided_values_win_a_bit_by_a_zero_point_and_even_ones_nothing():
    rng = np.random.default_rng(4)
    for x, won in ((rng.uniform(0, 1, (4, 20_000)), 20 * np.log10(255 / 127)), (rng.uniform(-1, 1, (4, 20_000)), 0.07)):
        errors = compare_quantization_methods(x)
        gain = errors["asymmetric_per_tensor"]["sqnr_db"] - errors["symmetric_per_tensor"]["sqnr_db"]
        assert gain == pytest.approx(won, abs=0.1)  # 255 steps in place of 127, or of 254: 0.03 dB


# --- quantize_per_token ---


@given(arrays, any_width)
def test_a_token_is_a_channel_of_the_tensor_made_flat(x, num_bits):
    q, scales = quantize_per_token(x, num_bits)
    rows, row_scales = quantize_per_channel(x.reshape(-1, x.shape[-1]), 0, num_bits)
    assert np.array_equal(q.reshape(rows.shape), rows) and np.array_equal(scales.ravel(), row_scales)
    assert scales.shape == (*x.shape[:-1], 1)


# --- torch ---


def test_tensors_get_the_same_answers():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(5).normal(size=(6, 5, 4)).astype(np.float32)
    t = torch.from_numpy(x)
    for axis in (0, 1, -1):
        ours, theirs = quantize_per_channel(x, axis, 4), quantize_per_channel(t, axis, 4)
        assert all(isinstance(part, torch.Tensor) for part in theirs)
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
        assert np.array_equal(dequantize_per_channel(*ours, axis), dequantize_per_channel(*theirs, axis))
    for ours, theirs in zip(quantize_per_token(x), quantize_per_token(t)):
        assert np.array_equal(ours, theirs)
    theirs = compare_quantization_methods(t, 4)
    for name, error in compare_quantization_methods(x, 4).items():
        assert theirs[name] == pytest.approx(error)


def test_the_axis_means_what_it_means_in_torch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(6).normal(size=(3, 4, 5)).astype(np.float32)
    for axis in (0, 1, 2):
        q, scales = quantize_per_channel(x, axis)
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        theirs = torch.fake_quantize_per_channel_affine(
            torch.from_numpy(x), torch.from_numpy(scales), zeros, axis, -128, 127
        )
        ours = dequantize_per_channel(q, scales, axis)
        # torch multiplies by 1 / scale: next to a tie it may go the other way, which none of these 60 values does.
        assert np.allclose(ours, theirs, rtol=1e-6, atol=0)


def test_a_reference_is_the_package_seen_from_the_lab():
    x = np.random.default_rng(7).normal(size=(5, 8)).astype(np.float32)
    q, scales = quantize_per_channel(x, 1, 5)
    assert np.array_equal(dequantize_per_channel(q, scales, 1), fake_quantize(x, Scheme(5, granularity=PerAxis(1))))
