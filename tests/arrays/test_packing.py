"""Packing loses no bit and wastes none, and refuses what would not fit."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays import packing
from labutils.arrays.packing import TILE, pack, packed_length, unpack

WIDTHS = range(2, 9)


def limits(num_bits, signed):
    return (-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1) if signed else (0, 2**num_bits - 1)


def random_codes(shape, num_bits, signed=True, seed=0):
    low, high = limits(num_bits, signed)
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(np.int8 if signed else np.uint8)


@st.composite
def codes(draw):
    """(codes, width) of up to four axes, odd lengths among them, signed or not."""
    num_bits, signed = draw(st.sampled_from(WIDTHS)), draw(st.booleans())
    low, high = limits(num_bits, signed)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=19))
    dtype = draw(st.sampled_from([np.int8, np.int16, np.int64] if signed else [np.uint8, np.uint16, np.uint64]))
    return draw(hnp.arrays(dtype, shape, elements=st.integers(low, high))), num_bits


def by_hand(q, num_bits):
    """The definition, a row at a time: one long number, code i shifted up by i widths, as little-endian bytes."""
    rows = []
    for row in q.reshape(-1, q.shape[-1]):
        number = sum((int(code) % 2**num_bits) << (i * num_bits) for i, code in enumerate(row))
        rows.append(list(number.to_bytes(packed_length(len(row), num_bits), "little")))
    return np.array(rows, np.uint8).reshape(*q.shape[:-1], -1)


@given(codes())
def test_unpacking_gives_back_every_code_of_every_shape_and_width(given):
    q, num_bits = given
    back = unpack(pack(q, num_bits), num_bits, q.shape[-1], signed=q.dtype.kind == "i")
    assert back.dtype == (np.int8 if q.dtype.kind == "i" else np.uint8)
    assert np.array_equal(back, q)


@given(codes())
def test_packed_bytes_are_those_of_the_definition(given):
    q, num_bits = given
    packed = pack(q, num_bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (*q.shape[:-1], -(-q.shape[-1] * num_bits // 8))
    assert np.array_equal(packed, by_hand(q, num_bits))


@given(codes())
def test_torch_packs_the_same_bytes(given):
    torch = pytest.importorskip("torch")
    q, num_bits = given
    if q.dtype in (np.uint16, np.uint64):
        q = q.astype(np.uint8)
    packed = pack(torch.from_numpy(q), num_bits)
    assert isinstance(packed, torch.Tensor) and packed.dtype == torch.uint8
    assert np.array_equal(packed.numpy(), pack(q, num_bits))
    assert np.array_equal(unpack(packed, num_bits, q.shape[-1], q.dtype.kind == "i").numpy(), q)


@pytest.mark.parametrize("num_bits", WIDTHS)
def test_the_path_for_accelerators_gives_the_same_bytes(num_bits, monkeypatch):
    torch = pytest.importorskip("torch")
    q = random_codes((5, 77), num_bits)
    expected = pack(q, num_bits)
    monkeypatch.setattr(packing, "numpy_on_cpu", lambda xp, x: (xp, x))  # tensors stay tensors, as on a GPU
    packed = pack(torch.from_numpy(q), num_bits)
    assert np.array_equal(packed.numpy(), expected)
    assert np.array_equal(unpack(packed, num_bits, 77).numpy(), q)


@pytest.mark.parametrize("num_bits", WIDTHS)
@pytest.mark.parametrize("shape", [(TILE + 13,), (3, TILE + 1), (700, 301)], ids=str)
def test_codes_on_both_sides_of_a_tile_keep_their_place(shape, num_bits):
    q = random_codes(shape, num_bits)
    assert np.array_equal(unpack(pack(q, num_bits), num_bits, shape[-1]), q)


@pytest.mark.parametrize("view", [lambda q: q.T, lambda q: q[:, ::3], lambda q: q[::-1], lambda q: q[:, 1:]])
def test_how_codes_lie_in_memory_does_not_matter(view):
    q = view(random_codes((24, 30), 3))
    assert np.array_equal(pack(q, 3), pack(np.ascontiguousarray(q), 3))


def test_packing_does_not_touch_what_it_is_given():
    q = random_codes((8, 64), 4)
    q.flags.writeable = False
    packed = pack(q, 4)
    packed.flags.writeable = False
    unpack(packed, 4, 64)
    eight = random_codes((8, 64), 8)
    pack(eight, 8)[...] = 0
    assert np.array_equal(eight, random_codes((8, 64), 8)), "8-bit codes are copied, too"


def test_what_is_measured_is_what_was_promised():
    q = random_codes((96, 1536), 4)
    assert [pack(q >> (4 - b), b).nbytes * 8 / q.size for b in (4, 3, 2)] == [4, 3, 2]


def test_memory_beside_the_result_is_bounded():
    import tracemalloc

    q = random_codes((4096, 2048), 3)
    packed = pack(q, 3)
    for work in (lambda: pack(q, 3), lambda: unpack(packed, 3, 2048)):
        tracemalloc.start()
        result = work()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak - result.nbytes < 2e6


# --- codes that do not fit ---


@pytest.mark.parametrize("num_bits", WIDTHS)
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_a_code_out_of_range_is_named_and_not_wrapped(num_bits, signed):
    low, high = limits(num_bits, signed)
    dtype = np.int16 if signed else np.uint16
    for code in (low - 1, high + 1) if signed else (high + 1,):
        q = np.zeros((3, 50), dtype)
        q[2, 49] = code
        with pytest.raises(ValueError, match=re.escape(f"lie between {low} and {high}, but q holds {code}")):
            pack(q, num_bits)
        q[2, 49] = low if code < low else high
        assert np.array_equal(unpack(pack(q, num_bits), num_bits, 50, signed), q)


@pytest.mark.parametrize("spare", range(1, 8))
def test_a_length_that_would_lose_a_code_is_refused(spare):
    packed = pack(np.full(8, -1, np.int8), 3)  # three bytes of ones
    length = 8 - spare
    with pytest.raises(ValueError, match="bytes along the last axis|the bits after them are not 0"):
        unpack(packed, 3, length)
    with pytest.raises(ValueError, match="the bits after them are not 0"):
        unpack(packed[: packed_length(length, 3)], 3, length)
