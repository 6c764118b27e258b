"""explore_clipping: rounding noise against clipping noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils.course import palette
from labutils.course.explorer import Explorer, Slider
from labutils.labs import answers
from labutils.labs.clipped import ClippedHistogram
from labutils.labs.values import Magnitudes, db, decibels, flat_values, noise_of, quantized

BITS = range(2, 9)


def explore_clipping(x: Any, quantize: Callable = answers.quantize_clipped) -> Explorer:
    """Drag bit width and clipping threshold, and watch rounding noise trade against clipping noise.

    >>> explorer = explore_clipping(np.random.default_rng(0).normal(size=10_000).astype(np.float32))
    >>> explorer.controls["clip"].value = 0.5
    >>> explorer.result.sqnr_db > explorer.result.unclipped_db
    True

    `quantize(x, clip, num_bits) -> (q, scale)` may be a learner's; "clip" is a fraction of max|x|.
    """
    return ClippingExplorer(x, quantize)


@dataclass(frozen=True)
class ClippingResult:
    num_bits: int
    clip: float  # in units of x
    scale: float
    clipped: int  # how many values lie beyond
    sqnr_db: float
    theory_db: float
    best_clip: float
    best_db: float
    unclipped_db: float
    rounding: np.ndarray  # predicted noise over the power, at every fraction
    clipping: np.ndarray


class ClippingExplorer(Explorer):
    title = "Clipping against rounding"
    fractions = np.linspace(0.05, 1, 96)

    def __init__(self, x: Any, quantize: Callable):
        self._x = flat_values(x)
        self._quantize = quantize
        self._reach = float(np.abs(self._x).max())
        self._power = float(np.mean(np.square(self._x, dtype=np.float64)))
        magnitudes, clips = Magnitudes(self._x), self.fractions * self._reach
        self._clipping = magnitudes.clipping_noise(clips) / self._power
        self._inside = 1 - magnitudes.beyond(clips) / self._x.size
        super().__init__()

    def sliders(self) -> dict[str, Slider]:
        return {
            "num_bits": Slider("bits", BITS[0], BITS[-1], 4, hint="bit width of a code"),
            "clip": Slider("clip", 0.05, 1.0, 1.0, 0.01, hint="threshold as a fraction of the largest magnitude"),
        }

    def compute(self, state: dict[str, Any]) -> ClippingResult:
        num_bits, clip = state["num_bits"], state["clip"] * self._reach
        q, scale = quantized(self._quantize, self._x, clip, num_bits)
        noise = noise_of(self._x, q, scale)
        steps = self.fractions * self._reach / (2 ** (num_bits - 1) - 1)
        rounding = steps**2 / 12 * self._inside / self._power
        total = rounding + self._clipping
        best = int(np.argmin(total))
        here = int(np.argmin(np.abs(self.fractions - state["clip"])))
        return ClippingResult(
            num_bits=num_bits,
            clip=clip,
            scale=scale,
            clipped=int(np.count_nonzero(np.abs(self._x) > clip)),
            sqnr_db=decibels(self._power, noise),
            theory_db=decibels(1.0, total[here]),
            best_clip=float(self.fractions[best]),
            best_db=decibels(1.0, total[best]),
            unclipped_db=decibels(1.0, total[-1]),
            rounding=rounding,
            clipping=self._clipping,
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        left, right = figure.subplots(1, 2, width_ratios=[1.2, 1.2])
        self._clipped = ClippedHistogram(left, self._x, self._reach)
        (self._marks,) = left.plot([], [], "|", ms=9, mew=1.2, color=palette.QUANTIZED, clip_on=False)
        self._left_title = left.set_title(" ")
        right.set(xlim=(0, 1.03), ylim=(1e-5, 2), yscale="log", xlabel="clip, as a fraction of max|x|",
                  ylabel="noise / signal")  # fmt: skip
        (self._rounding,) = right.plot([], [], "--", color=palette.THEORY, lw=1.4, label="rounding: Δ²/12")
        (self._tail,) = right.plot(self.fractions, np.maximum(self._clipping, 1e-12), ":", color=palette.WARN, lw=2,
                                   label="clipping")  # fmt: skip
        (self._total,) = right.plot([], [], color=palette.INK, lw=1.4, label="both")
        (self._best,) = right.plot([], [], "v", ms=9, color=palette.GOOD, label="least")
        (self._here,) = right.plot([], [], "o", ms=10, mfc=palette.QUANTIZED, mec=palette.PAPER, label="measured")
        right.legend(loc="lower left", ncols=2, fontsize=8)
        self._right_title = right.set_title(" ")
        return [*self._clipped.artists, self._marks, self._left_title,
                self._rounding, self._total, self._best, self._here, self._right_title]  # fmt: skip

    def draw(self, result: ClippingResult) -> None:
        self._clipped.move(result.clip)
        quant_max = 2 ** (result.num_bits - 1) - 1
        levels = result.scale * np.arange(-quant_max, quant_max + 1)
        self._marks.set_data(levels, np.full(levels.shape, self._marks.axes.get_ylim()[0]))
        share = result.clipped / self._x.size
        self._left_title.set_text(f"{share:.2%} of the values lie beyond the clip")
        self._rounding.set_data(self.fractions, result.rounding)
        self._total.set_data(self.fractions, result.rounding + result.clipping)
        self._best.set_data([result.best_clip], [10 ** (-result.best_db / 10) * 1.25])
        self._here.set_data([result.clip / self._reach], [10 ** (-result.sqnr_db / 10)])
        self._right_title.set_text(f"{result.num_bits} bits: {db(result.sqnr_db)} here, {db(result.best_db)} at best")

    def describe(self, result: ClippingResult) -> list[tuple[str, str]]:
        return [
            ("bits", f"{result.num_bits}"),
            ("clip", f"{result.clip / self._reach:.2f} of max|x|"),
            ("scale Δ", f"{result.scale:.4g}"),
            ("clipped", f"{result.clipped} of {self._x.size}"),
            ("SQNR", f"{db(result.sqnr_db)} (theory {db(result.theory_db)})"),
            ("best clip by theory", f"{result.best_clip:.2f}: {db(result.best_db)}"),
            ("without clipping", db(result.unclipped_db)),
        ]
