"""fake_quantize_ste: values on the grid going forward, a gradient straight through the rounding going back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import array_api_compat
import numpy as np

from labutils.arrays.inputs import real_array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, describe, place
from labutils.labs.contract import float32_noise, largest_at, trained_weights
from labutils.labs.lab10 import LESSON
from labutils.labs.lab10._grid import HAND, gradient_masks, limits
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import as_tensors

if TYPE_CHECKING:
    from torch import Tensor


def fake_quantize_ste(x: Tensor, scale: Tensor, num_bits: int = 8) -> Tensor:
    """scale * clamp(round(x / scale)), with the gradient 1 to `x` where nothing is clamped, and 0 where it is.

    >>> import torch
    >>> x = torch.tensor([-0.26, 0.04, 0.11, 0.9], requires_grad=True)
    >>> fake_quantize_ste(x, torch.tensor(0.1), num_bits=3).sum().backward()
    >>> x.grad
    tensor([1., 1., 1., 0.])

    `scale` is positive and broadcasts over `x`. The straight-through estimator (Bengio, Leonard and Courville, 2013,
    arXiv:1308.3432) inside the grid, the clamp's own derivative outside.
    """
    import torch

    from labutils.models import training

    real_array(x)
    _, scale = real_array(torch.as_tensor(scale), "scale")
    if not bool((scale > 0).all()):
        raise ValueError("scale must be positive everywhere")
    return training.fake_quantize_ste(x, scale, num_bits)


def cases() -> list[Case]:
    rng = np.random.default_rng(10)
    w = trained_weights()
    rows = np.abs(w).max(axis=1, keepdims=True)
    columns = (rng.normal(size=(12, 12)) * np.geomspace(0.1, 10, 12)).astype(np.float32)
    conv = rng.normal(size=(6, 2, 3, 3)).astype(np.float32)
    f4 = np.float32
    return [
        Case("the worked example", (HAND, f4(0.1), 3)),
        Case("trained weights at 8 bits, nothing clamped", (w[:40], f4(np.abs(w).max() / 127), 8)),
        Case("trained weights at 2 bits, most of the grid clamped", (w[:40], f4(np.abs(w).max() / 4), 2)),
        Case("a scale for each row", (w[:20], (rows[:20] / 5).astype(f4), 4)),
        Case("a scale for each column of a square matrix", (columns, np.geomspace(0.02, 2, 12).astype(f4)[None], 4)),
        Case("convolution weights", (conv, rng.uniform(0.2, 0.6, (6, 1, 1, 1)).astype(f4), 3)),
        Case("beyond the lowest code", (-np.abs(w[:4]) - f4(0.2), f4(0.05), 3)),
        Case("beyond the highest code", (np.abs(w[:4]) + f4(0.2), f4(0.05), 3)),
        Case("on the lowest code and on the highest", (np.linspace(-9, 8, 35, dtype=f4), f4(1), 4)),
        Case("a scale far from 1", (w[:4] * f4(1000), f4(np.abs(w[:4]).max() * 1000 / 6), 4)),
        Case("16 bits", (w[:4], f4(np.abs(w[:4]).max() / 32767), 16)),
        Case("one value", (np.array(0.3, f4), f4(0.25), 2)),
    ]


def upstream(shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of the loss to each element of the result: of both signs, none of them 0 or 1."""
    return (np.linspace(0.4, 2.5, math.prod(shape)) * (-1) ** np.arange(math.prod(shape))).reshape(shape).astype("f4")


def forward_and_backward(submission: Callable, x: np.ndarray, scale: np.ndarray, num_bits: int) -> tuple:
    """The result, and the gradient that reaches x where `upstream` reaches the result."""
    import torch

    x, scale = as_tensors(x, scale)
    x.requires_grad_()
    y = submission(x, scale, num_bits)
    if isinstance(y, torch.Tensor) and y.requires_grad and y.shape == x.shape:
        y.backward(torch.from_numpy(upstream(tuple(x.shape))))
    return y, x.grad


def read(value: tuple) -> dict:
    y, grad = value
    if y is None or not array_api_compat.is_torch_array(y):
        raise Wrong(f"the result should be a torch tensor, but it is {describe(y)}")
    y = as_array(y, "the result")
    # Where shapes differ no gradient was asked for, and the judge says what is wrong with the shape.
    return {"y": y, "grad": np.full(y.shape, np.nan, np.float32) if grad is None else as_array(grad, "the gradient")}


def judge(answer: dict, case: Case) -> None:
    x, scale, num_bits = case.args
    y = answer["y"]
    if y.shape != x.shape:
        raise Wrong(f"the result should have the shape of x, {x.shape}, but has {y.shape}")
    if y.dtype != np.float32:
        raise Wrong(f"the result should be float32 like x, but its dtype is {y.dtype}")
    scale = np.broadcast_to(scale.astype(np.float64), x.shape)
    judge_values(y, x, scale, num_bits)
    judge_gradient(answer["grad"], x, x / scale, num_bits)


