"""quantize asymmetric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs.contract import (
    float32_noise,
    judge_codes,
    judge_rounding,
    judge_scale,
    read_asymmetric,
    trained_weights,
)
from labutils.labs.lab02 import LESSON
from labutils.labs.lab02._shared import POSITIVE, _code_dtype, relu_activations
from labutils.labs.recipes import wrapping

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantize_asymmetric(x: Array, num_bits: int = 8) -> tuple[Array, Array, Array]:
    """Unsigned codes, scale and zero point: q = clamp(round(x / scale) + zero_point, 0, 2^b - 1).

    >>> quantize_asymmetric(np.array([-0.6, 0.0, 0.444, 1.95], dtype=np.float32))
    (array([  0,  60, 104, 255], dtype=uint8), array(0.01, dtype=float32), array(60, dtype=int32))

    The range is first widened to include 0, and scale = (max - min) / (2^b - 1), zero_point = round(-min / scale): the
    code of 0.0, which is therefore exact. Jacob et al. 2018 (arXiv:1712.05877), equation 1 and section 2.1.
    """
    quantized = affine.quantize(x, Scheme(num_bits, symmetric=False))
    return quantized.codes, quantized.scale, quantized.zero_point


HAND = np.array([-0.6, -0.127, 0.0, 0.444, 1.95], dtype=np.float32)  # the worked example: scale 0.01, zero point 60


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _quantizer_cases() -> list[Case]:
    w, a = trained_weights(), relu_activations()
    gelu = _gelu(3 * np.random.default_rng(1).normal(size=(16, 40))).astype(np.float32)
    return [
        Case("the worked example", (HAND,), {"num_bits": 8}),
        Case("ReLU activations at 8 bits", (a,), {"num_bits": 8}),
        Case("only positive values", (POSITIVE,), {"num_bits": 8}),
        Case("trained weights at 8 bits", (w,), {"num_bits": 8}),
        Case("trained weights at 4 bits", (w,), {"num_bits": 4}),
        Case("GELU outputs at 3 bits", (gelu,), {"num_bits": 3}),
        Case("trained weights at 2 bits", (w,), {"num_bits": 2}),
        Case("trained weights at 16 bits", (w,), {"num_bits": 16}),
        Case("8 bits is the default", (HAND,)),
        Case("the largest value lies half a step beyond the last code", (np.array([-61.5, 3, 193.5], np.float32),)),
        Case("the same at 4 bits", (np.array([-3.5, 0.0, 11.5], np.float32),), {"num_bits": 4}),
        Case("only negative values", (-np.abs(w[:3]) - np.float32(0.5),), {"num_bits": 6}),
        Case("positive values far from 0", (w[:4] + np.float32(100),), {"num_bits": 4}),
        Case("a positive constant", (np.full(5, 0.3, dtype=np.float32),), {"num_bits": 5}),
        Case("one negative element", (np.array([-0.7], dtype=np.float32),)),
        Case("all zero", (np.zeros((3, 4), dtype=np.float32),)),
        Case("weights a billion times smaller", (w[:4] * np.float32(1e-9),)),
        Case("weights near the largest float32", (w[:4] * np.float32(1e37),)),
        Case("a strided view, 3 axes", (gelu[:6].reshape(6, 5, 8)[:, :, ::2],), {"num_bits": 7}),
        Case("float64 input", (w[0].astype(np.float64) - 0.1,)),
    ]


def _judge_quantized(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.kwargs.get("num_bits", 8)
    _judge_on_the_grid_of(answer, x, float(x.min()), float(x.max()), num_bits, "max - min")


def _judge_on_the_grid_of(answer: dict, x: np.ndarray, low: float, high: float, num_bits: int, length_of: str) -> None:
    """Codes, scale and zero point for the range [low, high], widened to include 0; values of `x` beyond it saturate."""
    q, scale, zero_point = answer["q"], answer["scale"], answer["zero_point"]
    judge_codes(q, x, num_bits, symmetric=False)
    low, high = min(low, 0.0), max(high, 0.0)
    quant_max = Scheme(num_bits, symmetric=False).quant_max
    # For an all-zero tensor any positive scale reconstructs 0.
    judge_scale(scale, (high - low) / quant_max or scale, f"({length_of}, with 0 in the range) / {quant_max}")
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
            f"0.0 lies {steps:.4g} steps above the smallest value of the range, so zero_point should be {steps:.0f}, "
            f"but it is {zero_point}"
        )


def _with_zero(x: np.ndarray) -> tuple:
    return min(x.min(), 0), max(x.max(), 0)


def _without_zero(x: np.ndarray) -> tuple:
    return x.min(), x.max()


def _rounded(low: float, scale: float, num_bits: int) -> int:
    return int(np.round(-low / scale))


def _clamped(low: float, scale: float, num_bits: int) -> int:
    return int(np.clip(np.round(-low / scale), 0, 2**num_bits - 1))


def _limits(num_bits: int) -> tuple[int, int]:
    return 0, 2**num_bits - 1


def _asymmetric(
    span: Callable = _with_zero,
    levels: Callable = lambda bits: 2**bits - 1,
    zero: Callable = _rounded,
    to_codes: Callable = lambda steps, zero: np.round(steps) + zero,
    limits: Callable | None = _limits,
    dtype: Callable | None = _code_dtype,
    guard_zero: bool = True,
    adjust: Callable = lambda scale: scale,
) -> Callable:
    """An asymmetric quantizer in which one step can be replaced by a wrong one."""

    def quantize(x, num_bits=8):
        low, high = span(x)
        scale = adjust(np.float32((high - low) / levels(num_bits)))
        if guard_zero and np.all(scale == 0):
            scale = np.float32(1)
        zero_point = zero(low, scale, num_bits)
        steps = to_codes(x / scale, zero_point)
        if limits is not None:
            steps = np.clip(steps, *limits(num_bits))
        return (steps if dtype is None else wrapping(steps, dtype(num_bits))), scale, zero_point

    return quantize


def _returning(what: Callable) -> Callable:
    """The right codes, scale and zero point, of which `what(q, scale, zero_point, x)` is returned."""

    def quantize(x, num_bits=8):
        return what(*quantize_asymmetric(x, num_bits), x)

    return quantize


def _in_place(x, num_bits=8):
    found = quantize_asymmetric(x, num_bits)
    x -= x.min()
    return found


def _guarding_constants(x, num_bits=8):
    if x.max() == x.min():
        return np.zeros(x.shape, _code_dtype(num_bits)), np.float32(1), 0
    return quantize_asymmetric(x, num_bits)


def _symmetric_scale(x, num_bits=8):
    scale = np.float32(np.abs(x).max() / (2 ** (num_bits - 1) - 1)) or np.float32(1)
    zero_point = _rounded(min(x.min(), 0), scale, num_bits)
    return (
        np.clip(np.round(x / scale) + zero_point, 0, 2**num_bits - 1).astype(_code_dtype(num_bits)),
        scale,
        zero_point,
    )


def _sum_for_range(x, num_bits=8):
    low, high = _with_zero(x)
    scale = np.float32(abs(high + low) / (2**num_bits - 1)) or np.float32(1)
    zero_point = _clamped(low, scale, num_bits)
    return (
        np.clip(np.round(x / scale) + zero_point, *_limits(num_bits)).astype(_code_dtype(num_bits)),
        scale,
        zero_point,
    )


def _shifted_by_minimum(x, num_bits=8):
    _, scale, zero_point = quantize_asymmetric(x, num_bits)
    steps = np.round((x - min(x.min(), 0)) / scale)
    return np.clip(steps, *_limits(num_bits)).astype(_code_dtype(num_bits)), scale, zero_point


def _added_in_uint8(span: Callable) -> Callable:
    """What NumPy 2 makes of `steps.astype(np.uint8) + zero_point`: the sum wraps, and a large zero point is refused."""

    def quantize(x, num_bits=8):
        low, high = span(x)
        scale = np.float32((high - low) / (2**num_bits - 1)) or np.float32(1)
        zero_point = _rounded(low, scale, num_bits)
        if not 0 <= zero_point <= 255:
            raise OverflowError(f"Python integer {zero_point} out of bounds for uint8")
        return np.clip(wrapping(np.round(x / scale) + zero_point, np.uint8), *_limits(num_bits)), scale, zero_point

    return quantize


def _signed(x, num_bits=8):
    q, scale, zero_point = quantize_asymmetric(x, num_bits)
    offset = 2 ** (num_bits - 1)
    kind = np.int8 if num_bits <= 8 else np.int16
    return (q.astype(np.int32) - offset).astype(kind), scale, int(zero_point) - offset


def _per_row(x, num_bits=8):
    low = np.minimum(x.min(axis=-1, keepdims=True), 0)
    high = np.maximum(x.max(axis=-1, keepdims=True), 0)
    scale = (high - low) / np.float32(2**num_bits - 1)
    zero_point = np.round(-low / scale)
    return wrapping(np.round(x / scale) + zero_point, _code_dtype(num_bits)), scale, zero_point.astype(np.int32)


QUANTIZE_ASYMMETRIC = (
    Misconception(
        "the range leaves 0 out, and the clamp of the zero point flattens everything",
        _asymmetric(span=_without_zero, zero=_clamped),
        "All values lie on one side of 0, so 0.0 is not between them, and the zero point does not fit its code. "
        "Clamping it moves the whole grid away from the values. Widen the range to include 0 before you divide.",
    ),
    Misconception(
        "the range leaves 0 out, and the zero point is not a code",
        _asymmetric(span=_without_zero),
        "All values lie on one side of 0, so the code of 0.0 lies beyond the ends of the grid: no 8-bit code can hold "
        "it. Widen the range to include 0 before you divide.",
    ),
    Misconception(
        "the range leaves 0 out, and the zero point wraps around",
        _asymmetric(
            span=_without_zero,
            zero=lambda low, scale, bits: int(wrapping(np.round(-low / scale), _code_dtype(bits))),
        ),
        "All values lie on one side of 0, so the zero point does not fit its code, and the cast wrapped it around. "
        "Widen the range to include 0 before you divide.",
    ),
    Misconception(
        "the range leaves 0 out, and the zero point does not fit uint8",
        _added_in_uint8(_without_zero),
        "All values lie on one side of 0, so the zero point is no code, and NumPy refuses to add it to `uint8`. "
        "Widen the range to include 0; and add the zero point to floats, before the cast.",
    ),
    Misconception(
        "0 is included from below only",
        _asymmetric(span=lambda x: (min(x.min(), 0), x.max())),
        "Positive data is right now. Where all values are negative, it is the upper end of the range that must move to "
        "0.",
    ),
    Misconception(
        "0 is included from above only",
        _asymmetric(span=lambda x: (x.min(), max(x.max(), 0))),
        "Negative data is right now. Where all values are positive, it is the lower end of the range that must move to "
        "0.",
    ),
    Misconception(
        "a range from 0 to the maximum",
        _asymmetric(span=lambda x: (np.float32(0), max(x.max(), 0)), zero=lambda low, scale, bits: 0),
        "That is enough after a ReLU. Here there are negative values, and all of them became 0: the range begins at "
        "the minimum.",
    ),
    Misconception(
        "a constant tensor becomes 0",
        _guarding_constants,
        "max = min does not mean that there is nothing to quantize. With 0 in the range, a constant is one end of it "
        "and comes back exactly; only an all-zero tensor needs a special scale.",
    ),
    Misconception(
        "the zero point has the wrong sign",
        _asymmetric(zero=lambda low, scale, bits: int(np.round(low / scale))),
        "The smallest value, which is negative, must get code 0: so what is added to its steps must be positive.",
    ),
    Misconception(
        "the zero point is subtracted from the steps, with its sign turned",
        _asymmetric(
            zero=lambda low, scale, bits: int(np.round(low / scale)),
            to_codes=lambda steps, zero: np.round(steps) - zero,
        ),
        "The codes are right. But the zero point is the code of 0.0, so it is never negative, and it is added to the "
        "steps.",
    ),
    Misconception(
        "the zero point is subtracted from the steps",
        _asymmetric(to_codes=lambda steps, zero: np.round(steps) - zero),
        "0.0 is 0 steps, and its code should be the zero point: add it. Subtracting it is the way back.",
    ),
    Misconception(
        "the zero point is truncated",
        _asymmetric(zero=lambda low, scale, bits: int(-low / scale)),
        "`int(...)` cuts the fraction off: 60.8 becomes 60, and the grid is shifted by nearly a step. Round first.",
    ),
    Misconception(
        "the zero point is rounded up",
        _asymmetric(zero=lambda low, scale, bits: int(np.ceil(-low / scale))),
        "`ceil` always goes up, and the grid is shifted by up to a step. Go to the nearest integer.",
    ),
    Misconception(
        "the zero point is not rounded",
        _asymmetric(
            zero=lambda low, scale, bits: float(-low / scale), to_codes=lambda steps, zero: np.round(steps + zero)
        ),
        "The ends of the range are exact now, but 0.0 lies between two codes and comes back as something else. "
        "Round the zero point to a whole code.",
    ),
    Misconception(
        "the zero point is a whole number, but stored as a float",
        _asymmetric(zero=lambda low, scale, bits: float(np.round(-low / scale))),
        "`np.round` returns a float. A code is an integer: turn it into one.",
    ),
    Misconception(
        "the minimum stored as the zero point",
        _asymmetric(
            zero=lambda low, scale, bits: float(low),
            to_codes=lambda steps, low: np.round(steps - np.round(steps.min())),
        ),
        "The zero point is a code, not a value of x: how many steps of scale lie between the minimum and 0.",
    ),
    Misconception(
        "the minimum without the scale as the zero point",
        _asymmetric(zero=lambda low, scale, bits: int(np.round(-low))),
        "The zero point counts steps, so the distance from the minimum to 0 must be divided by the scale.",
    ),
    Misconception(
        "shifted by the minimum, not by the zero point",
        _shifted_by_minimum,
        "`round((x - min) / scale)` puts the minimum on a code, and 0.0 between two. Then 0.0 does not get the code "
        "zero_point. Count steps from 0, and add the rounded zero point.",
    ),
    Misconception(
        "the cast comes before the zero point is added",
        _asymmetric(
            to_codes=lambda steps, zero: wrapping(np.round(steps), np.uint8).astype(np.int64) + zero,
        ),
        "Steps below 0 do not fit into an unsigned integer: -13 wraps around to 243. "
        "Add the zero point and clamp while they are floats, and cast at the end.",
    ),
    Misconception(
        "the zero point is added in uint8",
        _added_in_uint8(_with_zero),
        "Sums in `uint8` wrap around before they can be clamped, and a zero point above 255 cannot be added at all. "
        "Add the zero point and clamp while they are floats, and cast at the end.",
    ),
    Misconception(
        "the cast to int8 comes before the zero point is added",
        _asymmetric(
            to_codes=lambda steps, zero: wrapping(np.round(steps), np.int8).astype(np.int64) + zero,
        ),
        "Up to 255 steps do not fit into int8: 195 wraps around to -61. "
        "Add the zero point and clamp while they are floats, and cast at the end.",
    ),
    Misconception(
        "no clamp",
        _asymmetric(limits=None),
        "Scale and zero point are both rounded, so the largest value can land half a step beyond the last code, and "
        "the cast wraps 256 around to 0. Clamp before you cast.",
    ),
    Misconception(
        "signed codes",
        _signed,
        "Codes from -2^(b-1) are another convention (torch's qint8 has it): everything is shifted by 128. The contract "
        "here is unsigned, from 0 to 2^b - 1.",
    ),
    Misconception(
        "128 subtracted from the zero point",
        _returning(lambda q, scale, zero_point, x: (q, scale, int(zero_point) - 128)),
        "That offset belongs to signed codes. With codes from 0, the zero point is the number of steps from the "
        "minimum to 0.",
    ),
    Misconception(
        "zero point in the middle of the codes",
        _asymmetric(zero=lambda low, scale, bits: 2 ** (bits - 1)),
        "The middle is right only if the range is as long below 0 as above. Look where 0.0 lies in this one.",
    ),
    Misconception(
        "no zero point: it is always 0",
        _asymmetric(zero=lambda low, scale, bits: 0),
        "With the zero point 0, code 0 stands for 0.0, and all negative values are clamped to it. How many steps lie "
        "between the minimum and 0? That is the code of 0.0.",
    ),
    Misconception(
        "divides by 2^b",
        _asymmetric(levels=lambda bits: 2**bits),
        "Between 2^b codes there are 2^b - 1 steps: 255 at 8 bits.",
    ),
    Misconception(
        "the symmetric scale",
        _symmetric_scale,
        "max|x| / (2^(b-1) - 1) is the step of a grid that reaches equally far both ways. This one reaches from the "
        "minimum to the maximum.",
    ),
    Misconception(
        "divides by 2^(b-1) - 1",
        _asymmetric(levels=lambda bits: 2 ** (bits - 1) - 1),
        "The whole range is spread over all codes, 0 to 2^b - 1: that is 2^b - 1 steps, 255 at 8 bits.",
    ),
    Misconception(
        "the sum of minimum and maximum for the range",
        _sum_for_range,
        "From -1 to 2 the range is 3 long: the minimum is subtracted.",
    ),
    Misconception(
        "255 at every bit width",
        _asymmetric(levels=lambda bits: 255, limits=lambda bits: (0, 255)),
        "255 is the largest code at 8 bits only. Compute it from num_bits: 15 at 4 bits.",
    ),
    Misconception(
        "the scale uses 255 at every bit width",
        _asymmetric(levels=lambda bits: 255),
        "The codes are clamped to num_bits, but the scale still divides by 255. It must use the same largest code as "
        "the clamp.",
    ),
    Misconception(
        "uint8 at every bit width",
        _asymmetric(dtype=lambda bits: np.uint8),
        "Codes of more than 8 bits do not fit into uint8: they wrap around. Use uint16 above 8 bits.",
    ),
    Misconception(
        "codes in a signed dtype",
        _asymmetric(dtype=lambda bits: np.int8 if bits <= 8 else np.int16),
        "Codes go up to 255, and int8 ends at 127: what is above wraps around. Use an unsigned integer.",
    ),
    Misconception(
        "an all-zero tensor divides by zero",
        _asymmetric(
            guard_zero=False, zero=lambda low, scale, bits: np.asarray(np.round(-low / scale)).astype(np.int64)[()]
        ),
        "The range of zeros has no length, so the scale is 0, and 0 / 0 is NaN. Any positive scale will do: use 1.",
    ),
    Misconception(
        "codes left as floats",
        _asymmetric(dtype=None),
        "The values are whole numbers, but still stored as floats: nothing got smaller. Cast them to unsigned ones.",
    ),
    Misconception(
        "codes wider than they need to be",
        _asymmetric(dtype=lambda bits: np.uint16),
        "uint16 takes 2 bytes a code. uint8 holds codes of up to 8 bits.",
    ),
    Misconception(
        "codes wider than they need to be",
        _asymmetric(dtype=lambda bits: np.int32),
        "int32 takes 4 bytes a code, as many as float32. uint8 holds codes of up to 8 bits, uint16 of up to 16.",
    ),
    Misconception(
        "codes wider than they need to be",
        _asymmetric(dtype=lambda bits: np.int64),
        "int64 takes 8 bytes a code, twice as many as float32. uint8 holds codes of up to 8 bits, uint16 of up to 16.",
    ),
    Misconception(
        "floor or a cast instead of round",
        _asymmetric(to_codes=lambda steps, zero: np.floor(steps + zero)),
        "`np.floor` and a cast of positive numbers go down, so the error reaches a whole step. "
        "Go to the nearest integer before you cast.",
    ),
    Misconception(
        "truncation before the zero point is added",
        _asymmetric(to_codes=lambda steps, zero: np.trunc(steps) + zero),
        "Truncation moves everything towards 0: 1.9 becomes 1 and -1.9 becomes -1. Go to the nearest integer.",
    ),
    Misconception(
        "ceil instead of round",
        _asymmetric(to_codes=lambda steps, zero: np.ceil(steps + zero)),
        "`np.ceil` always goes up, so the error reaches a whole step. Go to the nearest integer.",
    ),
    Misconception(
        "a floor under the scale",
        _asymmetric(adjust=lambda scale: np.maximum(scale, np.float32(1e-8)), guard_zero=False),
        "A smallest scale such as 1e-8 rounds tensors of small values to zero. "
        "Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "an epsilon added to the scale",
        _asymmetric(adjust=lambda scale: scale + np.float32(1e-8), guard_zero=False),
        "Adding 1e-8 wipes out tensors whose scale is smaller than that. Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "the zero point is not returned",
        _returning(lambda q, scale, zero_point, x: (q, scale)),
        "Without the zero point the codes cannot be read: nobody knows which one stands for 0.0.",
    ),
    Misconception(
        "scale and zero point in the wrong order",
        _returning(lambda q, scale, zero_point, x: (q, zero_point, scale)),
        "The contract is codes, then scale, then zero point.",
    ),
    Misconception(
        "returns the reconstruction instead of the codes",
        _returning(lambda q, scale, zero_point, x: ((q.astype(np.float32) - zero_point) * scale, scale, zero_point)),
        "Quantizing ends with integers. The way back is what `dequantize_asymmetric` is for.",
    ),
    Misconception(
        "a range for each row",
        _per_row,
        "One range for the whole tensor here: take minimum and maximum over all elements, without an axis. "
        "A scale a row is lab 03.",
    ),
    Misconception(
        "the input is changed",
        _in_place,
        "`x -= ...` writes into the caller's array. `x - ...` makes a new one.",
    ),
)


EXERCISE = Exercise(
    name="quantize_asymmetric",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_asymmetric,
    cases=_quantizer_cases,
    read=read_asymmetric,
    judge=_judge_quantized,
    misconceptions=QUANTIZE_ASYMMETRIC,
)
