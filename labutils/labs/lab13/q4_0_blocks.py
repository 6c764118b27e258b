"""q4_0_blocks: GGUF's 4-bit blocks, 18 bytes for 32 weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, place
from labutils.labs.contract import largest_at, trained_weights
from labutils.labs.lab13 import LESSON
from labutils.labs.recipes import Recipe

BLOCK, HALF, BYTES = 32, 16, 18  # weights, codes in one half of the bytes, bytes of a block
MOST = 0.5 + 8 * 2.0**-10  # steps: half a step, and what rounding the scale to float16 moves the largest code by


def q4_0_blocks(x: np.ndarray) -> np.ndarray:
    """Rows of floats -> GGUF's Q4_0 blocks: (rows, n) -> (rows, n / 32, 18) uint8; n is a multiple of 32.

    >>> block = q4_0_blocks(np.array([[-16.0, 14.0, 1.0] + 29 * [0.0]], dtype=np.float32))[0, 0]
    >>> block[:2].view(np.float16), [f"{byte:02x}" for byte in block[2:6]]
    (array([2.], dtype=float16), ['80', '8f', '89', '88'])

    Of each block of 32 weights, m is the one of largest magnitude, with its sign: d = m / -8 makes it the code 0, for
    which -8 stands. Codes are round(x / d) + 8, at most 15. The bytes are d as a little-endian float16, then 16 bytes:
    byte j holds code j in its low half and code j + 16 in its high half. A block of zeros has d = 0 and codes 8.
    The format is that of ggml (`quantize_row_q4_0_ref`). TypeError or ValueError for what are no rows of finite floats
    in whole blocks.
    """
    from labutils.formats import gguf

    blocks = gguf.q4_0_blocks(x)
    if blocks.ndim != 3:
        raise ValueError(f"x must be (rows, n), got shape {tuple(x.shape)}")
    return blocks


def normal(shape: tuple, seed: int, size: float = 1.0) -> np.ndarray:
    return (size * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def with_peak(value: float) -> np.ndarray:
    x = normal((1, BLOCK), 5, 0.3).clip(-1, 1)
    x[0, 11] = value
    return x


def cases() -> list[Case]:
    import torch  # noqa: F401 - the library's module needs it, and it takes seconds to import

    hand = np.zeros((1, BLOCK), dtype=np.float32)
    hand[0, :3], hand[0, HALF : HALF + 2] = (-16, 14, 1), (4, -6)
    zeros = normal((2, 3 * BLOCK), 4)
    zeros[0, BLOCK : 2 * BLOCK] = 0
    sizes = np.geomspace(1e-3, 1e3, 3, dtype=np.float32)[:, None]
    rows = normal((BLOCK, BLOCK), 8) * np.geomspace(0.1, 10, BLOCK, dtype=np.float32)
    return [
        Case("the worked example", (hand,)),
        Case("the largest magnitude is negative", (with_peak(-3.0),)),
        Case("the largest magnitude is positive", (with_peak(3.0),)),
        Case("all values positive", (np.abs(normal((1, BLOCK), 6)),)),
        Case("several blocks in a row", (normal((1, 4 * BLOCK), 1),)),
        Case("several rows", (normal((5, 2 * BLOCK), 2),)),
        Case("blocks of different size", (normal((3, 3 * BLOCK), 3) * sizes,)),
        Case("a block of zeros", (zeros,)),
        Case("one block in each row, as many rows as columns", (rows,)),
        Case("a strided view", (normal((2, 4 * BLOCK), 7)[:, ::2],)),
        Case("trained weights", (trained_weights(),)),
    ]  # fmt: skip


def read(value: object) -> dict:
    return {"blocks": as_array(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    (x,) = case.args
    blocks, shape = answer["blocks"], (len(x), x.shape[1] // BLOCK, BYTES)
    if blocks.dtype != np.uint8:
        raise Wrong(f"bytes are uint8, but the dtype of the result is {blocks.dtype}")
    if blocks.shape != shape:
        raise Wrong(
            f"{x.shape[1]} weights a row are {shape[1]} blocks of 18 bytes, so the result should have shape {shape}, "
            f"but it has {blocks.shape}"
        )
    values = x.reshape(*shape[:2], BLOCK).astype(np.float64)
    scale, codes = in_parts(blocks)
    judge_scale(scale, values)
    step = np.where(scale == 0, 1, scale)[..., None]
    steps = values / step
    off = np.abs(steps.clip(None, 7) - (codes - 8.0))  # +8 is no code, and becomes 7
    worst = largest_at(off)
    if off[worst] > MOST:
        block, i = worst[:2], worst[2]
        byte, half = i % HALF + 2, "low" if i < HALF else "high"
        raise Wrong(
            f"weight {i} of block [{place(block)}] is {values[worst]:.5g}, {steps[worst]:.4g} steps of d, so its code "
            f"is {round(min(steps[worst], 7)) + 8}, in the {half} half of byte {byte}; there stands {codes[worst]}"
        )


def judge_scale(scale: np.ndarray, values: np.ndarray) -> None:
    """d is m / -8 in float16, m any value of the largest magnitude; in a block of zeros 0."""
    peak = np.abs(values).max(axis=-1)
    signs = [np.where((values == sign * peak[..., None]).any(axis=-1), -sign * peak / 8, np.nan) for sign in (1, -1)]
    scale = np.where(np.isfinite(scale), scale, np.inf)
    near = [np.abs(scale - d) <= 2.0**-10 * np.abs(d) + 2.0**-24 for d in signs]
    wrong = ~(near[0] | near[1])
    if wrong.any():
        where = largest_at(wrong)
        wanted = np.nan_to_num(signs[0][where]) or np.nan_to_num(signs[1][where])
        raise Wrong(
            f"block [{place(where)}]: d should be {-8 * wanted:.5g} / -8 = {wanted:.5g}, but the first two bytes, read "
            f"as a float16, are {scale[where]:.5g}"
        )


def in_parts(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (..., 18) -> d as float64 (...), codes 0 to 15 (..., 32)."""
    scale = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0]
    with np.errstate(invalid="ignore"):  # any two bytes may come
        scale = scale.astype(np.float64)
    return scale, np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1)


