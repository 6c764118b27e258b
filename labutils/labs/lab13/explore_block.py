"""Lab 13: one block of a GGUF file, byte by byte, and the weights that come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer, Notches, Slider, ask
from labutils.labs import answers
from labutils.labs.lab13.q4_0_blocks import BLOCK, BYTES, HALF, in_parts, read
from labutils.labs.values import db, decibels, float_array

BLOCKS = 16  # of the weight's first rows
OUTLIERS = (1, 2, 4, 8)
ACROSS = 6  # bytes in a line of the picture


def explore_block(w: Any, quantize: Callable = answers.q4_0_blocks) -> Explorer:
    """Drag through the blocks of a weight, and see its 32 numbers, the 18 bytes, and what comes back.

    >>> explorer = explore_block(np.linspace(-1, 1, 512, dtype=np.float32).reshape(8, 64))
    >>> explorer.result.code, explorer.result.byte, explorer.result.half
    (0, 2, 'low')

    `w` is a matrix of floats, (rows, n); its first 16 blocks are shown. `quantize(x) -> (rows, n / 32, 18) uint8` may
    be a learner's. "outlier" multiplies the largest weight of the block. TypeError or ValueError for a `w` that is no
    matrix of finite floats, and for fewer than 32 columns.
    """
    return BlockExplorer(w, quantize)


@dataclass(frozen=True, eq=False)
class BlockResult:
    values: np.ndarray  # (32,)
    stored: np.ndarray  # (18,) uint8
    scale: float
    codes: np.ndarray  # (32,) from 0 to 15
    weight: int  # the one that is pointed at
    byte: int  # where its code is
    half: str  # low or high
    sqnr_db: float

    @property
    def code(self) -> int:
        return int(self.codes[self.weight])

    @property
    def returned(self) -> np.ndarray:
        return self.scale * (self.codes - 8.0)


class BlockExplorer(Explorer):
    title = "A block of a GGUF file: 32 weights, its 18 bytes, and the weights that come back"
    size = (9.0, 3.5)

    def __init__(self, w: Any, quantize: Callable):
        w = float_array(w, "w")
        if w.ndim != 2 or w.shape[1] < BLOCK:
            raise ValueError(f"w must be a matrix with rows of {BLOCK} weights or more, got shape {w.shape}")
        self._blocks = w[:, : w.shape[1] // BLOCK * BLOCK].reshape(-1, BLOCK)[:BLOCKS]
        self._quantize = quantize
        super().__init__()

    def sliders(self) -> dict[str, Slider | Notches]:
        return {
            "block": Slider("block", 0, len(self._blocks) - 1, 0, hint="which 32 neighbours of a row"),
            "weight": Slider("weight", 0, BLOCK - 1, 0, hint="the weight whose bits are pointed at"),
            "outlier": Notches("outlier ×", OUTLIERS, 1, hint="the largest weight of the block is multiplied by this"),
        }

    def compute(self, state: dict[str, Any]) -> BlockResult:
        values = self._blocks[state["block"]].copy()
        values[np.abs(values).argmax()] *= state["outlier"]
        stored = ask(self._quantize, read, values[None])["blocks"]
        if stored.shape != (1, 1, BYTES) or stored.dtype != np.uint8:
            raise Wrong(f"one block is (1, 1, {BYTES}) uint8, but this is {stored.shape} {stored.dtype}")
        scale, codes = in_parts(stored[0, 0])
        if not np.isfinite(scale):
            raise Wrong(f"the first two bytes, read as a float16, are {scale}")
        place = state["weight"]
        error = values - scale * (codes - 8.0)
        return BlockResult(
            values=values,
            stored=stored[0, 0],
            scale=float(scale),
            codes=codes,
            weight=place,
            byte=2 + place % HALF,
            half="low" if place < HALF else "high",
            sqnr_db=decibels(float(np.mean(values.astype(np.float64) ** 2)), float(np.mean(error**2))),
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        row, file = figure.subplots(1, 2, width_ratios=[1.25, 1])
        return [*self._build_row(row), *self._build_file(file)]

    def _build_row(self, axes: Axes) -> list[Artist]:
        """The weights of the block, and what comes back of them, in units of the largest."""
        places = np.arange(BLOCK)
        axes.axhline(0, color=palette.THEORY, lw=0.8)
        axes.set(xlim=(-1, BLOCK), ylim=(-1.25, 1.25), xlabel="weight", yticks=[-1, 0, 1], xticks=range(0, BLOCK, 4))
        axes.set_ylabel("of the largest")
        axes.grid(axis="x", visible=False)
        self._levels = [axes.axhline(0, color=palette.GRID, lw=0.8) for _ in range(16)]
        self._here = axes.axvspan(-0.5, 0.5, ymax=0.86, color=palette.WARN, alpha=0.35, lw=0)
        (self._before,) = axes.plot(places, places * 0, "o", ms=6, color=palette.ORIGINAL, label="weights")
        (self._after,) = axes.plot(places, places * 0, "_", ms=11, mew=2.2, color=palette.QUANTIZED, label="come back")
        axes.legend(loc="upper right", ncols=2, fontsize=8, borderaxespad=0.1, handletextpad=0.2)
        self._row_title = axes.set_title(" ")
        return [*self._levels, self._here, self._before, self._after, self._row_title]

    def _build_file(self, axes: Axes) -> list[Artist]:
        """18 cells with a byte each; a frame around the half byte that is pointed at."""
        lines = BYTES // ACROSS
        axes.set(xlim=(-0.1, ACROSS + 0.1), ylim=(lines + 0.35, -0.35), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(False)
        self._digits = []
        for i in range(BYTES):
            x, y = i % ACROSS, i // ACROSS
            color = palette.GOOD if i < 2 else palette.ORIGINAL
            axes.add_patch(Rectangle((x + 0.04, y + 0.12), 0.92, 0.76, fc=color, alpha=0.16, lw=0))
            axes.annotate(f"{i}", (x + 0.5, y + 0.03), ha="center", va="center", fontsize=7, color=palette.THEORY)
            ink = palette.GOOD if i < 2 else palette.INK
            for at in (x + 0.3, x + 0.7):  # the high digit is written first
                text = axes.text(at, y + 0.52, "", ha="center", va="center", fontsize=14, family="monospace", color=ink)
                self._digits.append(text)
        self._frame = axes.add_patch(Rectangle((0, 0), 0.44, 0.7, fc=palette.WARN, ec="none", alpha=0.45))
        axes.annotate("bytes 0 and 1: d, a float16", (0.04, lines + 0.14), fontsize=8.5, color=palette.GOOD,
                      va="center")  # fmt: skip
        axes.annotate("the others: two codes each", (ACROSS - 0.04, lines + 0.14), fontsize=8.5, ha="right",
                      va="center", color=palette.ORIGINAL)  # fmt: skip
        self._file_title = axes.set_title(" ")
        return [self._frame, *self._digits, self._file_title]

    def draw(self, result: BlockResult) -> None:
        unit = float(np.abs(result.values).max()) or 1.0
        for code, line in enumerate(self._levels):
            line.set_ydata([result.scale * (code - 8) / unit] * 2)
        self._before.set_ydata(result.values / unit)
        self._after.set_ydata(result.returned / unit)
        self._here.set_x(result.weight - 0.5)
        zeros = int((result.codes == 8).sum())
        self._row_title.set_text(f"SQNR {db(result.sqnr_db)}; {zeros} of {BLOCK} come back as 0")
        for text, digit in zip(self._digits, result.stored.tobytes().hex()):
            text.set_text(digit)
        x = result.byte % ACROSS + (0.52 if result.half == "low" else 0.06)
        self._frame.set_xy((x, result.byte // ACROSS + 0.15))
        self._file_title.set_text(f"Weight {result.weight}: the {result.half} half of byte {result.byte}")

    def describe(self, result: BlockResult) -> list[tuple[str, str]]:
        value, back = result.values[result.weight], result.returned[result.weight]
        return [
            ("d", f"{result.scale:.4g}"),
            (f"weight {result.weight}", f"{value:.4g}"),
            ("code", f"{result.code}, for {result.code - 8:+d}"),
            ("comes back as", f"{back + 0.0:.4g}"),
            ("its bits", f"{result.half} half of byte {result.byte}"),
            ("SQNR of the block", db(result.sqnr_db)),
            ("bits per weight", f"{8 * BYTES / BLOCK:g}"),
        ]
