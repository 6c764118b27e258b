"""unpack_int4: the inverse of pack_int4, for bytes that are these codes."""

import numpy as np
import pytest

from labutils.labs.answers import pack_int4, quantize_group, unpack_int4
from tests.arrays.bad_inputs import BAD_CODES, NO_INT, refuses, table
from tests.labs.right_answers import passes

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("group_size", [4, 7, 64])
def test_what_was_packed_comes_back_from_tensors_and_arrays(group_size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(3, 5, 30)).astype(np.float32)
    q, _ = quantize_group(x, 4, group_size)
    for packed in (pack_int4(q), pack_int4(torch.from_numpy(q))):
        assert np.array_equal(unpack_int4(packed, 30), q)


# Bad input.


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_bytes_is_refused(codes, kind, words):
    refuses(kind, ("packed ", *words), unpack_int4, codes, 2)


BAD_BYTES = {
    "int8": (np.array([1, 2], np.int8), 4, TypeError, ("bytes of dtype uint8, got dtype int8",)),
    "int64": (np.array([1, 2]), 4, TypeError, ("bytes of dtype uint8, got dtype int64",)),
    "too short": (np.zeros(2, np.uint8), 5, ValueError, ("5 codes of 4 bits take 3 bytes", "shape (2,)")),
    "too long": (np.zeros((3, 4), np.uint8), 5, ValueError, ("5 codes of 4 bits take 3 bytes", "shape (3, 4)")),
    "0-d": (np.uint8(3), 1, ValueError, ("1 codes of 4 bits take 1 bytes", "shape ()")),
    "a code after the last": (np.array([0, 0x10], np.uint8), 3, ValueError, ("more than 3 codes", "are not 0")),
    "length 0": (np.zeros(1, np.uint8), 0, ValueError, ("length must be at least 1, got 0",)),
    "length -1": (np.zeros(1, np.uint8), -1, ValueError, ("length must be at least 1, got -1",)),
    "length 2.0": (np.zeros(1, np.uint8), 2.0, TypeError, ("length", NO_INT, "2.0")),
    "length True": (np.zeros(1, np.uint8), True, TypeError, ("length", NO_INT, "True")),
    "length None": (np.zeros(1, np.uint8), None, TypeError, ("length", NO_INT, "None")),
}


@pytest.mark.parametrize("packed, length, kind, words", **table(BAD_BYTES))
def test_bytes_that_are_not_these_codes_are_refused(packed, length, kind, words):
    refuses(kind, words, unpack_int4, packed, length)


# Right answers, however they are written.


def stack_and_subtract(packed, length):
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)[..., :length]
    return np.where(codes >= 8, codes.astype(np.int8) - 16, codes).astype(np.int8)


def arithmetic_shifts(packed, length):
    signed = packed.view(np.int8)
    pairs = np.stack([np.left_shift(signed, 4) >> 4, signed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)[..., :length]


def xor_and_subtract(packed, length):
    codes = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), dtype=np.int8)
    codes[..., ::2] = packed & 15
    codes[..., 1::2] = packed >> 4
    return ((codes ^ 8) - 8)[..., :length]


def by_lookup(packed, length):
    table = np.array([*range(8), *range(-8, 0)], dtype=np.int8)
    low, high = table[packed & 15], table[packed // 16]
    return np.stack([low, high], -1).reshape(*packed.shape[:-1], -1)[..., :length]


def code_by_code(packed, length):
    codes = np.zeros((*packed.shape[:-1], length), dtype=np.int8)
    for i in range(length):
        nibble = (packed[..., i // 2].astype(int) >> (4 * (i % 2))) % 16
        codes[..., i] = (nibble + 8) % 16 - 8
    return codes


def torch_unpack(packed, length):
    import torch

    t = torch.tensor(packed)
    codes = torch.stack([t & 15, t >> 4], dim=-1).flatten(-2).to(torch.int8)[..., :length]
    return torch.where(codes > 7, codes - 16, codes)


RIGHT = [stack_and_subtract, arithmetic_shifts, xor_and_subtract, by_lookup, code_by_code, torch_unpack]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("unpack_int4", answer)