def signed_peak(x):
    """The value of largest magnitude in each block, with its sign."""
    return np.take_along_axis(x, np.abs(x).argmax(axis=-1, keepdims=True), axis=-1)


def by_halves(codes):
    return codes[..., :HALF] | codes[..., HALF:] << 4


def by_neighbours(codes):
    return codes[..., ::2] | codes[..., 1::2] << 4


def in_blocks(x):
    return x.reshape(len(x), -1, BLOCK)


def one_over(d):
    return np.divide(1, d, out=np.zeros_like(d), where=d != 0)


@dataclass(frozen=True)
class Q4(Recipe):
    """Blocks -> d -> codes -> bytes."""

    blocks: Callable = in_blocks
    scale: Callable = lambda x: signed_peak(x) / np.float32(-8)
    inverse: Callable = one_over
    round: Callable = np.round
    offset: int = 8
    clamp: Callable = lambda codes: codes.clip(0, 15)
    join: Callable = by_halves
    stored: Callable = lambda d: d.astype("<f2").view(np.uint8)
    result: Callable = lambda scale, codes: np.concatenate([scale, codes], axis=-1)

    def __call__(self, x):
        x = self.blocks(x)
        d = self.scale(x).astype(np.float32)
        codes = self.clamp(self.round(x * self.inverse(d)) + self.offset).astype(np.int64).astype(np.uint8)
        return self.result(self.stored(d), self.join(codes))


right = Q4()


def peak_over(divisor):
    return lambda x: np.abs(x).max(axis=-1, keepdims=True) / np.float32(divisor)


def float32_scale(d):
    return np.ascontiguousarray(d).view(np.uint8)


def largest_of_the_row(x):
    d = right.scale(x.reshape(len(x), 1, -1))
    return np.broadcast_to(d, (*x.shape[:2], 1))


