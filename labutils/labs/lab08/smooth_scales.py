"""smooth_scales: how much of each channel's size moves from the activations into the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils import data
from labutils.arrays.inputs import Array, real_array, real_number, require_finite, require_one_library, working_dtype
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct
from labutils.labs.contract import arguments, trained_weights
from labutils.labs.floats import as_float64
from labutils.labs.lab08 import LESSON
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import on_tensors, require_unchanged


def smooth_scales(activation_max: Array, weight: Array, alpha: float = 0.5) -> Array:
    """What to divide each input channel by: s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), its weights to be multiplied.

    >>> activation_max = np.array([64.0, 4.0, 1.0, 0.0])
    >>> weight = np.array([[0.5, -1.0, 0.25, 3.0], [-1.0, 0.5, 0.125, 1.0]])  # (out_features, in_features)
    >>> smooth_scales(activation_max, weight, alpha=0.5)
    array([8., 2., 2., 1.])
    >>> smooth_scales(activation_max, weight, alpha=1.0)
    array([64.,  4.,  1.,  1.])

    activation_max  (in_features,), the largest magnitude seen in each channel, from 0 on
    weight          (out_features, in_features), as in torch.nn.Linear
    alpha           the migration strength, 0 to 1: 1 gives every channel of the activations the same maximum, 0 every
                    column of the weight, 0.5 both the same two

    The scales are positive, float32 (float64 where an input is). A channel whose activations or weights are all 0 has
    nothing to move: its scale is 1. Xiao et al., 2023, "SmoothQuant" (arXiv:2211.10438), equation 4. TypeError or
    ValueError for shapes that do not match, an alpha outside [0, 1], NaN, Inf and negative maxima.
    """
    xp, activation_max, weight = with_weight(activation_max, weight, "activation_max")
    alpha = real_number(alpha, "alpha")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha:g}")
    if tuple(activation_max.shape) != (weight.shape[1],):
        raise ValueError(
            f"activation_max must have shape ({weight.shape[1]},), one for each column of weight, "
            f"got {tuple(activation_max.shape)}"
        )
    if bool(xp.any(activation_max < 0)):
        raise ValueError(f"activation_max holds magnitudes, from 0 on, got {float(xp.min(activation_max)):g}")
    peaks = [xp.astype(peak, xp.float64) for peak in (activation_max, xp.max(xp.abs(weight), axis=0))]
    moves = (peaks[0] > 0) & (peaks[1] > 0)
    a, w = (xp.where(moves, peak, xp.ones_like(peak)) for peak in peaks)
    dtype = working_dtype(xp, activation_max, weight)
    info = xp.finfo(dtype)
    return xp.astype(xp.clip(a**alpha / w ** (1 - alpha), float(info.smallest_normal), float(info.max)), dtype)


def with_weight(x: Array, weight: Array, name: str = "x") -> tuple[Any, Array, Array]:
    """(namespace, x, weight), finite floats of one library, `weight` (out_features, in_features), or an error."""
    (xp, x), (_, weight) = real_array(x, name), real_array(weight, "weight")
    require_one_library(**{name: x, "weight": weight})
    if weight.ndim != 2:
        raise ValueError(f"weight must have two axes, (out_features, in_features), got shape {tuple(weight.shape)}")
    require_finite(xp, x, name)
    require_finite(xp, weight, "weight")
    return xp, x, weight


# The lesson's example, in which alpha = 0.5 gives the scales 4, 1 and 4.
ACTIVATION_MAX = np.array([16.0, 1.0, 4.0], dtype=np.float32)
WEIGHT = np.array([[0.5, -0.25, 0.25], [-1.0, 1.0, 0.125]], dtype=np.float32)


def real_maxima() -> np.ndarray:
    """The largest magnitude of each channel that enters the digits network's last pointwise layer, (64,)."""
    images, _ = data.digits("train")
    seen = data.digits_network().activations(images[:64])["block3.depthwise"]
    return np.abs(seen).max(axis=(0, 2, 3))


