"""Shared by the explorers of a tensor's values: flatten it, draw its histogram, measure quantization noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import array_api_compat
import numpy as np

from labutils.arrays.inputs import MAX_BITS, real_array, require_finite, working_dtype
from labutils.course.exercise import Wrong
from labutils.course.explorer import ask
from labutils.labs.contract import read_quantized

SAMPLE = 2**14  # values used for curves over many settings; readouts always use every value
BINS = 121  # of a histogram


def flat_values(x: Any) -> np.ndarray:
    """Return the values of an array or tensor of floats as a flat float32 or float64 array.

    ValueError or TypeError unless it holds at least two finite values that are not all zero.
    """
    values = float_array(x, "x").reshape(-1)
    if values.size < 2 or not values.any():
        raise ValueError(f"x needs at least two values that are not all zero, got shape {tuple(x.shape)}")
    return values


def float_array(x: Any, name: str) -> np.ndarray:
    """Copy an array or tensor of finite floats to NumPy: float64 stays float64, everything else becomes float32."""
    xp, x = real_array(x, name)
    require_finite(xp, x, name)
    x = xp.astype(x, working_dtype(xp, x))  # a copy, so that the explorer's values cannot change later
    return np.asarray(x.cpu() if array_api_compat.is_torch_array(x) else x)


def sample_of(values: np.ndarray) -> np.ndarray:
    """Every k-th value, at most SAMPLE of them; the largest magnitude is included, so that the scale stays the same."""
    if values.size <= SAMPLE:
        return values
    taken = values[:: math.ceil(values.size / (SAMPLE - 1))]
    return np.append(taken, values[np.argmax(np.abs(values))])


def quantized(quantize: Callable, x: np.ndarray, *args: Any) -> tuple[np.ndarray, float]:
    """Return codes and scale from the learner's `quantize(x, *args)`; Wrong if they cannot be drawn."""
    answer = ask(quantize, read_quantized, x, *args)
    require_drawable(x, answer["q"], answer["scale"])
    return answer["q"], answer["scale"]


def quantized_at(quantize: Callable, x: np.ndarray, widths: Sequence[int]) -> list[tuple[np.ndarray, float]]:
    """Return codes and scale at each bit width, from a single guarded call.

    A guarded call takes longer than quantizing a sample, so that one for each width would make the slider stutter.
    """

    @wraps(quantize)
    def quantize_at_all(x: np.ndarray) -> list:
        return [quantize(x.copy(), num_bits) for num_bits in widths]

    answers = ask(quantize_at_all, lambda values: {"all": [read_quantized(value) for value in values]}, x)["all"]
    for answer in answers:
        require_drawable(x, answer["q"], answer["scale"])
    return [(answer["q"], answer["scale"]) for answer in answers]


def require_drawable(x: np.ndarray, q: np.ndarray, scale: float) -> None:
    """Raise Wrong unless there is a code for each value, of a sane size, and a positive scale."""
    require_drawable_codes(x, q)
    if not math.isfinite(scale) or scale <= 0:
        raise Wrong(f"scale is {scale:g}, and should be a positive number")


def require_drawable_codes(x: np.ndarray, q: np.ndarray, name: str = "x") -> None:
    """Raise Wrong where `q` has another shape than `x`, holds NaN or Inf, or what no bit width has for a code."""
    if q.shape != x.shape:
        raise Wrong(f"q has shape {q.shape}, but {name} has {x.shape}")
    low, high = float(q.min()), float(q.max())  # NaN and Inf show there
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Wrong("q holds NaN or Inf")
    if max(-low, high) > 2**MAX_BITS:
        raise Wrong(f"q reaches from {low:g} to {high:g}: those are not codes")


def error_in_steps(x: np.ndarray, q: np.ndarray, scale: float) -> np.ndarray:
    """Return x / scale - q, in steps: in units of x, squares of large and small values would overflow or vanish.

    The dtype is that of x, because a float64 copy of a large tensor would delay the slider.
    """
    error = np.divide(x, scale, dtype=x.dtype)
    return np.subtract(error, q, out=error, casting="same_kind")


def mean_squared(steps: np.ndarray, scale: float) -> float:
    """The mean squared error in squared units of x, from errors in steps."""
    return float(np.dot(steps, steps)) / steps.size * scale**2


