"""sqnr_per_channel: the quality that each channel gets, which an average over all hides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array
from labutils.arrays.metrics import sqnr_db
from labutils.arrays.scheme import PerAxis, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, distinct
from labutils.labs.contract import trained_weights
from labutils.labs.lab03 import LESSON
from labutils.labs.lab03._channels import convolution_weights, uneven
from labutils.labs.recipes import Recipe
from labutils.labs.slices import along_axis, channels


def sqnr_per_channel(original: Array, dequantized: Array, axis: int) -> np.ndarray:
    """The SQNR of each channel along `axis` in decibels: (C,) float64, inf where a channel came back exactly.

    >>> x = np.array([[1.0, -1.0], [0.1, 0.0]])
    >>> sqnr_per_channel(x, np.array([[0.9, -0.9], [0.0, 0.0]]), axis=0)
    array([20.,  0.])

    `axis` is kept and all others are reduced, as in `quantize_per_channel`. ValueError for two shapes, or an axis that
    is not there.
    """
    if tuple(original.shape) != tuple(dequantized.shape):
        raise ValueError(
            f"dequantized must have the shape of original, {tuple(original.shape)}, got {tuple(dequantized.shape)}"
        )
    if not -original.ndim <= axis < original.ndim:
        raise ValueError(f"axis must name one of the {original.ndim} axes of original, got {axis}")
    pairs = (channels(np.asarray(x), axis) for x in (original, dequantized))
    return np.array([sqnr_db(x, back) for x, back in zip(*pairs, strict=True)])


def restored(x: np.ndarray, scheme: Scheme) -> np.ndarray:
    return affine.dequantize(affine.quantize(x, scheme))


def cases() -> list[Case]:
    def case(name: str, x: np.ndarray, axis: int, scheme: Scheme = Scheme(5)) -> Case:
        return Case(name, (x, restored(x, scheme), axis))

    w, square = trained_weights(), uneven((12, 12), 0, seed=11)
    by_hand = np.array([[3, 4], [0.1, 0.2]], np.float32), np.array([[3, 3.5], [0.2, 0.2]], np.float32)
    exact = uneven((5, 8), 0, seed=12)
    lossy = restored(exact, Scheme(5))
    lossy[3] = exact[3]
    silent, gone = exact.copy(), lossy.copy()
    silent[2] = gone[2] = 0
    return [
        Case("the worked example", (*by_hand, 0)),
        case("trained weights along axis 0", w, 0),
        case("trained weights along axis 1", w, 1),
        case("a scale for each channel", w, 0, Scheme(4, granularity=PerAxis(0))),
        case("convolution weights, four axes", convolution_weights(), 0),
        case("a square matrix along axis 0", square, 0),
        case("a square matrix along axis 1", square, 1),
        case("the middle one of three axes", uneven((4, 6, 5), 1, seed=13), 1),
        case("axis -1 is the last one", uneven((3, 4, 6), 2, seed=14), -1),
        case("after a ReLU: the mean is not 0", np.maximum(w[:16], 0), 0),
        case("one channel alone", w[:1], 0),
        Case("quiet channels of which nothing is left: 0 dB", (square, np.where(np.abs(square) > 1, square, 0), 0)),
        Case("a channel that came back exactly: inf", (exact, lossy, 0)),
        Case("a channel of zeros came back exactly: inf", (silent, gone, 0)),
    ]


def read(value: object) -> dict:
    return {"sqnr": as_array(value, "the result").astype(np.float64)}


def judge(answer: dict, case: Case) -> None:
    original, _, axis = case.args
    found, expected = answer["sqnr"], sqnr_per_channel(*case.args)
    if found.shape != expected.shape:
        raise Wrong(
            f"an original of shape {original.shape} has {len(expected)} channels along axis {axis}: the result should "
            f"have shape {expected.shape}, but has {found.shape}"
        )
    for channel, (wanted, came) in enumerate(zip(expected, found, strict=True)):
        if not (wanted == came or abs(wanted - came) <= 1e-3):  # in decibels, what float32 sums may lose
            wanted, came = distinct(wanted, came, digits=4)
            raise Wrong(f"the SQNR of channel {channel} should be {wanted} dB, but it is {came}")


@dataclass(frozen=True)
class PerChannel(Recipe):
    """decibels(signal(x) / noise(x - back, x)) of each channel, in steps that can be replaced."""

    split: Callable = channels  # of an array and the axis: (C, elements)
    mean: Callable = lambda powers: powers.mean(axis=1)
    signal: Callable = lambda x, back: x**2
    noise: Callable = lambda x, back: (x - back) ** 2
    ratio: Callable = lambda signal, noise: np.where(noise == 0, np.inf, signal / np.where(noise == 0, 1, noise))
    decibels: Callable = lambda ratio: 10 * np.log10(ratio)
    result: Callable = lambda decibels, x, axis: decibels

    def __call__(self, original, dequantized, axis):
        x, back = (self.split(part.astype(np.float64), axis) for part in (original, dequantized))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.ratio(self.mean(self.signal(x, back)), self.mean(self.noise(x, back)))
            return self.result(self.decibels(ratio), original, axis)


right = PerChannel()


def reducing(axes: Callable) -> Callable:
    """The SQNR of what is left when `axes(ndim, axis)` are reduced."""

    def sqnr(original, dequantized, axis):
        x, e = original.astype(np.float64), original.astype(np.float64) - dequantized
        over = axes(x.ndim, axis)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 10 * np.log10((x**2).mean(axis=over) / (e**2).mean(axis=over))

    return sqnr


def of_each_value(original, dequantized, axis):
    x, e = (channels(part.astype(np.float64), axis) for part in (original, original - dequantized))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (10 * np.log10(x**2 / e**2)).mean(axis=1)


def all_axes_if_negative(original, dequantized, axis):
    """No i equals -1: `i != axis` is true of every axis."""
    return right(original, dequantized, axis) if axis >= 0 else sqnr_db(original, dequantized)


AXIS = "`axis` is where the channels are: it stays, and the means run over all the others, as for the scales."

MISCONCEPTIONS = (
    Misconception("the axis is reduced, and should be kept", reducing(lambda ndim, axis: axis), AXIS),
    Misconception("only the last axis is reduced", reducing(lambda ndim, axis: -1),
        "That is right for the rows of a matrix. In general everything but `axis` is reduced."),
    Misconception("always along axis 0", lambda x, back, axis: right(x, back, 0),
        "`axis` is not used: the channels were taken along axis 0."),
    Misconception("a negative axis is not found", all_axes_if_negative,
        "Among the numbers of the axes there is no -1: a comparison such as `i != axis` lets every axis through. Make "
        "the axis positive first: remainder by the number of axes."),
    Misconception("one number for all channels", lambda x, back, axis: sqnr_db(x, back),
        "That is the average over all elements, which the loud channels rule. One number for each channel is asked "
        "for."),
    Misconception("the noise of all channels under each signal",
        right.but(noise=lambda x, back: np.broadcast_to(np.mean((x - back) ** 2), x.shape)),
        "Each channel has noise of its own: take the mean of the squared errors over its elements only."),
    Misconception("the signal of all channels over each noise",
        right.but(signal=lambda x, back: np.broadcast_to(np.mean(x**2), x.shape)),
        "Each channel has a power of its own: take the mean of its squares over its elements only."),
    Misconception("the ratio is upside down",
        right.but(decibels=lambda ratio: -10 * np.log10(ratio)),
        "Signal goes above, noise below: a better channel has more decibels."),
    Misconception("20 log10 of a ratio of powers", right.but(decibels=lambda ratio: 20 * np.log10(ratio)),
        "Mean squares are powers, and of a ratio of powers decibels are 10 log10."),
    Misconception("10 log10 of a ratio of amplitudes", right.but(decibels=lambda ratio: 5 * np.log10(ratio)),
        "Of a ratio of root mean squares decibels are 20 log10; of mean squares, 10 log10."),
    Misconception("the natural logarithm", right.but(decibels=lambda ratio: 10 * np.log(ratio)),
        "`np.log` is the natural logarithm. Decibels are counted with the one to base 10."),
    Misconception("the ratio, not in decibels", right.but(decibels=lambda ratio: ratio),
        "That is how many times larger the signal's power is. Say it in decibels."),
    Misconception("the mean of the decibels of each value", of_each_value,
        "A logarithm of each value lets those next to 0 decide. Take the two means first, then one logarithm."),
    Misconception("mean magnitudes instead of mean squares",
        right.but(signal=lambda x, back: np.abs(x), noise=lambda x, back: np.abs(x - back)),
        "SQNR compares powers: square, then take the mean."),
    Misconception("the squares of the means",
        right.but(mean=lambda values: values.mean(axis=1) ** 2, signal=lambda x, back: x,
            noise=lambda x, back: x - back),
        "Positive and negative values cancel in a mean. Square first, then take the mean."),
    Misconception("the variance of a channel for its power",
        right.but(signal=lambda x, back: (x - x.mean(axis=1, keepdims=True)) ** 2),
        "The variance leaves the mean out. After a ReLU that is a part of the signal: take the mean of x squared."),
    Misconception("the power of what came back", right.but(signal=lambda x, back: back**2),
        "The signal is the original, not its reconstruction."),
    Misconception("the largest value for the signal",
        right.but(signal=lambda x, back: np.broadcast_to((x**2).max(axis=1, keepdims=True), x.shape)),
        "That is the peak over the noise. The S of SQNR is the mean of x squared."),
    Misconception("0 / 0 where a channel of zeros comes back exactly",
        right.but(ratio=lambda signal, noise: signal / noise),
        "A channel without error has lost nothing, and that includes one of zeros: the answer is inf there, not NaN."),
    Misconception("an exact channel counted as 0 dB",
        right.but(ratio=lambda signal, noise: np.where(noise == 0, 1, signal / np.where(noise == 0, 1, noise))),
        "0 dB says that the error is as large as the signal. Where nothing was lost it is inf."),
    Misconception("a floor under the noise", right.but(ratio=lambda signal, noise: signal / np.maximum(noise, 1e-12)),
        "A smallest noise makes exact channels look merely good. Where nothing was lost the SQNR is inf."),
    Misconception("the reduced axes are kept",
        right.but(result=lambda decibels, x, axis: along_axis(decibels, x.ndim, axis)),
        "`keepdims=True` keeps the reduced axes with length 1. One number for each channel is asked for, shape (C,)."),
    Misconception("the error is not squared", right.but(noise=lambda x, back: x - back),
        "Positive and negative errors cancel in the mean. Square them first."),
)  # fmt: skip

EXERCISE = Exercise(
    name="sqnr_per_channel",
    lab=LESSON,
    place=25,
    points=2,
    reference=sqnr_per_channel,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
