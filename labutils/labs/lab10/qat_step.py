"""qat_step: one step of training a linear layer whose weights will have few bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from labutils.arrays.inputs import positive_number
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, distinct, place
from labutils.labs.lab10 import LESSON
from labutils.labs.lab10._grid import gradient_masks, limits
from labutils.labs.lab10.fake_quantize_ste import NO_BRAKE, fake_quantize_ste
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import as_tensors

if TYPE_CHECKING:
    from torch import Tensor


def qat_step(w: Tensor, x: Tensor, target: Tensor, scale: Tensor, num_bits: int, learning_rate: float) -> Tensor:
    """One step of quantization-aware training of a linear layer: the float weights after it.

    >>> import torch
    >>> w, x = torch.tensor([[0.24, 1.26]]), torch.tensor([[1.0, 2.0]])
    >>> qat_step(w, x, torch.tensor([[2.0]]), torch.tensor(0.5), num_bits=4, learning_rate=0.1)
    tensor([[0.0400, 0.8600]])

    `w` (K, C), `x` (N, C), `target` (N, K). The loss is the mean of (x @ w_hat.T - target)^2 over all N * K elements,
    w_hat the fake-quantized weights; its gradient, taken at w_hat, moves `w` itself (Jacob et al., 2018,
    arXiv:1712.05877, section 3). A new tensor: `w` stays as it is.
    """
    import torch

    rate = positive_number(learning_rate, "learning_rate")
    shadow = w.detach().clone().requires_grad_()
    loss = torch.nn.functional.mse_loss(x @ fake_quantize_ste(shadow, scale, num_bits).T, target)
    (gradient,) = torch.autograd.grad(loss, shadow)
    return (shadow - rate * gradient).detach()


def cases() -> list[Case]:
    rng = np.random.default_rng(11)
    f4 = np.float32

    def case(name: str, n: int, c: int, k: int, num_bits: int, reach: float = 1.0, rate: float = 0.05) -> Case:
        """`reach`: how far the weights go, as a fraction of the grid."""
        w = rng.normal(size=(k, c)).astype(f4)
        scale = (np.abs(w).max(axis=1, keepdims=True) / (2 ** (num_bits - 1) - 1) / reach).astype(f4)
        x = rng.normal(size=(n, c)).astype(f4)
        target = (x @ rng.normal(size=(c, k))).astype(f4)
        return Case(name, (w, x, target, scale, num_bits, rate))

    hand = np.array([[0.24, 1.26]], f4), np.array([[1, 2]], f4), np.array([[2]], f4), f4(0.5), 4, 0.1
    return [
        Case("the worked example", hand),
        case("4 bits, a scale for each neuron", 32, 10, 5, 4),
        case("2 bits, half of the weights beyond the grid", 32, 12, 6, 2, reach=3.0),
        case("8 bits", 16, 8, 3, 8),
        case("steps much smaller than the grid's", 64, 6, 4, 3, rate=1e-3),
        case("one input, one neuron", 1, 1, 1, 4),
        case("a square layer", 20, 7, 7, 3, reach=1.5),
    ]


def run(submission: Callable, w: np.ndarray, *others: object) -> tuple:
    """The new weights, and whether the old ones were changed."""
    given, *rest = as_tensors(w, *others)
    new = submission(given, *rest)
    return new, given.detach().numpy().tobytes() != np.ascontiguousarray(w).tobytes()


def read(value: tuple) -> dict:
    new, changed = value
    if changed:
        raise Wrong("it changed the weights that it was given: return new ones, and leave w as it is")
    w = as_array(new, "the result")
    if getattr(new, "requires_grad", False) and not getattr(new, "is_leaf", True):
        raise Wrong(
            "the result is still attached to the graph of this step, and the next step would go back through it: end "
            "with `.detach()`, or update under `torch.no_grad()`"
        )
    return {"w": w}


def stepped_everywhere(w, x, target, scale, num_bits: int, rate: float) -> np.ndarray:
    """In float64, the weights after a step in which the gradient passes beyond the grid too."""
    w, x, target, scale = (np.asarray(array, np.float64) for array in (w, x, target, scale))
    w_hat = np.clip(np.round(w / scale), *limits(num_bits)) * scale
    return w - rate * 2 * (x @ w_hat.T - target).T @ x / target.size


def judge(answer: dict, case: Case) -> None:
    w, _, _, scale, num_bits, _ = case.args
    new = answer["w"]
    if new.shape != w.shape:
        raise Wrong(f"the new weights should have the shape of w, {w.shape}, but have {new.shape}")
    if new.dtype != np.float32:
        raise Wrong(f"the new weights should be float32, but their dtype is {new.dtype}")
    moved = stepped_everywhere(*case.args)
    must, may = gradient_masks(w / scale.astype(np.float64), num_bits)
    tolerance = 1e-4 * np.abs(moved - w) + 2e-6 * np.maximum(np.abs(w), np.abs(moved - w).max())
    between = (np.minimum(w, moved) - tolerance <= new) & (new <= np.maximum(w, moved) + tolerance)
    wrong = ~np.where(must, np.abs(new - moved) <= tolerance, (np.abs(new - w) <= tolerance) | (may & between))
    if wrong.any():
        where = np.unravel_index(np.argmax(wrong), wrong.shape)
        wanted = moved[where] if must[where] else w[where]
        beyond = "" if must[where] else " lies beyond the grid and"
        expected, found = distinct(wanted, new[where])
        raise Wrong(
            f"w[{place(where)}] = {w[where]:.6g}{beyond} should be {expected} after the step, but it is {found}"
        )


@dataclass(frozen=True)
class Step(Recipe):
    """start(w, w_hat) - rate * gradient, the gradient taken at at(w, w_hat); `result` is what is returned of it."""

    at: Callable = lambda w, w_hat: w_hat
    start: Callable = lambda w, w_hat: w
    to_output: Callable = lambda error, target: 2 * error / target.numel()  # the gradient to the layer's output
    mask: Callable = lambda v, low, high: (v >= low) & (v <= high)
    rate: Callable = lambda learning_rate, scale: learning_rate
    result: Callable = lambda new, gradient, quantize: new

    def __call__(self, w, x, target, scale, num_bits, learning_rate):
        low, high = limits(num_bits)

        def quantize(w):
            return (w / scale).round().clamp(low, high) * scale

        w_hat = quantize(w)
        to_output = self.to_output(x @ self.at(w, w_hat).T - target, target)
        gradient = to_output.T @ x * self.mask(w / scale, low, high)
        new = self.start(w, w_hat) - self.rate(learning_rate, scale) * gradient
        return self.result(new, gradient, quantize)


right = Step()


def everywhere(v, low, high):
    return v == v


def in_place(w, x, target, scale, num_bits, learning_rate):
    return w.copy_(right(w, x, target, scale, num_bits, learning_rate))


def without_requires_grad(w, x, target, scale, num_bits, learning_rate):
    loss = ((x @ fake_quantize_ste(w, scale, num_bits).T - target) ** 2).mean()
    loss.backward()
    return w - learning_rate * w.grad


FLOAT_LOSS = (
    "The gradient was taken at the float weights, so training does not know what rounding does to the loss. Use "
    "the fake-quantized weights in the forward pass."
)

MISCONCEPTIONS = (
    Misconception("the quantized weights are updated", right.but(start=lambda w, w_hat: w_hat),
        "A step is usually far smaller than the grid's. Taken from the quantized weights it is rounded away the next "
        "time, and nothing ever adds up. Move the float weights; they remember."),
    Misconception("returns quantized weights", right.but(result=lambda new, gradient, quantize: quantize(new)),
        "The float weights are what training keeps. Rounding them after the step throws away every step smaller than "
        "half of the grid's. They are quantized again in the next forward pass."),
    Misconception("quantizes after the step only",
        right.but(at=lambda w, w_hat: w, mask=everywhere, result=lambda new, gradient, quantize: quantize(new)),
        "The loss never saw a quantized weight: this is float training, rounded at the end. Compute the loss with the "
        "fake-quantized weights, and give the float ones back."),
    Misconception("the loss of the float weights", right.but(at=lambda w, w_hat: w, mask=everywhere), FLOAT_LOSS),
    Misconception("the loss of the float weights", right.but(at=lambda w, w_hat: w), FLOAT_LOSS),
    Misconception("nothing moves", right.but(rate=lambda learning_rate, scale: 0.0),
        "No gradient came back. If you wrote `round` without your estimator, its derivative is 0."),
    Misconception("weights beyond the grid move too", right.but(mask=everywhere), NO_BRAKE),
    Misconception("uphill", right.but(rate=lambda learning_rate, scale: -learning_rate),
        "The gradient points to where the loss grows. Subtract it."),
    Misconception("the sum instead of the mean", right.but(to_output=lambda error, target: 2 * error),
        "The loss is the mean of the squared errors over all elements of target, not their sum."),
    Misconception("the mean over rows only", right.but(to_output=lambda error, target: 2 * error / len(target)),
        "The loss is the mean over all N * K elements of target, samples and neurons."),
    Misconception("the 2 of the square is missing",
        right.but(to_output=lambda error, target: error / target.numel()),
        "The derivative of a square is twice the error."),
    Misconception("no learning rate", right.but(rate=lambda learning_rate, scale: 1.0),
        "The step is the gradient times the learning rate."),
    Misconception("gradient times scale", right.but(rate=lambda learning_rate, scale: learning_rate * scale),
        "Straight through means that the weight gets the gradient of the fake-quantized weight as it is: divided by "
        "the scale and multiplied again, it cancels."),
    Misconception("returns the gradient", right.but(result=lambda new, gradient, quantize: gradient),
        "The gradient says where to go. Return the weights after the step."),
    Misconception("no gradient is asked for", without_requires_grad,
        "`w` is a plain tensor, for which torch keeps no gradient. Make a copy of it that requires one, and compute "
        "the loss from that copy."),
    Misconception("the new weights are still attached to the graph",
        right.but(result=lambda new, gradient, quantize: (new.requires_grad_() * 1.0)),
        "The new weights remember how they were made. In a loop the second step finds no leaf to take a gradient of, "
        "or goes back through the first. Detach them."),
    Misconception("the weights are changed in place", in_place,
        "`w -= ...` and `w.copy_` write into the caller's tensor. Make a new one."),
)  # fmt: skip

EXERCISE = Exercise(
    name="qat_step",
    lab=LESSON,
    place=20,
    points=2,
    reference=qat_step,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=run,
)
