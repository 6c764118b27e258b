"""Lab 05: what a linear layer waits for, memory or arithmetic, and what its weights' bits change about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labutils.arrays.inputs import whole_number
from labutils.course import palette
from labutils.course.explorer import Choice, Explorer, Notches
from labutils.labs.lab05 import _speed
from labutils.labs.lab05._roofline import FORMS, GROUP_SIZE, NAMES, LinearResult, Roofs

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SPAN = (0.1, 2000.0)  # operations for a byte, in the picture
LETTERS = "ABCD"  # the points of FORMS in the picture
ROOFS = {"float32": palette.ORIGINAL, "bfloat16": palette.THEORY, "int8": palette.GOOD}


def explore_linear(
    out_features: int = 1536, in_features: int = 384, roofs: Roofs | None = None, layer: Any = None
) -> LinearExplorer:
    """Drag batch and bits, and see whether memory or arithmetic limits a linear layer, and how fast it is.

    >>> A100 = Roofs(memory=1.555e12, float32=19.5e12, bfloat16=312e12, int8=624e12)
    >>> explorer = explore_linear(4096, 4096, roofs=A100)
    >>> explorer.result.limit, round(explorer.result.intensity, 2)  # float32, batch 1
    ('memory', 0.5)

    Without `roofs` they are measured here, and so is every form of the layer at every batch: about five seconds, after
    which no drag has to wait. `layer` is then a class with `from_float`, which dequantizes at each call: a learner's
    QuantizedLinear. By default it is the course's, and the layer has the shape of MiniLM's feed-forward one.

    The model: a layer takes at least as long as its bytes take from memory, and as its operations take. Activations
    are float32. Williams, Waterman and Patterson, 2009, "Roofline", doi:10.1145/1498765.1498785.
    """
    for name, value in (("out_features", out_features), ("in_features", in_features)):
        if whole_number(value, name) < GROUP_SIZE or value % GROUP_SIZE:
            raise ValueError(f"{name} must be a multiple of {GROUP_SIZE}, so that 4-bit groups are full, got {value}")
    if roofs is not None:
        return LinearExplorer(out_features, in_features, roofs)
    roofs, measured = _speed.measure_roofs(), _speed.Measured(out_features, in_features, layer)
    measured.ahead(BATCHES)
    return LinearExplorer(out_features, in_features, roofs, measured)


class LinearExplorer(Explorer):
    title = "Operations a second against operations for a byte, under the roofs of the machine"
    size = (9.0, 3.6)

    def __init__(
        self,
        out_features: int,
        in_features: int,
        roofs: Roofs,
        measured: Callable[[int], Sequence[float]] | None = None,
    ):
        self._shape = out_features, in_features
        self.roofs = roofs
        self._measured = measured
        super().__init__()

    def sliders(self) -> dict[str, Notches | Choice]:
        return {
            "batch": Notches("batch", BATCHES, 1, hint="how many rows of activations come at once"),
            "bits": Choice("weights", NAMES, NAMES[0], hint="how the weight is held, and in what it is multiplied"),
        }

    def compute(self, state: dict[str, Any]) -> LinearResult:
        batch = state["batch"]
        measured = np.array([] if self._measured is None else self._measured(batch))
        return LinearResult.of(self._shape, batch, state["bits"], self.roofs, measured)

    def build(self, figure: Figure) -> Sequence[Artist]:
        roofline, speeds = figure.subplots(1, 2, width_ratios=[1.5, 1])
        return [*self._build_roofline(roofline), *self._build_speeds(speeds)]

    def _build_roofline(self, axes: Axes) -> list[Artist]:
        """The roofs, which no slider moves, and a point for each form, the chosen one joined to its roof."""
        unit, unit_name = (1e12, "tera") if self.roofs.int8 > 2e13 else (1e9, "giga")
        self._unit = unit
        peaks = {name: getattr(self.roofs, name) / unit for name in ROOFS}
        memory = self.roofs.memory / unit  # for one operation a byte
        top = max(peaks.values())
        axes.plot([SPAN[0], top / memory], [SPAN[0] * memory, top], color=palette.INK, lw=1.6)
        axes.text(0.03, 0.92, f"slope: memory, {_short(self.roofs.memory / 1e9)} GB/s", fontsize=8,
                  transform=axes.transAxes)  # fmt: skip
        for name, peak in peaks.items():
            axes.plot([peak / memory, SPAN[1]], [peak, peak], color=ROOFS[name], lw=1.6)
            height = 6 if peak == top else -14  # points, so that neither the slope nor a point runs through it
            axes.annotate(f"{name} {_short(peak)}", (SPAN[1], peak), (-2, height), ha="right", fontsize=8,
                          textcoords="offset points", color=ROOFS[name])  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=SPAN, ylim=(SPAN[0] * memory * 0.12, top * 3))
        axes.set(xlabel="operations for each byte from memory", ylabel=f"{unit_name}-operations a second")
        (self._others,) = axes.plot([], [], "o", ms=11, mfc=palette.PAPER, mec=palette.INK, mew=1.0)
        (self._reach,) = axes.plot([], [], "-", color=palette.QUANTIZED, lw=1.2)
        (self._possible,) = axes.plot([], [], "_", ms=14, color=palette.QUANTIZED, mew=2)
        (self._here,) = axes.plot([], [], "o", ms=13, mfc=palette.QUANTIZED, mec=palette.PAPER, mew=1.2)
        self._letters = [axes.text(1, 1, letter, ha="center", va="center_baseline", fontsize=8, weight="bold")
                         for letter in LETTERS]  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        self._roof_title = axes.set_title(" ")
        return [self._others, self._reach, self._possible, self._here, *self._letters, self._roof_title]

    def _build_speeds(self, axes: Axes) -> list[Artist]:
        places = np.arange(len(FORMS))[::-1]
        on_paper = {"facecolor": palette.PAPER, "edgecolor": "none", "pad": 0.8}
        self._bars = axes.barh(places, np.zeros(len(FORMS)), height=0.6, color=palette.ORIGINAL, alpha=0.75)
        self._labels = [axes.text(0, place, "", va="center", fontsize=9, bbox=on_paper) for place in places]
        axes.axvline(1, color=palette.INK, lw=0.8, ls="--")
        at_most = "" if self._measured else " (at most)"
        axes.set(xscale="log", xlim=(0.05, 100), xlabel=f"speed, float32 = 1{at_most}")
        axes.set(yticks=places, yticklabels=[f"{name}  {letter}" for name, letter in zip(NAMES, LETTERS)])
        axes.grid(False)
        axes.xaxis.set_major_formatter("{x:g}")
        self._speed_title = axes.set_title(" ")
        return [*self._bars, *self._labels, self._speed_title]

    def draw(self, result: LinearResult) -> None:
        heights = result.operations / result.seconds / self._unit
        roofs = result.operations / result.expected / self._unit
        chosen = result.chosen
        rest = [i for i in range(len(FORMS)) if i != chosen]
        x, y = result.intensities[chosen], heights[chosen]
        self._others.set_data(result.intensities[rest], heights[rest])
        self._here.set_data([x], [y])
        self._possible.set_data([x], [roofs[chosen]])
        self._reach.set_data([x, x], [y, roofs[chosen]])
        for i, letter in enumerate(self._letters):
            letter.set_position((result.intensities[i], heights[i]))
            letter.set_color(palette.PAPER if i == chosen else palette.INK)
        self._roof_title.set_text(f"Batch {result.batch}, {result.form}: limited by {result.limit}")
        speeds = result.seconds[0] / result.seconds
        for i, (bar, label) in enumerate(zip(self._bars, self._labels)):
            bar.set_width(speeds[i])
            bar.set_facecolor(palette.QUANTIZED if i == chosen else palette.ORIGINAL)
            label.set_x(min(speeds[i], 40) * 1.1)
            label.set_text(f"{speeds[i]:.2g}")
        title = f"{result.speedup:.2g} times as fast as float32" if chosen else "Speed beside float32"
        self._speed_title.set_text(title)

    def describe(self, result: LinearResult) -> list[tuple[str, str]]:
        chosen = result.chosen
        cells = [
            ("batch", f"{result.batch}"),
            ("bits", FORMS[result.form].bits),
            ("operations for a byte", f"{result.intensity:.3g}"),
            ("ridge at", f"{result.ridge:.3g}"),
            ("limited by", result.limit),
            ("time at least", _time(result.expected[chosen])),
        ]
        if result.measured.size:
            cells.append(("time measured", _time(result.measured[chosen])))
        return [*cells, ("speed, float32 = 1", f"{result.speedup:.2g}")]

    def note(self, result: LinearResult) -> str:
        if self._measured is None:
            return "This is the model: points lie on the roofs, which no machine quite reaches."
        return (
            "Points are measured, with weights that come from memory. The dash above the large point is its roof. "
            "(On a busy machine a point may lie above it.)"
        )


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _time(seconds: float) -> str:
    for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 1e-9:.3g} ns"
