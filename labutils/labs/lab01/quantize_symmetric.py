"""quantize symmetric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.metrics import quantization_error as quantization_error  # a learner writes it in lab 01
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception
from labutils.labs.contract import (
    judge_codes,
    judge_rounding,
    judge_scale,
    read_quantized,
    trained_weights,
    wrapping,
)
from labutils.labs.lab01 import LESSON

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantize_symmetric(x: Array, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes and the one scale of a tensor: scale = max|x| / (2^(b-1) - 1), q = clamp(round(x / scale)).

    >>> quantize_symmetric(np.array([-1.0, 0.5, 2.54], dtype=np.float32))
    (array([-50,  25, 127], dtype=int8), array(0.02, dtype=float32))
    """
    quantized = affine.quantize(x, Scheme(num_bits))
    return quantized.codes, quantized.scale


HAND = np.array([-1.013, 0.3, 0.786, 2.54], dtype=np.float32)  # the worked example of the lesson: scale 0.02 at 8 bits


def _quantizer_cases() -> list[Case]:
    w = trained_weights()
    return [
        Case("the worked example", (HAND,), {"num_bits": 8}),
        Case("trained weights at 8 bits", (w,), {"num_bits": 8}),
        Case("trained weights at 4 bits", (w,), {"num_bits": 4}),
        Case("trained weights at 2 bits", (w,), {"num_bits": 2}),
        Case("trained weights at 16 bits", (w,), {"num_bits": 16}),
        Case("8 bits is the default", (HAND,)),
        Case("the largest magnitude is negative", (np.array([0.4, -3.0, 1.1, 0.05], dtype=np.float32),)),
        Case("only negative values", (-np.abs(w[0]),), {"num_bits": 6}),
        Case("only positive values", (np.abs(w[1]),), {"num_bits": 6}),
        Case("all zero", (np.zeros((3, 4), dtype=np.float32),)),
        Case("one element", (np.array([-0.7], dtype=np.float32),)),
        Case("a constant", (np.full(5, 0.3, dtype=np.float32),), {"num_bits": 5}),
        Case("weights a billion times smaller", (w[:4] * np.float32(1e-9),)),
        Case("weights near the largest float32", (w[:4] * np.float32(1e37),)),
        Case("a strided view, 3 axes", (w[:6].reshape(6, 8, 8)[:, :, ::2],), {"num_bits": 7}),
        Case("float64 input", (w[0].astype(np.float64),)),
    ]


