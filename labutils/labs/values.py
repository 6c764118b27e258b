"""What explorers of values have in common: a tensor made flat, its histogram, its noise, decibels in words."""

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

SAMPLE = 2**14  # values on which curves over many settings are measured; readouts always use every value
BINS = 121


def flat_values(x: Any) -> np.ndarray:
    """`x` as a flat float array for drawing; raises for what cannot be quantized."""
    values = float_array(x, "x").reshape(-1)
    if values.size < 2 or not values.any():
        raise ValueError(f"x needs at least two values that are not all zero, got shape {tuple(x.shape)}")
    return values


def float_array(x: Any, name: str) -> np.ndarray:
    """`x` as a NumPy array of float32, or of float64 where it is that; raises for what cannot be quantized."""
    xp, x = real_array(x, name)
    require_finite(xp, x, name)
    x = xp.astype(x, working_dtype(xp, x))  # a copy: nobody changes an explorer's values later
    return np.asarray(x.cpu() if array_api_compat.is_torch_array(x) else x)


def sample_of(values: np.ndarray) -> np.ndarray:
    """At most SAMPLE of the values, evenly taken, the largest magnitude among them, so that the scale is the same."""
    if values.size <= SAMPLE:
        return values
    taken = values[:: math.ceil(values.size / (SAMPLE - 1))]
    return np.append(taken, values[np.argmax(np.abs(values))])


def quantized(quantize: Callable, x: np.ndarray, *args: Any) -> tuple[np.ndarray, float]:
    """Codes and scale from a learner's function, or Wrong where they could not be drawn."""
    answer = ask(quantize, read_quantized, x, *args)
    require_drawable(x, answer["q"], answer["scale"])
    return answer["q"], answer["scale"]


def quantized_at(quantize: Callable, x: np.ndarray, widths: Sequence[int]) -> list[tuple[np.ndarray, float]]:
    """The same at each bit width, in one guarded call: guarding takes longer than quantizing a sample."""

    @wraps(quantize)
    def at_each(x: np.ndarray) -> list:
        return [quantize(x.copy(), num_bits) for num_bits in widths]

    answers = ask(at_each, lambda values: {"each": [read_quantized(value) for value in values]}, x)["each"]
    for answer in answers:
        require_drawable(x, answer["q"], answer["scale"])
    return [(answer["q"], answer["scale"]) for answer in answers]


def require_drawable(x: np.ndarray, q: np.ndarray, scale: float) -> None:
    """Raise Wrong for codes and a scale that could not be drawn."""
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
    """x / scale - q, in the dtype of x: a float64 copy of a large tensor would cost a frame.

    In steps rather than in units of x, so that squares neither overflow nor vanish.
    """
    error = np.divide(x, scale, dtype=x.dtype)
    return np.subtract(error, q, out=error, casting="same_kind")


def mean_squared(steps: np.ndarray, scale: float) -> float:
    return float(np.dot(steps, steps)) / steps.size * scale**2


def noise_of(x: np.ndarray, q: np.ndarray, scale: float) -> float:
    """The mean squared error of codes, in squared units of x."""
    return mean_squared(error_in_steps(x, q, scale), scale)


def decibels(power: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if math.isfinite(noise) else -math.inf


def counts_of(q: np.ndarray) -> tuple[np.ndarray, int]:
    """How often each code from the least to the largest occurs, and the least.

    >>> counts_of(np.array([-2, 0, 0], dtype=np.int8))
    (array([1, 0, 2]), -2)
    """
    if q.dtype.itemsize == 1:  # counted where they are, without a wide copy: this is drawn while a slider moves
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
    """Densities of the values, which no slider changes."""

    values: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, reach: float) -> Histogram:
        values, edges = np.histogram(x, BINS, range=(-reach, reach))
        return cls(values / (x.size * (edges[1] - edges[0])), edges)


class Magnitudes:
    """The sorted magnitudes of a tensor, with sums that give the noise of any clip without looking at the values again.

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
        # From the largest down: in these, what is large does not drown what is beyond it.
        self._tails = [np.append(np.cumsum(power[::-1])[::-1], 0.0) for power in powers]

    def beyond(self, clips: np.ndarray) -> np.ndarray:
        """How many values lie beyond each clip."""
        return self._ordered.size - np.searchsorted(self._ordered, clips, side="right")

    def clipping_noise(self, clips: np.ndarray) -> np.ndarray:
        """The mean of (|x| - clip)^2 over all values, where those within the clip count 0."""
        beyond = self.beyond(clips)
        sums, squares = (tail[self._ordered.size - beyond] for tail in self._tails)
        return (squares - 2 * clips * sums + beyond * clips**2).clip(0) / self._ordered.size

    def noise(self, clips: np.ndarray, quant_max: int) -> np.ndarray:
        """The mean squared error on the symmetric grid of each clip, whose levels are 0 to `quant_max` both ways."""
        levels = clips[:, None] * np.arange(quant_max + 1) / quant_max  # (C, L)
        inner = np.searchsorted(self._ordered, (levels[:, 1:] + levels[:, :-1]) / 2)
        bounds = np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, self._ordered.size)))
        sums, squares = (np.diff(total[bounds], axis=1) for total in self._sums)
        return (squares - 2 * levels * sums + levels**2 * np.diff(bounds, axis=1)).sum(axis=1) / self._ordered.size


def value_axes(axes: Any, reach: float, peak: float) -> None:
    axes.set(xlim=(-1.08 * reach, 1.08 * reach), ylim=(0, 1.2 * peak), xlabel="value", ylabel="density")
    axes.grid(False)


def db(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f} dB" if math.isfinite(value) else "no error" if value > 0 else "no signal"


def short(value: float) -> str:
    return f"{value:.3g}"