def judge_values(y: np.ndarray, x: np.ndarray, scale: np.ndarray, num_bits: int) -> None:
    """Whole steps of the scale, within the codes, the nearest to x."""
    low, high = limits(num_bits)
    v, codes = x / scale, y / scale
    noise = 4 * float32_noise(high) + 2.0**-22 * np.abs(v)  # x + (x_hat - x) loses a little more than x_hat
    off = np.abs(codes - np.round(codes)) - noise
    worst = largest_at(off)
    if not off[worst] <= 0:
        raise Wrong(
            f"the result at [{place(worst)}] is {y[worst]:.6g}, which is {codes[worst] + 0.0:.4g} times its scale "
            f"{scale[worst]:.4g}: it should be a whole number of steps"
        )
    if codes.min() < low - 0.5 or codes.max() > high + 0.5:
        raise Wrong(
            f"{num_bits}-bit codes lie in [{low}, {high}], but the result reaches from {codes.min():.4g} to "
            f"{codes.max():.4g} steps"
        )
    lost = np.abs(np.clip(v, low, high) - codes) - 0.5 - noise
    worst = largest_at(lost)
    if lost[worst] > 0:
        raise Wrong(
            f"x[{place(worst)}] = {x[worst]:.6g} is {v[worst] + 0.0:.4g} steps of scale, but the result there is "
            f"{round(float(codes[worst]))} steps"
        )


def judge_gradient(grad: np.ndarray, x: np.ndarray, v: np.ndarray, num_bits: int) -> None:
    """All of `upstream` inside the grid, nothing of it beyond."""
    if np.isnan(grad).all():
        raise Wrong("no gradient reaches x: the result must depend on x in a way that `backward` can follow")
    if grad.shape != x.shape:
        raise Wrong(f"the gradient should have the shape of x, {x.shape}, but has {grad.shape}")
    above = upstream(x.shape)
    must, may = gradient_masks(v, num_bits)
    share = grad / above
    wrong = ~np.where(must, np.abs(share - 1) <= 1e-4, (np.abs(share) <= 1e-4) | (may & (0 < share) & (share < 1.0001)))
    if wrong.any():
        where = np.unravel_index(np.argmax(wrong), wrong.shape)
        inside = "inside the grid, so the gradient passes" if must[where] else "beyond the last code: no gradient"
        wanted = above[where] if must[where] else 0
        raise Wrong(
            f"x[{place(where)}] = {x[where]:.4g} is {v[where] + 0.0:.4g} steps, {inside}; {above[where]:.4g} comes "
            f"from above, {wanted:.4g} should reach x, and {grad[where]:.4g} does"
        )


