"""MXFP4, NVFP4 and others: scales, codes and bits as their documents say, and what happens at the ends."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays.affine import choose_qparams, dequantize, fake_quantize, quantize
from labutils.arrays.block_formats import FORMATS, FP8, MXFP4, MXFP8, NVFP4, bits_per_weight
from labutils.arrays.grids import E2M1, E4M3, E8M0, FLOAT16
from labutils.arrays.metrics import sqnr_db
from labutils.arrays.scales import scale_codes
from labutils.arrays.scheme import PerGroup, PerTensor, Scheme
from labutils.data import feed_forward_weight

finite = hnp.arrays(np.float32, (3, 40), elements=st.floats(-(2.0**60), 2.0**60, width=32))
every_format = pytest.mark.parametrize("scheme", FORMATS.values(), ids=FORMATS)


def blocks(x, size):
    return x.reshape(len(x), -1, size)


@pytest.mark.parametrize(
    "scheme, emax, oracle",
    [(MXFP4, 2, ml_dtypes.float4_e2m1fn), (MXFP8, 8, ml_dtypes.float8_e4m3fn)],
    ids=["MXFP4", "MXFP8"],
)
def test_mx_as_ocp_says(scheme, emax, oracle):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(16, 256)) * np.exp2(rng.integers(-60, 60, (16, 1)))).astype(np.float32)
    _, exponents = np.frexp(np.abs(blocks(x, 32)).max(axis=-1))
    scale = np.exp2(exponents - 1 - emax).astype(np.float32)  # frexp's mantissa is 1/2 to 1
    quantized = quantize(x, scheme)
    assert np.array_equal(quantized.scale, scale)
    clamped = np.clip(blocks(x, 32) / scale[..., None], -scheme.grid.peak, scheme.grid.peak)
    assert np.array_equal(blocks(quantized.codes, 32), clamped.astype(oracle).view(np.uint8))
    codes, unit = scale_codes(np, quantized.scale, scheme)
    assert unit is None and np.array_equal(codes, exponents - 1 - emax + 127)


def test_nvfp4_as_nvidia_says():
    x = np.random.default_rng(1).standard_t(3, size=(16, 256)).astype(np.float32)
    unit = np.abs(x).max() / np.float32(448 * 6)
    scale = (np.abs(blocks(x, 16)).max(axis=-1) / np.float32(6) / unit).astype(ml_dtypes.float8_e4m3fn)
    quantized = quantize(x, NVFP4)
    codes, found = scale_codes(np, quantized.scale, NVFP4)
    assert found == unit and np.array_equal(codes, scale.view(np.uint8))
    steps = blocks(x, 16) / (scale.astype(np.float32) * unit)[..., None]
    expected = np.clip(steps, -6, 6).astype(ml_dtypes.float4_e2m1fn)
    assert np.array_equal(blocks(quantized.codes, 16), expected.view(np.uint8))
    assert scale.astype(float).max() == 448


@pytest.mark.parametrize(
    "scheme, per_block", [(MXFP4, 4.25), (MXFP8, 8.25), (replace(NVFP4, tensor_scale=False), 4.5)], ids=str
)
def test_bits_per_weight_count_the_scales(scheme, per_block):
    assert bits_per_weight(scheme, (4096, 4096)) == per_block


def test_bits_per_weight_count_zero_points_short_blocks_and_the_scale_of_the_tensor():
    assert bits_per_weight(NVFP4, (64, 64)) == 4.5 + 32 / 4096
    assert bits_per_weight(MXFP4, (1, 33)) == 4 + 2 * 8 / 33
    assert bits_per_weight(Scheme(4, False, PerGroup(32), scale_grid=FLOAT16), (2, 64)) == 4.625
    assert bits_per_weight(FP8, (1, 1024)) == 8 + 32 / 1024
    with pytest.raises(TypeError, match="scheme must be a Scheme"):
        bits_per_weight(4, (2, 2))
    with pytest.raises(ValueError, match="a length of shape must be at least 1"):
        bits_per_weight(MXFP4, (2, 0))


# --- properties ---


@given(finite, st.sampled_from(sorted(FORMATS)), st.integers(-20, 20))
def test_a_power_of_two_changes_nothing_but_the_scale(x, name, power):
    """Where the grid of scales has room: E8M0 on both sides, NVFP4 by its tensor scale; float16 has not."""
    scheme = FORMATS[name]
    x = np.where(np.abs(x) < 2.0**-60, 0, x).astype(np.float32)
    if scheme.scale_grid is not FLOAT16:
        moved = fake_quantize(x * np.float32(2.0**power), scheme)
        assert np.array_equal(moved, fake_quantize(x, scheme) * np.float32(2.0**power))


@given(finite)
def test_scales_rounded_up_saturate_nothing(x):
    scheme = replace(MXFP4, scale_up=True)
    scale = np.repeat(choose_qparams(x, scheme)[0], 32, axis=1)[:, :40]
    assert np.all(np.abs(x) <= 6 * scale * (1 + 2.0**-22))


@every_format
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_blocks_of_zeros_short_blocks_and_all_dtypes(scheme, dtype):
    x = np.random.default_rng(2).normal(size=(3, 70)).astype(dtype)
    x[0] = 0
    y = fake_quantize(x, scheme)
    assert y.dtype == x.dtype and y.shape == x.shape
    assert np.all(y[0] == 0) and np.all(np.isfinite(y))
    assert np.all(choose_qparams(np.zeros((2, 70), dtype), scheme)[0] == 1)
    assert sqnr_db(x, y) > 15


@every_format
def test_tensors_have_the_same_codes_and_scales_in_float32_and_bfloat16_computes_in_it(scheme):
    torch = pytest.importorskip("torch")
    x = torch.randn(4, 70, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, theirs = quantize(x, scheme), quantize(x.float().numpy(), scheme)
    assert np.array_equal(ours.codes.numpy(), theirs.codes) and np.array_equal(ours.scale.numpy(), theirs.scale)
    assert torch.equal(dequantize(ours), torch.from_numpy(dequantize(theirs)).bfloat16())


# --- the ends ---


@every_format
@pytest.mark.parametrize(
    "values", [[3.4e38, -3.4e38, 0], [1e-45, 0, 0], [1e-38, 2e-39, 0], [3.4e38, 1e-45, 1]], ids=str
)
def test_the_ends_of_float32_stay_finite_and_keep_zeros(scheme, values):
    y = fake_quantize(np.array([values], np.float32), scheme)
    assert np.all(np.isfinite(y)) and np.all(y[0, np.array(values) == 0] == 0)


def test_below_e8m0_the_scale_is_its_smallest_and_values_round_to_zero():
    x = np.array([[1e-45, 2.0**-127]], np.float32)
    quantized = quantize(x, MXFP4)
    assert quantized.scale == np.float32(2.0**-127)
    assert np.array_equal(dequantize(quantized), np.float32([[0, 2.0**-127]]))


def test_below_e4m3_the_scale_is_its_smallest_and_a_block_far_below_the_largest_is_lost():
    """2^-9 of the largest scale, 448: a block 2^-18 times the largest value rounds to 0. One float32 cannot do more."""
    x = np.zeros((1, 32), np.float32)
    x[0, 0], x[0, 16:] = 448 * 6, 2.0**-11
    quantized = quantize(x, NVFP4)
    assert quantized.scale[0].tolist() == [448, 2.0**-9]
    assert np.all(dequantize(quantized)[0, 16:] == 0) and dequantize(quantized)[0, 0] == 448 * 6


def test_above_e4m3_the_scale_is_its_largest_and_values_saturate():
    x = np.array([[1e6, 100.0]], np.float32)
    scheme = Scheme(grid=E2M1, granularity=PerGroup(16), scale_grid=E4M3)
    assert fake_quantize(x, scheme).tolist() == [[448 * 6, 0]]


def test_a_zero_point_stays_a_code_where_the_scale_was_rounded_down():
    for grid in (E4M3, E8M0, FLOAT16):
        x = np.linspace(-15.99, 0, 9, dtype=np.float32)
        quantized = quantize(x, Scheme(4, symmetric=False, scale_grid=grid))
        assert 0 <= int(quantized.zero_point) <= 15 and dequantize(quantized)[-1] == 0


# --- schemes ---

BAD = {
    "a scheme as grid of scales": ({"scale_grid": MXFP4}, TypeError, "scale_grid must be None or a FloatGrid"),
    "integers as grid of scales": ({"scale_grid": Scheme().grid}, TypeError, "scale_grid must be None or a FloatGrid"),
    "a name": ({"scale_grid": "E8M0"}, TypeError, "such as E8M0, got 'E8M0'"),
    "up without a grid": ({"scale_up": True}, ValueError, "scale_up is about a scale_grid, and there is none"),
    "a tensor scale without one": ({"tensor_scale": True}, ValueError, "tensor_scale is about a scale_grid"),
    "a number as flag": ({"scale_grid": E8M0, "scale_up": 1}, TypeError, "scale_up must be True or False"),
}


@pytest.mark.parametrize("given, kind, words", BAD.values(), ids=BAD)
def test_what_says_nothing_about_scales_is_refused(given, kind, words):
    with pytest.raises(kind, match=words):
        Scheme(**given)


@every_format
def test_a_format_shows_its_choices_compares_by_value_and_serves_as_key(scheme):
    from labutils.arrays.grids import NF4  # noqa: F401
    from labutils.arrays.scheme import PerAxis  # noqa: F401

    assert eval(repr(scheme)) == scheme and len({scheme, replace(scheme)}) == 1
    assert replace(scheme, granularity=PerTensor()) != scheme


def test_scales_off_their_grid_have_no_codes():
    with pytest.raises(ValueError, match="scale must be numbers of E8M0"):
        scale_codes(np, np.float32([3.0]), MXFP4)
    with pytest.raises(ValueError, match="scale must be numbers of E4M3 times one tensor scale"):
        scale_codes(np, np.float32([448.0, 1.03]), NVFP4)
    with pytest.raises(ValueError, match="has no grid of scales"):
        scale_codes(np, np.float32([3.0]), Scheme())


# --- real weights ---

MINILM = {
    "INT4 g128": 16.48,
    "INT4 g32": 19.15,
    "INT4 g16": 20.65,
    "NF4 g64": 20.15,
    "MXFP4": 18.33,
    "NVFP4": 20.64,
    "FP8": 31.72,
    "MXFP8": 30.23,
    "INT8": 35.44,
}


@pytest.mark.parametrize("name, decibels", MINILM.items())
def test_what_a_format_keeps_of_a_matrix_of_minilm(name, decibels):
    """The second block's output, as docs/measured.md has it beside the mean of all 36 matrices."""
    weight = feed_forward_weight()
    if weight.model != "MiniLM":
        pytest.skip(weight.source)
    assert sqnr_db(weight.array, fake_quantize(weight.array, FORMATS[name])) == pytest.approx(decibels, abs=0.02)
