"""lsq_gradient: the gradient that lets a scale learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labutils.arrays.inputs import real_array
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, distinct
from labutils.labs.contract import trained_weights
from labutils.labs.lab10 import LESSON
from labutils.labs.lab10._grid import limits
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import as_tensors

if TYPE_CHECKING:
    from torch import Tensor


def lsq_gradient(x: Tensor, scale: Tensor, grad: Tensor, num_bits: int = 8) -> Tensor:
    """The gradient of the loss to the one `scale` of `x`, where `grad` is its gradient to the fake-quantized `x`.

    >>> import torch
    >>> x, grad = torch.tensor([0.14, -0.26, 0.9]), torch.tensor([1.0, 1.0, 1.0])
    >>> lsq_gradient(x, torch.tensor(0.1), grad, num_bits=3)
    tensor(0.7333)

    Each element gives round(v) - v with v = x / scale within the codes, and the last code beyond them; times `grad`,
    summed, over sqrt(N * quant_max). Esser et al., 2020, "Learned step size quantization" (arXiv:1902.08153),
    equation 3 and section 2.2.
    """
    from labutils.models import training

    real_array(grad, "grad")
    step = scale.detach().clone().requires_grad_()
    training.fake_quantize_ste(x.detach(), step, num_bits).backward(grad)
    return step.grad


def cases() -> list[Case]:
    rng = np.random.default_rng(13)
    w = trained_weights()
    f4 = np.float32

    def case(name: str, x: np.ndarray, reach: float, num_bits: int) -> Case:
        """The grid ends at `reach` times max|x|. Values in the half step beyond its ends, where libraries differ, are
        moved out of it."""
        low, high = limits(num_bits)
        scale = f4(np.abs(x).max() * reach / high)
        v = x.astype(np.float64) / scale
        v = np.where((v > high - 0.02) & (v < high + 0.6), high + 0.7, v)
        v = np.where((v < low + 0.02) & (v > low - 0.6), low - 0.7, v)
        x = (v * scale).astype(f4)
        return Case(name, (x, scale, rng.normal(0.3, 1, x.shape).astype(f4), num_bits))

    hand = np.array([0.14, -0.26, 0.9], f4), f4(0.1), np.ones(3, f4), 3
    return [
        Case("the worked example", hand),
        case("trained weights, nothing clamped", w[:8], 1.3, 4),
        case("trained weights, a fifth of the grid", w[:20], 0.2, 3),
        case("2 bits", w[20:30], 0.3, 2),
        case("only negative values", -np.abs(w[30:34]), 0.4, 3),
        case("convolution weights", rng.normal(size=(6, 2, 3, 3)).astype(f4), 0.5, 4),
        case("8 bits", w[:4], 0.6, 8),
        Case("one value", (np.array([0.33], f4), f4(0.25), np.array([-2.0], f4), 4)),
    ]


def read(value: object) -> dict:
    return {"gradient": as_number(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    x, scale, grad, num_bits = case.args
    (low, high), v = limits(num_bits), x.astype(np.float64) / float(scale)
    each = grad.astype(np.float64) * np.where(v <= low, low, np.where(v >= high, high, np.round(v) - v))
    factor = 1 / math.sqrt(x.size * high)
    expected, got = each.sum() * factor, answer["gradient"]
    # float32 leaves v with an error of 2^-23 |v|, and the sum may cancel: compare with what was summed.
    tolerance = factor * np.sum(np.abs(each) + np.abs(grad) * Scheme(num_bits).quant_max * 2.0**-10) * 2e-4
    if not abs(got - expected) <= tolerance:
        wanted, found = distinct(expected, got)
        raise Wrong(f"the gradient should be {wanted}, but it is {found}")


@dataclass(frozen=True)
class StepGradient(Recipe):
    """factor(N, high) * total(grad * each) / unit(scale), where v = x / scale says what each element contributes."""

    inside: Callable = lambda v: np.round(v) - v
    below: Callable = lambda v, low: low
    above: Callable = lambda v, high: high
    upstream: Callable = lambda grad: grad
    total: Callable = np.sum
    factor: Callable = lambda n, high: 1 / math.sqrt(n * high)
    unit: Callable = lambda scale: 1.0

    def __call__(self, x, scale, grad, num_bits=8):
        low, high = limits(num_bits)
        x, scale, grad = x.numpy(), scale.numpy(), grad.numpy()
        v = x / scale
        each = np.where(v <= low, self.below(v, low), np.where(v >= high, self.above(v, high), self.inside(v)))
        return self.total(self.upstream(grad) * each) * self.factor(x.size, high) / self.unit(scale)


right = StepGradient()

MISCONCEPTIONS = (
    Misconception("the factor 1 / sqrt(N * quant_max) is missing", right.but(factor=lambda n, high: 1),
        "This is the gradient itself. LSQ then divides by sqrt(N * quant_max), so that a scale does not run away from "
        "the weights, of which there are many to each scale."),
    Misconception("the factor without quant_max", right.but(factor=lambda n, high: 1 / math.sqrt(n)),
        "Under the root stands N times the last code: the more codes, the larger each element's share."),
    Misconception("the factor without N", right.but(factor=lambda n, high: 1 / math.sqrt(high)),
        "Under the root stands the last code times N, the number of elements that share the scale."),
    Misconception("the factor without its root", right.but(factor=lambda n, high: 1 / (n * high)),
        "The sum over N elements grows like the root of N, so it is divided by a root."),
    Misconception("quant_max stands outside the root",
        right.but(factor=lambda n, high: 1 / (math.sqrt(n) * high)),
        "The root is of the whole product, N times quant_max."),
    Misconception("the number of rows for N", lambda x, scale, grad, num_bits=8: right.but(
            factor=lambda n, high: 1 / math.sqrt(len(x) * high))(x, scale, grad, num_bits),
        "`len(x)` counts rows. N is how many elements share the scale: all of them."),
    Misconception("the number of codes for quant_max",
        right.but(factor=lambda n, high: 1 / math.sqrt(n * (2 * high + 2))),
        "Under the root stands the last positive code, 2^(b-1) - 1, not the number of codes."),
    Misconception("the number of levels for quant_max",
        right.but(factor=lambda n, high: 1 / math.sqrt(n * (2 * high + 1))),
        "Under the root stands the last positive code, 2^(b-1) - 1, not the number of levels."),
    Misconception("the mean instead of the sum", right.but(total=np.mean),
        "The scale is shared, so every element adds its part: a sum. The factor takes care of its size."),
    Misconception("round is not differentiated", right.but(inside=np.round),
        "This takes the code for a constant, but a larger scale also makes v = x / scale smaller. Straight through "
        "`round`, that gives a second term, -v."),
    Misconception("the sign is turned", right.but(inside=lambda v: v - np.round(v)),
        "It is the code minus v. Where rounding went up, a larger scale moves the result further up."),
    Misconception("-v alone", right.but(inside=lambda v: -v),
        "scale * round(x / scale) is a product. You have differentiated the second factor; the first gives the code."),
    Misconception("clamped elements are left out", right.but(below=lambda v, low: 0, above=lambda v, high: 0),
        "A clamped element comes out as the last code times scale: it feels the scale more than all others. Only to x"
        " it passes no gradient."),
    Misconception("the formula of the inside everywhere",
        right.but(below=lambda v, low: np.round(v) - v, above=lambda v, high: np.round(v) - v),
        "Beyond the grid the result is the last code times scale, whatever v is: its derivative is the last code."),
    Misconception("the clamped code minus v", right.but(below=lambda v, low: low - v, above=lambda v, high: high - v),
        "Beyond the grid the result is the last code times scale, and v does not appear: its derivative is the last "
        "code."),
    Misconception("the lowest code is positive", right.but(below=lambda v, low: -low),
        "Below the grid the result is the lowest code times scale, and that code is negative."),
    Misconception("the highest code at both ends", right.but(below=lambda v, low: -low - 1),
        "Below the grid the result is the lowest code times scale: -2^(b-1), a negative number."),
    Misconception("the lowest code is missing", right.but(below=lambda v, low: low + 1),
        "b bits have 2^b codes, and the lowest is -2^(b-1), one further from 0 than the highest."),
    Misconception("what comes from above is ignored", right.but(upstream=lambda grad: 1),
        "Each element's share is multiplied by the gradient that comes to it from above, and then summed."),
    Misconception("gradient times scale", right.but(unit=lambda scale: 1 / scale),
        "The gradient to the scale is in codes, not in units of x: no scale is left in it."),
    Misconception("gradient divided by scale", right.but(unit=lambda scale: scale),
        "The derivative of x / scale has an x / scale^2, but it is multiplied by scale again."),
)  # fmt: skip

EXERCISE = Exercise(
    name="lsq_gradient",
    lab=LESSON,
    place=40,
    points=2,
    reference=lsq_gradient,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
    run=lambda submission, *args: submission(*as_tensors(*args)),
)
