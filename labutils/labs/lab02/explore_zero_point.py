"""explore_zero_point: where the grid puts 0.0, and how long its steps become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils.arrays import theory
from labutils.arrays.scheme import Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer, Slider, ask
from labutils.labs import answers
from labutils.labs.contract import read_asymmetric
from labutils.labs.values import (
    BINS,
    counts_of,
    db,
    decibels,
    error_in_steps,
    flat_values,
    mean_squared,
    noise_of,
    require_drawable,
    short,
)

BITS = range(2, 9)
REACH = 2.0  # how far the values can be shifted, in halves of their range


def explore_zero_point(x: Any, quantize: Callable = answers.quantize_asymmetric) -> Explorer:
    """Drag bit width and a shift, and watch where the grid of `quantize` puts 0.0, beside the symmetric grid.

    >>> explorer = explore_zero_point(np.random.default_rng(0).normal(size=10_000).astype(np.float32))
    >>> explorer.controls["shift"].value = 1.0
    >>> explorer.result.zero_point, round(explorer.result.sqnr_db - explorer.result.symmetric_db, 1)
    (0, 6.4)

    `x` is a NumPy array or torch tensor of floats, of any shape; `quantize(x, num_bits) -> (q, scale, zero_point)` may
    be a learner's. "shift" adds a constant to all values, in halves of their range: where the smallest value is the
    largest one's opposite, a shift of 1 leaves none below 0. Errors are compared with the power of `x` as it was
    given. TypeError or ValueError for an `x` that cannot be quantized.
    """
    return ZeroPointExplorer(x, quantize)


@dataclass(frozen=True)
class ZeroPointResult:
    num_bits: int
    offset: float  # the shift, in units of x
    scale: float
    zero_point: int | float  # a learner's may be no integer
    zero_back: float  # what the code nearest to 0.0 stands for: 0 where zero is exact
    codes_used: int
    levels: np.ndarray  # the values that the codes in use stand for
    density: np.ndarray  # of each level: its share of the values over the width of a step
    grid: np.ndarray  # the values of all codes
    sqnr_db: float
    symmetric_scale: float
    symmetric_codes_used: int
    symmetric_db: float
    curve_db: np.ndarray  # predicted at every shift
    symmetric_curve_db: np.ndarray

    @property
    def zero_is_exact(self) -> bool:
        return abs(self.zero_back) <= 1e-6 * self.scale


class ZeroPointExplorer(Explorer):
    size = (9.0, 3.7)
    title = "Where zero lies on the grid, and signal to noise against a shift of the values"
    shifts = np.linspace(-REACH, REACH, 161)

    def __init__(self, x: Any, quantize: Callable):
        self._x = flat_values(x)
        self._quantize = quantize
        low, high = float(self._x.min()), float(self._x.max())
        if low == high:
            raise ValueError(f"x needs at least two different values, but all are {low:g}")
        self._half = high / 2 - low / 2
        self._power = float(np.mean(np.square(self._x, dtype=np.float64)))
        self._ends = min(low - REACH * self._half, 0), max(high + REACH * self._half, 0)
        # At one step for the whole grid; more steps add the same decibels at every shift.
        lows, highs = (end + self.shifts * self._half for end in (low, high))
        self._curve = self._predicted(np.maximum(highs, 0) - np.minimum(lows, 0))
        self._symmetric_curve = self._predicted(np.maximum(np.abs(lows), np.abs(highs)))
        super().__init__()

    def _predicted(self, steps: np.ndarray) -> np.ndarray:
        return np.array([theory.predicted_sqnr_db(self._power, step) for step in steps])

    def sliders(self) -> dict[str, Slider]:
        return {
            "num_bits": Slider("bits", BITS[0], BITS[-1], 4, hint="bit width of a code"),
            "shift": Slider("shift", -REACH, REACH, 0.0, 0.1, hint="added to all values, in halves of their range"),
        }

    def compute(self, state: dict[str, Any]) -> ZeroPointResult:
        num_bits, offset = state["num_bits"], state["shift"] * self._half
        x = self._x + self._x.dtype.type(offset)
        answer = ask(self._quantize, read_asymmetric, x, num_bits)
        q, scale, zero_point = answer["q"], answer["scale"], answer["zero_point"].item()
        require_drawable(x, q, scale)
        if not np.isfinite(zero_point):
            raise Wrong(f"zero_point is {zero_point:g}")
        error = error_in_steps(x, q, scale)
        error += x.dtype.type(zero_point)
        counts, least = counts_of(q)
        codes = np.arange(2**num_bits)
        nearest = codes[np.argmin(np.abs(codes - zero_point))]
        plain, plain_scale = answers.quantize_symmetric(x, num_bits)
        plain_scale = float(plain_scale)
        return ZeroPointResult(
            num_bits=num_bits,
            offset=offset,
            scale=scale,
            zero_point=zero_point,
            zero_back=scale * float(nearest - zero_point),
            codes_used=int(np.count_nonzero(counts)),
            levels=scale * (least + np.arange(counts.size) - zero_point),
            density=counts / (x.size * scale),
            grid=scale * (codes - zero_point),
            sqnr_db=decibels(self._power, mean_squared(error, scale)),
            symmetric_scale=plain_scale,
            symmetric_codes_used=int(np.count_nonzero(counts_of(plain)[0])),
            symmetric_db=decibels(self._power, noise_of(x, plain, plain_scale)),
            curve_db=self._curve + 20 * np.log10(Scheme(num_bits, symmetric=False).quant_max),
            symmetric_curve_db=self._symmetric_curve + 20 * np.log10(Scheme(num_bits).quant_max),
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
        before, self._edges = np.histogram(self._x, BINS // 2)
        self._before = before / (self._x.size * (self._edges[1] - self._edges[0]))
        (low, high) = self._ends
        # A ReLU's zeros make a spike: it may leave the picture, so that the other values are seen.
        peak = min(self._before.max(), 4 * np.percentile(self._before, 95))
        margin = 0.03 * (high - low)
        left.set(xlim=(low - margin, high + margin), ylim=(-0.3 * peak, 1.25 * peak), xlabel="value", yticks=[])
        left.grid(False)
        left.spines["left"].set_visible(False)
        left.axhline(0, color=palette.INK, lw=0.8)
        left.axvline(0, color=palette.INK, lw=1.2, ls=":")
        self._rows = -0.1 * peak, -0.22 * peak  # of the asymmetric and of the symmetric grid
        self._original = left.stairs(self._before, self._edges, baseline=0, fill=True, color=palette.ORIGINAL,
                                     alpha=0.35, label="values")  # fmt: skip
        self._bars = left.stairs([0.0], [0.0, 1.0], baseline=0, fill=True, color=palette.QUANTIZED, alpha=0.35,
                                 label="quantized")  # fmt: skip
        self._outline = left.stairs([0.0], [0.0, 1.0], baseline=0, color=palette.QUANTIZED, lw=1.2)
        (self._grid,) = left.plot([], [], "|", ms=9, mew=1.2, color=palette.QUANTIZED, label="its grid")
        (self._plain_grid,) = left.plot([], [], "|", ms=9, mew=1.2, color=palette.THEORY, label="symmetric grid")
        (self._zero,) = left.plot([], [], "D", ms=8, mec=palette.PAPER, mfc=palette.GOOD, label="its code of 0.0")
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17), "fontsize": 8, "handlelength": 1.4,
                 "columnspacing": 1.0}  # fmt: skip
        left.legend(ncols=5, **below)
        self._left_title = left.set_title(" ")
        floor = self._symmetric_curve.min() + 20 * np.log10(Scheme(BITS[0]).quant_max)
        top = self._symmetric_curve.max() + 20 * np.log10(Scheme(BITS[-1] + 1).quant_max)
        right.set(xlim=(-1.05 * REACH, 1.05 * REACH), ylim=(floor - 2, top + 2), xlabel="shift, in halves of the range",
                  ylabel="SQNR (dB), line: Δ²/12")  # fmt: skip
        curve = {"lw": 1.4, "ls": "--"}
        (self._curve_line,) = right.plot([], [], color=palette.QUANTIZED, label="asymmetric", **curve)
        (self._plain_line,) = right.plot([], [], color=palette.THEORY, label="symmetric", **curve)
        (self._more_line,) = right.plot([], [], color=palette.THEORY, lw=1, ls=":", label="symmetric + 1 bit")
        (self._here,) = right.plot([], [], "o", ms=9, mfc=palette.QUANTIZED, mec=palette.PAPER)
        (self._plain_here,) = right.plot([], [], "s", ms=8, mfc=palette.THEORY, mec=palette.PAPER)
        right.legend(ncols=3, **below)
        self._right_title = right.set_title(" ")
        return [
            self._original, self._bars, self._outline, self._grid, self._plain_grid, self._zero, self._left_title,
            self._curve_line, self._plain_line, self._more_line, self._plain_here, self._here, self._right_title,
        ]  # fmt: skip

    def draw(self, result: ZeroPointResult) -> None:
        half = result.scale / 2
        self._original.set_data(self._before, self._edges + result.offset)
        for stairs in (self._bars, self._outline):
            stairs.set_data(result.density, np.append(result.levels - half, result.levels[-1] + half))
        scheme = Scheme(result.num_bits)
        plain = result.symmetric_scale * np.arange(scheme.quant_min + 1, scheme.quant_max + 1)
        for marks, levels, row in zip((self._grid, self._plain_grid), (result.grid, plain), self._rows, strict=True):
            marks.set_data(levels, np.full(levels.shape, row))
        self._zero.set_data([result.zero_back], [self._rows[0]])
        exact = result.zero_is_exact
        self._zero.set_markerfacecolor(palette.GOOD if exact else palette.WARN)
        self._left_title.set_color(palette.INK if exact else palette.QUANTIZED)
        self._left_title.set_text(
            f"{result.num_bits} bits: 0.0 has the code {result.zero_point:g}"
            if exact
            else f"0.0 is not on the grid: it comes back as {short(result.zero_back)}"
        )
        for line, curve in (
            (self._curve_line, result.curve_db),
            (self._plain_line, result.symmetric_curve_db),
            (self._more_line, self._symmetric_curve + 20 * np.log10(Scheme(result.num_bits + 1).quant_max)),
        ):
            line.set_data(self.shifts, curve)
        shift = result.offset / self._half
        self._here.set_data([shift], [result.sqnr_db])
        self._plain_here.set_data([shift], [result.symmetric_db])
        self._right_title.set_text(f"{db(result.sqnr_db)}, symmetric {db(result.symmetric_db)}")

    def describe(self, result: ZeroPointResult) -> list[tuple[str, str]]:
        return [
            ("bits", f"{result.num_bits}"),
            ("scale Δ", f"{result.scale:.4g} (symmetric {result.symmetric_scale:.4g})"),
            ("zero point", f"{result.zero_point:g}"),
            ("0.0 comes back as", "0.0" if result.zero_is_exact else f"⚠ {short(result.zero_back)}"),
            ("codes used", f"{result.codes_used} (symmetric {result.symmetric_codes_used}) of {2**result.num_bits}"),
            ("SQNR", f"{db(result.sqnr_db)} (symmetric {db(result.symmetric_db)})"),
        ]

    def note(self, result: ZeroPointResult) -> str:
        if result.zero_is_exact:
            return ""
        return (
            f"⚠ The zero point {result.zero_point:g} is not one of the codes 0 to {2**result.num_bits - 1}: the code "
            f"nearest to it stands for {short(result.zero_back)}, and every 0.0 would come back as that."
        )
