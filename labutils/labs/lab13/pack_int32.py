"""pack_int32: codes in 32-bit words, as compressed-tensors stores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, parts, place
from labutils.labs.contract import arguments, largest_at
from labutils.labs.lab13 import LESSON
from labutils.labs.recipes import Recipe

WIDTHS = (2, 4, 8)


def pack_int32(q: np.ndarray, num_bits: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Rows of signed codes -> (packed, shape): int32 words of 32 / b codes, and the shape that the codes had.

    >>> packed, shape = pack_int32(np.array([[-8, -7, 7, 0, 0, 0, 0, 0, 1]], dtype=np.int8))
    >>> [f"{word:08x}" for word in packed.view(np.uint32)[0]], shape
    (['88888f10', '00000009'], array([1, 9]))

    `q` is (rows, n), `packed` (rows, ceil(n / (32 / b))). Each code is stored with 2^(b-1) added, so from 0 to 2^b - 1,
    the first of a word in its lowest bits; what is missing in a row's last word is 0. TypeError for what are no
    integers, ValueError for codes that b bits do not hold, for another number of axes, and for widths other than 2, 4
    and 8.
    """
    from labutils.formats import compressed_tensors

    if num_bits not in WIDTHS:
        raise ValueError(f"num_bits must be one of {WIDTHS}, so that whole codes fill a word, got {num_bits!r}")
    packed = compressed_tensors.pack_int32(q, num_bits)
    if packed.ndim != 2:
        raise ValueError(f"q must be (rows, n), got shape {q.shape}")
    return packed, np.array(q.shape)


def codes(shape: tuple, seed: int, num_bits: int = 4) -> np.ndarray:
    top = 2 ** (num_bits - 1)
    return np.random.default_rng(seed).integers(-top, top, shape).astype(np.int8)


def cases() -> list[Case]:
    import torch  # noqa: F401 - the library's packing is in torch too, and it takes seconds to import

    return [
        Case("the worked example", (np.array([[-8, -7, 7, 0, 0, 0, 0, 0, 1]], dtype=np.int8),)),
        Case("eight different codes", (np.array([[-4, 3, -2, 1, 5, -6, -7, 2]], dtype=np.int8),)),
        Case("one code", (np.array([[3]], dtype=np.int8),)),
        Case("every code twice", (np.arange(-8, 8, dtype=np.int8).repeat(2)[None],)),
        Case("the largest code in each place", (np.full((2, 16), 7, dtype=np.int8),)),
        Case("rows of whole words", (codes((6, 24), 1),)),
        Case("rows that end within a word", (codes((5, 19), 2),)),
        Case("as many rows as words hold codes", (codes((8, 8), 3),)),
        Case("a column", (codes((9, 1), 4),)),
        Case("a strided view", (codes((4, 64), 5)[:, ::2],)),
        Case("8 bits: four codes in a word", (codes((3, 12), 6, 8), 8)),
        Case("8 bits, rows that end within a word", (codes((4, 10), 7, 8), 8)),
        Case("2 bits: sixteen codes in a word", (codes((3, 20), 8, 2), 2)),
        Case("codes in int64", (codes((3, 16), 9).astype(np.int64),)),
    ]


def read(value: object) -> dict:
    packed, shape = parts(value, ("packed", "shape"))
    shape = np.asarray(shape) if isinstance(shape, (tuple, list)) else as_array(shape, "shape")
    if shape.dtype.kind not in "iu":
        raise Wrong(f"shape should hold whole numbers, but its dtype is {shape.dtype}")
    return {"packed": as_array(packed, "packed"), "shape": shape.astype(np.int64)}


