"""compare_quantization_methods: four schemes, and what a zero point and scales of channels win."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils import PerAxis, PerTensor, Scheme
from labutils import dequantize as come_back
from labutils import quantize as go
from labutils.arrays.metrics import quantization_error
from labutils.labs.answers import (
    compare_quantization_methods,
    dequantize_per_channel,
    quantize_per_channel,
    quantize_symmetric,
)
from tests.arrays.bad_inputs import BAD_WIDTHS, FINE, REFUSED, refuses, table
from tests.labs.right_answers import passes
from tests.labs.strategies import any_width, arrays_with_axes

pytestmark = pytest.mark.filterwarnings("error")


@given(arrays_with_axes, st.integers(2, 10))
def test_the_comparison_is_four_schemes(x, num_bits):
    errors = compare_quantization_methods(x, num_bits)
    assert list(errors) == [
        "symmetric_per_tensor", "asymmetric_per_tensor", "symmetric_per_channel", "asymmetric_per_channel",
    ]  # fmt: skip
    q, scales = quantize_per_channel(x, 0, num_bits)
    assert errors["symmetric_per_channel"] == quantization_error(x, q, dequantize_per_channel(q, scales, 0))


@given(arrays_with_axes, any_width)
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


def test_tensors_get_the_same_errors():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(5).normal(size=(6, 5, 4)).astype(np.float32)
    theirs = compare_quantization_methods(torch.from_numpy(x), 4)
    for name, error in compare_quantization_methods(x, 4).items():
        assert theirs[name] == pytest.approx(error)


# Bad input, and unusual input that is fine.


@pytest.mark.parametrize("x, kind, words", **table(REFUSED))
def test_what_is_no_array_of_finite_floats_is_refused(x, kind, words):
    refuses(kind, words, compare_quantization_methods, x)


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    refuses(kind, words, compare_quantization_methods, np.ones((2, 3), np.float32), num_bits)


def test_a_number_has_no_channels():
    refuses(ValueError, ("needs at least one axis", "shape ()"), compare_quantization_methods, np.array(0.5))


@pytest.mark.parametrize("make", **table({name: make for name, make in FINE.items() if np.asarray(make()).ndim}))
def test_unusual_arrays_have_errors_that_are_numbers(make):
    for error in compare_quantization_methods(make()).values():
        assert not any(map(np.isnan, error.values()))


# Right answers, however they are written.


def four_lines(x, num_bits=8):
    def error(scheme):
        quantized = go(x, scheme)
        return quantization_error(x, quantized.codes, come_back(quantized))

    return {
        "symmetric_per_tensor": error(Scheme(num_bits)),
        "asymmetric_per_tensor": error(Scheme(num_bits, symmetric=False)),
        "symmetric_per_channel": error(Scheme(num_bits, granularity=PerAxis(0))),
        "asymmetric_per_channel": error(Scheme(num_bits, symmetric=False, granularity=PerAxis(0))),
    }


def two_loops_in_another_order(x, num_bits=8):
    errors = {}
    for symmetric in (False, True):
        for granularity in (PerAxis(-x.ndim), PerTensor()):
            quantized = go(x, Scheme(num_bits, symmetric, granularity))
            shared = "tensor" if granularity == PerTensor() else "channel"
            name = f"{'' if symmetric else 'a'}symmetric_per_{shared}"
            errors[name] = quantization_error(x, quantized.codes, come_back(quantized))
    return errors


def by_hand(x, num_bits=8, affine_first=False):
    """Without the package's quantizers, in float64."""
    x64, errors, levels = x.astype(np.float64), {}, 2**num_bits - 1
    for shared, axes in (("tensor", None), ("channel", tuple(range(1, x.ndim)))):
        low = np.minimum(x64.min(axis=axes, keepdims=True), 0)
        high = np.maximum(x64.max(axis=axes, keepdims=True), 0)
        scale = np.maximum(high, -low) / (2 ** (num_bits - 1) - 1)
        q = np.round(x64 / scale)
        errors[f"symmetric_per_{shared}"] = quantization_error(x, q.astype(int), (q * scale).astype(x.dtype))
        scale = (high - low) / levels
        zero_point = np.round(-low / scale)
        q = np.round(x64 / scale + zero_point) if affine_first else np.round(x64 / scale) + zero_point
        q = np.clip(q, 0, levels)
        back = ((q - zero_point) * scale).astype(x.dtype)
        errors[f"asymmetric_per_{shared}"] = quantization_error(x, q.astype(int), back)
    return errors


def zero_point_added_before_rounding(x, num_bits=8):
    return by_hand(x, num_bits, affine_first=True)


def with_one_more_entry(x, num_bits=8):
    errors = four_lines(x, num_bits)
    return {name: errors[name] for name in reversed(errors)} | {"best": errors["asymmetric_per_channel"]}


def channel_after_channel(x, num_bits=8):
    """Per channel as per tensor of each channel; codes and values of all are measured together."""
    errors = {}
    for name, symmetric in (("symmetric", True), ("asymmetric", False)):
        whole = go(x, Scheme(num_bits, symmetric))
        errors[f"{name}_per_tensor"] = quantization_error(x, whole.codes, come_back(whole))
        parts = [go(channel, Scheme(num_bits, symmetric)) for channel in x]
        codes, values = np.stack([part.codes for part in parts]), np.stack([come_back(part) for part in parts])
        errors[f"{name}_per_channel"] = quantization_error(x, codes, values)
    return errors


RIGHT = [
    four_lines,
    two_loops_in_another_order,
    by_hand,
    zero_point_added_before_rounding,
    with_one_more_entry,
    channel_after_channel,
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("compare_quantization_methods", answer)
