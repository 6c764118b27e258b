"""pack_int3: codes that cross from one byte into the next."""

import math

import numpy as np
import pytest

from labutils.labs.answers import pack_int3
from tests.arrays.bad_inputs import BAD_CODES, refuses, table
from tests.labs.right_answers import passes

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("codes, kind, words", **table(BAD_CODES))
def test_what_are_no_codes_is_refused(codes, kind, words):
    refuses(kind, ("q ", *words), pack_int3, codes)


def test_offset_binary_codes_are_not_taken_for_twos_complement():
    refuses(TypeError, ("q must hold signed codes", "uint8"), pack_int3, np.array([0, 15], np.uint8))


# Right answers, however they are written.


def little_packbits(q):
    bits = (q[..., None] >> np.arange(3)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(*q.shape[:-1], -1), axis=-1, bitorder="little")


def big_packbits_reversed(q):
    """np.packbits fills a byte from its highest bit: turn each byte round."""
    bits = ((q[..., None] >> np.arange(3)) & 1).astype(np.uint8).reshape(*q.shape[:-1], -1)
    bits = np.pad(bits, [(0, 0)] * (q.ndim - 1) + [(0, -bits.shape[-1] % 8)])
    return np.packbits(bits.reshape(*q.shape[:-1], -1, 8)[..., ::-1], axis=-1)[..., 0]


def one_long_integer(q):
    rows = []
    for row in q.reshape(-1, q.shape[-1]).tolist():
        number = sum((code % 8) << (3 * i) for i, code in enumerate(row))
        rows.append(list(number.to_bytes((3 * len(row) + 7) // 8, "little")))
    return np.array(rows, dtype=np.uint8).reshape(*q.shape[:-1], -1)


def bit_by_bit(q):
    packed = np.zeros((*q.shape[:-1], math.ceil(3 * q.shape[-1] / 8)), dtype=np.uint8)
    for j in range(3 * q.shape[-1]):
        bit = (q[..., j // 3].astype(int) >> (j % 3)) & 1
        packed[..., j // 8] |= (bit << (j % 8)).astype(np.uint8)
    return packed


def eight_at_a_time(q):
    n = q.shape[-1]
    codes = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -n % 8)]).astype(np.int64) & 7
    blocks = codes.reshape(*q.shape[:-1], -1, 8)
    words = (blocks << (3 * np.arange(8))).sum(axis=-1)
    pieces = np.stack([words & 255, words >> 8 & 255, words >> 16], axis=-1).astype(np.uint8)
    return pieces.reshape(*q.shape[:-1], -1)[..., : -(-3 * n // 8)]


RIGHT = [little_packbits, big_packbits_reversed, one_long_integer, bit_by_bit, eight_at_a_time]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("pack_int3", answer)
