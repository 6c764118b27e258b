"""best_clip: where to clip so that least is lost."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array, bit_width, real_array
from labutils.arrays.metrics import sqnr_db
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number
from labutils.labs import answers
from labutils.labs.contract import once_for_each_input, trained_weights
from labutils.labs.lab01 import LESSON


def best_clip(x: Array, num_bits: int) -> float:
    """The threshold c for which quantizing onto the grid of [-c, c] loses least (mean squared error).

    >>> x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    >>> round(best_clip(x, 4), 1)
    2.4

    The best of 200 fractions of max|x|. An all-zero `x` has nothing to clip, and the answer is 0.0.
    """
    bits = bit_width(num_bits)
    xp, x = real_array(x)
    largest = float(xp.max(xp.abs(x)))
    if largest == 0:
        return 0.0
    fractions = np.linspace(0.005, 1, 200)
    ratios = [sqnr_db(x, affine.fake_quantize(x, Scheme(bits, clip=float(fraction)))) for fraction in fractions]
    return float(fractions[np.argmax(ratios)]) * largest


FRACTIONS = np.linspace(0.02, 1, 50)


def cases() -> list[Case]:
    rng = np.random.default_rng(2)
    gaussian = rng.normal(size=8_000).astype(np.float32)
    outliers = np.append(gaussian[:5000], [40.0, -35.0]).astype(np.float32)
    uniform = rng.uniform(-1, 1, 8_000).astype(np.float32)
    return [
        Case("a Gaussian at 4 bits", (gaussian, 4)),
        Case("a Gaussian at 2 bits", (gaussian, 2)),
        Case("trained weights at 4 bits", (trained_weights(), 4)),
        Case("trained weights at 3 bits", (trained_weights(), 3)),
        Case("two outliers at 4 bits", (outliers, 4)),
        Case("a uniform source, where nothing is gained by clipping", (uniform, 6)),
        Case("the largest magnitude is negative", (np.minimum(gaussian, np.float32(0.5)), 4)),
        Case("a Gaussian of standard deviation 0.001", (gaussian * np.float32(1e-3), 4)),
    ]


def read(value: object) -> dict:
    return {"clip": as_number(value, "the threshold")}


def reconstructed(x: np.ndarray, clip: float, num_bits: int) -> np.ndarray:
    q, scale = answers.quantize_clipped(x, clip, num_bits)
    return q * float(scale)


def loss(x: np.ndarray, clip: float, num_bits: int) -> float:
    """Mean squared error against the original tensor."""
    return float(np.mean((x - reconstructed(x, clip, num_bits)) ** 2))


@once_for_each_input
def least_loss(x: np.ndarray, num_bits: int) -> float:
    return best_clip(x, num_bits)


def judge(answer: dict, case: Case) -> None:
    x, num_bits = case.args
    clip = answer["clip"]
    if not math.isfinite(clip) or clip <= 0:
        raise Wrong(f"the threshold should be a positive number, but it is {clip:g}")
    best = least_loss(x, num_bits)
    # A search over 25 thresholds is fine enough: near its minimum the loss is flat.
    yours, least = loss(x, clip, num_bits), loss(x, best, num_bits)
    if yours > 1.05 * least:
        raise Wrong(
            f"clipping at {clip:.4g} has a mean squared error of {yours:.3g}, but at {best:.4g} it is {least:.3g}"
        )


@once_for_each_input
def losses_of(x: np.ndarray, clips: np.ndarray, num_bits: int) -> np.ndarray:
    return np.array([loss(x, c, num_bits) for c in clips])


def search(
    losses: Callable = losses_of,
    largest: Callable = lambda x: np.abs(x).max(),
    choose: Callable = np.argmin,
    fractions: np.ndarray = FRACTIONS,
    result: Callable = lambda clips, losses, i, num_bits: clips[i],
) -> Callable:
    """A search among fractions of the largest magnitude, of which one step can be replaced."""

    def search(x, num_bits):
        clips = fractions * largest(x)
        found = losses(x, clips, num_bits)
        return float(result(clips, found, int(choose(found)), num_bits))

    return search


def search_for_least(loss: Callable) -> Callable:
    """A search for the threshold whose `loss(x, clip, num_bits)` is least."""
    return search(losses=lambda x, clips, b: [loss(x, c, b) for c in clips])


PERCENTILE = (
    "A fixed percentile knows nothing of the bit width: with fewer bits it pays to clip more. Measure the loss."
)

MISCONCEPTIONS = (
    Misconception("never clips", lambda x, num_bits: float(np.abs(x).max()),
        "That is max|x|, the threshold that loses nothing to clipping and most to rounding. Try thresholds below it "
        "and measure."),
    Misconception("a fraction instead of a threshold",
        lambda x, num_bits: best_clip(x, num_bits) / float(np.abs(x).max()),
        "That is a fraction of max|x|. Multiply it by max|x| to get the threshold."),
    Misconception("the number of the candidate instead of the threshold",
        search(result=lambda clips, losses, i, b: i),
        "`argmin` says at which place the least loss stands. Return the threshold at that place."),
    Misconception("the loss instead of the threshold", search(result=lambda clips, losses, i, b: losses[i]),
        "That is how little is lost at best. Return where: the threshold at which it is lost."),
    Misconception("the scale instead of the threshold",
        search(result=lambda clips, losses, i, b: clips[i] / (2 ** (b - 1) - 1)),
        "That is the length of a step. The threshold is where the grid ends, quant_max steps from 0."),
    Misconception("the greatest loss instead of the least", search(choose=np.argmax),
        "The loss says how much goes wrong. Take the threshold at which it is least."),
    Misconception("8 bits at every bit width", search(losses=lambda x, clips, b: losses_of(x, clips, 8)),
        "The loss was measured on the grid of 8 bits, where clipping hardly pays. Hand `num_bits` on."),
    Misconception("the search ends at max(x) instead of max|x|", search(largest=np.max),
        "The largest magnitude may be that of a negative value. Search up to max|x|."),
    Misconception("a fraction instead of a threshold",
        search(result=lambda clips, losses, i, b: FRACTIONS[i]),
        "That is a fraction of max|x|. Multiply it by max|x| to get the threshold."),
    Misconception("measures against the clipped tensor",
        search_for_least(lambda x, c, b: np.mean((np.clip(x, -c, c) - reconstructed(x, c, b)) ** 2)),
        "Comparing with the clipped tensor hides what clipping lost, so the smallest threshold always wins. Compare "
        "with the original."),
    Misconception("the 99th percentile", lambda x, num_bits: float(np.percentile(np.abs(x), 99)), PERCENTILE),
    Misconception("the 99.9th percentile", lambda x, num_bits: float(np.percentile(np.abs(x), 99.9)), PERCENTILE),
    Misconception("three standard deviations", lambda x, num_bits: float(3 * np.std(x)),
        "A fixed multiple knows nothing of the bit width or the distribution. Measure the loss."),
    Misconception("the smallest largest error",
        search_for_least(lambda x, c, b: np.max(np.abs(x - reconstructed(x, c, b)))),
        "The largest error is the clipped outlier's, so it never pays to clip. Look at the mean squared error."),
)  # fmt: skip

EXERCISE = Exercise(
    name="best_clip",
    lab=LESSON,
    place=50,
    points=2,
    reference=best_clip,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
)