def noise_of(x: np.ndarray, q: np.ndarray, scale: float) -> float:
    """The mean squared error of x quantized to codes q, in squared units of x."""
    return mean_squared(error_in_steps(x, q, scale), scale)


def decibels(power: float, noise: float) -> float:
    """10 log10(power / noise): inf without noise, -inf for a noise of inf or NaN."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if math.isfinite(noise) else -math.inf


def counts_of(q: np.ndarray) -> tuple[np.ndarray, int]:
    """Return how often each code from the smallest to the largest occurs, and the smallest code.

    >>> counts_of(np.array([-2, 0, 0], dtype=np.int8))
    (array([1, 0, 2]), -2)
    """
    if q.dtype.itemsize == 1:  # without a wider copy: this runs at every move of a slider
        counts = np.bincount(np.ascontiguousarray(q).view(np.uint8).reshape(-1), minlength=256)
        first = 0
        if q.dtype.kind == "i":
            counts, first = np.roll(counts, 128), -128
    else:
        first = int(q.min())
        counts = np.bincount(q.reshape(-1).astype(np.int64) - first)
    occurring = np.flatnonzero(counts)
    return counts[occurring[0] : occurring[-1] + 1], first + int(occurring[0])


@dataclass(frozen=True)
class Histogram:
    """The density of values in BINS equal bins from -reach to reach, and the bins' edges."""

    values: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, reach: float) -> Histogram:
        values, edges = np.histogram(x, BINS, range=(-reach, reach))
        return cls(values / (x.size * (edges[1] - edges[0])), edges)


class Magnitudes:
    """The sorted magnitudes of a tensor and their cumulative sums, from which the noise of any clip follows quickly.

    >>> magnitudes = Magnitudes(np.array([-3.0, 1.0, 2.0]))
    >>> magnitudes.beyond(np.array([1.5])), magnitudes.clipping_noise(np.array([1.5])).round(3)
    (array([2]), array([0.833]))
    >>> magnitudes.noise(np.array([1.5]), quant_max=1).round(3)  # levels 0 and 1.5
    array([0.917])
    """

    def __init__(self, values: np.ndarray):
        self._ordered = np.sort(np.abs(values).astype(np.float64))
        powers = self._ordered, self._ordered**2
        self._sums = [np.append(0.0, np.cumsum(power)) for power in powers]  # of the k smallest
        # Summed from the largest down: as differences of _sums, sums over few large values would lose their digits.
        self._tails = [np.append(np.cumsum(power[::-1])[::-1], 0.0) for power in powers]

    def beyond(self, clips: np.ndarray) -> np.ndarray:
        """The number of magnitudes greater than each clip."""
        return self._ordered.size - np.searchsorted(self._ordered, clips, side="right")

    def clipping_noise(self, clips: np.ndarray) -> np.ndarray:
        """The mean of max(|x| - clip, 0)^2 over all values."""
        beyond = self.beyond(clips)
        sums, squares = (tail[self._ordered.size - beyond] for tail in self._tails)
        return (squares - 2 * clips * sums + beyond * clips**2).clip(0) / self._ordered.size

    def noise(self, clips: np.ndarray, quant_max: int) -> np.ndarray:
        """The mean squared error on the symmetric grid of each clip: levels k * clip / quant_max, |k| <= quant_max."""
        levels = clips[:, None] * np.arange(quant_max + 1) / quant_max  # (C, L)
        inner = np.searchsorted(self._ordered, (levels[:, 1:] + levels[:, :-1]) / 2)
        bounds = np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, self._ordered.size)))
        sums, squares = (np.diff(total[bounds], axis=1) for total in self._sums)
        return (squares - 2 * levels * sums + levels**2 * np.diff(bounds, axis=1)).sum(axis=1) / self._ordered.size


def value_axes(axes: Any, reach: float, peak: float) -> None:
    """Set up axes for a density of values from -reach to reach that rises to `peak`."""
    axes.set(xlim=(-1.08 * reach, 1.08 * reach), ylim=(0, 1.2 * peak), xlabel="value", ylabel="density")
    axes.grid(False)


def db(value: float) -> str:
    """Decibels as text: '31.5 dB', 'no error' for inf, 'no signal' for -inf and NaN."""
    return f"{round(value, 1) + 0.0:.1f} dB" if math.isfinite(value) else "no error" if value > 0 else "no signal"


def short(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:.3g}"
