"""quantize_asymmetric: a scale and a zero point, so that the grid spans the range of the values and 0.0."""

from __future__ import annotations

from functools import cache

import numpy as np

from labutils import data
from labutils.arrays import affine
from labutils.arrays.inputs import Array
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import families
from labutils.labs.contract import (
    float32_noise,
    gelu,
    judge_codes,
    judge_rounding,
    judge_scale,
    read_asymmetric,
    trained_weights,
)
from labutils.labs.lab02 import LESSON
from labutils.labs.recipes import (
    Asymmetric,
    cast,
    clamped,
    clamped_unsigned,
    largest_code,
    smallest_dtype,
    smallest_unsigned_dtype,
    steps_below_zero,
    wrapping,
)

HAND = np.array([-0.6, -0.127, 0.0, 0.444, 1.95], dtype=np.float32)  # the worked example: scale 0.01, zero point 60
POSITIVE = np.array([10.0, 11.0, 12.0], dtype=np.float32)  # goes wrong where the range leaves 0 out


def quantize_asymmetric(x: Array, num_bits: int = 8) -> tuple[Array, Array, Array]:
    """Unsigned codes, scale and zero point: q = clamp(round(x / scale) + zero_point, 0, 2^b - 1).

    >>> quantize_asymmetric(np.array([-0.6, 0.0, 0.444, 1.95], dtype=np.float32))
    (array([  0,  60, 104, 255], dtype=uint8), array(0.01, dtype=float32), array(60, dtype=int32))

    The range is first widened to include 0, and scale = (max - min) / (2^b - 1), zero_point = round(-min / scale): the
    code of 0.0, which is therefore exact. Jacob et al. 2018 (arXiv:1712.05877), equation 1 and section 2.1.
    """
    quantized = affine.quantize(x, Scheme(num_bits, symmetric=False))
    return quantized.codes, quantized.scale, quantized.zero_point


@cache
def relu_activations() -> np.ndarray:
    """What leaves a layer of the digits network for four images, (4, 64, 8, 8) float32, half of it exactly 0."""
    images, _ = data.digits("test")
    return np.ascontiguousarray(data.digits_network().activations(images[:4])["block1.pointwise"])


def cases() -> list[Case]:
    w, a = trained_weights(), relu_activations()
    curved = gelu(3 * np.random.default_rng(1).normal(size=(16, 40))).astype(np.float32)
    return [
        Case("the worked example", (HAND,), {"num_bits": 8}),
        Case("ReLU activations at 8 bits", (a,), {"num_bits": 8}),
        Case("only positive values", (POSITIVE,), {"num_bits": 8}),
        Case("trained weights at 8 bits", (w,), {"num_bits": 8}),
        Case("trained weights at 4 bits", (w,), {"num_bits": 4}),
        Case("GELU outputs at 3 bits", (curved,), {"num_bits": 3}),
        Case("trained weights at 2 bits", (w,), {"num_bits": 2}),
        Case("trained weights at 16 bits, turned about 0", (-w,), {"num_bits": 16}),
        Case("8 bits is the default", (HAND,)),
        Case("the largest value lies half a step beyond the last code", (np.array([-61.5, 3, 193.5], np.float32),)),
        Case("the same at 4 bits", (np.array([-3.5, 0.0, 11.5], np.float32),), {"num_bits": 4}),
        Case("only negative values", (-np.abs(w[:3]) - np.float32(0.5),), {"num_bits": 6}),
        Case("positive values far from 0", (w[:4] + np.float32(100),), {"num_bits": 4}),
        Case("a positive constant", (np.full(5, 0.3, dtype=np.float32),), {"num_bits": 5}),
        Case("one negative element", (np.array([-0.7], dtype=np.float32),)),
        Case("all zero", (np.zeros((3, 4), dtype=np.float32),)),
        Case("weights 1e20 times smaller", (w[:4] * np.float32(1e-20),)),
        Case("weights near the largest float32", (w[:4] * np.float32(1e37),)),
        Case("a strided view, 3 axes", (curved[:6].reshape(6, 5, 8)[:, :, ::2],), {"num_bits": 7}),
        Case("float64 input", (w[0].astype(np.float64) - 0.1,)),
    ]