@dataclass(frozen=True)
class StraightThrough(Recipe):
    """result(clamp(round(x / scale)), scale), with the gradient back(grad, scale, within(x, v, low, high))."""

    scale_of: Callable = lambda x, scale, num_bits: scale
    limits: Callable = limits  # of num_bits: low, high
    round: Callable = lambda v: v.round()  # of v = x / scale
    result: Callable = lambda q, scale: q * scale
    within: Callable = lambda x, v, low, high: (v >= low) & (v <= high)
    back: Callable = lambda grad, scale, mask: grad * mask

    def __call__(self, x, scale, num_bits=8):
        import torch

        low, high = self.limits(num_bits)
        scale = self.scale_of(x.detach(), scale, num_bits)

        class Straight(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                v = x / scale
                ctx.save_for_backward(self.within(x, v, low, high))
                return self.result(self.round(v).clamp(low, high), scale)

            @staticmethod
            def backward(ctx, grad):
                (mask,) = ctx.saved_tensors
                return self.back(grad, scale, mask)

        return Straight.apply(x)


right = StraightThrough()


def differentiated_by_torch(x, scale, num_bits=8):
    return (x / scale).round().clamp(*limits(num_bits)) * scale


NO_BRAKE = (
    "Beyond the last code `clamp` is flat: moving x there changes nothing, and clamp's own derivative, 0, is the "
    "truth. Only the derivative of `round` is replaced."
)


def clamped_before_dividing(x, scale, num_bits=8):
    steps = x.clamp(*limits(num_bits)) / scale
    return (steps + (steps.round() - steps).detach()) * scale


MISCONCEPTIONS = (
    Misconception("the gradient of round", differentiated_by_torch,
        "Torch knows the derivative of `round`: it is 0 wherever it exists, so nothing can be learned. Going back, "
        "treat `round` as if it were not there."),
    Misconception("the graph is cut",
        lambda x, scale, num_bits=8: differentiated_by_torch(x.detach(), scale, num_bits),
        "Under `detach` or `no_grad` torch does not see that the result depends on x. Detach only what should have no "
        "gradient, or write the gradient yourself in an `autograd.Function`."),
    Misconception("gradient outside the clip", right.but(back=lambda grad, scale, mask: grad), NO_BRAKE),
    Misconception("gradient only outside the clip", right.but(within=lambda x, v, low, high: (v < low) | (v > high)),
        "The mask is upside down: inside the grid the gradient passes, beyond its ends it stops."),
    Misconception("x is clamped to the codes, and then divided", clamped_before_dividing,
        "The lowest and the highest code are limits for x / scale. Divide first, then clamp."),
    Misconception("gradient stops at the upper end only", right.but(within=lambda x, v, low, high: v <= high),
        "The clamp has two ends. Below the lowest code it is flat too."),
    Misconception("gradient stops at the lower end only", right.but(within=lambda x, v, low, high: v >= low),
        "The clamp has two ends. Above the highest code it is flat too."),
    Misconception("no gradient at the first and the last code",
        right.but(within=lambda x, v, low, high: (v.round() > low) & (v.round() < high)),
        "What rounds to the first or the last code lies inside the grid too. If you round first and clamp then: since "
        "torch 2.14 `clamp` lets no gradient pass at its very bound. Clamp first."),
    Misconception("gradient times scale", right.but(back=lambda grad, scale, mask: grad * mask * scale),
        "x is divided by the scale and the code multiplied by it: going back, the two cancel. If you wrote an "
        "`autograd.Function` for the whole, its gradient inside the grid is just what comes from above."),
    Misconception("gradient divided by scale", right.but(back=lambda grad, scale, mask: grad * mask / scale),
        "x is divided by the scale and the code multiplied by it: going back, the two cancel. The second is missing."),
    Misconception("what comes from above is ignored",
        right.but(back=lambda grad, scale, mask: mask.to(grad.dtype)),
        "The mask is the derivative of this step alone. By the chain rule it is multiplied with the gradient that "
        "comes from above."),
    Misconception("the gradient is clamped instead of masked",
        right.but(back=lambda grad, scale, mask: grad.clamp(-1, 1)),
        "It is x that was clamped, not the gradient. Pass the gradient as it is where x lies in the grid, and 0 "
        "elsewhere."),
    Misconception("the limits of codes applied to x",
        right.but(within=lambda x, v, low, high: (x >= low) & (x <= high)),
        "The lowest and the highest code are limits for x / scale. Compare like with like."),
    Misconception("returns the codes", right.but(result=lambda q, scale: q),
        "Fake quantization comes back to the values that the codes stand for: the network goes on in floats."),
    Misconception("returns the codes",
        right.but(result=lambda q, scale: q, back=lambda grad, scale, mask: grad * mask / scale),
        "Fake quantization comes back to the values that the codes stand for: the network goes on in floats."),
    Misconception("one code too many", right.but(limits=lambda bits: (-(2 ** (bits - 1)), 2 ** (bits - 1))),
        "The largest code is 2^(b-1) - 1: 127 at 8 bits, not 128. One of the 2^b codes stands for 0."),
    Misconception("no clamp", right.but(limits=lambda bits: (-(2**30), 2**30)),
        "Codes beyond the last one do not exist, however far x lies outside. Clamp to [-2^(b-1), 2^(b-1) - 1]."),
    Misconception("the lowest code is missing",
        right.but(limits=lambda bits: (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)),
        "b bits have 2^b codes, and the lowest is -2^(b-1). An absmax scale never reaches it (lab 01), but this scale"
        " is given, and x may lie there."),
    Misconception("127 at every bit width", right.but(limits=lambda bits: (-128, 127)),
        "-128 and 127 are the ends of the grid at 8 bits only. Compute them from num_bits."),
    Misconception("floor instead of round", right.but(round=lambda v: v.floor()),
        "`floor` always goes down, so the error reaches a whole step. Go to the nearest integer."),
    Misconception("truncation instead of round", right.but(round=lambda v: v.trunc()),
        "Cutting the fraction off is not rounding: 1.9 becomes 1. Go to the nearest integer."),
    Misconception("a scale of its own",
        right.but(scale_of=lambda x, scale, bits: x.abs().max() / (2 ** (bits - 1) - 1)),
        "The scale is given. If it follows x around, the grid moves with every step of training, and conversion must "
        "guess which one was meant."),
)  # fmt: skip

EXERCISE = Exercise(
    name="fake_quantize_ste",
    lab=LESSON,
    place=10,
    points=3,
    reference=fake_quantize_ste,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=forward_and_backward,
)