def cases() -> list[Case]:
    rng = np.random.default_rng(8)
    w, seen = trained_weights(), real_maxima()
    uneven = (rng.normal(size=(12, 12)) * np.geomspace(0.05, 5, 12)[:, None]).astype(np.float32)
    loud = (np.geomspace(30, 0.3, 12) * rng.uniform(0.8, 1.2, 12)).astype(np.float32)
    silent, idle = loud.copy(), uneven.copy()
    silent[[2, 7]] = 0
    idle[:, 4] = 0
    pruned = idle.copy()
    pruned[:, 2] = 0
    negative = -np.abs(uneven)
    negative[0] = 1e-3
    f4 = np.float32
    return [
        Case("the worked example", (ACTIVATION_MAX, WEIGHT), {"alpha": 0.5}),
        Case("real weights and activations, alpha = 0.75", (seen, w), {"alpha": 0.75}),
        Case("real weights and activations, alpha left at its default, 0.5", (seen, w)),
        Case("as many outputs as inputs, alpha = 0.8", (loud, uneven), {"alpha": 0.8}),
        Case("alpha = 0.25", (loud, uneven), {"alpha": 0.25}),
        Case("alpha = 1: all of it into the weights", (loud, uneven), {"alpha": 1.0}),
        Case("alpha = 0: all of it into the activations", (loud, uneven), {"alpha": 0.0}),
        Case("the largest weights are negative", (loud, negative), {"alpha": 0.6}),
        Case("two channels that were never active", (silent, uneven), {"alpha": 0.5}),
        Case("a channel whose weights are all 0", (loud, idle), {"alpha": 0.7}),
        Case("a channel that is 0 on both sides", (silent, pruned), {"alpha": 0.5}),
        Case("one output", (loud, uneven[:1]), {"alpha": 0.6}),
        Case("one channel", (np.array([9.0], f4), np.array([[0.5], [-2.0]], f4)), {"alpha": 0.5}),
        Case("activations a million times smaller", (loud * f4(1e-6), uneven), {"alpha": 0.4}),
    ]


def read_scales(value: Any) -> dict:
    require_unchanged(value)
    return {"scales": as_float64(value, "scales")}


def judge(answer: dict, case: Case) -> None:
    activation_max, weight, alpha = arguments(smooth_scales, case)
    scales = answer["scales"]
    a, w = activation_max.astype(np.float64), np.abs(weight.astype(np.float64)).max(axis=0)
    if scales.shape != a.shape:
        raise Wrong(f"scales should have shape {a.shape}, one for each input channel, but has {scales.shape}")
    moves = (a > 0) & (w > 0)
    wanted = np.where(moves, a, 1) ** alpha / np.where(moves, w, 1) ** (1 - alpha)
    off = np.abs(scales / wanted - 1)
    off = np.where(np.isfinite(off), off, np.inf)
    worst = int(np.argmax(off))
    if off[worst] > 1e-4:
        given = f"max|X| = {a[worst]:.4g} and max|W| = {w[worst]:.4g} in channel {worst}, alpha = {alpha:g}"
        expected, found = distinct(wanted[worst], scales[worst])
        raise Wrong(f"{given}: scales[{worst}] should be {expected}, but it is {found}")


@dataclass(frozen=True)
class Smoothing(Recipe):
    """guard(scales(a, w, alpha)), where a and w are the maxima of activations and weights, at least `floor`."""

    scales: Callable = lambda a, w, alpha: a**alpha / w ** (1 - alpha)
    weight_max: Callable = lambda weight: weight.abs().amax(0)
    guard: Callable = lambda scales, a, w: scales.masked_fill((a == 0) | (w == 0), 1.0)
    floor: float = 0.0

    def __call__(self, activation_max, weight, alpha=0.5):
        a, w = activation_max, self.weight_max(weight)
        return self.guard(self.scales(a.clamp_min(self.floor), w.clamp_min(self.floor), alpha), a, w)


right = Smoothing()


def unguarded(scales, a, w):
    return scales


