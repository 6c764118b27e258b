"""split_outliers: outlier channels in one part of a tensor, all others in another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from labutils import data
from labutils.arrays.inputs import Array, positive_number, real_array, require_finite
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import distinct, parts, place
from labutils.labs.contract import arguments
from labutils.labs.floats import as_float64
from labutils.labs.lab08 import LESSON
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import on_tensors, require_unchanged


def split_outliers(x: Array, threshold: float = 6.0) -> tuple[Array, Array]:
    """Two arrays that add up to `x`: its regular channels with zeros elsewhere, and its outlier channels likewise.

    >>> x = np.array([[0.5, -9.0, 1.0], [2.0, 3.0, -1.0]])  # (tokens, channels)
    >>> regular, outliers = split_outliers(x, threshold=6.0)
    >>> regular
    array([[ 0.5,  0. ,  1. ],
           [ 2. ,  0. , -1. ]])
    >>> outliers
    array([[ 0., -9.,  0.],
           [ 0.,  3.,  0.]])

    Channels lie along the last axis. One is an outlier if any magnitude in it is larger than `threshold`; then it goes
    as a whole, since a matrix product can leave out a column, but no single value. Dettmers et al., 2022, "LLM.int8()"
    (arXiv:2208.07339), section 3.2. TypeError or ValueError for NaN, Inf, no axis, a threshold that is not positive.
    """
    xp, x = real_array(x)
    threshold = positive_number(threshold, "threshold")
    if x.ndim == 0:
        raise ValueError("x needs at least one axis, the channels, got shape ()")
    require_finite(xp, x)
    outlier = xp.max(xp.reshape(xp.abs(x), (-1, x.shape[-1])), axis=0) > threshold
    zero = xp.zeros((), dtype=x.dtype, device=array_api_compat.device(x))
    return xp.where(outlier, zero, x), xp.where(outlier, x, zero)


HAND = np.array([[0.5, -9.0, 1.0], [2.0, 3.0, -1.0]], dtype=np.float32)  # the worked example of the lesson


def spiked(shape: tuple[int, ...], channels: dict[int, float], seed: int) -> np.ndarray:
    """Gaussian activations below 4, and in a few channels one value that stands out."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(size=shape), -3.9, 3.9).astype(np.float32)
    for channel, value in channels.items():
        where = (*(int(rng.integers(length)) for length in shape[:-1]), channel)
        x[where] = value
    return x


def cases() -> list[Case]:
    images, _ = data.digits("test")
    pixels = np.moveaxis(data.digits_network().activations(images[:3])["block1.pointwise"], 1, -1).copy()
    steady = spiked((12, 8), {}, 5)
    steady[:, 3] = -7 + 0.1 * np.arange(12)  # an outlier in most tokens
    return [
        Case("the worked example", (HAND,), {"threshold": 6.0}),
        Case("(tokens, channels), two outlier channels", (spiked((30, 16), {4: 21.0, 11: -17.0}, 0),)),
        Case("as many tokens as channels", (spiked((14, 14), {2: 30.0, 9: 8.0}, 1),)),
        Case("(batch, tokens, channels)", (spiked((3, 7, 12), {0: -12.0, 5: 40.0}, 2),), {"threshold": 5.0}),
        Case("only negative outliers", (spiked((20, 10), {3: -25.0}, 3),), {"threshold": 6.0}),
        Case("a channel that is loud everywhere", (steady,), {"threshold": 6.0}),
        Case("real activations, (images, height, width, channels)", (pixels,), {"threshold": 3.3}),
        Case("no outliers", (spiked((9, 10), {}, 6),), {"threshold": 6.0}),
        Case("a channel exactly at the threshold", (HAND,), {"threshold": 9.0}),
        Case("a small threshold, every channel an outlier", (spiked((9, 10), {}, 7),), {"threshold": 1e-3}),
        Case("one token", (spiked((1, 20), {6: 9.0, 7: -8.0}, 8),), {"threshold": 6.0}),
    ]


def read(value: Any) -> dict:
    require_unchanged(value)
    regular, outliers = parts(value, ("regular", "outliers"))
    return {"regular": as_float64(regular, "regular"), "outliers": as_float64(outliers, "outliers")}


def judge(answer: dict, case: Case) -> None:
    x, threshold = arguments(split_outliers, case)
    x = x.astype(np.float64)
    for name, part in answer.items():
        if part.shape != x.shape:
            raise Wrong(f"{name} should have the shape of x, {x.shape}, but has {part.shape}")
    peaks = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0)
    outlier = peaks > threshold
    for name, wanted in (("outliers", np.where(outlier, x, 0)), ("regular", np.where(outlier, 0, x))):
        wrong = ~np.isclose(answer[name], wanted, rtol=1e-6, atol=0)
        if wrong.any():
            where = np.unravel_index(np.argmax(wrong), wrong.shape)
            channel = int(where[-1])
            side = "above" if outlier[channel] else "not above"
            expected, found = distinct(wanted[where], answer[name][where], 4)
            raise Wrong(
                f"channel {channel} reaches {peaks[channel]:.4g}, {side} the threshold {threshold:g}: "
                f"{name}[{place(where)}] should be {expected}, but it is {found}"
            )


def peaks_of_channels(x):
    return x.abs().reshape(-1, x.shape[-1]).amax(0)


