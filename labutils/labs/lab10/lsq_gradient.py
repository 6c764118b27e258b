"""lsq gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from labutils.arrays.inputs import real_array
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number
from labutils.labs.contract import trained_weights
from labutils.labs.lab10 import LESSON
from labutils.labs.lab10._shared import Tensor, _limits, _tensors


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


def _lsq_cases() -> list[Case]:
    rng = np.random.default_rng(13)
    w = trained_weights()
    f4 = np.float32

    def case(name: str, x: np.ndarray, reach: float, num_bits: int) -> Case:
        """The grid ends at `reach` times max|x|. Values in the half step beyond its ends, where libraries differ, are
        moved out of it."""
        low, high = _limits(num_bits)
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


def _lsq_run(submission: Callable, x, scale, grad, num_bits: int) -> object:
    return submission(*_tensors(x, scale, grad), num_bits)


def _read_number(value: object) -> dict:
    return {"gradient": as_number(value, "the result")}


def _lsq(v: np.ndarray, num_bits: int) -> np.ndarray:
    """What each element contributes, before the gradient from above and the scaling."""
    low, high = _limits(num_bits)
    return np.where(v <= low, low, np.where(v >= high, high, np.round(v) - v))


def _judge_lsq(answer: dict, case: Case) -> None:
    x, scale, grad, num_bits = case.args
    each = grad.astype(np.float64) * _lsq(x.astype(np.float64) / float(scale), num_bits)
    factor = 1 / math.sqrt(x.size * Scheme(num_bits).quant_max)
    expected, got = each.sum() * factor, answer["gradient"]
    # float32 leaves v with an error of 2^-23 |v|, and the sum may cancel: compare with what was summed.
    tolerance = factor * np.sum(np.abs(each) + np.abs(grad) * Scheme(num_bits).quant_max * 2.0**-10) * 2e-4
    if not abs(got - expected) <= tolerance:
        raise Wrong(f"the gradient should be {expected:.6g}, but it is {got:.6g}")


def _stepped(
    inside: Callable = lambda v: v.round() - v,
    below: Callable = lambda v, low: low,
    above: Callable = lambda v, high: high,
    upstream: Callable = lambda grad: grad,
    factor: Callable = lambda n, high: 1 / math.sqrt(n * high),
    total: str = "sum",
    times: Callable = lambda scale: 1.0,
) -> Callable:
    """LSQ's gradient, in which one part can be replaced by a wrong one."""

    def gradient(x, scale, grad, num_bits=8):
        import torch

        low, high = _limits(num_bits)
        v = x / scale
        each = torch.where(v <= low, torch.as_tensor(below(v, low), dtype=v.dtype), inside(v))
        each = torch.where(v >= high, torch.as_tensor(above(v, high), dtype=v.dtype), each)
        return getattr(upstream(grad) * each, total)() * factor(x.numel(), high) * times(scale)

    return gradient


LSQ_GRADIENT = (
    Misconception(
        "the factor 1 / sqrt(N * quant_max) is missing",
        _stepped(factor=lambda n, high: 1),
        "This is the gradient itself. LSQ then divides by sqrt(N * quant_max), so that a scale does not run away from "
        "the weights, of which there are many to each scale.",
    ),
    Misconception(
        "the factor without quant_max",
        _stepped(factor=lambda n, high: 1 / math.sqrt(n)),
        "Under the root stands N times the last code: the more codes, the larger each element's share.",
    ),
    Misconception(
        "the factor without N",
        _stepped(factor=lambda n, high: 1 / math.sqrt(high)),
        "Under the root stands the last code times N, the number of elements that share the scale.",
    ),
    Misconception(
        "the factor without its root",
        _stepped(factor=lambda n, high: 1 / (n * high)),
        "The sum over N elements grows like the root of N, so it is divided by a root.",
    ),
    Misconception(
        "the number of levels for quant_max",
        _stepped(factor=lambda n, high: 1 / math.sqrt(n * (2 * high + 1))),
        "Under the root stands the last positive code, 2^(b-1) - 1, not the number of levels.",
    ),
    Misconception(
        "the mean instead of the sum",
        _stepped(total="mean"),
        "The scale is shared, so every element adds its part: a sum. The factor takes care of its size.",
    ),
    Misconception(
        "round is not differentiated",
        _stepped(inside=lambda v: v.round()),
        "This takes the code for a constant, but a larger scale also makes v = x / scale smaller. Straight through "
        "`round`, that gives a second term, -v.",
    ),
    Misconception(
        "the sign is turned",
        _stepped(inside=lambda v: v - v.round()),
        "It is the code minus v. Where rounding went up, a larger scale moves the result further up.",
    ),
    Misconception(
        "-v alone",
        _stepped(inside=lambda v: -v),
        "scale * round(x / scale) is a product. You have differentiated the second factor; the first gives the code.",
    ),
    Misconception(
        "clamped elements are left out",
        _stepped(below=lambda v, low: 0, above=lambda v, high: 0),
        "A clamped element comes out as the last code times scale: it feels the scale more than all others. Only to x"
        " it passes no gradient.",
    ),
    Misconception(
        "the formula of the inside everywhere",
        _stepped(below=lambda v, low: v.round() - v, above=lambda v, high: v.round() - v),
        "Beyond the grid the result is the last code times scale, whatever v is: its derivative is the last code.",
    ),
    Misconception(
        "the clamped code minus v",
        _stepped(below=lambda v, low: low - v, above=lambda v, high: high - v),
        "Beyond the grid the result is the last code times scale, and v does not appear: its derivative is the last "
        "code.",
    ),
    Misconception(
        "the lowest code is positive",
        _stepped(below=lambda v, low: -low),
        "Below the grid the result is the lowest code times scale, and that code is negative.",
    ),
    Misconception(
        "the highest code at both ends",
        _stepped(below=lambda v, low: -low - 1),
        "Below the grid the result is the lowest code times scale: -2^(b-1), a negative number.",
    ),
    Misconception(
        "the lowest code is missing",
        _stepped(below=lambda v, low: low + 1),
        "b bits have 2^b codes, and the lowest is -2^(b-1), one further from 0 than the highest.",
    ),
    Misconception(
        "what comes from above is ignored",
        _stepped(upstream=lambda grad: 1),
        "Each element's share is multiplied by the gradient that comes to it from above, and then summed.",
    ),
    Misconception(
        "gradient times scale",
        _stepped(times=lambda scale: scale),
        "The gradient to the scale is in codes, not in units of x: no scale is left in it.",
    ),
    Misconception(
        "gradient divided by scale",
        _stepped(times=lambda scale: 1 / scale),
        "The derivative of x / scale has an x / scale^2, but it is multiplied by scale again.",
    ),
)


EXERCISE = Exercise(
    name="lsq_gradient",
    lab=LESSON,
    place=40,
    points=2,
    reference=lsq_gradient,
    cases=_lsq_cases,
    read=_read_number,
    judge=_judge_lsq,
    misconceptions=LSQ_GRADIENT,
    stretch=True,
    run=_lsq_run,
)