FLOOR = (
    "A smallest value such as 1e-5 keeps the division alive, but gives a channel that was never active a scale far "
    "from 1, and its weights another size for nothing. The contract: where one of the two maxima is 0, the scale is 1."
)

MISCONCEPTIONS = (
    Misconception("alpha on the wrong side", right.but(scales=lambda a, w, alpha: a ** (1 - alpha) / w**alpha),
        "alpha is how much of the activations' size moves: it is their exponent, and 1 - alpha is that of the weights. "
        "At alpha = 0.5 nobody can tell."),
    Misconception("upside down", right.but(scales=lambda a, w, alpha: w ** (1 - alpha) / a**alpha),
        "The input is divided by the scales, so a loud channel needs a large one: activations stand above the line."),
    Misconception("multiplied instead of divided", right.but(scales=lambda a, w, alpha: a**alpha * w ** (1 - alpha)),
        "A channel with large weights should take less from the activations, not more: its weights stand below the "
        "line."),
    Misconception("alpha as the exponent of both", right.but(scales=lambda a, w, alpha: (a / w) ** alpha),
        "The exponents add up to 1: alpha above the line, 1 - alpha below. At alpha = 0.5 nobody can tell."),
    Misconception("the weights are left out", right.but(scales=lambda a, w, alpha: a**alpha),
        "This looks at the activations only. The weights of the channel stand below the line, with exponent "
        "1 - alpha."),
    Misconception("the weights without their exponent", right.but(scales=lambda a, w, alpha: a**alpha / w),
        "The maximum of the weights has an exponent, too: 1 - alpha."),
    Misconception("alpha is ignored", right.but(scales=lambda a, w, alpha: (a / w) ** 0.5),
        "This is the scale for alpha = 0.5, whatever was asked for. Use alpha in both exponents."),
    Misconception("the weights' maximum over the wrong axis",
        right.but(weight_max=lambda weight: weight.abs().amax(1)),
        "weight is (out_features, in_features), and an input channel is a column of it. Take the maximum over the "
        "outputs, so that one number for each input is left."),
    Misconception("one maximum for all weights",
        right.but(weight_max=lambda weight: weight.abs().amax().expand(weight.shape[1])),
        "Each channel has its own scale, from its own column of the weight."),
    Misconception("max(W) instead of max|W|", right.but(weight_max=lambda weight: weight.amax(0)),
        "The largest weight of a column may be a negative one. Magnitudes first, then the maximum."),
    Misconception("the mean of the weights for their maximum",
        right.but(weight_max=lambda weight: weight.abs().mean(0)),
        "What costs a quantizer its steps is the largest magnitude of a column, not the average one."),
    Misconception("a silent channel gets the scale 0",
        right.but(guard=lambda scales, a, w: scales.masked_fill(w == 0, 1.0)),
        "A channel that was never active has the maximum 0, and so the scale 0: the input is going to be divided by "
        "it. There is nothing to move in such a channel; say so with a scale of 1."),
    Misconception("a column of zeros gets an infinite scale",
        right.but(guard=lambda scales, a, w: scales.masked_fill(a == 0, 1.0)),
        "A channel whose weights are all 0 makes the divisor 0. It counts for nothing, whatever enters there: its "
        "scale is 1."),
    Misconception("no guard for zeros", right.but(guard=unguarded),
        "Two channels were never active and get the scale 0, a column of zero weights gets an infinite one. Where one "
        "of the two maxima is 0 there is nothing to move: the scale is 1."),
    Misconception("a floor under the maxima", right.but(guard=unguarded, floor=1e-5), FLOOR),
    Misconception("a floor under the scales", right.but(guard=lambda scales, a, w: scales.clamp_min(1e-5)), FLOOR),
    Misconception("the input is changed", right.but(weight_max=lambda weight: weight.abs_().amax(0)),
        "Functions whose name ends in _, and assignments into a tensor, change what the caller gave. Work on a copy."),
)  # fmt: skip

EXERCISE = Exercise(
    name="smooth_scales",
    lab=LESSON,
    place=10,
    points=3,
    reference=smooth_scales,
    cases=cases,
    read=read_scales,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_tensors,
)