def judge(answer: dict, case: Case) -> None:
    q, num_bits = arguments(pack_int32, case)
    packed, (wanted, shape) = answer["packed"], pack_int32(q, num_bits)
    if packed.dtype != np.int32:
        raise Wrong(f"the words are int32, but the dtype of packed is {packed.dtype}")
    if packed.shape != wanted.shape:
        raise Wrong(
            f"{q.shape[1]} codes of {num_bits} bits take {wanted.shape[1]} words a row, so packed should have shape "
            f"{wanted.shape}, but it has {packed.shape}"
        )
    if (packed != wanted).any():
        where = largest_at(packed != wanted)
        first = where[1] * 32 // num_bits
        some = ", ".join(str(code) for code in q[where[0], first : first + 32 // num_bits][:8])
        raise Wrong(
            f"packed[{place(where)}] holds the codes {some} and should be {as_hex(wanted[where])}, but it is "
            f"{as_hex(packed[where])}"
        )
    if answer["shape"].shape != shape.shape or (answer["shape"] != shape).any():
        raise Wrong(
            f"shape should be that of the codes, {list(q.shape)}, for the words alone do not say how many codes the "
            f"last one holds; it is {answer['shape'].tolist()}"
        )


def as_hex(word: np.int32) -> str:
    return f"0x{int(word) & 0xFFFFFFFF:08x}"


def filled_up(codes, count):
    """Rows of offset codes with zeros at their end, up to whole words."""
    return np.pad(codes, [(0, 0), (0, -codes.shape[1] % count)])


def lowest_first(groups, num_bits):
    """(rows, words, codes of a word) -> (rows, words): the first code in the lowest bits."""
    return (groups << (num_bits * np.arange(groups.shape[-1]))).sum(axis=-1)


def neighbours(codes, count):
    return codes.reshape(len(codes), -1, count)


@dataclass(frozen=True)
class Words(Recipe):
    """result(cast(join(split(fill(offset(q), 32 / b)))), q), in int64 up to the cast."""

    count: Callable = lambda num_bits: 32 // num_bits  # codes in a word
    offset: Callable = lambda q, num_bits: q + 2 ** (num_bits - 1)
    mask: Callable = lambda codes, num_bits: codes & (2**num_bits - 1)
    fill: Callable = filled_up
    split: Callable = neighbours
    join: Callable = lowest_first
    cast: Callable = lambda words: words.astype(np.int32)
    result: Callable = lambda packed, q: (packed, np.array(q.shape))

    def __call__(self, q, num_bits=4):
        count = self.count(num_bits)
        codes = self.fill(self.mask(self.offset(q.astype(np.int64), num_bits), num_bits), count)
        return self.result(self.cast(self.join(self.split(codes, count), num_bits)), q)


right = Words()


def highest_first(groups, num_bits):
    return lowest_first(groups[..., ::-1], num_bits)


def bytes_reversed(groups, num_bits):
    """As a machine stores it that puts the highest byte first."""
    return lowest_first(groups, num_bits).astype("<u4").view(">u4").astype(np.int64)


def nibbles_swapped(groups, num_bits):
    """The first code of each byte in its high half."""
    pairs = groups.reshape(*groups.shape[:-1], -1, 8 // num_bits)[..., ::-1]
    return lowest_first(pairs.reshape(groups.shape), num_bits)


def by_strides(codes, count):
    """Codes i, i + words, i + 2 words ... in word i."""
    return codes.reshape(len(codes), count, -1).swapaxes(1, 2)


def interleaved(groups, num_bits):
    """AutoAWQ's order of eight codes."""
    count = groups.shape[-1]
    return lowest_first(groups[..., [*range(0, count, 2), *range(1, count, 2)]], num_bits)


def along_rows(q, num_bits=4):
    packed, _ = pack_int32(np.ascontiguousarray(q.T), num_bits)
    return np.ascontiguousarray(packed.T), np.array(q.shape)


def flat(q, num_bits=4):
    return pack_int32(q.reshape(1, -1), num_bits)[0].reshape(-1), np.array(q.shape)


def added(groups, num_bits):
    return groups.sum(axis=-1)


def shifted_by_index(groups, num_bits):
    return (groups << np.arange(groups.shape[-1])).sum(axis=-1)


def clipped_to_int32(words):
    return np.clip(words, -(2**31), 2**31 - 1).astype(np.int32)


NOT_SHIFTED = "All codes of a word lie on the same bits. Code i has to be shifted up by i times b bits."

MISCONCEPTIONS = (
    Misconception("offset forgotten", right.but(offset=lambda q, num_bits: q),
        "Each code was cut down to its lowest bits, which is two's complement: -1 becomes 15 (and adding 2^b would "
        "change nothing). This format adds 2^(b-1) first, so that the smallest code is stored as 0."),
    Misconception("offset and mask forgotten",
        right.but(offset=lambda q, num_bits: q, mask=lambda codes, num_bits: codes),
        "A negative code has ones in all its upper bits, which run into its neighbours. Add 2^(b-1) first: then "
        "nothing is negative."),
    Misconception("the offset of 4 bits at every width", right.but(offset=lambda q, num_bits: q + 8),
        "8 is the offset of 4-bit codes. At b bits it is 2^(b-1)."),
    Misconception("the offset is the largest code", right.but(offset=lambda q, num_bits: q + 2 ** (num_bits - 1) - 1),
        "The smallest code is -2^(b-1), one further from zero than the largest. Added to it, 7 leaves -1."),
    Misconception("the highest bits first", right.but(join=highest_first),
        "The first code of a word belongs into its lowest bits, and was put into its highest."),
    Misconception("nibbles in the other order", right.but(join=nibbles_swapped),
        "In each byte the two codes have changed places. The first belongs into the low half, the last four digits "
        "of the byte."),
    Misconception("the bytes of a word reversed", right.but(join=bytes_reversed),
        "The codes lie in the right bytes, but those are in the other order. Whole numbers and shifts know no order "
        "of bytes: shift code i up by i times b."),
    Misconception("even codes before odd ones", right.but(join=interleaved),
        "That is AutoAWQ's order, made for a kernel that unpacks two codes at once. Here the codes stay in their "
        "order."),
    Misconception("a word holds distant codes", right.but(split=by_strides),
        "The codes of a word lie far apart in their row. Neighbours go together: the first 32 / b codes make word 0."),
    Misconception("packed along the rows", along_rows,
        "Words were made of codes above each other. A row of the weight belongs to one output, and the codes of a "
        "word are neighbours in it."),
    Misconception("rows run into one another", flat,
        "The array was flattened. Each row begins with a word of its own."),
    Misconception("filled up before the offset",
        right.but(offset=lambda q, num_bits: filled_up(q, 32 // num_bits) + 2 ** (num_bits - 1)),
        "What fills the last word is to be 0 in the file. Zeros that are added before the offset are stored as "
        "2^(b-1)."),
    Misconception("filled up in front",
        right.but(fill=lambda codes, count: filled_up(codes[:, ::-1], count)[:, ::-1]),
        "The zeros come after a row's last code, not before its first."),
    Misconception("a word that is not full is lost",
        right.but(fill=lambda codes, count: codes[:, : codes.shape[1] // count * count]),
        "Nine codes of 4 bits need two words: the second holds one code and zeros. Round up."),
    Misconception("eight codes at every width",
        right.but(count=lambda num_bits: 8),
        "Eight codes fill 32 bits only at 4 bits each. A word holds 32 / b of them."),
    Misconception("codes are not shifted", right.but(join=added), NOT_SHIFTED),
    Misconception("codes are not shifted", right.but(join=lambda groups, num_bits: np.bitwise_or.reduce(groups, -1)),
        NOT_SHIFTED),
    Misconception("shifted by one bit each", right.but(join=shifted_by_index),
        "Code i was shifted by i bits, but each code before it takes b of them."),
    Misconception("large words are clipped", right.but(cast=clipped_to_int32),
        "A word whose last code is large has its highest bit set. It is a negative int32, with the same bits, and "
        "must not be clamped."),
    Misconception("the words are unsigned", right.but(cast=lambda words: words.astype(np.uint32)),
        "The bits are right, the dtype is not: the file declares int32. View them as that."),
    Misconception("64-bit words", right.but(cast=lambda words: words),
        "Shifts made 64-bit integers of the words, half of whose bits are empty. Convert them to int32 at the end."),
    Misconception("the shape tensor is missing", right.but(result=lambda packed, q: packed),
        "Return the shape of the codes as well: a reader cannot tell from the words where a row ends."),
    Misconception("the shape of the words", right.but(result=lambda packed, q: (packed, np.array(packed.shape))),
        "That is the shape of the words, which the file knows already. The reader needs the number of codes in a "
        "row."),
    Misconception("the shape reversed", right.but(result=lambda packed, q: (packed, np.array(q.shape[::-1]))),
        "The shape is (rows, codes in a row), as the weight had it."),
    Misconception("the number of codes for the shape", right.but(result=lambda packed, q: (packed, np.array([q.size]))),
        "One number says how many codes there are, and not how they lie in rows. Both are needed."),
    Misconception("the shape of what was filled up",
        right.but(result=lambda packed, q: (packed, np.array([len(q), packed.shape[1] * 8]))),
        "The zeros that fill up a row are not codes. Take the shape before you fill up."),
    Misconception("shape before packed", right.but(result=lambda packed, q: (np.array(q.shape), packed)),
        "Both are right, in the wrong order: the words first."),
)  # fmt: skip

EXERCISE = Exercise(
    name="pack_int32",
    lab=LESSON,
    place=10,
    points=2,
    reference=pack_int32,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
