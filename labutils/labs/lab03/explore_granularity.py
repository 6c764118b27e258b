"""explore_granularity: which elements share a scale, and the SQNR that each channel gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Choice, Explorer, Slider, ask
from labutils.labs import answers
from labutils.labs.contract import read_scaled
from labutils.labs.values import db, decibels, float_array, require_drawable_codes

PER_TENSOR, AXIS_0, AXIS_1 = GRANULARITIES = ("tensor", "axis 0", "axis 1")
LOUDEST = 100  # the widest spread of the slider


def explore_granularity(w: Any, quantize: Callable = answers.quantize_per_channel) -> Explorer:
    """Drag bit width and channel spread under one scale, a scale for each channel, and scales along the wrong axis.

    >>> explorer = explore_granularity(np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32))
    >>> explorer.controls["spread"].value = 100
    >>> round(explorer.result.quietest_db)
    0
    >>> explorer.controls["granularity"].value = "axis 0"
    >>> round(explorer.result.quietest_db)
    23

    `w` is a NumPy array or torch tensor of floats with two or more axes, its channels along axis 0;
    `quantize(x, axis, num_bits) -> (q, scales)` may be a learner's. "spread" divides the channels by a geometric
    series: the quietest by the spread, the loudest by 1. One scale for all is one channel that holds everything.
    TypeError or ValueError for a `w` that cannot be quantized or has one axis only.
    """
    return GranularityExplorer(w, quantize)


@dataclass(frozen=True)
class GranularityResult:
    num_bits: int
    granularity: str
    scale_count: int
    peaks: np.ndarray  # max|w| of each channel, quietest first
    steps: np.ndarray  # of each channel: the root mean square of the scales of its elements
    channel_db: np.ndarray  # measured SQNR of each channel
    theory_db: np.ndarray  # what step^2 / 12 says
    sqnr_db: float  # of the whole tensor
    quietest_codes: int  # how many distinct codes the quietest channel uses
    lost: int  # how many channels have no code but 0
    nbytes: int  # codes packed, scales in float32

    @property
    def quietest_db(self) -> float:
        return float(self.channel_db[0])


class GranularityExplorer(Explorer):
    title = "Channels against the grid step, and the SQNR of each channel"
    size = (9.0, 3.5)

    def __init__(self, w: Any, quantize: Callable):
        w = _channels_by_loudness(w)
        self._shape, self._axis_1 = w.shape, w.shape[1]
        self._w = w.reshape(len(w), -1)
        self._quantize = quantize
        self._peaks = np.abs(self._w).max(axis=1).astype(np.float64)
        self._power = np.einsum("ck,ck->c", self._w, self._w, dtype=np.float64) / self._w.shape[1]
        super().__init__()

    def sliders(self) -> dict[str, Slider | Choice]:
        return {
            "num_bits": Slider("bits", 2, 8, 4, hint="bit width of a code"),
            "spread": Slider("spread ×", 1, LOUDEST, 1, hint="how much quieter the quietest channel is made"),
            "granularity": Choice("scale per", GRANULARITIES, PER_TENSOR, hint="which elements share a scale"),
        }

    def compute(self, state: dict[str, Any]) -> GranularityResult:
        num_bits, granularity = state["num_bits"], state["granularity"]
        gains = np.geomspace(1 / state["spread"], 1, len(self._w))
        x = self._w * gains[:, None].astype(self._w.dtype) if state["spread"] > 1 else self._w
        q, scales = self._quantized(x, num_bits, granularity)
        # In steps, so that squares neither overflow nor vanish; the noise of a channel is then in squared units of w.
        error = np.divide(x, scales, dtype=x.dtype)
        error = np.subtract(error, q, out=error, casting="same_kind")
        if granularity == AXIS_1:
            unit = float(scales.max())
            error *= (scales / unit).astype(x.dtype)
            noise = _mean_square(error) * unit**2
            steps = np.full(len(x), unit * math.sqrt(float(np.mean((scales / unit) ** 2))))
        else:
            steps = np.broadcast_to(scales[:, 0], len(x))
            noise = _mean_square(error) * steps**2
        power = self._power * gains**2
        with np.errstate(divide="ignore"):  # a channel of zeros has no power
            theory = 10 * np.log10(12 * power) - 20 * np.log10(steps)
        return GranularityResult(
            num_bits=num_bits,
            granularity=granularity,
            scale_count=self._scale_count(granularity),
            peaks=self._peaks * gains,
            steps=steps,
            channel_db=np.array([decibels(p, n) for p, n in zip(power, noise)]),
            theory_db=theory,
            sqnr_db=decibels(float(power.mean()), float(noise.mean())),
            quietest_codes=len(np.unique(q[0])),
            lost=int(np.count_nonzero(~q.any(axis=1))),
            nbytes=-(-x.size * num_bits // 8) + 4 * self._scale_count(granularity),
        )

    def _quantized(self, x: np.ndarray, num_bits: int, granularity: str) -> tuple[np.ndarray, np.ndarray]:
        """Codes and scales from the learner's function as (C, K) and an array that broadcasts over it, or Wrong."""
        tensor, axis = {
            PER_TENSOR: (x.reshape(1, -1), 0),  # one channel that holds everything
            AXIS_0: (x.reshape(self._shape), 0),
            AXIS_1: (x.reshape(self._shape), 1),
        }[granularity]
        answer = ask(self._quantize, read_scaled, tensor, axis, num_bits)
        q, scales = answer["q"], answer["scales"]
        require_drawable_codes(tensor, q)
        if scales.shape != (tensor.shape[axis],):
            wanted = (tensor.shape[axis],)
            raise Wrong(
                f"scales has shape {scales.shape}, but x of shape {tensor.shape} and axis {axis} ask for {wanted}"
            )
        if not np.isfinite(scales).all() or scales.min() <= 0:
            raise Wrong(f"scales go from {scales.min():g} to {scales.max():g}, and should be positive numbers")
        if granularity == AXIS_1:
            return q.reshape(x.shape), np.repeat(scales, x.shape[1] // self._axis_1)[None, :]
        return q.reshape(x.shape), scales[:, None]

    def _scale_count(self, granularity: str) -> int:
        return {PER_TENSOR: 1, AXIS_0: len(self._w), AXIS_1: self._axis_1}[granularity]

    def build(self, figure: Figure) -> Sequence[Artist]:
        ranges, quality = figure.subplots(1, 2)
        channels = np.arange(len(self._w))
        room = 0.03 * len(channels) + 0.6
        most, least = self._peaks.max(), self._peaks[self._peaks > 0].min() / LOUDEST
        ranges.set(xlim=(-room, len(channels) - 1 + room), yscale="log", ylabel="magnitude",
                   ylim=(min(least, most / 200) / 4, most * 3),
                   xlabel="channel, quietest first")  # fmt: skip
        # As they came: a reminder under the spread channels, and all there is while a function does not work.
        ranges.plot(channels, self._peaks, "o", ms=3.5, mew=0, color=palette.ORIGINAL, alpha=0.25)
        (self._peak_marks,) = ranges.plot([], [], "o", ms=3.5, color=palette.ORIGINAL, label="largest |w|")
        (self._step_marks,) = ranges.plot([], [], "-", lw=2.2, color=palette.QUANTIZED, drawstyle="steps-mid",
                                          label="grid step")  # fmt: skip
        self._floor = ranges.get_ylim()[0]
        self._zeros = ranges.stairs([self._floor], [0, 1], baseline=self._floor, fill=True, lw=0,
                                    color=palette.QUANTIZED, alpha=0.18, label="becomes 0")  # fmt: skip
        ranges.legend(loc="upper left", ncols=3, fontsize=8, columnspacing=1.2, handlelength=1.4)
        self._left_title = ranges.set_title(" ")
        quality.set(xlim=ranges.get_xlim(), ylim=(-6, 56), xlabel="channel, quietest first", ylabel="SQNR (dB)")
        (self._theory,) = quality.plot([], [], "--", color=palette.THEORY, lw=1.4, label="theory: Δ²/12")
        (self._measured,) = quality.plot([], [], "o", ms=3.5, color=palette.QUANTIZED, label="a channel")
        (self._whole,) = quality.plot([], [], "-", color=palette.INK, lw=1.2, label="the whole tensor")
        quality.legend(loc="upper left", ncols=3, fontsize=8, columnspacing=1.2, handlelength=1.4)
        self._right_title = quality.set_title(" ")
        return [self._zeros, self._peak_marks, self._step_marks, self._left_title,
                self._theory, self._measured, self._whole, self._right_title]  # fmt: skip

    def draw(self, result: GranularityResult) -> None:
        channels = np.arange(len(result.peaks))
        self._peak_marks.set_data(channels, result.peaks)
        self._step_marks.set_data(channels, result.steps)
        self._zeros.set_data(result.steps / 2, np.append(channels, len(channels)) - 0.5, self._floor)
        self._left_title.set_text(f"{result.num_bits} bits: {_of_the_quiet(result)}")
        self._theory.set_data(channels, result.theory_db)
        self._measured.set_data(channels, np.clip(result.channel_db, -5, 55))
        self._whole.set_data(channels[[0, -1]], [result.sqnr_db] * 2)
        self._right_title.set_text(f"{db(result.sqnr_db)} over all, {db(result.quietest_db)} in the quietest")

    def describe(self, result: GranularityResult) -> list[tuple[str, str]]:
        spread = result.peaks.max() / result.peaks[0] if result.peaks[0] else math.inf
        return [
            ("bits", f"{result.num_bits}"),
            ("loudest / quietest", f"{spread:.1f}"),
            ("scales", f"{result.scale_count}"),
            ("memory, packed", f"{result.nbytes / 1000:.2f} kB"),
            ("codes, quietest", f"{result.quietest_codes} of {2**result.num_bits - 1}"),
            ("channels lost", f"{result.lost} of {len(result.peaks)}"),
            ("SQNR, quietest", db(result.quietest_db)),
            ("SQNR, all", db(result.sqnr_db)),
        ]

    def note(self, result: GranularityResult) -> str:
        if result.granularity == AXIS_1:
            return "A scale along axis 1 serves one weight of every channel, loud and quiet ones alike."
        return ""


def _channels_by_loudness(w: Any) -> np.ndarray:
    """`w` as a float array with its channels, along axis 0, in order of their largest magnitude."""
    w = float_array(w, "w")
    if w.ndim < 2:
        raise ValueError(f"w needs two axes or more, channels along the first, got shape {w.shape}")
    peaks = np.abs(w).reshape(len(w), -1).max(axis=1)
    if not peaks.any():
        raise ValueError(f"w needs a value that is not zero, got shape {w.shape}")
    return w[np.argsort(peaks, kind="stable")]


def _mean_square(error: np.ndarray) -> np.ndarray:
    """Of each row, in float64."""
    return np.einsum("ck,ck->c", error, error).astype(np.float64) / error.shape[1]


def _of_the_quiet(result: GranularityResult) -> str:
    if result.lost:
        return f"{result.lost} of {len(result.peaks)} channels become all zero"
    return f"{result.quietest_codes} of {2**result.num_bits - 1} codes in the quietest channel"
