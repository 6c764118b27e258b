"""explore_grids: where a grid has its numbers, where the values are, and what that costs in bits per value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils.arrays import affine
from labutils.arrays.block_formats import bits_per_weight
from labutils.arrays.grids import E2M1, E4M3, E8M0, FLOAT16, NF4, Grid, Integers
from labutils.arrays.metrics import sqnr_db
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Choice, Explorer, Notches, Slider, ask
from labutils.labs import answers
from labutils.labs.lab11.round_to_grid import read
from labutils.labs.values import db, float_array

BLOCK_SIZES = (16, 32, 64, 128, 256)
SAMPLE = 2**16  # values, in whole rows
BINS = 101
REACH = 1.4  # how much of the axis is drawn, in ends of the grid: with scales rounded down values reach 8 / 6


@dataclass(frozen=True)
class Format:
    """A grid, the grid of its scales, whether the tensor has one more scale, and the block size of its document."""

    grid: Grid
    scale_grid: Grid
    tensor_scale: bool = False
    block_size: int | None = None
    color: str = palette.THEORY

    def scheme(self, block_size: int) -> Scheme:
        scales = {"scale_grid": self.scale_grid, "tensor_scale": self.tensor_scale}
        return Scheme(grid=self.grid, granularity=PerGroup(block_size), **scales)


FORMATS = {
    "INT4": Format(Integers(4), FLOAT16, color=palette.THEORY),
    "NF4": Format(NF4, FLOAT16, color=palette.GOOD),
    "MXFP4": Format(E2M1, E8M0, block_size=32, color=palette.WARN),
    "NVFP4": Format(E2M1, E4M3, tensor_scale=True, block_size=16, color=palette.ORIGINAL),
    "MXFP8": Format(E4M3, E8M0, block_size=32, color=palette.WARN),
    "INT8": Format(Integers(8), FLOAT16, color=palette.THEORY),
}


def explore_grids(x: Any, round_to_grid: Callable = answers.round_to_grid) -> Explorer:
    """Choose a format and drag its block size: its numbers drawn on the values they meet, and its place among others.

    >>> explorer = explore_grids(np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32))
    >>> explorer.controls["format"].value = "NVFP4"
    >>> round(explorer.result.bits_per_value, 3)  # blocks of 64
    4.126

    `x` is a NumPy array or torch tensor of floats; blocks lie along its last axis. `round_to_grid(x, levels)` may be a
    learner's; NF4, which has other numbers below 0 than above, is always rounded by the course's. Of a large `x` whole
    rows are sampled; blocks are no longer than they. TypeError or ValueError for an `x` that cannot be quantized.
    """
    return GridsExplorer(x, round_to_grid)


@dataclass(frozen=True)
class GridsResult:
    format: str
    block_size: int
    levels: np.ndarray  # in ends of the grid
    density: np.ndarray  # of the values in the same unit, a number for each bin
    bits_per_value: float
    sqnr_db: float
    zeros: float  # share of values that become 0
    beyond: float  # share that lies beyond the grid by more than float16 rounds a scale


class GridsExplorer(Explorer):
    title = "A grid on the values that it meets, and quality against bits per value"
    size = (9.0, 3.9)

    def __init__(self, x: Any, round_to_grid: Callable):
        self._x = _sample_of(x)
        self._round = round_to_grid
        self._edges = np.linspace(-REACH, REACH, BINS + 1)
        # A block longer than a row is the row. Two at least, for a slider.
        self._sizes = tuple(size for size in BLOCK_SIZES if size <= max(self._x.shape[1], BLOCK_SIZES[1]))
        self._map = {name: [self._measured(name, size, None) for size in self._sizes] for name in FORMATS}
        super().__init__()

    def sliders(self) -> dict[str, Slider | Choice | Notches]:
        return {
            "format": Choice("format", tuple(FORMATS), "INT4", hint="the grid, and the grid of its scales"),
            "block_size": Notches(
                "block size", self._sizes, min(64, self._sizes[-1]), hint="how many neighbours share a scale"
            ),
        }

    def compute(self, state: dict[str, Any]) -> GridsResult:
        return self._measured(state["format"], state["block_size"], self._round)

    def _measured(self, name: str, block_size: int, round_to_grid: Callable | None) -> GridsResult:
        scheme = FORMATS[name].scheme(block_size)
        grid, x = scheme.grid, self._x
        scale = affine.choose_qparams(x, scheme)[0]
        scale = np.repeat(scale, block_size, axis=-1)[..., : x.shape[1]]
        steps = x / scale
        values = _rounded(round_to_grid, steps, grid)
        shares = np.histogram(steps / grid.span, self._edges)[0] / x.size
        levels = np.unique(grid.levels[np.isfinite(grid.levels)]) / grid.span
        return GridsResult(
            format=name,
            block_size=block_size,
            levels=levels[levels >= -1],  # the lowest code of integers is beyond the range, and not used
            density=shares / (self._edges[1] - self._edges[0]),
            bits_per_value=bits_per_weight(scheme, x.shape),
            sqnr_db=sqnr_db(x, values * scale),
            zeros=float(np.mean(values == 0)),
            beyond=float(np.mean(np.abs(steps) > grid.span * 1.005)),
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
        values = left.subplots()
        peak = max(result.density.max() for line in self._map.values() for result in line)
        values.set(xlim=(-REACH, REACH), ylim=(0, 1.25 * peak), xlabel="value / end of the grid of its block")
        values.set_ylabel("density of the values")
        values.grid(False)
        self._outside = [values.axvspan(side, side * REACH, color=palette.WARN, alpha=0.13, lw=0) for side in (-1, 1)]
        self._levels = values.vlines([], 0, 1.08 * peak, color=palette.QUANTIZED)
        self._shape = values.stairs(np.zeros(BINS), self._edges, fill=True, color=palette.ORIGINAL, alpha=0.55)
        values.text(0.02, 0.98, "lines: numbers of the grid", transform=values.transAxes, fontsize=8, va="top",
                    color=palette.QUANTIZED)  # fmt: skip
        values.text(0.98, 0.98, "filled: the values", transform=values.transAxes, fontsize=8, va="top", ha="right",
                    color=palette.ORIGINAL)  # fmt: skip
        self._values_title = values.set_title(" ")
        eight, four = right.subplots(2, 1, height_ratios=[1, 1.6], sharex=True)
        self._here = {bits: _lines(axes, self._map, bits) for bits, axes in ((8, eight), (4, four))}
        self._map_title = eight.set_title(" ")
        four.set_xlabel("bits per value beside the codes' 4 or 8")
        return [self._levels, self._shape, self._values_title, *self._here.values(), self._map_title]

    def draw(self, result: GridsResult) -> None:
        _, top = self._levels.axes.get_ylim()
        self._levels.set_segments([[(level, 0), (level, 0.86 * top)] for level in result.levels])
        few = len(result.levels) <= 16
        self._levels.set(linewidth=1.3 if few else 0.45, alpha=0.9 if few else 0.55)
        self._shape.set_data(result.density, self._edges)
        told = f"{result.zeros:.1%} become 0"
        if result.beyond:
            told += f", {result.beyond:.1%} lie beyond"
        self._values_title.set_text(f"{result.format}: {told}")
        bits = FORMATS[result.format].grid.num_bits
        for width, point in self._here.items():
            shown = width == bits
            point.set_data([result.bits_per_value - bits] if shown else [], [result.sqnr_db] if shown else [])
        self._map_title.set_text(f"{db(result.sqnr_db)} for {result.bits_per_value:.2f} bits per value")

    def describe(self, result: GridsResult) -> list[tuple[str, str]]:
        shown = FORMATS[result.format]
        scale = f"{shown.scale_grid!r}, {shown.scale_grid.num_bits} bits"
        own = shown.block_size or result.block_size
        standard = f"its standard: {own}" if own != result.block_size else ""
        return [
            ("format", f"{result.format}, blocks of {result.block_size}" + (f" ({standard})" if standard else "")),
            ("numbers of the grid", f"{len(result.levels)}"),
            ("scales", scale + (", and one float32" if shown.tensor_scale else "")),
            ("bits per value", f"{result.bits_per_value:.3f}"),
            ("SQNR", db(result.sqnr_db)),
            ("values that become 0", f"{result.zeros:.1%}"),
            ("beyond the grid", f"{result.beyond:.1%}"),
        ]


def _lines(axes: Any, lines: dict[str, list[GridsResult]], bits: int) -> Artist:
    """A curve for each format of so many bits, and the artist of the point where one is."""
    for name, results in lines.items():
        if FORMATS[name].grid.num_bits != bits:
            continue
        points = [(result.bits_per_value - bits, result.sqnr_db) for result in results]
        color = FORMATS[name].color
        axes.plot(*zip(*points), "o-", color=color, ms=3.5, lw=1.2)
        below = -7 if name == "NVFP4" else 0  # NF4's curve passes above its end
        axes.annotate(name, points[0], (6, below), textcoords="offset points", va="center", fontsize=8, color=color)
    levels = [r.sqnr_db for n, rs in lines.items() if FORMATS[n].grid.num_bits == bits for r in rs]
    levels = [level for level in levels if math.isfinite(level)] or [0.0]
    axes.set(xlim=(0, 1.25), ylim=(min(levels) - 2, max(levels) + 2), ylabel=f"dB, {bits} bits")
    return axes.plot([], [], "o", ms=9, mfc=palette.QUANTIZED, mec=palette.PAPER, mew=1.2)[0]


def _sample_of(x: Any) -> np.ndarray:
    """Whole rows of `x` in units of its largest magnitude, (rows, columns); raises for what cannot be quantized."""
    x = float_array(x, "x")
    if x.ndim == 0 or x.shape[-1] < 2:
        raise ValueError(f"x needs rows of at least two values, got shape {x.shape}")
    if not x.any():
        raise ValueError(f"x needs values that are not all zero, got shape {x.shape}")
    rows = x.reshape(-1, x.shape[-1])
    if rows.shape[1] > SAMPLE:  # whole blocks of it, as many as make a matrix
        rows = rows[:, : rows.shape[1] // BLOCK_SIZES[-1] * BLOCK_SIZES[-1]].reshape(-1, BLOCK_SIZES[-1])
    loudest = int(np.argmax(np.abs(rows).max(axis=1)))  # the scale of the tensor stays the same
    step = max(1, math.ceil(rows.size / SAMPLE))
    taken = rows[loudest % step :: step]
    return taken / np.abs(rows[loudest]).max()


def _rounded(round_to_grid: Callable | None, steps: np.ndarray, grid: Grid) -> np.ndarray:
    """`steps` on the grid: by a learner's function, if there is one and the grid is the same on both sides of 0."""
    if round_to_grid is None or grid is NF4:
        return grid.to_steps(xp, grid.to_codes(xp, steps), steps.dtype)
    levels = np.arange(grid.span + 1) if isinstance(grid, Integers) else grid.ascending
    values = ask(round_to_grid, read, steps, levels)["x"]
    if values.shape != steps.shape:
        raise Wrong(f"the result has shape {values.shape}, and x has {steps.shape}")
    if not np.isfinite(values).all():
        raise Wrong("the result holds NaN or Inf")
    return values.astype(steps.dtype)
