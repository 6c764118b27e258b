"""8-bit products are exact, and all kernels give the same bits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.affine import dequantize, quantize
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.models import kernels
from labutils.models.kernels import int8_weights, probes
from tests.models.kernels.examples import INT8_KERNELS, codes, exactly, only


@given(st.integers(1, 9), st.integers(1, 50), st.sampled_from([1.0, 1e-30, 1e30, 0.0]), st.integers(0, 2**32 - 1))
def test_rows_are_quantized_as_by_affine(m, k, factor, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(m, k)).astype(np.float32)) * factor
    expected = quantize(x, Scheme(8, symmetric=False, granularity=PerAxis(0)))
    found, scale, zero_point = kernels.quantize_rows(x)
    assert torch.equal(found, expected.codes)
    assert torch.equal(zero_point[:, 0].int(), expected.zero_point)
    some = expected.codes.amax(1) > 0  # an all-zero row has another scale, which nothing is multiplied with
    assert torch.equal(scale[some, 0], expected.scale[some])


@given(st.integers(1, 50), st.sampled_from([1.0, 1e-30, 1e-42, 1e38, 0.0]), st.booleans(), st.integers(0, 2**32 - 1))
def test_one_row_is_quantized_as_any(k, factor, positive, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, k)).astype(np.float32)) * factor
    x = x.abs() if positive else x
    (codes, scale, zero_point), expected = int8_weights.quantize_row(x), kernels.quantize_rows(x)
    assert torch.equal(codes, expected[0])
    assert (scale, zero_point) == (float(expected[1]), int(expected[2]))


@pytest.mark.parametrize("kernel", INT8_KERNELS)
def test_a_row_alone_comes_out_as_among_others(kernel):
    """But for the rounding of float32: zero points are subtracted by another call."""
    x = torch.randn(5, 384, generator=torch.Generator().manual_seed(0))
    with only(kernel):
        held = kernels.Int8Weights(codes(96, 384, low=-127), torch.rand(96) + 0.1, few_rows=True)
        together, alone = held.linear(x), torch.cat([held.linear(row) for row in x.split(1)])
    torch.testing.assert_close(alone, together, rtol=2**-20, atol=2**-20 * float(together.abs().max()))


@pytest.mark.parametrize("kernel", INT8_KERNELS)
@given(st.integers(0, 20), st.integers(1, 90), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_layer_of_integers_is_exact(kernel, m, k, n, seed):
    """Activations that are whole numbers from -128 to 127, 0 step lost: the product is that of int64."""
    a, w = codes(m, k, seed), codes(n, k, seed + 1, low=-127)
    a[:, :1] = -128  # each row spans a range of 255 steps of 1, or its K is 1
    a[:, 1:2] = 127
    if k == 1:
        a[:] = torch.where(a < 0, -128, 0).to(torch.int8)
    with only(kernel):
        held = kernels.Int8Weights(w, torch.ones(n), few_rows=True)
        out = held.linear(a.float())
    if k > 1:
        assert torch.equal(out.double(), exactly(a, w.t()).double())
    else:  # a scale of 128/255 is no whole number: what float32 rounds
        torch.testing.assert_close(out.double(), exactly(a, w.t()).double(), rtol=2**-20, atol=0)


def test_all_kernels_give_the_same_bits():
    x = torch.randn(33, 384, generator=torch.Generator().manual_seed(0))
    quantized = quantize(
        torch.randn(96, 384, generator=torch.Generator().manual_seed(1)), Scheme(granularity=PerAxis(0))
    )
    outputs = {}
    for kernel in INT8_KERNELS:
        with only(kernel):
            held = kernels.Int8Weights(quantized.codes, quantized.scale, few_rows=True)
        assert held.kernel == kernel
        assert torch.equal(held.plain()["codes"], quantized.codes)
        outputs[kernel] = held.linear(x)
    for kernel, output in outputs.items():
        assert torch.equal(output, outputs[kernels.PORTABLE]), f"{kernel} differs"


def test_w8a8_is_the_product_of_what_was_quantized():
    """All error is quantization's: against the dequantized operands only float32 rounding is left."""
    x = torch.randn(17, 500, generator=torch.Generator().manual_seed(2)).relu()
    w = torch.randn(40, 500, generator=torch.Generator().manual_seed(3))
    qx = quantize(x, Scheme(8, symmetric=False, granularity=PerAxis(0)))
    qw = quantize(w, Scheme(8, granularity=PerAxis(0)))
    expected = dequantize(qx).double() @ dequantize(qw).double().t()
    found = kernels.Int8Weights(qw.codes, qw.scale).linear(x).double()
    terms = dequantize(qx).double().abs() @ dequantize(qw).double().abs().t()
    assert bool((found - expected).abs().le(2**-20 * terms).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_comes_out_so_and_alone(value):
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    held = kernels.Int8Weights(codes(8, 64, low=-127), torch.ones(8), few_rows=True)
    clean = held.linear(x)
    x[1, 5] = value
    found = held.linear(x)
    assert not bool(torch.isfinite(found[1]).any())
    assert not bool(torch.isfinite(held.linear(x[1:2])).any())
    assert torch.equal(found[[0, 2, 3]], clean[[0, 2, 3]])


def test_weights_too_long_for_int32_are_refused():
    with pytest.raises(ValueError, match="may not fit into int32"):
        kernels.Int8Weights(torch.zeros(1, kernels.MOST_UNSIGNED + 1, dtype=torch.int8), torch.ones(1))


def test_a_kernel_that_saturates_is_not_used(monkeypatch):
    """Where bytes are multiplied in pairs and added up in 16 bits, 255 * 127 * 2 does not fit."""
    for name in ("_multiply", "_multiply_fbgemm"):
        product = getattr(int8_weights, name)
        saturating = lambda *given, product=product: product(*given).clamp(-(2**15), 2**15 - 1)  # noqa: E731
        monkeypatch.setattr(int8_weights, name, saturating)
    probes.why_not.cache_clear()
    try:
        assert "not exact" in probes.why_not(kernels.ONEDNN, "cpu")
        held = kernels.Int8Weights(codes(8, 64, low=-127), torch.ones(8), few_rows=True)
        assert held.kernel not in (kernels.ONEDNN, kernels.FBGEMM)
        assert "oneDNN, packed once is not exact here" in kernels.report()
    finally:
        probes.why_not.cache_clear()