def judge(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.kwargs.get("num_bits", 8)
    judge_on_grid(answer, x, float(x.min()), float(x.max()), num_bits, "max - min")


def judge_on_grid(answer: dict, x: np.ndarray, low: float, high: float, num_bits: int, length_of: str) -> None:
    """Codes, scale and zero point for the range [low, high], widened to include 0; values of `x` beyond it saturate."""
    q, scale, zero_point = answer["q"], answer["scale"], answer["zero_point"]
    judge_codes(q, x, num_bits, symmetric=False)
    low, high = min(low, 0.0), max(high, 0.0)
    quant_max = Scheme(num_bits, symmetric=False).quant_max
    judge_scale(scale, (high - low) / quant_max, f"({length_of}, with 0 in the range) / {quant_max}")
    judge_zero_point(zero_point, -low / scale, num_bits)
    judge_rounding(q, scale, np.clip(x, low, high), num_bits, zero_point=int(zero_point))


def judge_zero_point(zero_point: np.generic, steps: float, num_bits: int) -> None:
    """An integer, a code, and where 0.0 lies: `steps` of scale above the smallest value. A tie may go either way."""
    quant_max = Scheme(num_bits, symmetric=False).quant_max
    if not isinstance(zero_point, np.integer):
        raise Wrong(f"zero_point is a code, so it should be an integer, but it is the float {zero_point:.6g}")
    if not 0 <= zero_point <= quant_max:
        raise Wrong(f"zero_point is the code of 0.0, so it should lie in [0, {quant_max}], but it is {zero_point}")
    if abs(zero_point - steps) > 0.5 + float32_noise(quant_max):
        raise Wrong(
            f"0.0 lies {steps + 0.0:.4g} steps above the smallest value of the range, so zero_point should be "
            f"{round(steps)}, but it is {zero_point}"
        )


right = Asymmetric()
without_zero = right.but(ends=lambda x: (x.min(), x.max()))


def clamped_zero_point(low, scale, num_bits):
    return int(clamped_unsigned(steps_below_zero(low, scale, num_bits), num_bits))


def wrapped_zero_point(low, scale, num_bits):
    return int(wrapping(np.round(-low / scale), smallest_unsigned_dtype(num_bits)))


def added_in_uint8(steps, zero_point):
    """What NumPy 2 makes of `steps.astype(np.uint8) + zero_point`: the sum wraps, a large zero point is refused."""
    if not 0 <= zero_point <= 255:
        raise OverflowError(f"Python integer {zero_point} out of bounds for uint8")
    return wrapping(steps + zero_point, np.uint8)


def guarding_constants(x, num_bits=8):
    return right(np.zeros_like(x) if x.max() == x.min() else x, num_bits)


def shifted_by_minimum(x, num_bits=8):
    _, scale, zero_point = right(x, num_bits)
    codes = np.round((x - min(x.min(), 0)) / scale)
    return cast(clamped_unsigned(codes, num_bits), smallest_unsigned_dtype(num_bits)), scale, zero_point


def in_place(x, num_bits=8):
    found = right(x, num_bits)
    x -= x.min()
    return found


MISCONCEPTIONS = (
    Misconception("the range leaves 0 out, and the clamp of the zero point flattens everything",
        without_zero.but(zero_point=clamped_zero_point),
        "All values lie on one side of 0, so 0.0 is not between them, and the zero point does not fit its code. "
        "Clamping it moves the whole grid away from the values. Widen the range to include 0 before you divide."),
    Misconception("the range leaves 0 out, and the zero point is not a code", without_zero,
        "All values lie on one side of 0, so the code of 0.0 lies beyond the ends of the grid: no 8-bit code can hold "
        "it. Widen the range to include 0 before you divide."),
    Misconception("the range leaves 0 out, and the zero point wraps around",
        without_zero.but(zero_point=wrapped_zero_point),
        "All values lie on one side of 0, so the zero point does not fit its code, and the cast wrapped it around. "
        "Widen the range to include 0 before you divide."),
    Misconception("the range leaves 0 out, and the zero point does not fit uint8",
        without_zero.but(shift=added_in_uint8),
        "All values lie on one side of 0, so the zero point is no code, and NumPy refuses to add it to `uint8`. "
        "Widen the range to include 0; and add the zero point to floats, before the cast."),
    Misconception("0 is included from below only", right.but(ends=lambda x: (min(x.min(), 0), x.max())),
        "Positive data is right now. Where all values are negative, it is the upper end of the range that must move "
        "to 0."),
    Misconception("0 is included from above only", right.but(ends=lambda x: (x.min(), max(x.max(), 0))),
        "Negative data is right now. Where all values are positive, it is the lower end of the range that must move "
        "to 0."),
    Misconception("a range from 0 to the maximum", right.but(ends=lambda x: (0, max(x.max(), 0))),
        "That is enough after a ReLU. Here there are negative values, and all of them became 0: the range begins at "
        "the minimum."),
    Misconception("a constant tensor becomes 0", guarding_constants,
        "max = min does not mean that there is nothing to quantize. With 0 in the range, a constant is one end of it "
        "and comes back exactly; only an all-zero tensor needs a special scale."),
    *families.zero_points(right),
    *families.narrow_zero_points(right),
    Misconception("shifted by the minimum, not by the zero point", shifted_by_minimum,
        "`round((x - min) / scale)` puts the minimum on a code, and 0.0 between two. Then 0.0 does not get the code "
        "zero_point. Count steps from 0, and add the rounded zero point."),
    Misconception("the cast comes before the zero point is added",
        right.but(round=lambda steps: wrapping(np.round(steps), np.uint8).astype(np.int64)),
        "Steps below 0 do not fit into an unsigned integer: -13 wraps around to 243. "
        "Add the zero point and clamp while they are floats, and cast at the end."),
    Misconception("the zero point is added in uint8", right.but(shift=added_in_uint8),
        "Sums in `uint8` wrap around before they can be clamped, and a zero point above 255 cannot be added at all. "
        "Add the zero point and clamp while they are floats, and cast at the end."),
    Misconception("the cast to int8 comes before the zero point is added",
        right.but(round=lambda steps: wrapping(np.round(steps), np.int8).astype(np.int64)),
        "Up to 255 steps do not fit into int8: 195 wraps around to -61. "
        "Add the zero point and clamp while they are floats, and cast at the end."),
    Misconception("the clamp comes before the zero point is added",
        right.but(round=lambda steps: np.maximum(np.round(steps), 0)),
        "Steps below 0 belong to values below 0: clamped to 0, all of these get the code of 0.0. Add the zero point, "
        "then clamp."),
    *families.unsigned_clamps(right),
    Misconception("signed codes",
        right.but(zero_point=lambda low, scale, bits: steps_below_zero(low, scale, bits) - 2 ** (bits - 1),
                  clamp=clamped, dtype=smallest_dtype),
        "Codes from -2^(b-1) are another convention (torch's qint8 has it): everything is shifted by 128. The contract "
        "here is unsigned, from 0 to 2^b - 1."),
    Misconception("128 subtracted from the zero point",
        right.but(result=lambda q, scale, zero_point, x: (q, scale, zero_point - 128)),
        "That offset belongs to signed codes. With codes from 0, the zero point is the number of steps from the "
        "minimum to 0."),
    *families.levels(right),
    Misconception("the symmetric scale",
        right.but(span=lambda low, high: max(-low, high), levels=largest_code),
        "max|x| / (2^(b-1) - 1) is the step of a grid that reaches equally far both ways. This one reaches from the "
        "minimum to the maximum."),
    Misconception("the sum of minimum and maximum for the range",
        right.but(span=lambda low, high: abs(high + low), zero_point=clamped_zero_point),
        "From -1 to 2 the range is 3 long: the minimum is subtracted."),
    *families.unsigned_dtypes(right),
    *families.unsigned_rounding(right),
    *families.units(right),
    *families.scale_floors(right.but(zero_point=families.cast_zero_point), zero="max - min"),
    Misconception("the zero point is not returned", right.but(result=lambda q, scale, zero_point, x: (q, scale)),
        "Without the zero point the codes cannot be read: nobody knows which one stands for 0.0."),
    Misconception("scale and zero point in the wrong order",
        right.but(result=lambda q, scale, zero_point, x: (q, zero_point, scale)),
        "The contract is codes, then scale, then zero point."),
    Misconception("returns the reconstruction instead of the codes",
        right.but(result=lambda q, scale, zero_point, x: ((q - np.float32(zero_point)) * scale, scale, zero_point)),
        "Quantizing ends with integers. The way back is what `dequantize_asymmetric` is for."),
    Misconception("a range for each row",
        right.but(ends=lambda x: (x.min(axis=-1, keepdims=True).clip(max=0), x.max(axis=-1, keepdims=True).clip(0)),
                  floor=lambda scale: scale, zero_point=families.cast_zero_point),
        "One range for the whole tensor here: take minimum and maximum over all elements, without an axis. "
        "A scale a row is lab 03."),
    Misconception("the input is changed", in_place,
        "`x -= ...` writes into the caller's array. `x - ...` makes a new one."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_asymmetric",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_asymmetric,
    cases=cases,
    read=read_asymmetric,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
