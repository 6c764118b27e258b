"""quantize_per_channel: lab 01 channel by channel, the axis as torch counts it, and the numbers worked in the lab."""

import numpy as np
import pytest
from hypothesis import given

from labutils import Scheme, fake_quantize
from labutils.arrays.metrics import sqnr_db
from labutils.labs.answers import dequantize_per_channel, quantize_per_channel, quantize_symmetric
from labutils.labs.lab03.quantize_per_channel import right
from labutils.labs.slices import along_axis
from tests.arrays.bad_inputs import BAD_WIDTHS, FINE, NOT_WHOLE, REFUSED, refuses, slack, table
from tests.labs.right_answers import passes, variants
from tests.labs.strategies import any_width, arrays_and_axes

pytestmark = pytest.mark.filterwarnings("error")

ONES = np.ones((2, 3), np.float32)
RESOLUTION = 3 * 2.0**-24  # of a value: scale, quotient and product are each rounded to float32
LEAST = np.finfo(np.float32).smallest_subnormal


def quant_max(num_bits):
    return 2 ** (num_bits - 1) - 1


def code_dtype(num_bits):
    return np.int8 if num_bits <= 8 else np.int16


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


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_tensors_get_the_same_codes_and_scales(axis):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(5).normal(size=(6, 5, 4)).astype(np.float32)
    ours, theirs = quantize_per_channel(x, axis, 4), quantize_per_channel(torch.from_numpy(x), axis, 4)
    assert all(isinstance(part, torch.Tensor) for part in theirs)
    assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])


# Bad input, and unusual input that is fine.


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("x, kind, words", **table(REFUSED))
def test_what_is_no_array_of_finite_floats_is_refused(axis, x, kind, words):
    refuses(kind, words, quantize_per_channel, x, axis)


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    refuses(kind, words, quantize_per_channel, ONES, 0, num_bits)


@pytest.mark.parametrize("axis", **table(NOT_WHOLE))
def test_an_axis_is_a_whole_number(axis):
    refuses(TypeError, ("axis must be a whole number", repr(axis)), quantize_per_channel, ONES, axis)


@pytest.mark.parametrize("axis", [2, -3, 10**30], ids=repr)
def test_an_axis_that_is_not_there_is_refused(axis):
    refuses(ValueError, (f"axis {axis} is not there", "shape (2, 3)", "axes 0 to 1"), quantize_per_channel, ONES, axis)


@pytest.mark.parametrize("axis", [0, -1])
def test_a_number_has_no_channels(axis):
    refuses(ValueError, ("needs at least one axis", "shape ()"), quantize_per_channel, np.array(0.5), axis)


@pytest.mark.parametrize("make", **table({name: make for name, make in FINE.items() if np.asarray(make()).ndim}))
def test_unusual_arrays_come_back_within_half_a_step_of_their_channel(make):
    x = np.asarray(make())
    for axis in range(-x.ndim, x.ndim):
        q, scales = quantize_per_channel(make(), axis)
        scales = scales.astype(float)  # dequantize_per_channel's float32 holds less
        off = np.moveaxis(x.astype(float), axis, -1) - np.moveaxis(q, axis, -1) * scales
        assert np.all(np.abs(off) <= scales / 2 + slack(x))


# Right answers, however they are written.


def over_the_other_axes(x, axis, num_bits=8):
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    scales = np.abs(x).max(axis=others, keepdims=True) / quant_max(num_bits)
    scales[scales == 0] = 1
    q = np.clip(np.rint(x / scales), -quant_max(num_bits) - 1, quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), scales.ravel()


def by_a_loop_over_channels(x, axis, num_bits=8):
    rows = np.moveaxis(x, axis, 0)
    q, scales = np.empty(rows.shape, code_dtype(num_bits)), np.empty(len(rows))
    for c, row in enumerate(rows):
        scales[c] = float(np.max(np.abs(row))) / quant_max(num_bits) or 1.0
        q[c] = np.round(row / scales[c])
    return np.moveaxis(q, 0, axis), scales


def flat_rows(x, axis, num_bits=8):
    """Channels first, each as one row; half up."""
    rows = np.moveaxis(x, axis, 0)
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    scales = np.abs(flat).max(1) / quant_max(num_bits)
    scales = np.where(scales > 0, scales, 0.5)
    q = (
        np.floor(flat / scales[:, None] + 0.5)
        .clip(-quant_max(num_bits), quant_max(num_bits))
        .astype(code_dtype(num_bits))
    )
    return np.moveaxis(q.reshape(rows.shape), 0, axis), scales


def max_reduceat(x, axis, num_bits=8):
    rows = np.moveaxis(np.abs(x), axis, 0)
    starts = np.arange(0, rows.size, rows.size // len(rows))
    scales = np.maximum.reduceat(rows.ravel(), starts) / np.float32(quant_max(num_bits))
    scales = scales + (scales == 0)
    return np.round(x / along_axis(scales, x.ndim, axis)).astype(code_dtype(num_bits)), scales


def one_axis_at_a_time(x, axis, num_bits=8):
    largest = np.swapaxes(np.abs(x), axis, -1)
    while largest.ndim > 1:
        largest = largest.max(axis=0)
    scales = np.divide(largest, quant_max(num_bits), out=np.ones_like(largest), where=largest != 0)
    steps = np.swapaxes(np.swapaxes(x, axis, -1) / scales, axis, -1)
    return np.round(steps).astype(code_dtype(num_bits)), scales


def from_both_ends(x, axis, num_bits=8):
    """Without abs, and with an einsum for the product by the reciprocal."""
    rows = np.moveaxis(x, axis, 0).astype(np.float64)
    flat = rows.reshape(rows.shape[0], -1)
    peaks = np.maximum(flat.max(1), -flat.min(1))
    scales = np.where(peaks == 0, 1, peaks / quant_max(num_bits))
    q = np.round(np.einsum("ck,c->ck", flat, 1 / scales)).clip(-quant_max(num_bits) - 1, quant_max(num_bits))
    return np.moveaxis(q.reshape(rows.shape), 0, axis).astype(code_dtype(num_bits)), scales


def torch_amax(x, axis, num_bits=8):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    others = [i for i in range(t.ndim) if i != axis % t.ndim]
    largest = t.abs().amax(others, keepdim=True) if others else t.abs()
    scales = torch.where(largest == 0, torch.ones_like(largest), largest / quant_max(num_bits))
    q = torch.clamp(torch.round(t / scales), -quant_max(num_bits) - 1, quant_max(num_bits))
    return q.to(torch.int8 if num_bits <= 8 else torch.int16), scales.flatten()


RIGHT = [
    over_the_other_axes,
    by_a_loop_over_channels,
    flat_rows,
    max_reduceat,
    one_axis_at_a_time,
    from_both_ends,
    torch_amax,
    *variants(right),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_per_channel", answer)