MISCONCEPTIONS = (
    Misconception("max|x| / 7, as in lab 04", right.but(scale=peak_over(7)),
        "That is the symmetric scale of lab 04, which leaves -8 unused. Q4_0 uses it: the value of largest magnitude, "
        "with its sign, divided by -8."),
    Misconception("max|x| / 8, without the sign", right.but(scale=peak_over(8)),
        "A value of 8 steps has no code, only one of -8 steps has. So d has the sign that sends the value of largest "
        "magnitude to -8."),
    Misconception("max(x) instead of the largest magnitude",
        right.but(scale=lambda x: x.max(axis=-1, keepdims=True) / np.float32(-8)),
        "`max` does not see that a negative value may be the largest in magnitude. Find the place of max|x|, and take "
        "the value that stands there."),
    Misconception("divided by 8 instead of -8", right.but(scale=lambda x: signed_peak(x) / np.float32(8)),
        "With m / 8 the largest magnitude lies at +8 steps, where there is no code. It has to go to -8."),
    Misconception("divided by -7", right.but(scale=lambda x: signed_peak(x) / np.float32(-7)),
        "The codes reach down to -8: the value of largest magnitude is to become exactly that."),
    Misconception("one d for a whole row", right.but(scale=largest_of_the_row),
        "Every block of 32 has a d of its own, from its own largest value."),
    Misconception("nibbles of neighbours", right.but(join=by_neighbours),
        "Here a byte does not hold neighbours, as in lab 04: byte j holds the codes j and j + 16."),
    Misconception("nibbles in the other order",
        right.but(join=lambda codes: codes[..., HALF:] | codes[..., :HALF] << 4),
        "The codes 0 to 15 of a block belong into the low halves, 16 to 31 into the high ones."),
    Misconception("offset forgotten", right.but(offset=0, clamp=lambda codes: codes.clip(-8, 7)),
        "-8 to 7 are stored as 0 to 15: add 8. A negative code that is cast to uint8 runs into the other half of its "
        "byte."),
    Misconception("two's complement instead of the offset",
        right.but(offset=0, clamp=lambda codes: codes.clip(-8, 7).astype(np.int64) & 15),
        "Here negative codes are no two's complement, as in lab 04: 8 is added, so that -8 is stored as 0."),
    Misconception("not clamped", right.but(clamp=lambda codes: codes),
        "A value near +8 steps rounds to the code 16, which has five bits. It has to become 15."),
    Misconception("clamped to 7 after the offset", right.but(clamp=lambda codes: codes.clip(0, 7)),
        "With 8 added, codes lie between 0 and 15."),
    Misconception("trunc instead of round", right.but(round=np.trunc),
        "Cutting off the fraction is off by up to a step. ggml truncates too, but after adding 8.5, which "
        "goes to the nearest integer."),
    Misconception("floor instead of round", right.but(round=np.floor),
        "Rounding down is off by up to a step. Go to the nearest integer."),
    Misconception("multiplied by d", right.but(inverse=lambda d: d),
        "A code counts steps: the value divided by d."),
    Misconception("a block of zeros divides by 0",
        right.but(inverse=lambda d: np.float32(1) / d, round=lambda x: np.round(np.nan_to_num(x))
                  - 8 * np.isnan(x)),
        "In a block of zeros d is 0, and 0 / 0 is NaN, of which a cast makes anything. Its codes should be 8, which "
        "stands for 0."),
    Misconception("d stored as float32", right.but(stored=float32_scale),
        "That makes blocks of 20 bytes. d is a float16: two bytes."),
    Misconception("the bytes of d reversed", right.but(stored=lambda d: d.astype(">f2").view(np.uint8)),
        "The two bytes of d stand in the wrong order: little-endian has the lower one first."),
    Misconception("d as a number, not as its bytes",
        right.but(stored=lambda d: np.concatenate([d, d], axis=-1).astype(np.int64).astype(np.uint8)),
        "A cast to uint8 rounds d to a whole number. What is wanted are the two bytes of which the float16 consists: "
        "look at its memory as bytes."),
    Misconception("1/d stored", right.but(stored=lambda d: one_over(d).astype("<f2").view(np.uint8)),
        "1 / d is what you multiply with to get codes. Whoever reads the file multiplies codes by d."),
    Misconception("d after the codes", right.but(result=lambda scale, codes: np.concatenate([codes, scale], axis=-1)),
        "The two bytes of d come first, then the 16 with codes."),
    Misconception("one code in each byte", right.but(join=lambda codes: codes),
        "Each code has a byte of its own, half of it empty: 34 bytes. Two of them share one."),
    Misconception("scales and codes apart", right.but(result=lambda scale, codes: (scale, codes)),
        "A block is one run of 18 bytes, its d directly in front of its codes, so that a kernel finds both together."),
    Misconception("blocks of a row run into one another",
        right.but(result=lambda scale, codes: np.concatenate([scale, codes], axis=-1).reshape(len(codes), -1)),
        "The bytes are right, but the axis of blocks is gone: (rows, blocks, 18)."),
    Misconception("integers wider than a byte", lambda x: right(x).astype(np.int64),
        "Each byte lies in 8 of them, so nothing got smaller. Cast to uint8."),
)  # fmt: skip

EXERCISE = Exercise(
    name="q4_0_blocks",
    lab=LESSON,
    place=30,
    points=3,
    reference=q4_0_blocks,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
