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
    tiny = w[:5] * np.array([[100], [1], [1e-9], [1e-11], [1e-13]], np.float32)
    overshot = np.where(np.abs(exact) < 5, -2 * exact, lossy)
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
        case("axis -2 of three", uneven((3, 4, 6), 1, seed=15), -2),
        case("after a ReLU: the mean is not 0", np.maximum(w[:16], 0), 0),
        case("one channel alone", w[:1], 0),
        case("tiny channels: no smallest noise", tiny, 0, Scheme(8, granularity=PerAxis(0))),
        Case("an error larger than the signal: below 0 dB", (exact, overshot, 0)),
        Case("quiet channels of which nothing is left: 0 dB", (square, restored(square, Scheme(4)), 0)),
        Case("a channel that came back exactly: inf", (exact, lossy, 0)),
        Case("a channel of zeros came back exactly: inf", (silent, gone, 0)),
        Case("all channels came back exactly: inf for each", (exact, exact.copy(), 0)),
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


def only_minus_one(original, dequantized, axis):
    """As `all_axes_if_negative`, with -1 mended, and no other negative axis."""
    return all_axes_if_negative(original, dequantized, original.ndim - 1 if axis == -1 else axis)


def one_exact_makes_all(original, dequantized, axis):
    found = right(original, dequantized, axis)
    return np.full_like(found, np.inf) if np.isinf(found).any() else found


def one_inf_where_nothing_was_lost(original, dequantized, axis):
    return right(original, dequantized, axis) if (original != dequantized).any() else np.float64(np.inf)


def ratio_of_each_value(original, dequantized, axis):
    x, e = (channels(part.astype(np.float64), axis) for part in (original, original - dequantized))
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10((x**2 / e**2).mean(axis=1))


def spread(x: np.ndarray) -> np.ndarray:
    """Squared distances from the mean of each channel."""
    return (x - x.mean(axis=1, keepdims=True)) ** 2


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
    Misconception("of the negative axes only -1 is found", only_minus_one,
        "-2 is an axis too, the last but one. The remainder by the number of axes makes any of them positive."),
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
    Misconception("the mean of the ratios of each value", ratio_of_each_value,
        "A ratio for each value lets the smallest errors decide, and is inf for each that has none. Take the two means "
        "first, then one ratio."),
    Misconception("one exact channel makes all of them exact", one_exact_makes_all,
        "Where one channel came back exactly the others did not: put inf into the places where the noise is 0, and "
        "only there."),
    Misconception("one inf where nothing was lost", one_inf_where_nothing_was_lost,
        "Where all channels came back exactly, each of them is inf: shape (C,) again."),
    Misconception("mean magnitudes instead of mean squares",
        right.but(signal=lambda x, back: np.abs(x), noise=lambda x, back: np.abs(x - back)),
        "SQNR compares powers: square, then take the mean."),
    Misconception("the squares of the means",
        right.but(mean=lambda values: values.mean(axis=1) ** 2, signal=lambda x, back: x,
            noise=lambda x, back: x - back),
        "Positive and negative values cancel in a mean. Square first, then take the mean."),
    Misconception("the variance of a channel for its power",
        right.but(signal=lambda x, back: spread(x)),
        "The variance leaves the mean out. After a ReLU that is a part of the signal: take the mean of x squared."),
    Misconception("the variance of the errors for their power", right.but(noise=lambda x, back: spread(x - back)),
        "The variance leaves the mean error out, and an error that all values share is an error too: take the mean of "
        "the squared errors."),
    Misconception("a ratio of variances",
        right.but(signal=lambda x, back: spread(x), noise=lambda x, back: spread(x - back)),
        "Variances leave the means out, of the signal and of the error. Take the means of the squares."),
    Misconception("the sum of squares over a mean",
        right.but(signal=lambda x, back: x**2 * x.shape[1]),
        "Above is a sum, below a mean: the ratio grows with the number of elements. Take two means, or two sums."),
    Misconception("medians instead of means", right.but(mean=lambda powers: np.median(powers, axis=1)),
        "The median leaves out how large the large values are. SQNR compares mean squares."),
    Misconception("the mean magnitude of the error", right.but(noise=lambda x, back: np.abs(x - back)),
        "The signal is squared and the error is not: then the unit of x does not cancel. Square both."),
    Misconception("reshaped to channels without moving the axis",
        right.but(split=lambda x, axis: x.reshape(x.shape[axis], -1)),
        "`reshape(C, -1)` cuts the array into C runs of neighbours. Those are the channels along axis 0 only: move the "
        "axis to the front before."),
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
    Misconception("a tolerance under the noise",
        right.but(ratio=lambda signal, noise: np.where(noise < 1e-12, np.inf, signal / np.where(noise == 0, 1, noise))),
        "A small noise is not none: of a quiet channel it may be most of the signal. `np.isclose` and a smallest value "
        "take it for an exact one. Compare with 0."),
    Misconception("an epsilon added to the noise",
        right.but(ratio=lambda signal, noise: np.where(noise == 0, np.inf, signal / (noise + 1e-12))),
        "What is added to the noise is more than the whole noise of a quiet channel. Leave the noise as it is, and "
        "treat only 0 apart."),
    Misconception("negative decibels cut at 0", right.but(decibels=lambda ratio: np.maximum(10 * np.log10(ratio), 0)),
        "An error larger than the signal has an SQNR below 0 dB. That is worth knowing: leave it."),
    Misconception("the sign of the decibels is lost", right.but(decibels=lambda ratio: np.abs(10 * np.log10(ratio))),
        "An error larger than the signal has an SQNR below 0 dB. Without its sign it looks good."),
    Misconception("squeeze also removes the channel axis",
        right.but(result=lambda decibels, x, axis: decibels.squeeze()),
        "`squeeze()` removes every axis of length 1, and so that of a single channel. Name the axes to be removed, or "
        "leave `keepdims` out."),
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
