"""Lab 01: symmetric quantization, its inverse, its error, and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from labutils import answers
from labutils.checks.contract import (
    float32_noise,
    judge_codes,
    judge_rounding,
    judge_scale,
    read_quantized,
    trained_weights,
    wrapping,
)
from labutils.checks.engine import Case, Exercise, Misconception, Wrong, as_array, as_number, describe
from labutils.metrics import sqnr_db
from labutils.scheme import Scheme

LAB = "01_fundamentals"
HAND = np.array([-1.013, 0.3, 0.786, 2.54], dtype=np.float32)  # the worked example of the lesson: scale 0.02 at 8 bits


# --- quantize_symmetric -----------------------------------------------------------------------------------------------


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
        return what(*answers.quantize_symmetric(x, num_bits), x)

    return quantize


def _in_place(x, num_bits=8):
    q, scale = answers.quantize_symmetric(x, num_bits)
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
            wrapping(np.round(x * answers.quantize_symmetric(x, num_bits)[1]), np.int8 if num_bits <= 8 else np.int16),
            answers.quantize_symmetric(x, num_bits)[1],
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

# --- dequantize_symmetric ---------------------------------------------------------------------------------------------


def _dequantizer_cases() -> list[Case]:
    rng = np.random.default_rng(1)
    q = rng.integers(-127, 128, (16, 8)).astype(np.int8)
    return [
        Case("the worked example", (np.array([-50, 15, 38, 127], dtype=np.int8), np.float32(0.02))),
        Case("a matrix of 8-bit codes", (q, np.float32(0.0123))),
        Case("a scale that is a Python float", (q, 0.0123)),
        Case("a scale larger than 1", (q, np.float32(3.7))),
        Case("16-bit codes", (rng.integers(-32767, 32768, 50).astype(np.int16), np.float32(2e-4))),
        Case("the code -128", (np.array([-128, 0, 127], dtype=np.int8), np.float32(0.5))),
        Case("all zero", (np.zeros((2, 3), dtype=np.int8), np.float32(1))),
        Case("a tiny scale", (q[0], np.float32(1e-12))),
    ]


def _read_floats(value: object) -> dict:
    return {"x": as_array(value, "the result")}


def _judge_dequantized(answer: dict, case: Case) -> None:
    q, scale = case.args
    x = answer["x"]
    if x.shape != q.shape:
        raise Wrong(f"the result should have the shape of q, {q.shape}, but has {x.shape}")
    if x.dtype != np.float32:
        why = ": int8 times a Python float is float64 in NumPy" if x.dtype == np.float64 else ""
        raise Wrong(f"the result should be float32, but its dtype is {x.dtype}{why}")
    expected = q.astype(np.float64) * float(scale)
    error = np.abs(x - expected)
    worst = np.unravel_index(np.argmax(error), error.shape)
    if not error[worst] <= 2.0**-22 * abs(expected[worst]):  # two roundings to float32
        raise Wrong(
            f"code {q[worst]} at scale {float(scale):.4g} stands for {expected[worst]:.6g}, "
            f"but came back as {x[worst]:.6g}"
        )


DEQUANTIZE_SYMMETRIC = (
    Misconception(
        "divides by the scale",
        lambda q, scale: (q / scale).astype(np.float32),
        "Quantizing divided by the scale; the way back multiplies.",
    ),
    Misconception(
        "a float64 result",
        lambda q, scale: q.astype(np.float64) * float(scale),
        "float64 takes twice the memory of the float32 that was quantized. Turn the codes to float32 first.",
    ),
    Misconception(
        "a float64 result where the scale is a Python float",
        lambda q, scale: q * scale,
        "NumPy makes int8 times a Python float a float64. Turn the codes to float32 first.",
    ),
    Misconception(
        "the scale is lost in an integer",
        lambda q, scale: (q * np.int8(scale)).astype(np.float32),
        "A scale such as 0.02 is 0 as an integer. Turn the codes to float, not the scale to int.",
    ),
    Misconception(
        "the product is cast back to integers",
        lambda q, scale: wrapping(np.trunc(q * np.float32(scale)), q.dtype.type),
        "The point of coming back is to have floats again: leave the product as float32.",
    ),
    Misconception(
        "the scale is not used",
        lambda q, scale: q.astype(np.float32),
        "A code counts steps. What it stands for is that many steps of size scale.",
    ),
    Misconception(
        "adds the scale",
        lambda q, scale: q.astype(np.float32) + np.float32(scale),
        "A code counts steps. What it stands for is that many steps of size scale: a product.",
    ),
    Misconception(
        "divides by 127 as well",
        lambda q, scale: q.astype(np.float32) * np.float32(scale) / 127,
        "The division by 127 is in the scale already.",
    ),
)

# --- quantization_error -----------------------------------------------------------------------------------------------

MEASURES = ("mse", "mae", "max_error", "relative_error", "sqnr_db", "codes_used")


def _error_cases() -> list[Case]:
    def case(name: str, x: np.ndarray, num_bits: int) -> Case:
        q, scale = answers.quantize_symmetric(x, num_bits)
        return Case(name, (x, q, answers.dequantize_symmetric(q, scale)))

    w = trained_weights()
    by_hand = np.array([-1.0, 0.0, 1.0, 2.0], dtype=np.float32)
    return [
        Case("the worked example", (by_hand, np.array([-1, 0, 1, 1], dtype=np.int8), np.clip(by_hand, -1, 1))),
        case("trained weights at 8 bits", w, 8),
        case("trained weights at 4 bits", w, 4),
        case("trained weights at 2 bits", w, 2),
        case("values far from zero", w[:8] + np.float32(3), 6),
        case("errors of both signs, the largest negative", np.array([1.0, -0.27, 0.55, 0.1], dtype=np.float32), 3),
        Case("nothing was lost", (by_hand, by_hand.astype(np.int8), by_hand.copy())),
    ]


def _read_measures(value: object) -> dict:
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict with the keys {', '.join(MEASURES)}, but returned {describe(value)}")
    missing = [name for name in MEASURES if name not in value]
    if missing:
        raise Wrong(f"the dict has no {', '.join(missing)} (its keys are {', '.join(map(str, value)) or 'none'})")
    return {name: as_number(value[name], name) for name in MEASURES}


def _judge_measures(answer: dict, case: Case) -> None:
    expected = answers.quantization_error(*case.args)
    for name in MEASURES:
        # float32 sums over 8192 values are good to about 1e-5; 1e-3 leaves room for any order of summation.
        if not math.isclose(answer[name], expected[name], rel_tol=1e-3, abs_tol=1e-12):
            raise Wrong(f"{name} should be {expected[name]:.6g}, but it is {answer[name]:.6g}")


def _measuring(**wrong: Callable) -> Callable:
    """The right measures, but for those given as name=function of (x, q, x')."""

    def measure(original, quantized, dequantized):
        right = answers.quantization_error(original, quantized, dequantized)
        x, q, back = (np.asarray(a, dtype=np.float64) for a in (original, quantized, dequantized))
        return right | {name: float(function(x, q, back)) for name, function in wrong.items()}

    return measure


def _mse(x, q, back):
    return np.mean((x - back) ** 2)


QUANTIZATION_ERROR = (
    Misconception(
        "mse without the square",
        _measuring(mse=lambda x, q, back: np.mean(x - back)),
        "Errors of both signs cancel in a plain mean. Square each one first.",
    ),
    Misconception(
        "mse of absolute errors",
        _measuring(mse=lambda x, q, back: np.mean(np.abs(x - back))),
        "That is the mean absolute error. The s in mse is for squared.",
    ),
    Misconception(
        "mse without the mean",
        _measuring(mse=lambda x, q, back: np.sum((x - back) ** 2)),
        "A sum grows with the size of the tensor. Divide by the number of elements.",
    ),
    Misconception(
        "the root of the mse",
        _measuring(mse=lambda x, q, back: np.sqrt(_mse(x, q, back))),
        "That is the root mean squared error. The mse has no root.",
    ),
    Misconception(
        "mse of the mean",
        _measuring(mse=lambda x, q, back: np.mean(x - back) ** 2),
        "Square first, then take the mean: the other way round, errors of both signs cancel.",
    ),
    Misconception(
        "the error against the codes",
        _measuring(
            mse=lambda x, q, back: np.mean((x - q) ** 2),
            mae=lambda x, q, back: np.mean(np.abs(x - q)),
            max_error=lambda x, q, back: np.max(np.abs(x - q)),
            relative_error=lambda x, q, back: np.mean((x - q) ** 2) / np.var(x),
            sqnr_db=lambda x, q, back: 10 * np.log10(np.mean(x**2) / max(np.mean((x - q) ** 2), 1e-300)),
        ),
        "Codes count steps, the original is in units of x. Compare the original with `dequantized`.",
    ),
    Misconception(
        "mae without the absolute value",
        _measuring(mae=lambda x, q, back: np.mean(x - back)),
        "Errors of both signs cancel in a plain mean. Take the absolute value of each one first.",
    ),
    Misconception(
        "max_error without the absolute value",
        _measuring(max_error=lambda x, q, back: np.max(x - back)),
        "The largest error may be negative. Take absolute values before the maximum.",
    ),
    Misconception(
        "relative error against the mean",
        _measuring(relative_error=lambda x, q, back: _mse(x, q, back) / np.mean(x)),
        "The mean of weights is near 0, so dividing by it says nothing. Divide by their variance.",
    ),
    Misconception(
        "relative error against the mean square",
        _measuring(relative_error=lambda x, q, back: _mse(x, q, back) / np.mean(x**2)),
        "The mean of x^2 is the variance only where the mean of x is 0. Divide by `np.var(original)`.",
    ),
    Misconception(
        "relative error against the standard deviation",
        _measuring(relative_error=lambda x, q, back: _mse(x, q, back) / np.std(x)),
        "The mse is in squared units, the standard deviation is not. Divide by the variance.",
    ),
    Misconception(
        "relative error element by element",
        _measuring(relative_error=lambda x, q, back: np.mean(np.abs(x - back) / (np.abs(x) + 1e-8))),
        "Dividing by each value lets those near 0 decide everything. The contract is mse / variance.",
    ),
    Misconception(
        "the ratio upside down",
        _measuring(sqnr_db=lambda x, q, back: -sqnr_db(x, back)),
        "Signal over noise: a smaller error must give more decibels.",
    ),
    Misconception(
        "20 log10 of a ratio of powers",
        _measuring(sqnr_db=lambda x, q, back: 2 * sqnr_db(x, back)),
        "Mean squares are powers, and decibels of powers are 10 log10. 20 log10 is for amplitudes.",
    ),
    Misconception(
        "10 log10 of a ratio of amplitudes",
        _measuring(sqnr_db=lambda x, q, back: sqnr_db(x, back) / 2),
        "Standard deviations are amplitudes. Take mean squares with 10 log10, or amplitudes with 20 log10.",
    ),
    Misconception(
        "the natural logarithm",
        _measuring(sqnr_db=lambda x, q, back: sqnr_db(x, back) * math.log(10)),
        "`np.log` is the natural logarithm. Decibels use base 10: `np.log10`.",
    ),
    Misconception(
        "the ratio, but not in decibels",
        _measuring(sqnr_db=lambda x, q, back: 10 ** (sqnr_db(x, back) / 10)),
        "The ratio is right. Decibels are 10 log10 of it.",
    ),
    Misconception(
        "the variance for the power of the signal",
        _measuring(
            sqnr_db=lambda x, q, back: 10 * np.log10(np.var(x) / _mse(x, q, back)) if _mse(x, q, back) else math.inf
        ),
        "The power of the signal is the mean of x^2; the variance is less, wherever the mean of x is not 0.",
    ),
    Misconception(
        "a small number added to the noise",
        _measuring(sqnr_db=lambda x, q, back: 10 * np.log10(np.mean(x**2) / (_mse(x, q, back) + 1e-10))),
        "Adding 1e-10 to the noise caps the result. Where nothing was lost, the contract says `inf`.",
    ),
    Misconception(
        "codes_used counts elements",
        _measuring(codes_used=lambda x, q, back: q.size),
        "Count the distinct codes, not the elements.",
    ),
    Misconception(
        "codes_used counts the span",
        _measuring(codes_used=lambda x, q, back: q.max() - q.min() + 1),
        "Codes between the smallest and the largest may not occur at all. Count the distinct ones.",
    ),
    Misconception(
        "codes_used is the largest code",
        _measuring(codes_used=lambda x, q, back: q.max()),
        "Count how many distinct codes occur.",
    ),
)

# --- quantize_clipped -------------------------------------------------------------------------------------------------


def _clipped_cases() -> list[Case]:
    w = trained_weights()
    largest = float(np.abs(w).max())
    return [
        Case("the worked example", (np.array([-1.0, 0.504, 9.0], dtype=np.float32), 1.27), {"num_bits": 8}),
        Case("8 bits is the default", (np.array([-1.0, 0.504, 9.0], dtype=np.float32), 1.27)),
        Case("trained weights, clipped at half their range", (w, largest / 2), {"num_bits": 4}),
        Case("trained weights at 8 bits, clipped at a quarter", (w, largest / 4), {"num_bits": 8}),
        Case("trained weights at 2 bits, clipped at a third", (w, largest / 3), {"num_bits": 2}),
        Case("a clip beyond every value", (w[:4], 3 * largest), {"num_bits": 4}),
        Case("an outlier a million times the clip", (np.array([0.3, -1e6, 1e6, -0.7], dtype=np.float32), 1.0)),
        Case("16 bits", (w[0], largest / 2), {"num_bits": 16}),
        Case("all zero", (np.zeros(4, dtype=np.float32), 1.0)),
    ]


def _judge_clipped(answer: dict, case: Case) -> None:
    x, clip = case.args
    num_bits = case.kwargs.get("num_bits", 8)
    q, scale = answer["q"], answer["scale"]
    scheme = Scheme(num_bits)
    judge_codes(q, x, num_bits)
    judge_scale(scale, clip / scheme.quant_max, f"clip / {scheme.quant_max}")
    inside = np.abs(x) <= clip
    if inside.any():
        judge_rounding(q[inside], scale, x[inside], num_bits)
    ends = np.where(x > 0, scheme.quant_max, -scheme.quant_max)
    # Below -clip both -quant_max and the unused code beside it are clamped values.
    wrong = ~inside & (np.abs(q.astype(np.int64) - ends) > (x < 0))
    if wrong.any():
        i = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise Wrong(
            f"{x[i]:.4g} lies beyond the clip of {clip:.4g} and should saturate at code {ends[i]}, "
            f"but its code is {q[i]}"
        )


def _clipping(quantize: Callable) -> Callable:
    def clipped(x, clip, num_bits=8):
        scheme = Scheme(num_bits)
        return quantize(x, clip, scheme, np.float32(clip / scheme.quant_max))

    return clipped


def _saturate(steps: np.ndarray, scheme: Scheme) -> np.ndarray:
    return np.clip(steps, scheme.quant_min, scheme.quant_max).astype(scheme.code_dtype)


def _with_largest(change: Callable) -> Callable:
    """Quantizes change(x, clip) with the scale of x's own largest value."""

    def quantize(x, clip, scheme, scale):
        return answers.quantize_symmetric(change(x, clip), scheme.num_bits)

    return _clipping(quantize)


QUANTIZE_CLIPPED = (
    Misconception(
        "no clamp: codes wrap around",
        _clipping(lambda x, clip, s, scale: (wrapping(np.round(x / scale), np.dtype(s.code_dtype).type), scale)),
        "A value beyond the clip has no code. Without a clamp the cast wraps it around, to any code at all. "
        "Clamp to [quant_min, quant_max] before the cast.",
    ),
    Misconception(
        "cast before the clamp",
        _clipping(
            lambda x, clip, s, scale: (
                np.clip(wrapping(np.round(x / scale), np.dtype(s.code_dtype).type), s.quant_min, s.quant_max),
                scale,
            )
        ),
        "The cast came first and wrapped what was too large; the clamp then had nothing left to do. Clamp, then cast.",
    ),
    Misconception(
        "the clip is ignored",
        _with_largest(lambda x, clip: x),
        "The scale came from max|x|. Here the caller says how far the grid reaches: clip.",
    ),
    Misconception(
        "values are clipped, but the scale still comes from the tensor",
        _with_largest(lambda x, clip: np.clip(x, -clip, clip)),
        "Where no value reaches the clip, max|x| is smaller than it. The scale must come from clip itself.",
    ),
    Misconception(
        "outliers are set to zero",
        _clipping(lambda x, clip, s, scale: (_saturate(np.round(np.where(np.abs(x) > clip, 0, x) / scale), s), scale)),
        "Clipping moves a value to the nearest end of the grid. Zero is much further away.",
    ),
    Misconception(
        "outliers are dropped",
        _clipping(lambda x, clip, s, scale: (_saturate(np.round(x[np.abs(x) <= clip] / scale), s), scale)),
        "The tensor must keep its shape. Clipping moves a value to the nearest end of the grid.",
    ),
    Misconception(
        "divides the clip by 2^(b-1)",
        _clipping(
            lambda x, clip, s, scale: (
                _saturate(np.round(x / (clip / 2 ** (s.num_bits - 1))), s),
                np.float32(clip / 2 ** (s.num_bits - 1)),
            )
        ),
        "The largest code is 2^(b-1) - 1, so that is how many steps reach from 0 to clip.",
    ),
    Misconception(
        "127 at every bit width",
        _clipping(
            lambda x, clip, s, scale: (
                np.clip(np.round(x / (clip / 127)), -128, 127).astype(s.code_dtype),
                np.float32(clip / 127),
            )
        ),
        "127 is the largest code at 8 bits only. Compute it from num_bits.",
    ),
    Misconception(
        "truncation instead of round",
        _clipping(lambda x, clip, s, scale: (_saturate(np.trunc(x / scale), s), scale)),
        "Casting to an integer cuts the fraction off. Round before you cast.",
    ),
    Misconception(
        "floor instead of round",
        _clipping(lambda x, clip, s, scale: (_saturate(np.floor(x / scale), s), scale)),
        "`np.floor` always goes down. Go to the nearest integer.",
    ),
    Misconception(
        "codes left as floats",
        _clipping(lambda x, clip, s, scale: (np.clip(np.round(x / scale), s.quant_min, s.quant_max), scale)),
        "The values are whole numbers, but still stored as floats. Cast them to an integer dtype.",
    ),
)

# --- best_clip (stretch) ----------------------------------------------------------------------------------------------


def _best_clip_cases() -> list[Case]:
    rng = np.random.default_rng(2)
    gaussian = rng.normal(size=20_000).astype(np.float32)
    outliers = np.append(gaussian[:5000], [40.0, -35.0]).astype(np.float32)
    return [
        Case("a Gaussian at 4 bits", (gaussian, 4)),
        Case("a Gaussian at 2 bits", (gaussian, 2)),
        Case("trained weights at 4 bits", (trained_weights(), 4)),
        Case("trained weights at 3 bits", (trained_weights(), 3)),
        Case("two outliers at 4 bits", (outliers, 4)),
        Case(
            "a uniform source, where nothing is gained by clipping", (rng.uniform(-1, 1, 20_000).astype(np.float32), 6)
        ),
        Case("a Gaussian of standard deviation 0.001", (gaussian * np.float32(1e-3), 4)),
    ]


def _read_threshold(value: object) -> dict:
    return {"clip": as_number(value, "the threshold")}


def _loss(x: np.ndarray, clip: float, num_bits: int) -> float:
    """Mean squared error against the original tensor."""
    q, scale = answers.quantize_clipped(x, clip, num_bits)
    return float(np.mean((x - q.astype(np.float64) * float(scale)) ** 2))


def _judge_threshold(answer: dict, case: Case) -> None:
    x, num_bits = case.args
    clip = answer["clip"]
    if not math.isfinite(clip) or clip <= 0:
        raise Wrong(f"the threshold should be a positive number, but it is {clip:g}")
    best = answers.best_clip(x, num_bits)
    # A search over 25 thresholds is fine enough: near its minimum the loss is flat.
    yours, least = _loss(x, clip, num_bits), _loss(x, best, num_bits)
    if yours > 1.05 * least:
        raise Wrong(
            f"clipping at {clip:.4g} has a mean squared error of {yours:.3g}, but at {best:.4g} it is {least:.3g}"
        )


def _searching(loss: Callable) -> Callable:
    def search(x, num_bits):
        clips = np.linspace(0.01, 1, 100) * np.abs(x).max()
        return float(clips[np.argmin([loss(x, c, num_bits) for c in clips])])

    return search


def _reconstructed(x: np.ndarray, clip: float, num_bits: int) -> np.ndarray:
    q, scale = answers.quantize_clipped(x, clip, num_bits)
    return q * np.float32(scale)


BEST_CLIP = (
    Misconception(
        "never clips",
        lambda x, num_bits: float(np.abs(x).max()),
        "That is max|x|, the threshold that loses nothing to clipping and most to rounding. "
        "Try thresholds below it and measure.",
    ),
    Misconception(
        "a fraction instead of a threshold",
        lambda x, num_bits: answers.best_clip(x, num_bits) / float(np.abs(x).max()),
        "That is a fraction of max|x|. Multiply it by max|x| to get the threshold.",
    ),
    Misconception(
        "measures against the clipped tensor",
        _searching(lambda x, c, b: np.mean((np.clip(x, -c, c) - _reconstructed(x, c, b)) ** 2)),
        "Comparing with the clipped tensor hides what clipping lost, so the smallest threshold always wins. "
        "Compare with the original.",
    ),
    Misconception(
        "the 99th percentile",
        lambda x, num_bits: float(np.percentile(np.abs(x), 99)),
        "A fixed percentile knows nothing of the bit width: with fewer bits it pays to clip more. Measure the loss.",
    ),
    Misconception(
        "the 99.9th percentile",
        lambda x, num_bits: float(np.percentile(np.abs(x), 99.9)),
        "A fixed percentile knows nothing of the bit width: with fewer bits it pays to clip more. Measure the loss.",
    ),
    Misconception(
        "three standard deviations",
        lambda x, num_bits: float(3 * np.std(x)),
        "A fixed multiple knows nothing of the bit width or the distribution. Measure the loss.",
    ),
    Misconception(
        "the smallest largest error",
        _searching(lambda x, c, b: np.max(np.abs(x - _reconstructed(x, c, b)))),
        "The largest error is the clipped outlier's, so it never pays to clip. Look at the mean squared error.",
    ),
)

# --- quantize_stochastic (stretch) ------------------------------------------------------------------------------------


def _stochastic_cases() -> list[Case]:
    w = trained_weights()
    repeated = np.append(np.full(20_000, 0.23), 12.7).astype(np.float32)
    return [
        Case("20000 times 2.3 steps", (repeated, 8, np.random.default_rng(3))),
        Case("20000 times -2.3 steps", (-repeated, 8, np.random.default_rng(4))),
        Case("trained weights at 8 bits", (w, 8, np.random.default_rng(5))),
        Case("trained weights at 4 bits", (w, 4, np.random.default_rng(6))),
        Case("whole steps stay where they are", (np.arange(-7, 8, dtype=np.float32), 4, np.random.default_rng(7))),
        Case("all zero", (np.zeros(10, dtype=np.float32), 8, np.random.default_rng(8))),
    ]


def _judge_stochastic(answer: dict, case: Case) -> None:
    x, num_bits, _ = case.args
    q, scale = answer["q"], answer["scale"]
    judge_codes(q, x, num_bits)
    largest = float(np.abs(x).max())
    quant_max = Scheme(num_bits).quant_max
    judge_scale(scale, largest / quant_max if largest else scale, f"max|x| / {quant_max}")
    judge_rounding(q, scale, x, num_bits, most=1.0)
    # Each rounding has a variance of at most 1/4 step^2: the mean of n lies within 5 * 0.5 / sqrt(n) steps of 0.
    bias, bound = float(np.mean(q - x.astype(np.float64) / scale)), 2.5 / math.sqrt(x.size)
    if abs(bias) > bound:
        raise Wrong(f"on average the codes are off by {bias:+.3f} steps; chance explains at most {bound:.3f}")
    drawn = np.abs(x.astype(np.float64) / scale - q) > 0.5 + float32_noise(quant_max)
    fractional = np.abs(x.astype(np.float64) / scale - np.round(x / scale)) > 0.1
    if fractional.sum() > 1000 and not drawn.any():
        raise Wrong("every value went to its nearest code: nothing was left to chance")


def _drawing(codes: Callable) -> Callable:
    def quantize(x, num_bits, rng):
        _, scale = answers.quantize_symmetric(x, num_bits)
        return _saturate(codes(x / scale, rng), Scheme(num_bits)), scale

    return quantize


QUANTIZE_STOCHASTIC = (
    Misconception(
        "rounds to the nearest",
        _drawing(lambda steps, rng: np.round(steps)),
        "Nothing is random yet: 2.3 always becomes 2. It should become 3 in three cases of ten.",
    ),
    Misconception(
        "a fair coin between floor and ceil",
        _drawing(lambda steps, rng: np.floor(steps) + (rng.random(steps.shape) < 0.5)),
        "2.3 lies nearer to 2 than to 3. The probability of going up must be the fraction, 0.3.",
    ),
    Misconception(
        "noise is added, then the result is rounded to the nearest",
        _drawing(lambda steps, rng: np.round(steps + rng.random(steps.shape))),
        "Noise from 0 to 1 pushes up by half a step on average. With `np.floor` in place of `round` it is unbiased.",
    ),
    Misconception(
        "up and down are exchanged",
        _drawing(lambda steps, rng: np.floor(steps) + (rng.random(steps.shape) >= steps - np.floor(steps))),
        "2.3 went to 3 in seven cases of ten. The probability of going up is the fraction.",
    ),
    Misconception(
        "truncates towards zero",
        _drawing(lambda steps, rng: np.trunc(steps + rng.random(steps.shape))),
        "`np.trunc` and casting go up for negative values. Use `np.floor`, which goes down for every sign.",
    ),
    Misconception(
        "one draw for the whole tensor",
        _drawing(lambda steps, rng: np.floor(steps + rng.random())),
        "All elements share one random number, so all go the same way. Draw one for each: `rng.random(x.shape)`.",
    ),
)

EXERCISES = (
    Exercise(
        name="quantize_symmetric",
        lab=LAB,
        points=3,
        reference=answers.quantize_symmetric,
        cases=_quantizer_cases,
        read=read_quantized,
        judge=_judge_quantized,
        misconceptions=QUANTIZE_SYMMETRIC,
    ),
    Exercise(
        name="dequantize_symmetric",
        lab=LAB,
        points=1,
        reference=answers.dequantize_symmetric,
        cases=_dequantizer_cases,
        read=_read_floats,
        judge=_judge_dequantized,
        misconceptions=DEQUANTIZE_SYMMETRIC,
    ),
    Exercise(
        name="quantization_error",
        lab=LAB,
        points=2,
        reference=answers.quantization_error,
        cases=_error_cases,
        read=_read_measures,
        judge=_judge_measures,
        misconceptions=QUANTIZATION_ERROR,
    ),
    Exercise(
        name="quantize_clipped",
        lab=LAB,
        points=2,
        reference=answers.quantize_clipped,
        cases=_clipped_cases,
        read=read_quantized,
        judge=_judge_clipped,
        misconceptions=QUANTIZE_CLIPPED,
    ),
    Exercise(
        name="best_clip",
        lab=LAB,
        points=2,
        reference=answers.best_clip,
        cases=_best_clip_cases,
        read=_read_threshold,
        judge=_judge_threshold,
        misconceptions=BEST_CLIP,
        stretch=True,
    ),
    Exercise(
        name="quantize_stochastic",
        lab=LAB,
        points=2,
        reference=answers.quantize_stochastic,
        cases=_stochastic_cases,
        read=read_quantized,
        judge=_judge_stochastic,
        misconceptions=QUANTIZE_STOCHASTIC,
        stretch=True,
    ),
)
