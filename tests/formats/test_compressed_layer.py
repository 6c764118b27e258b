"""Weights are stored as the package compressed-tensors stores them, and read back by it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
library = pytest.importorskip("compressed_tensors")

from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationScheme

from labutils import E4M3, FP8, MXFP4, MXFP8, NF4, NVFP4, PerAxis, PerGroup, PerTensor, Scheme, dequantize, quantize
from labutils.formats.compressed_layer import format_of, pack_int32, stored_weight, weight_arguments

GROUPS = PerGroup(32)
INTEGERS = [
    Scheme(4, True, GROUPS),
    Scheme(4, False, GROUPS),
    Scheme(3, True, PerAxis(0)),
    Scheme(3, False, PerAxis(-2)),
    Scheme(2, True, PerTensor()),
    Scheme(5, False, PerGroup(96)),
    Scheme(6, True, PerGroup(16)),
    Scheme(7, False, GROUPS),
    Scheme(8, True, PerAxis(0)),
    Scheme(8, False, GROUPS),
]
FLOATS = [FP8, Scheme(grid=E4M3), MXFP8, MXFP4, NVFP4]


def read_back(stored, scheme, stored_format):
    args = QuantizationScheme(targets=["Linear"], weights=weight_arguments(scheme))
    return BaseCompressor.get_value_from_registry(stored_format).decompress(stored, args)["weight"]


def weight(rows=40, columns=96):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.05


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("length", [1, 7, 8, 31, 32, 33, 100])
def test_words_are_those_of_the_library(bits, length):
    half = 2 ** (bits - 1)
    q = torch.randint(-half, half, (3, length), generator=torch.Generator().manual_seed(length), dtype=torch.int8)
    packed = pack_int32(q, bits)
    assert torch.equal(packed, pack_to_int32(q, bits))
    assert torch.equal(unpack_from_int32(packed, bits, q.shape), q)
    assert np.array_equal(pack_int32(q.numpy(), bits), packed.numpy())


def test_a_word_is_the_sum_that_it_stands_for():
    q = np.array([-8, 7, 0, -1, 3, -5, 6, 2], dtype=np.int64)
    assert int(pack_int32(q).view(np.uint32)[0]) == sum((int(code) + 8) * 16**i for i, code in enumerate(q))


@pytest.mark.parametrize(
    ("q", "bits", "error", "sentence"),
    [
        (np.array([8], np.int8), 4, ValueError, "between -8 and 7, but q holds 8"),
        (np.array([-300], np.int16), 8, ValueError, "between -128 and 127, but q holds -300"),
        (np.array([3], np.uint8), 4, TypeError, "signed integer dtype, got uint8"),
        (np.array([1.0]), 4, TypeError, "integer"),
        (np.array(1), 4, ValueError, "at least one axis"),
        (np.array([1], np.int8), 9, ValueError, "between 2 and 8"),
        ([1, 2], 4, TypeError, "list"),
    ],
)
def test_what_cannot_be_packed_is_refused(q, bits, error, sentence):
    with pytest.raises(error, match=sentence):
        pack_int32(q, bits)


@pytest.mark.parametrize("scheme", INTEGERS, ids=repr)
def test_the_library_dequantizes_integers_to_the_same_numbers(scheme):
    quantized = quantize(weight(), scheme)
    stored = stored_weight(quantized)
    assert torch.equal(read_back(stored, scheme, "pack-quantized"), dequantize(quantized))


def test_bytes_are_those_that_the_library_makes_of_the_same_codes():
    scheme = Scheme(4, False, GROUPS)
    quantized = quantize(weight(), scheme)
    stored = stored_weight(quantized)
    args = QuantizationScheme(targets=["Linear"], weights=weight_arguments(scheme))
    state = {
        "weight": dequantize(quantized),
        "weight_scale": quantized.scale,
        "weight_zero_point": (quantized.zero_point - 8).to(torch.int8),
    }
    theirs = BaseCompressor.get_value_from_registry("pack-quantized").compress(state, args)
    assert stored.keys() == theirs.keys()
    assert all(torch.equal(stored[name], theirs[name]) for name in stored)


@pytest.mark.parametrize("scheme", FLOATS, ids=repr)
def test_the_library_dequantizes_floats_to_the_same_numbers(scheme):
    quantized = quantize(weight(), scheme)
    read = read_back(stored_weight(quantized), scheme, format_of(scheme))
    # bfloat16, to which the library dequantizes blocks, holds 8 bits: all numbers of MX formats, and NVFP4's rounded
    tolerance = 2.0**-8 if scheme == NVFP4 else 0
    assert torch.allclose(read.float(), dequantize(quantized), rtol=tolerance, atol=0)


def test_8_bit_integers_for_8_bit_activations_are_plain_bytes():
    quantized = quantize(weight(), Scheme(8, granularity=PerAxis(0)))
    stored = stored_weight(quantized, int8_inputs=True)
    assert torch.equal(stored["weight"], quantized.codes)
    assert stored["weight_scale"].shape == (40, 1)


def test_scales_take_16_bits_where_these_hold_them():
    x = weight()
    for dtype in (torch.bfloat16, torch.float16):
        scale = quantize(x, Scheme(4, granularity=GROUPS)).scale.to(dtype).float()
        assert stored_weight(quantize(x, Scheme(4, granularity=GROUPS), (scale, 0)))["weight_scale"].dtype == dtype
    assert stored_weight(quantize(x, Scheme(4, granularity=GROUPS)))["weight_scale"].dtype == torch.float32


@pytest.mark.parametrize(
    ("scheme", "sentence"),
    [
        (Scheme(9), "2 to 8 bits, got 9"),
        (Scheme(grid=NF4, granularity=GROUPS), "nothing for"),
        (Scheme(grid=E4M3, granularity=GROUPS), "nothing for"),
        (Scheme(4, granularity=PerAxis(1)), "per output"),
        (Scheme(8, False), "without zero points, per tensor"),
        (Scheme(4, granularity=PerGroup(50)), "50 does not divide 96 inputs"),
    ],
)
def test_what_the_format_lacks_is_refused(scheme, sentence):
    with pytest.raises(ValueError, match=sentence):
        weight_arguments(scheme)
        stored_weight(quantize(weight(), scheme))
