"""pack_int32: what the library packs, and right answers however they are written."""

import numpy as np
import pytest

from labutils.labs.answers import pack_int32
from labutils.labs.lab13.pack_int32 import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

pytest.importorskip("torch")


def codes(shape, num_bits=4, seed=0):
    top = 2 ** (num_bits - 1)
    return np.random.default_rng(seed).integers(-top, top, shape).astype(np.int8)


@pytest.mark.parametrize("num_bits", [2, 4, 8])
@pytest.mark.parametrize("length", [1, 15, 16, 33])
def test_python_integers_hold_the_same_bits(num_bits, length):
    q = codes((3, length), num_bits)
    packed, shape = pack_int32(q, num_bits)
    assert shape.tolist() == [3, length]
    for row, words in zip(q.tolist(), packed.view(np.uint32).tolist()):
        stream = sum(word << 32 * i for i, word in enumerate(words))
        assert stream == sum((code + 2 ** (num_bits - 1)) << num_bits * i for i, code in enumerate(row))


def test_it_is_what_compressed_tensors_packs():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers").pack_to_int32
    for num_bits in (4, 8):
        q = codes((5, 24), num_bits)
        assert np.array_equal(pack_int32(q, num_bits)[0], theirs(torch.tensor(q), num_bits).numpy())


BAD = {
    "a code that does not fit": ((np.array([[8]], np.int8),), ValueError, ("8",)),
    "floats": ((np.ones((1, 8)),), TypeError, ("float64",)),
    "unsigned": ((np.ones((1, 8), np.uint8),), TypeError, ("uint8",)),
    "three axes": ((np.ones((1, 8, 8), np.int8),), ValueError, ("(1, 8, 8)",)),
    "one axis": ((np.ones(8, np.int8),), ValueError, ("(8,)",)),
    "3 bits": ((np.ones((1, 8), np.int8), 3), ValueError, ("3",)),
    "no array": (([[1, 2]],), TypeError, ()),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_are_no_codes_is_refused(args, kind, words):
    refuses(kind, words, pack_int32, *args)


def by_loops(q, num_bits=4):
    count = 32 // num_bits
    packed = []
    for row in q.tolist():
        words = []
        for start in range(0, len(row), count):
            word = 0
            for i, code in enumerate(row[start : start + count]):
                word |= (code + 2 ** (num_bits - 1)) << (i * num_bits)
            words.append(word if word < 2**31 else word - 2**32)
        packed.append(words)
    return np.array(packed, dtype=np.int32), q.shape


def by_shifts(q, num_bits=4):
    count = 32 // num_bits
    unsigned = (q.astype(np.int64) + 2 ** (num_bits - 1)).astype(np.uint32)
    unsigned = np.pad(unsigned, [(0, 0), (0, -q.shape[1] % count)]).reshape(len(q), -1, count)
    words = np.bitwise_or.reduce(unsigned << (np.arange(count) * num_bits).astype(np.uint32), axis=-1)
    return words.astype(np.uint32).view(np.int32), np.array(q.shape, dtype=np.int64)


def by_powers(q, num_bits=4):
    count = 32 // num_bits
    packed = np.zeros((q.shape[0], -(-q.shape[1] // count)), dtype=np.int64)
    for column in range(q.shape[1]):
        place = column % count
        packed[:, column // count] += (q[:, column].astype(np.int64) + 2 ** (num_bits - 1)) * 2 ** (num_bits * place)
    return packed.astype(np.int32), list(q.shape)


def by_bytes(q, num_bits=4):
    in_a_byte = 8 // num_bits
    u = (q.astype(np.int16) + (1 << (num_bits - 1))).astype(np.uint8)
    u = np.pad(u, ((0, 0), (0, -u.shape[1] % (4 * in_a_byte))))
    stored = sum(u[:, i::in_a_byte] << (i * num_bits) for i in range(in_a_byte)).astype(np.uint8)
    return np.ascontiguousarray(stored).view("<i4"), np.array(q.shape)


def in_torch(q, num_bits=4):
    import torch

    count = 32 // num_bits
    u = torch.tensor(np.ascontiguousarray(q)).to(torch.int32) + 2 ** (num_bits - 1)
    u = torch.nn.functional.pad(u, (0, -u.shape[1] % count)).reshape(len(u), -1, count)
    return (u << (torch.arange(count, dtype=torch.int32) * num_bits)).sum(-1, dtype=torch.int32), torch.tensor(q.shape)


RIGHT = [by_loops, by_shifts, by_powers, by_bytes, in_torch, right]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: getattr(answer, "__name__", "the recipe"))
def test_a_right_answer_passes(answer):
    passes("pack_int32", answer)
