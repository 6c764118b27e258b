"""Mistakes that many quantizers share, as rows that any recipe can add to its table.

Each family takes the right recipe and returns one misconception for each way of getting one step wrong:

>>> [mistake.name for mistake in rounding(Symmetric())]
['floor instead of round', 'truncation instead of round', 'ceil instead of round']
"""

from __future__ import annotations

import numpy as np

from labutils.course.exercise import Misconception
from labutils.labs.recipes import Recipe, Symmetric

Rows = tuple[Misconception, ...]


def unclamped(steps: np.ndarray, num_bits: int) -> np.ndarray:
    return steps


def rounding(right: Recipe) -> Rows:
    return (
        Misconception("floor instead of round", right.but(round=np.floor),
            "`np.floor` always goes down, so the error reaches a whole step, and its mean is not zero. "
            "Go to the nearest integer."),
        Misconception("truncation instead of round", right.but(round=np.trunc),
            "Casting to an integer cuts the fraction off: 1.9 becomes 1 and -1.9 becomes -1. Round before you cast."),
        Misconception("ceil instead of round", right.but(round=np.ceil),
            "`np.ceil` always goes up, so the error reaches a whole step. Go to the nearest integer."),
    )  # fmt: skip


def divisors(right: Symmetric) -> Rows:
    """Other numbers of steps between 0 and the largest magnitude, with the clamp and without it."""
    half = "The largest code is 2^(b-1) - 1: 127 at 8 bits, not 128."
    whole = (
        "2^b - 1 = 255 counts the steps of the whole grid, but max|x| spans only the positive half of it: 127 steps."
    )
    return (
        Misconception("divides by 2^(b-1)", right.but(divisor=lambda bits: 2 ** (bits - 1)),
            f"{half} With 128 the largest value has no code of its own."),
        Misconception("divides by 2^(b-1), and the cast wraps around",
            right.but(divisor=lambda bits: 2 ** (bits - 1), clamp=unclamped),
            "The largest value got code 128, which int8 cannot hold: it wrapped to -128 and came back with the wrong "
            "sign. The largest code is 2^(b-1) - 1, and a clamp before the cast keeps codes in range."),
        Misconception("divides by 2^b - 1", right.but(divisor=lambda bits: 2**bits - 1), whole),
        Misconception("divides by 2^b - 1, and the cast wraps around",
            right.but(divisor=lambda bits: 2**bits - 1, clamp=unclamped),
            f"{whole} The codes went beyond 127 and wrapped around in the cast."),
        Misconception("divides by 2^b", right.but(divisor=lambda bits: 2**bits),
            "2^b = 256 counts the codes of the whole grid, but max|x| spans only the positive half of it: 127 steps."),
        Misconception("127 at every bit width",
            right.but(divisor=lambda bits: 127, clamp=lambda steps, bits: np.clip(steps, -128, 127)),
            "127 is the largest code at 8 bits only. Compute it from num_bits: 7 at 4 bits, 1 at 2 bits."),
        Misconception("the scale uses 127 at every bit width", right.but(divisor=lambda bits: 127),
            "The codes are clamped to num_bits, but the scale still divides by 127, so all but the smallest values are "
            "cut off. The scale must use the same largest code as the clamp."),
    )  # fmt: skip


def signed_dtypes(right: Recipe) -> Rows:
    wide = "int8 holds codes of up to 8 bits, int16 of up to 16."
    return (
        Misconception("int8 at every bit width", right.but(dtype=lambda bits: np.int8),
            "Codes of more than 8 bits do not fit into int8: they wrap around. Use int16 above 8 bits."),
        Misconception("codes left as floats", right.but(dtype=lambda bits: None),
            "The values are whole numbers, but still stored as floats: nothing got smaller. "
            "Cast them to an integer dtype."),
        Misconception("codes wider than they need to be", right.but(dtype=lambda bits: np.int32),
            f"int32 takes 4 bytes a code, as many as float32. {wide}"),
        Misconception("codes wider than they need to be", right.but(dtype=lambda bits: np.int64),
            f"int64 takes 8 bytes a code, twice as many as float32. {wide}"),
        Misconception("unsigned codes", right.but(dtype=lambda bits: np.uint8 if bits <= 8 else np.uint16),
            "Negative values need negative codes, and uint8 wraps -1 around to 255. Use a signed integer."),
    )  # fmt: skip


def scale_floors(right: Recipe) -> Rows:
    """What is done about a scale of 0 that harms other scales, or too little."""
    tiny, only = np.float32(1e-8), "Only a scale of exactly 0 needs replacing."
    return (
        Misconception("an all-zero tensor divides by zero", right.but(floor=lambda scale: scale),
            "max|x| is 0 here, so the scale is 0, and 0 / 0 is NaN. Any positive scale will do for zeros: use 1."),
        Misconception("a floor under the scale", right.but(floor=lambda scale: np.maximum(scale, tiny)),
            f"A smallest scale such as 1e-8 rounds tensors of small values to zero. {only}"),
        Misconception("an epsilon added to the scale", right.but(floor=lambda scale: scale + tiny),
            f"Adding 1e-8 wipes out tensors whose scale is smaller than that. {only}"),
    )  # fmt: skip


def results(right: Recipe) -> Rows:
    """The right codes and scale, returned in another form."""
    return (
        Misconception("returns the reconstruction instead of the codes",
            right.but(result=lambda q, scale, x: (q * scale, scale)),
            "Quantizing ends with integers. Multiplying by the scale again is what `dequantize_symmetric` is for."),
        Misconception("returns scale and codes in the wrong order", right.but(result=lambda q, scale, x: (scale, q)),
            "The contract is `return q, scale`: codes first."),
        Misconception("the scale is upside down", right.but(result=lambda q, scale, x: (q, 1 / scale)),
            "quant_max / max|x| is how many steps fit into one unit. "
            "The scale is how long a step is: max|x| / quant_max."),
    )  # fmt: skip