def _judge_quantized(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.kwargs.get("num_bits", 8)
    q, scale = answer["q"], answer["scale"]
    judge_codes(q, x, num_bits)
    largest = float(np.abs(x.astype(np.float64)).max())
    quant_max = Scheme(num_bits).quant_max
    # For an all-zero tensor any positive scale reconstructs 0.
    judge_scale(scale, largest / quant_max if largest else scale, f"max|x| / {quant_max}")
    judge_rounding(q, scale, x, num_bits)


def _symmetric(
    span: Callable = lambda x: np.abs(x).max(),
    divisor: Callable = lambda bits: 2 ** (bits - 1) - 1,
    to_codes: Callable = np.round,
    limits: Callable = lambda bits: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
    dtype: Callable = lambda bits: np.int8 if bits <= 8 else np.int16,
    guard_zero: bool = True,
    adjust: Callable = lambda scale: scale,
) -> Callable:
    """A symmetric quantizer in which one step can be replaced by a wrong one."""

    def quantize(x, num_bits=8):
        scale = adjust(np.float32(span(x) / divisor(num_bits)))
        if guard_zero and scale == 0:
            scale = np.float32(1)
        steps = to_codes(x / scale)
        if limits is not None:
            steps = np.clip(steps, *limits(num_bits))
        kind = dtype(num_bits)
        return (steps if kind is None else wrapping(steps, kind)), scale

    return quantize


def _quantize_returning(what: Callable) -> Callable:
    """The right codes and scale, of which `what(q, scale, x)` is returned."""

    def quantize(x, num_bits=8):
        return what(*quantize_symmetric(x, num_bits), x)

    return quantize


def _in_place(x, num_bits=8):
    q, scale = quantize_symmetric(x, num_bits)
    x /= scale
    return q, scale


QUANTIZE_SYMMETRIC = (
    Misconception(
        "floor instead of round",
        _symmetric(to_codes=np.floor),
        "`np.floor` always goes down, so the error reaches a whole step, and its mean is not zero. "
        "Go to the nearest integer.",
    ),
    Misconception(
        "truncation instead of round",
        _symmetric(to_codes=np.trunc),
        "Casting to an integer cuts the fraction off: 1.9 becomes 1 and -1.9 becomes -1. Round before you cast.",
    ),
    Misconception(
        "ceil instead of round",
        _symmetric(to_codes=np.ceil),
        "`np.ceil` always goes up, so the error reaches a whole step. Go to the nearest integer.",
    ),
    Misconception(
        "max(x) instead of max|x|",
        _symmetric(span=lambda x: x.max()),
        "The scale must cover the largest magnitude. Here that one is negative, and `max` does not see it.",
    ),
    Misconception(
        "the whole range max - min for the span",
        _symmetric(span=lambda x: x.max() - x.min(), divisor=lambda bits: 2**bits - 1),
        "`(max - min) / (2^b - 1)` belongs to asymmetric quantization, which also has a zero point (lab 02). "
        "The symmetric grid reaches equally far both ways, as far as max|x|.",
    ),
    Misconception(
        "divides by 2^(b-1)",
        _symmetric(divisor=lambda bits: 2 ** (bits - 1)),
        "The largest code is 2^(b-1) - 1: 127 at 8 bits, not 128. With 128 the largest value has no code of its own.",
    ),
    Misconception(
        "divides by 2^(b-1), and the cast wraps around",
        _symmetric(divisor=lambda bits: 2 ** (bits - 1), limits=None),
        "The largest value got code 128, which int8 cannot hold: it wrapped to -128 and came back with the wrong sign. "
        "The largest code is 2^(b-1) - 1, and a clamp before the cast keeps codes in range.",
    ),
    Misconception(
        "divides by 2^b - 1",
        _symmetric(divisor=lambda bits: 2**bits - 1),
        "2^b - 1 = 255 counts the steps of the whole grid, but max|x| spans only the positive half of it: 127 steps.",
    ),
    Misconception(
        "divides by 2^b - 1, and the cast wraps around",
        _symmetric(divisor=lambda bits: 2**bits - 1, limits=None),
        "2^b - 1 = 255 counts the steps of the whole grid, but max|x| spans only the positive half of it: 127 steps. "
        "The codes went beyond 127 and wrapped around in the cast.",
    ),
    Misconception(
        "divides by 2^b",
        _symmetric(divisor=lambda bits: 2**bits),
        "2^b = 256 counts the codes of the whole grid, but max|x| spans only the positive half of it: 127 steps.",
    ),
    Misconception(
        "127 at every bit width",
        _symmetric(divisor=lambda bits: 127, limits=lambda bits: (-128, 127)),
        "127 is the largest code at 8 bits only. Compute it from num_bits: 7 at 4 bits, 1 at 2 bits.",
    ),
    Misconception(
        "the scale uses 127 at every bit width",
        _symmetric(divisor=lambda bits: 127),
        "The codes are clamped to num_bits, but the scale still divides by 127, so all but the smallest values are cut "
        "off. The scale must use the same largest code as the clamp.",
    ),
    Misconception(
        "int8 at every bit width",
        _symmetric(dtype=lambda bits: np.int8),
        "Codes of more than 8 bits do not fit into int8: they wrap around. Use int16 above 8 bits.",
    ),
    Misconception(
        "an all-zero tensor divides by zero",
        _symmetric(guard_zero=False),
        "max|x| is 0 here, so the scale is 0, and 0 / 0 is NaN. Any positive scale will do for zeros: use 1.",
    ),
    Misconception(
        "codes left as floats",
        _symmetric(dtype=lambda bits: None),
        "The values are whole numbers, but still stored as floats: nothing got smaller. Cast them to an integer dtype.",
    ),
    Misconception(
        "codes wider than they need to be",
        _symmetric(dtype=lambda bits: np.int32),
        "int32 takes 4 bytes a code, as many as float32. int8 holds codes of up to 8 bits, int16 of up to 16.",
    ),
    Misconception(
        "codes wider than they need to be",
        _symmetric(dtype=lambda bits: np.int64),
        "int64 takes 8 bytes a code, twice as many as float32. int8 holds codes of up to 8 bits, int16 of up to 16.",
    ),
    Misconception(
        "unsigned codes",
        _symmetric(dtype=lambda bits: np.uint8 if bits <= 8 else np.uint16),
        "Negative values need negative codes, and uint8 wraps -1 around to 255. Use a signed integer.",
    ),
    Misconception(
        "a floor under the scale",
        _symmetric(adjust=lambda scale: np.maximum(scale, np.float32(1e-8))),
        "A smallest scale such as 1e-8 rounds tensors of small values to zero. "
        "Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "an epsilon added to the scale",
        _symmetric(adjust=lambda scale: scale + np.float32(1e-8), guard_zero=False),
        "Adding 1e-8 wipes out tensors whose scale is smaller than that. Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "multiplies by the scale",
        lambda x, num_bits=8: (
            wrapping(np.round(x * quantize_symmetric(x, num_bits)[1]), np.int8 if num_bits <= 8 else np.int16),
            quantize_symmetric(x, num_bits)[1],
        ),
        "scale is the size of one step, so x / scale says how many steps x is away from 0.",
    ),
    Misconception(
        "returns the reconstruction instead of the codes",
        _quantize_returning(lambda q, scale, x: (q * scale, scale)),
        "Quantizing ends with integers. Multiplying by the scale again is what `dequantize_symmetric` is for.",
    ),
    Misconception(
        "returns scale and codes in the wrong order",
        _quantize_returning(lambda q, scale, x: (scale, q)),
        "The contract is `return q, scale`: codes first.",
    ),
    Misconception(
        "the scale is upside down",
        _quantize_returning(lambda q, scale, x: (q, 1 / scale)),
        "quant_max / max|x| is how many steps fit into one unit. The scale is how long a step is: max|x| / quant_max.",
    ),
    Misconception(
        "a scale for each row",
        _symmetric(span=lambda x: np.abs(x).max(axis=-1, keepdims=True), guard_zero=False),
        "One scale for the whole tensor here: take the maximum over all elements, without an axis. "
        "A scale a row is lab 03.",
    ),
    Misconception(
        "the input is changed",
        _in_place,
        "`x /= scale` writes into the caller's array. `x / scale` makes a new one.",
    ),
)


EXERCISE = Exercise(
    name="quantize_symmetric",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_symmetric,
    cases=_quantizer_cases,
    read=read_quantized,
    judge=_judge_quantized,
    misconceptions=QUANTIZE_SYMMETRIC,
)
