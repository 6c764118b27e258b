"""pack_int4: no code wraps, and other packings are not mistaken for this one."""

import numpy as np
import pytest

from labutils.arrays import packing
from labutils.labs.answers import pack_int4, quantize_group
from tests.arrays.bad_inputs import BAD_CODES, refuses, table
from tests.labs.right_answers import passes

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("group_size", [4, 7, 64])
def test_tensors_are_packed_into_the_same_bytes(group_size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(3, 5, 30)).astype(np.float32)
    q, _ = quantize_group(x, 4, group_size)
    assert np.array_equal(pack_int4(torch.from_numpy(q)), pack_int4(q))


# Bad input.


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    for function in (pack_int4, lambda q: packing.pack(q, 2)):
        refuses(kind, ("q ", *words), function, codes)


@pytest.mark.parametrize("code", [-9, 8, 100, -128])
def test_a_code_that_four_bits_cannot_hold_is_not_wrapped(code):
    refuses(ValueError, ("signed 4-bit codes lie between -8 and 7", f"q holds {code}"), pack_int4, np.array([1, code]))


def test_offset_binary_codes_are_not_taken_for_twos_complement():
    unsigned = np.array([0, 15], np.uint8)
    refuses(TypeError, ("q must hold signed codes", "uint8"), pack_int4, unsigned)
    assert packing.unpack(packing.pack(unsigned, 4), 4, 2, signed=False).tolist() == [0, 15]


@pytest.mark.parametrize("num_bits", [1, 9, 0, -4, 4.0, "4", None, True])
def test_only_widths_from_2_to_8_are_packed(num_bits):
    kind = ValueError if isinstance(num_bits, int) and num_bits is not True else TypeError
    refuses(kind, ("num_bits",), packing.pack, np.array([[3, -7, 1, 5, 3, -7]], dtype=np.int8), num_bits)
    refuses(kind, ("num_bits",), packing.unpack, np.zeros(3, np.uint8), num_bits, 6)


def test_other_slips_of_packing_are_named():
    refuses(ValueError, ("at least one axis", "shape ()"), packing.pack, np.int8(3), 4)
    refuses(TypeError, ("signed must be True or False, got 1",), packing.unpack, np.zeros(3, np.uint8), 4, 6, 1)


# Right answers, however they are written.


def mask_shift_or(q):
    even = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)]).astype(np.uint8)
    return (even[..., ::2] & 15) | ((even[..., 1::2] & 15) << 4)


def modulo_and_sixteen(q):
    unsigned = np.where(q < 0, q + 16, q).astype(np.int64)
    if unsigned.shape[-1] % 2:
        unsigned = np.concatenate([unsigned, np.zeros_like(unsigned[..., :1])], axis=-1)
    return (unsigned[..., 0::2] + 16 * unsigned[..., 1::2]).astype(np.uint8)


def byte_by_byte(q):
    rows = []
    for row in q.reshape(-1, q.shape[-1]).tolist():
        row = row + [0] * (len(row) % 2)
        rows.append([row[i] % 16 + row[i + 1] % 16 * 16 for i in range(0, len(row), 2)])
    return np.array(rows, dtype=np.uint8).reshape(*q.shape[:-1], -1)


def into_an_empty_array(q):
    packed = np.zeros((*q.shape[:-1], (q.shape[-1] + 1) // 2), dtype=np.uint8)
    packed[...] = q[..., ::2] & 0xF
    packed[..., : q.shape[-1] // 2] |= (q[..., 1::2].astype(np.uint8) << 4).astype(np.uint8)
    return packed


def as_16_bit_words(q):
    even = np.ascontiguousarray(np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)]))
    words = even.view("<u2")
    return ((words & 0x0F) | ((words >> 4) & 0xF0)).astype(np.uint8)


def bits_by_packbits(q):
    bits = (q[..., None].astype(np.int64) >> np.arange(4)) & 1
    return np.packbits(bits.astype(bool).reshape(*q.shape[:-1], -1), axis=-1, bitorder="little")


def torch_pack(q):
    import torch

    t = torch.tensor(np.ascontiguousarray(q))
    t = torch.nn.functional.pad(t, (0, t.shape[-1] % 2)).to(torch.uint8) & 15
    return t[..., ::2] | (t[..., 1::2] << 4)


RIGHT = [
    mask_shift_or,
    modulo_and_sixteen,
    byte_by_byte,
    into_an_empty_array,
    as_16_bit_words,
    bits_by_packbits,
    torch_pack,
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("pack_int4", answer)
