"""Integer products are exact on every kernel, and the kernels agree bit for bit."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.affine import choose_qparams, dequantize, quantize
from labutils.arrays.packing import pack
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models import kernels

INT8_KERNELS = (kernels.ONEDNN, kernels.INT_MM, kernels.PORTABLE)


@contextmanager
def only(kernel):
    """All kernels switched off but one; skips where this machine lacks it."""
    if kernel != kernels.PORTABLE and kernels._inexact(kernel, "cpu"):
        pytest.skip(kernels._inexact(kernel, "cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_inexact", lambda name, device: "" if name == kernel else "switched off")
        yield


def codes(rows, columns, seed=0, low=-128, high=127):
    drawn = np.random.default_rng(seed).integers(low, high, (rows, columns), endpoint=True)
    return torch.from_numpy(drawn.astype(np.int8))


def exactly(a, b):
    """a @ b in int64."""
    return torch.from_numpy(a.numpy().astype(np.int64) @ b.numpy().astype(np.int64))


# --- int_matmul -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [kernels.INT_MM, kernels.PORTABLE])
@given(st.integers(0, 40), st.integers(1, 70), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_int_matmul_is_exact(kernel, m, k, n, seed):
    a, b = codes(m, k, seed), codes(k, n, seed + 1)
    with only(kernel):
        product = kernels.int_matmul(a, b)
    assert product.dtype == torch.int32
    assert torch.equal(product.long(), exactly(a, b))


@pytest.mark.parametrize("kernel", [kernels.INT_MM, kernels.PORTABLE])
def test_the_longest_sum_of_the_largest_products_fits(kernel):
    a = torch.full((1, kernels.MOST_PRODUCTS), -128, dtype=torch.int8)
    with only(kernel):
        assert int(kernels.int_matmul(a, a.t())) == 2**14 * kernels.MOST_PRODUCTS
        assert int(kernels.int_matmul(a, (-a - 1).t())) == -128 * 127 * kernels.MOST_PRODUCTS


def test_a_sum_that_might_not_fit_is_refused():
    a = torch.zeros(1, kernels.MOST_PRODUCTS + 1, dtype=torch.int8)
    with pytest.raises(ValueError, match="sums of 131072 products may not fit"):
        kernels.int_matmul(a, a.t())


VIEWS = {
    "strided": (codes(64, 96)[::2, ::3], codes(48, 32, 1).t()[:, ::2]),
    "a transposed column as a row": (codes(40, 1).t(), codes(40, 3, 1)),
    "a row that is a column's view": (codes(5, 1), codes(7, 1, 1).t()),
    "one element": (codes(1, 1).t(), codes(1, 1, 1).t()),
    "all rows one row": (codes(1, 32).expand(4, 32), codes(32, 8, 1)),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kernel", [kernels.INT_MM, kernels.PORTABLE])
def test_views_are_multiplied_as_what_they_show(kernel, view):
    a, b = VIEWS[view]
    b = b[: a.shape[1]]
    with only(kernel):
        assert torch.equal(kernels.int_matmul(a, b).long(), exactly(a, b))


@pytest.mark.parametrize(
    ("a", "b", "error", "says"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.int8), TypeError, "a must be an int8 tensor.*float32"),
        (codes(2, 3), codes(3, 2).to(torch.uint8), TypeError, "b must be an int8 tensor.*uint8"),
        (codes(2, 3), np.zeros((3, 2), np.int8), TypeError, "b must be an int8 tensor, got ndarray"),
        (codes(2, 3), None, TypeError, "b must be an int8 tensor, got NoneType"),
        (codes(2, 3)[0], codes(3, 2), ValueError, r"a must have two axes, got shape \(3,\)"),
        (codes(2, 3), codes(2, 3), ValueError, "a has 3 columns, but b has 2 rows"),
    ],
)
def test_what_cannot_be_multiplied_is_refused(a, b, error, says):
    with pytest.raises(error, match=says):
        kernels.int_matmul(a, b)


# --- 8-bit weights ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 50), st.sampled_from([1.0, 1e-30, 1e30, 0.0]), st.integers(0, 2**32 - 1))
def test_rows_are_quantized_as_by_affine(m, k, factor, seed):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(m, k)).astype(np.float32)) * factor
    expected = quantize(x, Scheme(8, symmetric=False, granularity=PerAxis(0)))
    found, scale, zero_point = kernels.quantize_rows(x)
    assert torch.equal(found, expected.codes)
    assert torch.equal(zero_point[:, 0].int(), expected.zero_point)
    some = expected.codes.amax(1) > 0  # an all-zero row has another scale, which nothing is multiplied with
    assert torch.equal(scale[some, 0], expected.scale[some])


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
        held = kernels.Int8Weights(w, torch.ones(n))
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
            held = kernels.Int8Weights(quantized.codes, quantized.scale)
        assert held.kernel == kernel
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
    held = kernels.Int8Weights(codes(8, 64, low=-127), torch.ones(8))
    clean = held.linear(x)
    x[1, 5] = value
    found = held.linear(x)
    assert not bool(torch.isfinite(found[1]).any())
    assert torch.equal(found[[0, 2, 3]], clean[[0, 2, 3]])


def test_weights_too_long_for_int32_are_refused():
    with pytest.raises(ValueError, match="may not fit into int32"):
        kernels.Int8Weights(torch.zeros(1, kernels.MOST_UNSIGNED + 1, dtype=torch.int8), torch.ones(1))


def test_a_kernel_that_saturates_is_not_used(monkeypatch):
    """Where bytes are multiplied in pairs and added up in 16 bits, 255 * 127 * 2 does not fit."""
    product = kernels._onednn
    monkeypatch.setattr(kernels, "_onednn", lambda *given: product(*given).clamp(-(2**15), 2**15 - 1))
    kernels._inexact.cache_clear()
    try:
        assert "not exact" in kernels._inexact(kernels.ONEDNN, "cpu")
        assert kernels.Int8Weights(codes(8, 64, low=-127), torch.ones(8)).kernel != kernels.ONEDNN
        assert "oneDNN, packed once is not exact here" in kernels.report()
    finally:
        kernels._inexact.cache_clear()


# --- packed weights ---------------------------------------------------------------------------------------------------


def packed_weight(rows, length, scheme, seed=0):
    """The arguments of PackedWeights, and the weight that they stand for."""
    w = torch.randn(rows, length, generator=torch.Generator().manual_seed(seed))
    scale, zero_point = choose_qparams(w, scheme)
    scale = scale.to(torch.bfloat16)
    quantized = quantize(w, scheme, (scale.float(), zero_point))
    stored = None if scheme.symmetric else zero_point.to(torch.uint8)
    return (pack(quantized.codes, scheme.num_bits), scale, stored, scheme, length), dequantize(quantized)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("num_bits", "group_size", "length"), [(2, 16, 48), (3, 32, 100), (4, 32, 64), (8, 200, 70)])
def test_packed_weights_are_what_was_packed(num_bits, group_size, length, symmetric):
    arguments, weight = packed_weight(24, length, Scheme(num_bits, symmetric, PerGroup(group_size)))
    held = kernels.PackedWeights(*arguments)
    assert torch.equal(held.dequantize(), weight)
    x = torch.randn(5, length, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(held.linear(x), x @ weight.t(), rtol=0, atol=2**-20 * length * float(weight.abs().max()))
    assert held.nbytes == 24 * (-(-length * num_bits // 8) + -(-length // group_size) * (2 if symmetric else 3))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("rows", "length", "group_size"), [(16, 32, 32), (64, 128, 64), (48, 96, 32), (384, 256, 256)])
def test_the_int4_kernel_agrees_with_the_portable_one_within_bfloat16(rows, length, group_size, symmetric):
    arguments, weight = packed_weight(rows, length, Scheme(4, symmetric, PerGroup(group_size)))
    held = kernels.hold_packed(*arguments)
    if held.kernel == kernels.PORTABLE:
        pytest.skip(kernels.report())
    x = torch.randn(9, length, generator=torch.Generator().manual_seed(1))
    # x, weight and result are each rounded to 8 bits, a relative 2^-9; so is the zero, up to 8 steps away.
    terms = x.abs() @ (weight.abs() + 8 * arguments[1].float().repeat_interleave(group_size, 1)).t()
    assert bool((held.linear(x) - x @ weight.t()).abs().le(4 * 2**-9 * terms).all())


@pytest.mark.parametrize("symmetric", [True, False])
def test_what_the_int4_kernel_holds_can_be_read_back(symmetric):
    arguments, weight = packed_weight(48, 512, Scheme(4, symmetric, PerGroup(128)))
    held = kernels.hold_packed(*arguments)
    plain = {"packed": arguments[0], "scale": arguments[1]} | ({} if symmetric else {"zero_point": arguments[2]})
    assert held.plain().keys() == plain.keys()
    assert all(torch.equal(held.plain()[name], plain[name]) for name in plain)
    assert torch.equal(held.dequantize(), weight)


@pytest.mark.parametrize(
    ("rows", "length", "group_size"),
    [(10, 64, 32), (16, 80, 32), (16, 64, 16), (16, 1024, 512), (1, 1, 32)],
)
def test_a_weight_that_does_not_fit_the_int4_kernel_is_held_portably(rows, length, group_size):
    arguments, weight = packed_weight(rows, length, Scheme(4, granularity=PerGroup(group_size)))
    held = kernels.hold_packed(*arguments)
    assert held.kernel == kernels.PORTABLE
    assert torch.equal(held.dequantize(), weight)


def test_the_report_names_the_kernel_of_each():
    lines = kernels.report().splitlines()
    assert [line.split()[0] for line in lines] == ["int_matmul", "Int8Weights", "Int4Weights"]
    held = kernels.Int8Weights(codes(8, 64, low=-127), torch.ones(8))
    assert held.kernel in lines[1]
    assert "portable" in kernels.report("nowhere")


def test_the_number_of_threads_is_as_it_was_also_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), kernels.one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
