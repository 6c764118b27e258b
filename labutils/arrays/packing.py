"""Packing codes of 2 to 8 bits into bytes, with no unused bits between them.

Along the last axis, the codes of a row form one stream of bits: code i takes the bits from i * num_bits on, its lowest
first, and bit j of the stream is bit j % 8 of byte j // 8: at 4 bits, the low nibble comes first. The last byte of a
row is filled up with zeros. Negative codes are stored in two's complement.

There are no loops over codes. Eight codes of a byte each (or 2, or 4: as many as end on a byte) are read as one wide
integer and folded: neighbouring codes are shifted together, then pairs, then fours. Unpacking reverses this. NumPy and
torch share the code; it works tile by tile, so that the intermediates stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays.inputs import Array, bit_width, code_array, numpy_on_cpu, true_or_false, whole_number

MAX_BITS = 8
TILE = 2**18  # codes: 256 KB, and as much again for intermediates


def pack(q: Array, num_bits: int) -> Array:
    """Pack codes along the last axis: (..., n) integers -> (..., ceil(n * num_bits / 8)) uint8.

    >>> pack(np.array([1, -2, 7], dtype=np.int8), num_bits=4)  # 0x1, 0xE, 0x7 and a filling 0x0
    array([225,   7], dtype=uint8)
    >>> pack(np.arange(8, dtype=np.uint8), num_bits=3).nbytes
    3

    A signed dtype holds codes from -2^(b-1) to 2^(b-1) - 1, an unsigned one from 0 to 2^b - 1; b = `num_bits` from 2 to
    8. ValueError for a code outside: nothing wraps. TypeError unless `q` is an array of integers. The memory needed
    beside the result is less than 2 MB, whatever the size of `q` (and a copy of `q` where it has more than two axes
    and is not contiguous).
    """
    bits = _packable_width(num_bits)
    library, q = code_array(q)
    xp, q = numpy_on_cpu(library, q)
    if not q.shape:
        raise ValueError("q needs at least one axis to be packed along, got an array of shape ()")
    signed = xp.isdtype(q.dtype, "signed integer")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    *outer, length = q.shape
    rows = xp.reshape(q, (math.prod(outer), length))
    packed = xp.empty((rows.shape[0], packed_length(length, bits)), dtype=xp.uint8, device=array_api_compat.device(q))
    for row, column in _tiles(rows):
        tile = rows[row, column]
        _require_codes(xp, tile, low, high, bits)
        words = _words(xp, tile, bits)
        for lane, width, mask in _folds(bits):
            second = words >> (lane - width)
            second &= mask << width
            words = words & mask  # a new array: the first words may lie in q
            words |= second
        _store(packed[row, _bytes(column, bits)], words, _codes_per_block(bits) * bits // 8)
    return library.asarray(xp.reshape(packed, (*outer, packed.shape[1])))


def unpack(packed: Array, num_bits: int, length: int, signed: bool = True) -> Array:
    """Undo `pack`: (..., ceil(length * num_bits / 8)) uint8 -> (..., length), int8 or, if not `signed`, uint8.

    >>> unpack(np.array([225, 7], dtype=np.uint8), num_bits=4, length=3)
    array([ 1, -2,  7], dtype=int8)

    TypeError for bytes that are not uint8. ValueError where the last axis does not have the bytes of `length` codes, or
    where the filling bits of the last byte are not 0: a code would be lost. Memory as in `pack`.
    """
    bits, count = _packable_width(num_bits), whole_number(length, "length", least=1)
    true_or_false(signed, "signed")
    library, packed = code_array(packed, "packed")
    xp, packed = numpy_on_cpu(library, packed)
    if packed.dtype != xp.uint8:
        raise TypeError(f"packed must hold bytes of dtype uint8, got dtype {packed.dtype}")
    if not packed.shape or packed.shape[-1] != packed_length(count, bits):
        raise ValueError(
            f"{count} codes of {bits} bits take {packed_length(count, bits)} bytes along the last axis, "
            f"got packed of shape {tuple(packed.shape)}"
        )
    *outer, size = packed.shape
    rows = xp.reshape(packed, (math.prod(outer), size))
    if count * bits % 8 and bool(xp.any(rows[:, -1] >> (count * bits % 8) != 0)):
        raise ValueError(f"packed holds more than {count} codes of {bits} bits a row: the bits after them are not 0")
    sign = 2 ** (bits - 1)
    dtype = xp.int8 if signed else xp.uint8
    codes = xp.empty((rows.shape[0], count), dtype=dtype, device=array_api_compat.device(packed))
    for row, column in _tiles(codes):
        words = _load(xp, rows[row, _bytes(column, bits)], bits)
        for lane, width, mask in reversed(_folds(bits)):
            second = words & (mask << width)
            second <<= lane - width
            words &= mask
            words |= second
        tile = words.view(dtype)
        if signed and bits < 8:  # sign extension: a set sign bit means -2^(b-1), not +2^(b-1)
            tile ^= sign
            tile -= sign
        codes[row, column] = tile[:, : codes[row, column].shape[1]]
    return library.asarray(xp.reshape(codes, (*outer, count)))


def packed_length(length: int, num_bits: int) -> int:
    """How many bytes a row of `length` codes takes: ceil(length * num_bits / 8).

    >>> packed_length(3, 4), packed_length(8, 3), packed_length(9, 3)
    (2, 3, 4)
    """
    return -(-length * num_bits // 8)


def _packable_width(num_bits: object) -> int:
    return bit_width(num_bits, MAX_BITS, "to be packed")


def _codes_per_block(bits: int) -> int:
    """The fewest codes that end on a byte, when they are 2, 4 or 8: they make a word of as many bytes."""
    return 8 // math.gcd(bits, 8)


def _folds(bits: int) -> list[tuple[int, int, int]]:
    """(lane, width, mask) of each fold: two neighbours of `width` bits, `lane` bits apart, become one of twice both.

    The mask covers the first of two neighbours, throughout the word. 3-bit codes fold by (8, 3), (16, 6), (32, 12).
    """
    word = 8 * _codes_per_block(bits)
    folds, lane, width = [], 8, bits
    while lane < word:
        folds.append((lane, width, sum((2**width - 1) << place for place in range(0, word, 2 * lane))))
        lane, width = 2 * lane, 2 * width
    return folds


def _tiles(codes: Array) -> Iterator[tuple[slice, slice]]:
    """Slices of rows and columns of a (rows, length) matrix; columns are cut at whole blocks only."""
    rows, length = codes.shape
    budget = TILE if isinstance(codes, np.ndarray) else rows * length
    wide = min(length, budget)
    tall = max(1, budget // wide)
    for row in range(0, rows, tall):
        for column in range(0, length, wide):
            yield slice(row, row + tall), slice(column, min(column + wide, length))


def _bytes(column: slice, bits: int) -> slice:
    """Where a tile's codes lie among the bytes of a row."""
    return slice(column.start * bits // 8, packed_length(column.stop, bits))


def _require_codes(xp: Any, tile: Array, low: int, high: int, bits: int) -> None:
    least, most = int(xp.min(tile)), int(xp.max(tile))
    if least < low or most > high:
        kind = f"signed {bits}-bit codes" if low < 0 else f"unsigned {bits}-bit codes"
        raise ValueError(f"{kind} lie between {low} and {high}, but q holds {least if least < low else most}")


def _word_dtype(xp: Any, bits: int) -> Any:
    return {1: xp.int8, 2: xp.int16, 4: xp.int32, 8: xp.int64}[_codes_per_block(bits)]


def _words(xp: Any, tile: Array, bits: int) -> Array:
    """One byte for each code, padded with zeros to whole blocks; each block is viewed as one integer."""
    rows, length = tile.shape
    block = _codes_per_block(bits)
    whole = -(-length // block) * block
    if tile.dtype == xp.int8 and whole == length and _is_contiguous(tile):
        return tile.view(_word_dtype(xp, bits))
    lanes = xp.zeros((rows, whole), dtype=xp.int8, device=array_api_compat.device(tile))
    lanes[:, :length] = xp.astype(tile, xp.int8)  # 8-bit codes above 127 keep their bits
    return lanes.view(_word_dtype(xp, bits))


def _is_contiguous(x: Array) -> bool:
    return x.is_contiguous() if array_api_compat.is_torch_array(x) else x.flags.c_contiguous


def _store(target: Array, words: Array, size: int) -> None:
    """Write the first `size` bytes of each word, one after the other, as far as `target` goes."""
    rows, count = words.shape
    full, rest = divmod(target.shape[1], size)
    if size == 1:  # a narrowing cast keeps the lowest byte, and is faster than picking it
        target[:, :] = words
        return
    pieces = words.view(target.dtype).reshape(rows, count, -1)[:, :, :size]
    target[:, : full * size].reshape(rows, full, size)[...] = pieces[:, :full]
    if rest:
        target[:, full * size :] = pieces[:, full, :rest]


def _load(xp: Any, stored: Array, bits: int) -> Array:
    """Undo `_store`: words whose first bytes are the stored ones, the others 0."""
    rows, length = stored.shape
    size = _codes_per_block(bits) * bits // 8
    dtype = _word_dtype(xp, bits)
    if size == 1:
        return xp.astype(stored, dtype)
    full, rest = divmod(length, size)
    shape, device = (rows, -(-length // size), _codes_per_block(bits)), array_api_compat.device(stored)
    pieces = xp.zeros(shape, dtype=xp.uint8, device=device)
    pieces[:, :full, :size] = stored[:, : full * size].reshape(rows, full, size)
    if rest:
        pieces[:, full, :rest] = stored[:, full * size :]
    return pieces.reshape(rows, -1).view(dtype)
