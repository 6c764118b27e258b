"""quantization error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.arrays.metrics import quantization_error as quantization_error  # a learner writes it in lab 01
from labutils.arrays.metrics import sqnr_db
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe
from labutils.labs import answers
from labutils.labs.contract import (
    trained_weights,
)
from labutils.labs.lab01 import LESSON

Array = Any  # a numpy.ndarray or a torch.Tensor


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
    expected = quantization_error(*case.args)
    for name in MEASURES:
        # float32 sums over 8192 values are good to about 1e-5; 1e-3 leaves room for any order of summation.
        if not math.isclose(answer[name], expected[name], rel_tol=1e-3, abs_tol=1e-12):
            raise Wrong(f"{name} should be {expected[name]:.6g}, but it is {answer[name]:.6g}")


def _measuring(**wrong: Callable) -> Callable:
    """The right measures, but for those given as name=function of (x, q, x')."""

    def measure(original, quantized, dequantized):
        right = quantization_error(original, quantized, dequantized)
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


EXERCISE = Exercise(
    name="quantization_error",
    lab=LESSON,
    place=30,
    points=2,
    reference=quantization_error,
    cases=_error_cases,
    read=_read_measures,
    judge=_judge_measures,
    misconceptions=QUANTIZATION_ERROR,
)
