"""explore_bits: the error of a quantizer against its bit width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labutils.arrays import theory
from labutils.course import palette
from labutils.course.explorer import Explorer, Slider
from labutils.labs import answers
from labutils.labs.values import (
    Histogram,
    counts_of,
    db,
    decibels,
    error_in_steps,
    flat_values,
    mean_squared,
    noise_of,
    quantized,
    quantized_at,
    sample_of,
    short,
    value_axes,
)

BITS = range(2, 9)
FURTHEST = 20.0  # the largest factor of the outlier


def explore_bits(x: Any, quantize: Callable = answers.quantize_symmetric) -> Explorer:
    """Drag bit width and outlier, and watch values fall onto the grid of `quantize`.

    >>> explorer = explore_bits(np.random.default_rng(0).normal(size=10_000).astype(np.float32))
    >>> explorer.controls["num_bits"].value = 4
    >>> explorer.result.codes_used
    14

    `x` is a NumPy array or torch tensor of floats, of any shape; `quantize(x, num_bits) -> (q, scale)` may be a
    learner's. "outlier" multiplies the value of the largest magnitude; errors are compared with the power of `x` as it
    was given. TypeError or ValueError for an `x` that cannot be quantized.
    """
    return BitsExplorer(x, quantize)


@dataclass(frozen=True)
class BitsResult:
    num_bits: int
    outlier: float  # what the value of the largest magnitude is now
    scale: float
    codes_used: int
    levels: np.ndarray  # the values that codes stand for
    density: np.ndarray  # of each level: its share of the values over the width of a step
    mse: float
    max_error: float
    sqnr_db: float
    theory_db: float
    curve_db: np.ndarray  # measured SQNR at every bit width
    theory_curve_db: np.ndarray


class BitsExplorer(Explorer):
    title = "Values on the grid, and signal to noise against bit width"

    def __init__(self, x: Any, quantize: Callable):
        self._x = flat_values(x)
        self._sample = sample_of(self._x)
        self._quantize = quantize
        self._peak, self._sample_peak = (int(np.argmax(np.abs(x))) for x in (self._x, self._sample))
        self._reach = float(abs(self._x[self._peak]))
        self._power = float(np.mean(np.square(self._x, dtype=np.float64)))
        super().__init__()

    def sliders(self) -> dict[str, Slider]:
        return {
            "num_bits": Slider("bits", BITS[0], BITS[-1], 4, hint="bit width of a code"),
            "outlier": Slider(
                "outlier ×", 1.0, FURTHEST, 1.0, 0.5, hint="multiplies the value of the largest magnitude"
            ),
        }

    def compute(self, state: dict[str, Any]) -> BitsResult:
        num_bits, outlier = state["num_bits"], state["outlier"]
        x = _with_outlier(self._x, self._peak, outlier)
        q, scale = quantized(self._quantize, x, num_bits)
        counts, least = counts_of(q)
        error = error_in_steps(x, q, scale)
        mse = mean_squared(error, scale)
        sample = _with_outlier(self._sample, self._sample_peak, outlier)
        curve = [noise_of(sample, *answer) for answer in quantized_at(self._quantize, sample, BITS)]
        largest = self._reach * outlier
        steps = [largest / (2 ** (bits - 1) - 1) for bits in BITS]
        return BitsResult(
            num_bits=num_bits,
            outlier=float(x[self._peak]),
            scale=scale,
            codes_used=int(np.count_nonzero(counts)),
            levels=scale * (least + np.arange(counts.size)),
            density=counts / (x.size * scale),
            mse=mse,
            max_error=float(max(error.max(), -error.min())) * scale,
            sqnr_db=decibels(self._power, mse),
            theory_db=theory.predicted_sqnr_db(self._power, scale),
            curve_db=np.array([decibels(self._power, noise) for noise in curve]),
            theory_curve_db=np.array([theory.predicted_sqnr_db(self._power, step) for step in steps]),
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        self._grid, self._law = figure.subplots(1, 2, width_ratios=[1.5, 1])
        before = Histogram.of(self._x, self._reach)
        self._value_axes(before.values.max())
        self._grid.stairs(before.values, before.edges, fill=True, color=palette.ORIGINAL, alpha=0.35, label="original")
        self._bars = self._grid.stairs(
            [0.0], [0.0, 1.0], baseline=0, fill=True, color=palette.QUANTIZED, alpha=0.35, label="quantized"
        )
        self._outline = self._grid.stairs([0.0], [0.0, 1.0], baseline=0, color=palette.QUANTIZED, lw=1.2)
        (self._marks,) = self._grid.plot([], [], "|", ms=9, mew=1.2, color=palette.QUANTIZED, clip_on=False)
        (self._outlier,) = self._grid.plot([], [], "D", ms=8, mec=palette.PAPER, mfc=palette.GOOD, label="outlier")
        self._grid.legend(loc="upper right", fontsize=8)
        self._grid_title = self._grid.set_title(" ")
        law = self._law
        law.set(xlim=(1.6, 8.4), ylim=(-8, 50), xlabel="bits", ylabel="SQNR (dB)")
        law.xaxis.set_major_locator(MaxNLocator(integer=True))
        (self._theory,) = law.plot([], [], "--", color=palette.THEORY, lw=1.4, label="theory: Δ²/12")
        (self._curve,) = law.plot([], [], "o-", color=palette.QUANTIZED, ms=4, lw=1.2, label="measured")
        (self._here,) = law.plot([], [], "o", ms=12, mfc="none", mec=palette.INK, mew=1.6)
        law.legend(loc="upper left")
        self._law_title = law.set_title(" ")
        return [
            self._bars, self._outline, self._marks, self._outlier, self._grid_title,
            self._theory, self._curve, self._here, self._law_title,
        ]  # fmt: skip

    def _value_axes(self, peak: float) -> None:
        """Linear as far as the values reach; beyond that squeezed, so that the outlier stays in the picture."""
        reach, axes = self._reach, self._grid
        value_axes(axes, reach, peak)
        axes.set_xscale("symlog", linthresh=reach, linscale=2.6)
        axes.set(xlim=(-1.3 * FURTHEST * reach, 1.3 * FURTHEST * reach), xlabel="value (shaded: squeezed)")
        inside = [tick for tick in MaxNLocator(4).tick_values(-reach, reach) if abs(tick) < 0.95 * reach]
        ticks = [-10 * reach, *inside, 10 * reach]
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        for side in (-1, 1):
            axes.axvspan(side * reach, side * 1.3 * FURTHEST * reach, color=palette.INK, alpha=0.06, lw=0)
        self._height = 0.08 * peak

    def draw(self, result: BitsResult) -> None:
        half = result.scale / 2
        edges = np.append(result.levels - half, result.levels[-1] + half)
        for stairs in (self._bars, self._outline):
            stairs.set_data(result.density, edges)
        self._marks.set_data(result.levels, np.zeros_like(result.levels))
        self._outlier.set_data([result.outlier], [self._height])
        self._grid_title.set_text(
            f"{result.num_bits} bits: {result.codes_used} codes in use, {short(result.scale)} apart"
        )
        self._theory.set_data(BITS, result.theory_curve_db)
        self._curve.set_data(BITS, result.curve_db)
        self._here.set_data([result.num_bits], [result.sqnr_db])
        self._law_title.set_text(f"{db(result.sqnr_db)}, theory says {db(result.theory_db)}")

    def describe(self, result: BitsResult) -> list[tuple[str, str]]:
        return [
            ("bits", f"{result.num_bits}"),
            ("scale Δ", f"{result.scale:.4g}"),
            ("codes used", f"{result.codes_used} of {2**result.num_bits - 1}"),
            ("largest error", f"{result.max_error:.3g} (Δ/2 = {result.scale / 2:.3g})"),
            ("MSE", f"{result.mse:.3g} (Δ²/12 = {theory.rounding_noise(result.scale):.3g})"),
            ("SQNR", db(result.sqnr_db)),
            ("memory", f"{result.num_bits / 32:.1%} of float32"),
        ]


def _with_outlier(x: np.ndarray, peak: int, factor: float) -> np.ndarray:
    """`x` with its largest magnitude, at index `peak`, multiplied."""
    if factor == 1:
        return x
    x = x.copy()
    x[peak] *= factor
    return x
