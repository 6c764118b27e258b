"""quantization_error: six measures of what was lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from labutils.arrays.metrics import quantization_error
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe, distinct
from labutils.labs import answers
from labutils.labs.contract import trained_weights
from labutils.labs.lab01 import LESSON

MEASURES = ("mse", "mae", "max_error", "relative_error", "sqnr_db", "codes_used")


def cases() -> list[Case]:
    def case(name: str, x: np.ndarray, num_bits: int) -> Case:
        q, scale = answers.quantize_symmetric(x, num_bits)
        return Case(name, (x, q, answers.dequantize_symmetric(q, scale)))

    w = trained_weights()
    constant = np.full(4, 2, dtype=np.float32)
    by_hand = np.array([-1.0, 0.0, 1.0, 2.0], dtype=np.float32)
    return [
        Case("the worked example", (by_hand, np.array([-1, 0, 1, 1], dtype=np.int8), np.clip(by_hand, -1, 1))),
        case("trained weights at 8 bits", w, 8),
        case("trained weights at 4 bits", w, 4),
        case("trained weights at 2 bits", w, 2),
        case("values far from zero", w[:8] + np.float32(3), 6),
        case("errors of both signs, the largest negative", np.array([1.0, -0.27, 0.55, 0.1], dtype=np.float32), 3),
        Case("nothing was lost", (by_hand, by_hand.astype(np.int8), by_hand.copy())),
        Case(
            "nothing was lost of a constant, whose variance is 0", (constant, constant.astype(np.int8), constant.copy())
        ),
    ]


def read(value: object) -> dict:
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict with the keys {', '.join(MEASURES)}, but returned {describe(value)}")
    missing = [name for name in MEASURES if name not in value]
    if missing:
        raise Wrong(f"the dict has no {', '.join(missing)} (its keys are {', '.join(map(str, value)) or 'none'})")
    return {name: as_number(value[name], name) for name in MEASURES}


def judge(answer: dict, case: Case) -> None:
    expected = quantization_error(*case.args)
    for name in MEASURES:
        # float32 sums over 8192 values are good to about 1e-5; 1e-3 leaves room for any order of summation.
        if not math.isclose(answer[name], expected[name], rel_tol=1e-3, abs_tol=1e-12):
            wanted, found = distinct(expected[name], answer[name])
            raise Wrong(f"{name} should be {wanted}, but it is {found}")


def measuring(**wrong: Callable) -> Callable:
    """The right measures, but for those given as functions of `m`: original m.x, error m.e, codes m.q, and measures."""

    def measure(original, quantized, dequantized):
        measures = quantization_error(original, quantized, dequantized)
        x, q, back = (np.asarray(a, dtype=np.float64) for a in (original, quantized, dequantized))
        m = SimpleNamespace(x=x, e=x - back, q=q, **measures)
        return measures | {name: float(function(m)) for name, function in wrong.items()}

    return measure


MISCONCEPTIONS = (
    Misconception("mse without the square", measuring(mse=lambda m: np.mean(m.e)),
        "Errors of both signs cancel in a plain mean. Square each one first."),
    Misconception("mse of absolute errors", measuring(mse=lambda m: np.mean(np.abs(m.e))),
        "That is the mean absolute error. The s in mse is for squared."),
    Misconception("mse without the mean", measuring(mse=lambda m: np.sum(m.e**2)),
        "A sum grows with the size of the tensor. Divide by the number of elements."),
    Misconception("the root of the mse", measuring(mse=lambda m: np.sqrt(m.mse)),
        "That is the root mean squared error. The mse has no root."),
    Misconception("mse of the mean", measuring(mse=lambda m: np.mean(m.e) ** 2),
        "Square first, then take the mean: the other way round, errors of both signs cancel."),
    Misconception("the error against the codes",
        lambda original, quantized, dequantized: quantization_error(original, quantized, quantized.astype(np.float32)),
        "Codes count steps, the original is in units of x. Compare the original with `dequantized`."),
    Misconception("mae without the absolute value", measuring(mae=lambda m: np.mean(m.e)),
        "Errors of both signs cancel in a plain mean. Take the absolute value of each one first."),
    Misconception("max_error without the absolute value", measuring(max_error=lambda m: np.max(m.e)),
        "The largest error may be negative. Take absolute values before the maximum."),
    Misconception("relative error against the mean", measuring(relative_error=lambda m: m.mse / np.mean(m.x)),
        "The mean of weights is near 0, so dividing by it says nothing. Divide by their variance."),
    Misconception("relative error against the mean square",
        measuring(relative_error=lambda m: m.mse / np.mean(m.x**2)),
        "The mean of x^2 is the variance only where the mean of x is 0. Divide by `np.var(original)`."),
    Misconception("relative error against the standard deviation",
        measuring(relative_error=lambda m: m.mse / np.std(m.x)),
        "The mse is in squared units, the standard deviation is not. Divide by the variance."),
    Misconception("0 / 0 is NaN where nothing was lost",
        measuring(relative_error=lambda m: m.mse / np.var(m.x)),
        "The variance of a constant is 0. The contract: the relative error is 0 wherever the mse is."),
    Misconception("relative error element by element",
        measuring(relative_error=lambda m: np.mean(np.abs(m.e) / (np.abs(m.x) + 1e-8))),
        "Dividing by each value lets those near 0 decide everything. The contract is mse / variance."),
    Misconception("the ratio upside down", measuring(sqnr_db=lambda m: -m.sqnr_db),
        "Signal over noise: a smaller error must give more decibels."),
    Misconception("20 log10 of a ratio of powers", measuring(sqnr_db=lambda m: 2 * m.sqnr_db),
        "Mean squares are powers, and decibels of powers are 10 log10. 20 log10 is for amplitudes."),
    Misconception("10 log10 of a ratio of amplitudes", measuring(sqnr_db=lambda m: m.sqnr_db / 2),
        "Standard deviations are amplitudes. Take mean squares with 10 log10, or amplitudes with 20 log10."),
    Misconception("the natural logarithm", measuring(sqnr_db=lambda m: m.sqnr_db * math.log(10)),
        "`np.log` is the natural logarithm. Decibels use base 10: `np.log10`."),
    Misconception("the ratio, but not in decibels", measuring(sqnr_db=lambda m: 10 ** (m.sqnr_db / 10)),
        "The ratio is right. Decibels are 10 log10 of it."),
    Misconception("the variance for the power of the signal",
        measuring(sqnr_db=lambda m: m.sqnr_db + 10 * np.log10(np.var(m.x) / np.mean(m.x**2))),
        "The power of the signal is the mean of x^2; the variance is less, wherever the mean of x is not 0."),
    Misconception("a small number added to the noise",
        measuring(sqnr_db=lambda m: 10 * np.log10(np.mean(m.x**2) / (m.mse + 1e-10))),
        "Adding 1e-10 to the noise caps the result. Where nothing was lost, the contract says `inf`."),
    Misconception("codes_used counts elements", measuring(codes_used=lambda m: m.q.size),
        "Count the distinct codes, not the elements."),
    Misconception("codes_used counts the span", measuring(codes_used=lambda m: m.q.max() - m.q.min() + 1),
        "Codes between the smallest and the largest may not occur at all. Count the distinct ones."),
    Misconception("codes_used is the largest code", measuring(codes_used=lambda m: m.q.max()),
        "Count how many distinct codes occur."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantization_error",
    lab=LESSON,
    place=30,
    points=2,
    reference=quantization_error,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
