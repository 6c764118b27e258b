"""Lab 08: how much of the activations' size to move into the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils.arrays.scheme import Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer, Slider, ask
from labutils.labs import answers
from labutils.labs.lab08.smooth_scales import read_scales, with_weight
from labutils.labs.values import db, decibels

BITS = range(3, 9)
ALPHAS = np.linspace(0, 1, 21)
TOKENS = 96  # rows of x on which errors are measured; the channels' maxima are those of all rows


def explore_smoothing(x: Any, weight: Any, scales: Callable = answers.smooth_scales) -> Explorer:
    """Drag the migration strength and the bit width of one layer, with one scale for all of its activations.

    >>> rng = np.random.default_rng(0)
    >>> x, w = (rng.normal(size=(64, 32)).astype(np.float32) for _ in range(2))
    >>> x[:, 3] *= 50  # an outlier channel
    >>> explorer = explore_smoothing(x, w)
    >>> explorer.controls["alpha"].value = 0.5
    >>> round(explorer.result.plain_db), round(explorer.result.sqnr_db)
    (29, 41)

    `x` (..., in_features), what enters the layer, and `weight` (out_features, in_features) are NumPy arrays or torch
    tensors; `scales(activation_max, weight, alpha)` may be a learner's, and gets arrays of the same library. The
    layer's output is compared with the float one, on 96 rows of `x`. Activations have one scale, which the largest
    magnitude of all rows sets; weights have one for each output. The grey curve is the reference's. TypeError or
    ValueError for arrays that do not belong together or cannot be quantized.
    """
    return SmoothingExplorer(x, weight, scales)


@dataclass(frozen=True)
class SmoothingResult:
    alpha: float
    num_bits: int
    activation_max: np.ndarray  # (channels,) after smoothing
    weight_max: np.ndarray  # (channels,) likewise
    sqnr_db: float  # of the layer's output
    plain_db: float  # without smoothing
    curve_db: np.ndarray  # at ALPHAS

    @property
    def best_alpha(self) -> float:
        return float(ALPHAS[np.argmax(self.curve_db)])


class SmoothingExplorer(Explorer):
    title = "Channel maxima of activations and weights, and the quality of the layer's output against alpha"
    size = (9.0, 3.5)

    def __init__(self, x: Any, weight: Any, scales: Callable):
        x, weight = _matching(x, weight)
        peaks = x.reshape(-1, x.shape[-1])
        peaks = abs(peaks).max(0) if isinstance(peaks, np.ndarray) else peaks.abs().amax(0)
        self._given, self._scales = (peaks, weight), scales
        self._activation_max, self._weight = _numpy(peaks), _numpy(weight)
        rows = _numpy(x).reshape(-1, x.shape[-1])
        self._x = np.ascontiguousarray(rows[:: math.ceil(len(rows) / TOKENS)])
        self._weight_max = np.abs(self._weight).max(axis=0)
        self._order = np.argsort(self._activation_max, kind="stable")
        self._y = self._x @ self._weight.T
        self._power = _mean_square(self._y)
        if not self._power:
            raise ValueError("the layer's output is 0 for every row of x: there is nothing to measure an error against")
        ones = np.ones_like(self._activation_max)
        self._plain = {bits: self._quality(ones, bits) for bits in BITS}
        # For every bit width, before the slider moves: a curve takes longer than a frame.
        every = [answers.smooth_scales(self._activation_max, self._weight, float(alpha)) for alpha in ALPHAS]
        self._curves = {
            bits: np.array([self._quality(scales.astype(self._x.dtype), bits) for scales in every]) for bits in BITS
        }
        super().__init__()

    def sliders(self) -> dict[str, Slider]:
        return {
            "alpha": Slider("alpha", 0.0, 1.0, 0.5, step=0.05, hint="how much of the activations' size is moved"),
            "num_bits": Slider("bits", BITS[0], BITS[-1], 8, hint="bit width of activations and weights"),
        }

    def compute(self, state: dict[str, Any]) -> SmoothingResult:
        alpha, bits = round(state["alpha"], 2), state["num_bits"]
        scales = ask(self._scales, read_scales, *self._given, alpha)["scales"]
        if scales.shape != self._activation_max.shape:
            raise Wrong(f"scales has shape {scales.shape}, and should have {self._activation_max.shape}")
        if not np.isfinite(scales).all() or scales.min() <= 0:
            raise Wrong(f"scales go from {scales.min():g} to {scales.max():g}, and should be positive numbers")
        scales = scales.astype(self._x.dtype)
        return SmoothingResult(
            alpha=alpha,
            num_bits=bits,
            activation_max=self._activation_max / scales,
            weight_max=self._weight_max * scales,
            sqnr_db=self._quality(scales, bits),
            plain_db=self._plain[bits],
            curve_db=self._curves[bits],
        )

    def _quality(self, scales: np.ndarray, num_bits: int) -> float:
        """SQNR of the output with input divided and weight multiplied by `scales`, both then quantized."""
        limit = Scheme(num_bits).quant_max
        step = (self._activation_max / scales).max() / limit or 1
        codes = np.divide(self._x, scales * step)
        codes = np.clip(np.round(codes, out=codes), -limit, limit, out=codes)
        weight = self._weight * scales
        steps = np.abs(weight).max(axis=1, keepdims=True) / limit
        steps[steps == 0] = 1
        weight /= steps
        np.round(weight, out=weight)
        y = (codes @ weight.T) * (steps[:, 0] * step)  # sums of whole numbers are exact, as in integers
        return decibels(self._power, _mean_square(self._y - y))

    def build(self, figure: Figure) -> Sequence[Artist]:
        channels, quality = figure.subplots(1, 2, width_ratios=[1.35, 1])
        rank = np.arange(len(self._order))
        before = self._activation_max[self._order], self._weight_max[self._order]
        room = 0.02 * len(rank) + 0.6
        seen = np.concatenate([peaks[peaks > 0] for peaks in before])
        channels.set(xlim=(-room, len(rank) - 1 + room), yscale="log", xlabel="input channel, loudest last",
                     ylabel="largest magnitude", ylim=(seen.min() / 6, seen.max() * 12))  # fmt: skip
        sizes = (4.4, 2.2) if len(rank) > 200 else (6, 3.5)  # of two sizes: both are seen where they coincide
        colors = palette.ORIGINAL, palette.QUANTIZED
        channels.plot(rank, before[0], "-", color=palette.ORIGINAL, alpha=0.4, lw=1.2)
        channels.plot(rank, before[1], "o", color=palette.QUANTIZED, alpha=0.2, mew=0, ms=sizes[1])
        for peaks, color, size in zip(before, colors, (8, 5)):
            channels.plot(rank[-1:], peaks[-1:], "o", color=color, alpha=0.4, mew=0, ms=size)
        self._peaks = [
            channels.plot([], [], "o", color=color, mew=0, ms=size, label=label)[0]
            for color, size, label in zip(colors, sizes, ("activations", "weights"))
        ]
        self._loudest = [
            channels.plot([], [], "o", color=color, mew=0, ms=size)[0] for color, size in zip(colors, (8, 5))
        ]
        channels.plot([], [], "o", color=palette.THEORY, alpha=0.3, label="pale: before", ms=4, mew=0)
        channels.legend(loc="upper left", ncols=3, fontsize=8, columnspacing=1.2, handlelength=0.8, markerscale=1.5)
        self._channels_title = channels.set_title(" ")
        every = np.concatenate([self._curves[BITS[-1]], list(self._plain.values())])
        every = every[np.isfinite(every)]
        span = max(every.max() - every.min(), 1)
        quality.set(xlim=(-0.04, 1.04), ylim=(every.min() - 0.12 * span, every.max() + 0.2 * span),
                    xlabel="alpha", ylabel="SQNR of the output (dB)")  # fmt: skip
        (self._curve,) = quality.plot([], [], "-", color=palette.THEORY, lw=1.6)
        (self._plain_line,) = quality.plot([], [], "--", color=palette.INK, lw=1.2, label="without smoothing")
        (self._best,) = quality.plot([], [], "o", ms=8, mfc="none", mec=palette.GOOD, mew=1.8, label="best alpha")
        (self._here,) = quality.plot([], [], "o", ms=8, color=palette.QUANTIZED, mec=palette.PAPER, label="alpha")
        quality.legend(loc="upper left", ncols=3, fontsize=8, columnspacing=1.0, handlelength=1.4)
        self._quality_title = quality.set_title(" ")
        return [*self._peaks, *self._loudest, self._channels_title, self._curve, self._plain_line, self._best,
                self._here, self._quality_title]  # fmt: skip

    def draw(self, result: SmoothingResult) -> None:
        rank = np.arange(len(self._order))
        for points, loudest, peaks in zip(
            self._peaks, self._loudest, (result.activation_max[self._order], result.weight_max[self._order])
        ):
            points.set_data(rank, peaks)
            loudest.set_data(rank[-1:], peaks[-1:])
        before, after = _spread(self._activation_max), _spread(result.activation_max)
        self._channels_title.set_text(f"Loudest activations: {before:.1f} × the median, now {after:.1f} ×")
        self._curve.set_data(ALPHAS, result.curve_db)
        self._plain_line.set_data([0, 1], [result.plain_db] * 2)
        self._best.set_data([result.best_alpha], [result.curve_db.max()])
        self._here.set_data([result.alpha], [result.sqnr_db])
        gain = result.sqnr_db - result.plain_db
        verb = "gains" if gain > 0 else "loses"
        self._quality_title.set_text(f"alpha = {result.alpha:.2f} {verb} {abs(gain):.1f} dB")

    def describe(self, result: SmoothingResult) -> list[tuple[str, str]]:
        return [
            ("alpha", f"{result.alpha:.2f}"),
            ("bits", f"{result.num_bits}"),
            ("activations, loudest / median", f"{_spread(result.activation_max):.1f}"),
            ("weights, loudest / median", f"{_spread(result.weight_max):.1f}"),
            ("SQNR of the output", db(result.sqnr_db)),
            ("without smoothing", db(result.plain_db)),
            ("best", f"{db(float(result.curve_db.max()))} at alpha = {result.best_alpha:.2f}"),
        ]


def _spread(peaks: np.ndarray) -> float:
    """The largest over the median of the channels that are not silent."""
    peaks = peaks[peaks > 0]
    return float(peaks.max() / np.median(peaks))


def _mean_square(x: np.ndarray) -> float:
    flat = x.reshape(-1).astype(np.float64)
    return float(np.dot(flat, flat)) / flat.size


def _numpy(x: Any) -> np.ndarray:
    values = np.asarray(x.cpu().float() if array_api_compat.is_torch_array(x) else x)
    return values.astype(np.float64 if values.dtype == np.float64 else np.float32, copy=False)


def _matching(x: Any, weight: Any) -> tuple[Any, Any]:
    """Activations and weight, detached and checked."""
    xp, x, weight = with_weight(x, weight)
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must have shape (..., {weight.shape[1]}), as the weight asks for, got {tuple(x.shape)}")
    for name, array in (("x", x), ("weight", weight)):
        if not bool(xp.any(array != 0)):
            raise ValueError(f"{name} needs a value that is not zero")
    return x, weight
