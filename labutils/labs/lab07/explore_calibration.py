"""Lab 07: where to clip, and where each method of calibration does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils.arrays.calibration import KL, MSE, MinMax, Percentile
from labutils.arrays.scheme import Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer, Slider, ask
from labutils.labs import answers
from labutils.labs.clipped import ClippedHistogram
from labutils.labs.lab07._ranges import read_range
from labutils.labs.values import Magnitudes, db, decibels, flat_values, noise_of, quantized, sample_of, short

BITS = range(2, 9)
ESTIMATORS = {  # name -> an estimator for a bit width
    "min-max": lambda num_bits: MinMax(),
    "99.9%": lambda num_bits: Percentile(99.9),
    "MSE": MSE,
    "KL": KL,
}
STYLES = (  # marker and colour of each estimator, and of two more methods
    ("s", palette.INK), ("D", palette.ORIGINAL), ("^", palette.GOOD), ("v", palette.QUANTIZED),
    ("P", palette.THEORY), ("X", palette.WARN),
)  # fmt: skip


def explore_calibration(
    x: Any,
    quantize: Callable = answers.quantize_clipped,
    methods: Mapping[str, Callable] | None = None,
) -> Explorer:
    """Drag clip and bit width over rounding noise, clipping noise and their sum, and see where each method cuts.

    >>> explorer = explore_calibration(np.random.default_rng(0).normal(size=10_000).astype(np.float32))
    >>> explorer.controls["num_bits"].value = 3
    >>> {name: round(mark.clip, 1) for name, mark in explorer.result.marks.items()}
    {'min-max': 3.9, '99.9%': 3.2, 'MSE': 1.9, 'KL': 3.2}

    `quantize(x, clip, num_bits) -> (q, scale)` makes what is measured at the slider. `methods` maps up to six names to
    functions, `method(x, num_bits) -> (low, high)`, which may be a learner's: they are given at most 16384 of the
    values. By default the estimators of `calibration` see all of them. The curves are exact, for all values,
    on the grid whose levels reach equally far both ways. TypeError or ValueError for an `x` that cannot be quantized.
    """
    return CalibrationExplorer(x, quantize, methods)


@dataclass(frozen=True)
class Mark:
    """Where a method cuts, and what that costs."""

    clip: float  # in units of x
    sqnr_db: float


@dataclass(frozen=True)
class CalibrationResult:
    num_bits: int
    clip: float  # in units of x
    clipped: int  # how many values lie beyond
    sqnr_db: float  # measured with `quantize`
    best_clip: float
    best_db: float
    marks: dict[str, Mark]
    rounding: np.ndarray  # noise over the power, at every fraction
    clipping: np.ndarray


class CalibrationExplorer(Explorer):
    title = "Clipping against rounding, and where each method clips"
    fractions = np.geomspace(0.02, 1, 110)

    def __init__(self, x: Any, quantize: Callable, methods: Mapping[str, Callable] | None):
        self._x = flat_values(x)
        self._quantize = quantize
        self._methods = None if methods is None else dict(methods)
        self._names = list(ESTIMATORS if methods is None else methods)
        if not 1 <= len(self._names) <= len(STYLES):
            raise ValueError(f"methods must be 1 to {len(STYLES)} functions by name, got {len(self._names)}")
        self._sample = sample_of(self._x)
        self._reach = float(np.abs(self._x).max())
        self._power = float(np.mean(np.square(self._x, dtype=np.float64)))
        self._magnitudes = Magnitudes(self._x)
        self._clips = self.fractions * self._reach
        self._clipping = self._magnitudes.clipping_noise(self._clips)
        # For every bit width, before the slider moves: to search a histogram takes longer than a frame.
        self._noise = {bits: self._magnitudes.noise(self._clips, Scheme(bits).quant_max) for bits in BITS}
        self._marks = {} if self._methods else {bits: self._estimated(bits) for bits in BITS}
        super().__init__()

    def sliders(self) -> dict[str, Slider]:
        return {
            "num_bits": Slider("bits", BITS[0], BITS[-1], 4, hint="bit width of a code"),
            "clip": Slider("clip", 0.02, 1.0, 1.0, 0.01, hint="threshold as a fraction of the largest magnitude"),
        }

    def compute(self, state: dict[str, Any]) -> CalibrationResult:
        num_bits, clip = state["num_bits"], state["clip"] * self._reach
        noise = noise_of(self._x, *quantized(self._quantize, self._x, clip, num_bits))
        total = self._noise[num_bits]
        best = int(np.argmin(total))
        if num_bits not in self._marks:
            self._marks[num_bits] = self._measured(num_bits)
        return CalibrationResult(
            num_bits=num_bits,
            clip=clip,
            clipped=int(self._magnitudes.beyond(np.array([clip]))[0]),
            sqnr_db=decibels(self._power, noise),
            best_clip=float(self._clips[best]),
            best_db=decibels(self._power, total[best]),
            marks=self._marks[num_bits],
            rounding=(total - self._clipping).clip(0) / self._power,
            clipping=self._clipping / self._power,
        )

    def _estimated(self, num_bits: int) -> dict[str, Mark]:
        return {
            name: self._mark(estimator(num_bits).observe(self._x).range()[1], num_bits)
            for name, estimator in ESTIMATORS.items()
        }

    def _measured(self, num_bits: int) -> dict[str, Mark]:
        marks = {}
        for name, method in self._methods.items():
            answer = ask(method, read_range, self._sample, num_bits)
            clip = max(abs(answer["low"]), abs(answer["high"]))
            if not (math.isfinite(clip) and clip > 0):
                raise Wrong(f"{name} gave the range ({answer['low']:g}, {answer['high']:g}), which has no clip to draw")
            marks[name] = self._mark(clip, num_bits)
        return marks

    def _mark(self, clip: float, num_bits: int) -> Mark:
        (noise,) = self._magnitudes.noise(np.array([clip]), Scheme(num_bits).quant_max)
        return Mark(clip, decibels(self._power, float(noise)))

    def build(self, figure: Figure) -> Sequence[Artist]:
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
        self._clipped = ClippedHistogram(left, self._x, self._reach)
        self._left_title = left.set_title(" ")
        floor = min(noise.min() for noise in self._noise.values()) / self._power
        right.set(xlim=(0.0185, 1.12), ylim=(max(floor, 1e-9) / 4, 6), xscale="log", yscale="log",
                  xlabel="clip, as a fraction of max|x|", ylabel="noise / signal")  # fmt: skip
        right.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5, 1], labels=["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
        right.minorticks_off()
        (self._rounding,) = right.plot([], [], "--", color=palette.THEORY, lw=1.4, label="rounding")
        right.plot(self.fractions, np.maximum(self._clipping / self._power, 1e-30), ":", color=palette.WARN, lw=2,
                   label="clipping")  # fmt: skip
        (self._total,) = right.plot([], [], color=palette.INK, lw=1.4, label="both")
        (self._here,) = right.plot([], [], "o", ms=11, mfc="none", mec=palette.QUANTIZED, mew=2, label="here, measured")
        lines = right.legend(loc="center left", fontsize=8)
        right.add_artist(lines)
        # A method with the name of an estimator has its style; others take the styles that are left.
        styles = dict(zip(ESTIMATORS, STYLES))
        left_over = [style for style in STYLES if style not in [styles.get(name) for name in self._names]]
        self._dots = [
            right.plot([], [], marker, ms=7, mfc=colour, mec=palette.PAPER, mew=0.8, label=name)[0]
            for name in self._names
            for marker, colour in [styles[name] if name in styles else left_over.pop()]
        ]
        right.legend(handles=self._dots, loc="upper right", ncols=len(self._dots), fontsize=8, handletextpad=0.1,
                     columnspacing=1.0)  # fmt: skip
        self._right_title = right.set_title(" ")
        return [*self._clipped.artists, self._left_title,
                self._rounding, self._total, self._here, *self._dots, self._right_title]  # fmt: skip

    def draw(self, result: CalibrationResult) -> None:
        self._clipped.move(result.clip)
        self._left_title.set_text(f"{100 * result.clipped / self._x.size:.2g}% lie beyond the clip")
        self._rounding.set_data(self.fractions, result.rounding)
        self._total.set_data(self.fractions, result.rounding + result.clipping)
        self._here.set_data([result.clip / self._reach], [_over_signal(result.sqnr_db)])
        for dot, mark in zip(self._dots, result.marks.values(), strict=True):
            dot.set_data([max(mark.clip / self._reach, self.fractions[0])], [_over_signal(mark.sqnr_db)])
        self._right_title.set_text(f"{result.num_bits} bits: {db(result.sqnr_db)} here, {db(result.best_db)} at best")

    def describe(self, result: CalibrationResult) -> list[tuple[str, str]]:
        methods = [(name, f"{short(mark.clip)}: {db(mark.sqnr_db)}") for name, mark in result.marks.items()]
        return [
            ("bits", f"{result.num_bits}"),
            ("clip", f"{short(result.clip)}, {result.clip / self._reach:.2f} of max|x|"),
            ("clipped", f"{result.clipped} of {self._x.size}"),
            ("SQNR", db(result.sqnr_db)),
            ("best clip", f"{short(result.best_clip)}: {db(result.best_db)}"),
            *methods,
        ]


def _over_signal(sqnr_db: float) -> float:
    return 10 ** (-sqnr_db / 10)