@dataclass(frozen=True)
class Split(Recipe):
    """result(regular(x, mask), outliers(x, mask)), with mask = outlier(x, threshold), which broadcasts over `x`."""

    outlier: Callable = lambda x, threshold: peaks_of_channels(x) > threshold
    regular: Callable = lambda x, outlier: x.masked_fill(outlier, 0.0)
    outliers: Callable = lambda x, outlier: x.masked_fill(~outlier, 0.0)
    result: Callable = lambda regular, outliers: (regular, outliers)

    def __call__(self, x, threshold=6.0):
        mask = self.outlier(x, threshold)
        return self.result(self.regular(x, mask), self.outliers(x, mask))


right = Split()


def over_axis(axis):
    """Outliers where only this one axis is reduced, if there are others beside the channels."""
    return lambda x, threshold: (x.abs().amax(axis, keepdim=True) > threshold).expand(x.shape)


def every_sequence(x, threshold):
    return over_axis(1)(x, threshold) if x.ndim > 2 else right.outlier(x, threshold)


def every_position(x, threshold):
    return over_axis(0)(x, threshold) if x.ndim > 1 else x.abs() > threshold


def in_place(x, threshold=6.0):
    mask = right.outlier(x, threshold)
    outliers = right.outliers(x, mask)
    x[..., mask] = 0
    return x, outliers


def excess(x, threshold=6.0):
    regular = x.clamp(-threshold, threshold)
    return regular, x - regular


MISCONCEPTIONS = (
    Misconception("single values instead of channels", right.but(outlier=lambda x, threshold: x.abs() > threshold),
        "Only the values above the threshold were taken out. A matrix product can leave out a column, but no single "
        "value: one outlier takes its whole channel along."),
    Misconception("only what is beyond the threshold", excess,
        "This cuts the outliers off at the threshold and keeps the rest of them apart. Whole channels are to be moved, "
        "as they are."),
    Misconception("tokens instead of channels", right.but(outlier=over_axis(-1)),
        "The last axis holds the channels, and it was reduced: whole tokens were taken out. Reduce all axes but the "
        "last."),
    Misconception("every sequence for itself", right.but(outlier=every_sequence),
        "A channel is an outlier in some sequences here, and not in others. The weight has one column for it: reduce "
        "all axes but the last."),
    Misconception("every position for itself", right.but(outlier=every_position),
        "That is right for (tokens, channels). With a batch in front, axis 0 is the batch: reduce all axes but the "
        "last."),
    Misconception("the signed maximum",
        right.but(outlier=lambda x, threshold: x.reshape(-1, x.shape[-1]).amax(0) > threshold),
        "An outlier may be negative: compare magnitudes with the threshold."),
    Misconception("the mean for the maximum",
        right.but(outlier=lambda x, threshold: x.abs().reshape(-1, x.shape[-1]).mean(0) > threshold),
        "One large value in one token is enough: it alone sets the scale. Take the maximum of the magnitudes."),
    Misconception("a channel at the threshold counts as an outlier",
        right.but(outlier=lambda x, threshold: peaks_of_channels(x) >= threshold),
        "An outlier is larger than the threshold: `>`, not `>=`."),
    Misconception("all values of the channel must be large",
        right.but(outlier=lambda x, threshold: (x.abs() > threshold).reshape(-1, x.shape[-1]).all(0)),
        "One large value in one token is enough: it alone sets the scale. Take `any`, not `all`."),
    Misconception("the threshold is multiplied by something",
        right.but(outlier=lambda x, threshold: peaks_of_channels(x) > threshold * x.std()),
        "The threshold is a magnitude, in the units of x: compare with it as it is."),
    Misconception("the threshold is multiplied by something",
        right.but(outlier=lambda x, threshold: peaks_of_channels(x) > threshold / 10 * x.abs().max()),
        "The threshold is a magnitude, in the units of x: compare with it as it is."),
    Misconception("6 at every threshold", right.but(outlier=lambda x, threshold: peaks_of_channels(x) > 6.0),
        "6.0 is the default. Use `threshold`."),
    Misconception("outliers in both parts", right.but(regular=lambda x, outlier: x.clone()),
        "The two parts must add up to x, but the outlier channels are in both, and would be counted twice. Set them to "
        "zero in `regular`."),
    Misconception("regular channels in both parts", right.but(outliers=lambda x, outlier: x.clone()),
        "The two parts must add up to x, but `outliers` holds all of it. Set the regular channels to zero there."),
    Misconception("outliers in neither part", right.but(outliers=lambda x, outlier: x * 0),
        "The two parts must add up to x, but the outlier channels are gone."),
    Misconception("the parts exchanged", right.but(result=lambda regular, outliers: (outliers, regular)),
        "The parts are right, in the wrong order: regular first."),
    Misconception("channels removed instead of set to zero",
        right.but(regular=lambda x, outlier: x[..., ~outlier], outliers=lambda x, outlier: x[..., outlier]),
        "That is what a fast kernel does, with the weight's columns chosen alike. Here both parts keep the shape of x, "
        "with zeros, so that they add up."),
    Misconception("the input is changed", in_place,
        "Writing zeros into x changes the activations of whoever called. Work on a copy, or make a new tensor."),
)  # fmt: skip

EXERCISE = Exercise(
    name="split_outliers",
    lab=LESSON,
    place=30,
    points=2,
    reference=split_outliers,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_tensors,
)
