"""compare_quantization_methods: the errors of four quantizers on one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays import affine
from labutils.arrays.affine import QuantizedArray
from labutils.arrays.inputs import Array
from labutils.arrays.metrics import quantization_error
from labutils.arrays.scheme import Granularity, PerAxis, PerTensor, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe, distinct
from labutils.labs.contract import trained_weights
from labutils.labs.lab03 import LESSON
from labutils.labs.lab03._channels import convolution_weights, uneven
from labutils.labs.recipes import Recipe
from labutils.labs.slices import along_axis

METHODS = {
    f"{symmetry}_{granularity}": (symmetric, shared)
    for granularity, shared in (("per_tensor", PerTensor()), ("per_channel", PerAxis(0)))
    for symmetry, symmetric in (("symmetric", True), ("asymmetric", False))
}


def compare_quantization_methods(x: Array, num_bits: int = 8) -> dict[str, dict[str, float]]:
    """The error of four quantizers on one tensor, whose channels lie along axis 0, as `quantization_error` gives it.

    >>> w = np.random.default_rng(0).normal(size=(64, 32)) * np.linspace(0.1, 1, 64)[:, None]
    >>> for name, error in compare_quantization_methods(w, num_bits=4).items():
    ...     print(f"{name:<23} {error['sqnr_db']:.1f} dB")
    symmetric_per_tensor    14.8 dB
    asymmetric_per_tensor   16.0 dB
    symmetric_per_channel   20.6 dB
    asymmetric_per_channel  22.0 dB
    """
    return {name: error_of(x, Scheme(num_bits, *choice)) for name, choice in METHODS.items()}


def error_of(x: Array, scheme: Scheme) -> dict[str, float]:
    quantized = affine.quantize(x, scheme)
    return quantization_error(x, quantized.codes, affine.dequantize(quantized))


def cases() -> list[Case]:
    rng = np.random.default_rng(4)
    relu = np.maximum(uneven((12, 200), 0, seed=5), 0)
    shifted = (rng.normal(size=(8, 100)) + np.linspace(-3, 3, 8)[:, None]).astype(np.float32)
    positive = rng.uniform(5, 6, (6, 50)).astype(np.float32)
    return [
        Case("trained weights at 8 bits", (trained_weights(),)),
        Case("trained weights at 4 bits", (trained_weights(),), {"num_bits": 4}),
        Case("convolution weights at 3 bits", (convolution_weights(),), {"num_bits": 3}),
        Case("after a ReLU", (relu,), {"num_bits": 6}),
        Case("channels of different means", (shifted,), {"num_bits": 5}),
        Case("strictly positive values", (positive,)),
        Case("more channels than values in each", (uneven((40, 9), 0, seed=6),), {"num_bits": 8}),
    ]


def read(value: object) -> dict:
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict with the keys {', '.join(METHODS)}, but returned {describe(value)}")
    missing = [name for name in METHODS if name not in value]
    if missing:
        raise Wrong(f"the dict has no {', '.join(missing)} (its keys are {', '.join(map(str, value)) or 'none'})")
    numbers = {}
    for name in METHODS:
        error = value[name]
        if not isinstance(error, dict) or "sqnr_db" not in error:
            raise Wrong(f"{name} should be what `quantization_error` returns, a dict, but it is {describe(error)}")
        numbers |= {f"{name}.{key}": as_number(number, f"{name}: {key}") for key, number in error.items()}
    return numbers


def judge(answer: dict, case: Case) -> None:
    for name, error in compare_quantization_methods(*case.args, **case.kwargs).items():
        for measure, expected in error.items():
            got = answer.get(f"{name}.{measure}", math.nan)
            # A value next to a tie may get either code: one or two codes more or less, and 1e-3 of any mean.
            slack = 2 if measure == "codes_used" else 1e-12
            if not math.isclose(got, expected, rel_tol=1e-3, abs_tol=slack):
                wanted, found = distinct(expected, got)
                raise Wrong(f"{measure} of {name} should be {wanted}, but it is {found}")


@dataclass(frozen=True)
class Comparison(Recipe):
    """The four errors, from steps that can be replaced."""

    scheme: Callable = Scheme  # of num_bits, symmetric and granularity
    error: Callable = error_of  # of x and a scheme
    key: Callable = lambda name: name  # whose error is returned as that of `name`

    def __call__(self, x, num_bits=8):
        errors = {name: self.error(x, self.scheme(num_bits, *choice)) for name, choice in METHODS.items()}
        return {name: errors[self.key(name)] for name in METHODS}


right = Comparison()


def channels_along(axis: int) -> Callable:
    def scheme(num_bits: int, symmetric: bool, granularity: Granularity) -> Scheme:
        return Scheme(num_bits, symmetric, granularity if granularity == PerTensor() else PerAxis(axis))

    return scheme


def other_symmetry(name: str) -> str:
    return name.removeprefix("a") if name.startswith("a") else f"a{name}"


def other_granularity(name: str) -> str:
    symmetry, granularity = name.split("_per_")
    return f"{symmetry}_per_{'channel' if granularity == 'tensor' else 'tensor'}"


def measuring(arguments: Callable) -> Callable:
    """An error function that calls quantization_error(*arguments(x, quantized))."""

    def error(x: np.ndarray, scheme: Scheme) -> dict:
        return quantization_error(*arguments(x, affine.quantize(x, scheme)))

    return error


def zero_point_kept(x: np.ndarray, quantized: QuantizedArray) -> tuple:
    scale = quantized.scale if quantized.scale.ndim == 0 else along_axis(quantized.scale, x.ndim, 0)
    return x, quantized.codes, (quantized.codes * scale).astype(np.float32)


def zero_left_out(x: np.ndarray, scheme: Scheme) -> dict:
    """Asymmetric from (min, max) as they are; the zero point is clamped to the codes."""
    if scheme.symmetric:
        return error_of(x, scheme)
    reduced = None if scheme.granularity == PerTensor() else tuple(range(1, x.ndim))
    low, high = x.min(axis=reduced, keepdims=True), x.max(axis=reduced, keepdims=True)
    scale = (high - low) / scheme.quant_max
    zero_point = np.clip(np.round(-low / scale), 0, scheme.quant_max)
    q = np.clip(np.round(x / scale) + zero_point, 0, scheme.quant_max)
    return quantization_error(x, q.astype(np.uint16), ((q - zero_point) * scale).astype(np.float32))


AXIS_0 = "The contract puts the channels along axis 0, as in a weight of shape (out, in)."

MISCONCEPTIONS = (
    Misconception("the bits are not passed on",
        right.but(scheme=lambda bits, symmetric, granularity: Scheme(8, symmetric, granularity)),
        "All four are measured at 8 bits, whatever `num_bits` says. Hand it on to the scheme."),
    Misconception("per tensor twice",
        right.but(scheme=lambda bits, symmetric, granularity: Scheme(bits, symmetric, PerTensor())),
        "The per-channel entries are those of one scale for all. The granularity of their scheme is `PerAxis(0)`."),
    Misconception("per channel twice",
        right.but(scheme=lambda bits, symmetric, granularity: Scheme(bits, symmetric, PerAxis(0))),
        "The per-tensor entries have a scale for each channel. The granularity of their scheme is `PerTensor()`."),
    Misconception("symmetric twice",
        right.but(scheme=lambda bits, symmetric, granularity: Scheme(bits, True, granularity)),
        "The asymmetric entries have no zero point: their scheme needs `symmetric=False`."),
    Misconception("asymmetric twice",
        right.but(scheme=lambda bits, symmetric, granularity: Scheme(bits, False, granularity)),
        "The symmetric entries have a zero point: their scheme needs `symmetric=True`, the default."),
    Misconception("asymmetric is per tensor in both places",
        right.but(scheme=lambda bits, symmetric, granularity: Scheme(
            bits, symmetric, granularity if symmetric else PerTensor())),
        "Symmetry and granularity are two choices of their own. Asymmetric per channel has a scale and a zero point "
        "for each channel."),
    Misconception("symmetric and asymmetric exchanged", right.but(key=other_symmetry),
        "The numbers are right, but stand under each other's names: symmetric is the one without a zero point."),
    Misconception("per tensor and per channel exchanged", right.but(key=other_granularity),
        "The numbers are right, but stand under each other's names: per channel is the one with many scales."),
    Misconception("channels along the last axis", right.but(scheme=channels_along(-1)), AXIS_0),
    Misconception("channels along axis 1", right.but(scheme=channels_along(1)), AXIS_0),
    Misconception("the error against the codes",
        right.but(error=measuring(lambda x, quantized: (x, quantized.codes, quantized.codes.astype(np.float32)))),
        "Codes count steps, the original is in units of x. Measure against what `dequantize` gives back."),
    Misconception("the zero point is not subtracted", right.but(error=measuring(zero_point_kept)),
        "An asymmetric code stands for scale * (q - zero_point). `dequantize` subtracts it."),
    Misconception("original and reconstruction exchanged",
        right.but(error=measuring(lambda x, quantized: (affine.dequantize(quantized), quantized.codes, x))),
        "The errors are measured relative to the reconstruction. `quantization_error` takes the original first."),
    Misconception("the asymmetric range leaves zero out", right.but(error=zero_left_out),
        "Where all values are positive, the range must still begin at 0, or the zero point does not fit its codes "
        "(lab 02). `Scheme(symmetric=False)` widens the range for you."),
)  # fmt: skip

EXERCISE = Exercise(
    name="compare_quantization_methods",
    lab=LESSON,
    place=30,
    points=2,
    reference=compare_quantization_methods,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
