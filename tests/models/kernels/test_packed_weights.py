"""Packed weights are what was packed, on every kernel."""

import pytest
import torch

from labutils.arrays.affine import choose_qparams, dequantize, quantize
from labutils.arrays.packing import pack
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.models import kernels


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


def require_bfloat16_of(held, weight):
    """The product on the int4 kernel is that with `weight`: x, weight and result are each rounded by at most 2^-9."""
    if held.kernel == kernels.PORTABLE:
        pytest.skip(kernels.report())
    x = torch.randn(9, weight.shape[1], generator=torch.Generator().manual_seed(1))
    assert bool((held.linear(x) - x @ weight.t()).abs().le(4 * 2**-9 * (x.abs() @ weight.abs().t())).all())


@pytest.mark.parametrize(
    ("system", "machine", "capability", "why_not"),
    [
        ("linux", "x86_64", "DEFAULT", "not with DEFAULT"),
        ("linux", "x86_64", "NO AVX", "not with NO AVX"),
        ("win32", "AMD64", "AVX512", "on Windows"),
        ("linux", "x86_64", "AVX2", ""),
        ("darwin", "arm64", "DEFAULT", ""),
        ("linux", "aarch64", "SVE256", ""),
    ],
)
def test_where_torch_has_no_vector_code_for_the_int4_kernel_it_is_left_alone(
    monkeypatch, system, machine, capability, why_not
):
    arguments, _ = packed_weight(16, 64, Scheme(4, granularity=PerGroup(32)))
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(kernels.probes, "why_not", lambda kernel, device: "")
    assert kernels.hold_packed(*arguments).kernel == (kernels.PORTABLE if why_not else kernels.INT4PACK)
    assert why_not in kernels.report()


PLAIN = [(16, 32, 32), (64, 128, 64), (48, 96, 32), (384, 256, 256)]
IN_SMALLER_GROUPS = [(16, 1024, 512), (32, 576, 128), (16, 576, 576), (48, 160, 96)]


@pytest.mark.parametrize(("rows", "length", "group_size"), PLAIN + IN_SMALLER_GROUPS)
def test_the_int4_kernel_agrees_with_the_portable_one_within_bfloat16(rows, length, group_size):
    arguments, weight = packed_weight(rows, length, Scheme(4, granularity=PerGroup(group_size)))
    require_bfloat16_of(kernels.hold_packed(*arguments), weight)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("num_bits", [2, 3, 4])
@pytest.mark.parametrize(("rows", "length", "group_size"), [(16, 64, 32), (10, 100, 48), (5, 576, 128), (33, 80, 16)])
def test_repacked_weights_are_what_was_packed(rows, length, group_size, num_bits, symmetric):
    arguments, weight = packed_weight(rows, length, Scheme(num_bits, symmetric, PerGroup(group_size)))
    held = kernels.hold_packed(*arguments, repack=True)
    require_bfloat16_of(held, weight)
    assert torch.equal(held.dequantize(), weight)
    plain = kernels.PackedWeights(*arguments).plain()
    assert held.plain().keys() == plain.keys()
    assert all(torch.equal(held.plain()[name], plain[name]) for name in plain)


@pytest.mark.parametrize("low", [0, 1, 15], ids=["positive", "mixed", "negative"])
def test_every_difference_of_4_bits_from_its_zero_point_is_exact_on_the_int4_kernel(low):
    """Multiplied with a row of the identity, a weight of whole numbers comes out as it is."""
    codes = torch.arange(16, dtype=torch.uint8).repeat(16, 2)  # (16, 32)
    zero_point = torch.full((16, 1), low, dtype=torch.uint8)
    scheme = Scheme(4, symmetric=False, granularity=PerGroup(32))
    held = kernels.hold_packed(pack(codes, 4), torch.ones(16, 1).bfloat16(), zero_point, scheme, 32, repack=True)
    assert torch.equal(held.linear(torch.eye(32)).t(), codes.float() - low)


def test_bytes_of_repacked_weights_are_those_of_the_kernel():
    """4 bits a code, a scale and a zero of 16 bits for each of the kernel's groups; two codes of 4 bits need twice."""
    for num_bits, symmetric, expected in (
        (3, True, 32 * 96 // 2 + 32 * 3 * 4),
        (3, False, 32 * 96 // 2 + 32 * 3 * 4 + 32 * 3),
        (4, False, 2 * 32 * 96 // 2 + 32 * 3 * 4 + 32 * 3),
    ):
        arguments, _ = packed_weight(32, 96, Scheme(num_bits, symmetric, PerGroup(32)))
        held = kernels.hold_packed(*arguments, repack=True)
        assert held.kernel == kernels.PORTABLE or held.nbytes == expected


def test_codes_with_a_zero_point_do_not_go_to_a_kernel_that_would_round_it():
    arguments, _ = packed_weight(16, 32, Scheme(4, symmetric=False, granularity=PerGroup(32)))
    assert kernels.hold_packed(*arguments).kernel == kernels.PORTABLE


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
    [(10, 64, 32), (16, 80, 32), (16, 64, 16), (1, 1, 32)],
)
def test_a_weight_that_would_take_more_memory_on_the_int4_kernel_is_held_portably(rows, length, group_size):
    arguments, weight = packed_weight(rows, length, Scheme(4, granularity=PerGroup(group_size)))
    held = kernels.hold_packed(*arguments)
    assert held.kernel == kernels.PORTABLE
    assert torch.equal(held.dequantize(), weight)


@pytest.mark.parametrize(("num_bits", "length", "group_size"), [(5, 64, 32), (4, 64, 8), (3, 1, 32)])
def test_what_the_int4_kernel_cannot_hold_is_not_repacked(num_bits, length, group_size):
    arguments, weight = packed_weight(16, length, Scheme(num_bits, granularity=PerGroup(group_size)))
    held = kernels.hold_packed(*arguments, repack=True)
    assert held.kernel == kernels.PORTABLE
    assert torch.equal(held.dequantize(), weight)
