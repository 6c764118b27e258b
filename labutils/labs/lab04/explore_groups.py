"""explore_groups: how many neighbours share a scale, and what that costs in bits per weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils.arrays.scheme import Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer, Notches, Slider, ask
from labutils.labs import answers
from labutils.labs.contract import read_scaled
from labutils.labs.values import db, decibels, float_array, require_drawable_codes

BITS = range(2, 9)
GROUP_SIZES = (16, 32, 64, 128, 256)
WINDOW = 512  # columns of the row that is drawn: two of the largest groups
MAP_SIZE = 2**20  # values on which the settings not chosen are measured; the one chosen is measured on all


def explore_groups(w: Any, quantize: Callable = answers.quantize_group) -> Explorer:
    """Drag bit width and group size, and watch scales fit their groups, and what they cost in bits per weight.

    >>> explorer = explore_groups(np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32))
    >>> explorer.controls["group_size"].value = 32
    >>> explorer.result.bits_per_weight
    4.5

    `w` is a NumPy array or torch tensor of floats; groups lie along its last axis.
    `quantize(w, num_bits, group_size) -> (q, scales)` may be a learner's. Scales count 16 bits. The row that is drawn
    holds the largest magnitude. A group is spoilt if more than half of its weights become 0. TypeError or ValueError
    for a `w` that cannot be quantized.
    """
    return GroupsExplorer(w, quantize)


@dataclass(frozen=True)
class GroupsResult:
    num_bits: int
    group_size: int
    scales: np.ndarray  # (groups,) of the window
    codes: np.ndarray  # (columns,) of the window
    num_scales: int  # of the whole matrix
    zeros: float  # which share of all codes is 0
    spoilt: int  # how many groups have lost more than half of their weights to 0
    spoilt_seen: np.ndarray  # (groups,) of the window: which of them
    bits_per_weight: float  # counted: codes and scales over weights
    sqnr_db: float
    theory_db: float  # scale^2 / 12, averaged over the groups


class GroupsExplorer(Explorer):
    title = "A row in groups, each with a scale of its own, and quality against bits per weight"
    size = (9.0, 3.3)

    def __init__(self, w: Any, quantize: Callable):
        self._w = _rows_of(w)
        self._quantize = quantize
        length = self._w.shape[1]
        self._row, peak = np.unravel_index(np.argmax(np.abs(self._w)), self._w.shape)
        start = min(peak // max(GROUP_SIZES) * max(GROUP_SIZES), max(0, length - WINDOW))
        start -= start % max(GROUP_SIZES)  # a window that cut a group in two would hide what sets its scale
        self._window = slice(int(start), int(min(start + WINDOW, length)))
        self._unit = float(np.abs(self._w[self._row, peak]))
        self._power = _mean_square(self._w / self._unit)
        sample = self._w[:: max(1, math.ceil(self._w.size / MAP_SIZE))]
        self._map = {
            (num_bits, size): _measured(sample, *answers.quantize_group(sample, num_bits, size), size, self._unit)
            for num_bits in BITS
            for size in GROUP_SIZES
        }
        self._map_power = _mean_square(sample / self._unit)
        self._alive = self._w != 0  # a weight that was 0 before is not lost
        super().__init__()

    def sliders(self) -> dict[str, Slider | Notches]:
        return {
            "num_bits": Slider("bits", BITS[0], BITS[-1], 4, hint="bit width of a code"),
            "group_size": Notches("group size", GROUP_SIZES, 128, hint="how many neighbours in a row share a scale"),
        }

    def compute(self, state: dict[str, Any]) -> GroupsResult:
        num_bits, size = state["num_bits"], state["group_size"]
        q, scales = _grouped(self._quantize, self._w, num_bits, size)
        first, last = self._window.start // size, -(-self._window.stop // size)
        starts = np.arange(0, self._w.shape[1], size)
        sizes = np.diff(np.append(starts, self._w.shape[1]))
        spoilt = 2 * np.add.reduceat((q == 0) & self._alive, starts, axis=1, dtype=np.int32) > sizes
        squared_scales = np.mean(np.square(scales / self._unit, dtype=np.float64), axis=0)
        return GroupsResult(
            num_bits=num_bits,
            group_size=size,
            scales=scales[self._row, first:last],
            codes=q[self._row, self._window],
            num_scales=scales.size,
            zeros=1 - np.count_nonzero(q) / q.size,
            spoilt=int(np.count_nonzero(spoilt)),
            spoilt_seen=spoilt[self._row, first:last],
            bits_per_weight=num_bits + 16 * scales.size / q.size,
            sqnr_db=decibels(self._power, _measured(self._w, q, scales, size, self._unit)),
            theory_db=decibels(self._power, float(sizes @ squared_scales) / sizes.sum() / 12),
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        row, front = figure.subplots(1, 2, width_ratios=[1.5, 1])
        columns = np.arange(self._window.start, self._window.stop)
        values = self._w[self._row, self._window]
        reach = 4.5 * float(np.median(np.abs(values)))  # three standard deviations of a Gaussian
        reach = max(reach, float(np.abs(values).max()) / 30)
        self._reach = reach
        row.set(xlim=(columns[0] - 1, columns[-1] + 1), ylim=(-1.28 * reach, reach))
        row.set(xlabel=f"column, in row {self._row}", ylabel="weight")
        row.grid(False)
        edges = np.array([columns[0], columns[-1] + 1]) - 0.5
        self._spans = row.stairs([0.0], edges, baseline=[0.0], fill=True, color=palette.WARN, alpha=0.22, lw=0,
                                 label="reach of its grid")  # fmt: skip
        self._dead = row.stairs([0.0], edges, baseline=[0.0], fill=True, color=palette.QUANTIZED, alpha=0.45, lw=0,
                                label="becomes 0")  # fmt: skip
        self._edges = row.vlines([], -reach, reach, color=palette.INK, lw=0.5, alpha=0.35)
        inside = np.where(np.abs(values) <= reach, values, np.nan)
        look = {"ms": 2.4, "mew": 0, "color": palette.ORIGINAL}
        row.plot(columns, inside, "o", **look, label="weights")  # there before anything is quantized,
        (self._dots,) = row.plot(columns, inside, "o", **look)  # and once more above the bands
        self._beyond = [
            row.plot(out, np.full(out.shape, side * reach * 0.97), mark, ms=5, mew=0, color=palette.ORIGINAL)[0]
            for side, mark, out in (
                (1, "^", columns[values > reach]),
                (-1, "v", columns[values < -reach]),
            )
        ]
        peak = columns[np.argmax(np.abs(values))]
        largest = float(self._w[self._row, peak])
        self._peak = row.annotate(
            f"{largest:.2g}" if abs(largest) > reach else "", (peak, math.copysign(reach, largest)),
            (6, math.copysign(11, -largest)), textcoords="offset points", va="center", fontsize=9, weight="bold",
            color=palette.ORIGINAL,
        )  # fmt: skip
        (self._spoilt,) = row.plot([], [], "x", ms=7, mew=2, color=palette.INK, label="spoilt group")
        row.legend(loc="lower center", ncols=4, fontsize=8, handlelength=1.2, columnspacing=1.0, borderpad=0.1)
        self._row_title = row.set_title(" ")
        levels = {key: decibels(self._map_power, noise) for key, noise in self._map.items()}
        finite = [level for level in levels.values() if math.isfinite(level)]
        for num_bits in BITS:
            line = [(answers.bits_per_weight(num_bits, size), levels[num_bits, size]) for size in GROUP_SIZES]
            front.plot(*zip(*line), "o-", color=palette.THEORY, ms=3.5, lw=1.1, alpha=0.75)
            front.annotate(f"{num_bits}", line[-1], (-5, 5), textcoords="offset points", ha="right", va="center",
                           fontsize=8, color=palette.THEORY)  # fmt: skip
        front.set(xlim=(1.6, 9.4), ylim=(min(finite) - 4, max(finite) + 6), xlabel="bits per weight, scales counted",
                  ylabel="SQNR (dB)")  # fmt: skip
        (self._here,) = front.plot([], [], "o", ms=9, mfc=palette.QUANTIZED, mec=palette.PAPER, mew=1.2)
        self._front_title = front.set_title(" ")
        return [self._spans, self._dead, self._edges, self._dots, *self._beyond, self._peak,
                self._spoilt, self._row_title, self._here, self._front_title]  # fmt: skip

    def draw(self, result: GroupsResult) -> None:
        start, stop = self._window.start, self._window.stop
        edges = np.append(np.arange(start, stop, result.group_size), stop) - 0.5
        span = np.minimum(result.scales * Scheme(result.num_bits).quant_max, self._reach)
        dead = np.minimum(result.scales / 2, self._reach)
        self._spans.set_data(span, edges, baseline=-span)
        self._dead.set_data(dead, edges, baseline=-dead)
        self._edges.set_segments([[(edge, -self._reach), (edge, self._reach)] for edge in edges[1:-1]])
        middles = ((edges[:-1] + edges[1:]) / 2)[result.spoilt_seen]
        self._spoilt.set_data(middles, np.full(middles.shape, -0.86 * self._reach))
        self._row_title.set_text(
            f"Groups of {result.group_size}: {np.count_nonzero(result.spoilt_seen)} of {len(edges) - 1} here are spoilt"
        )
        self._here.set_data([result.bits_per_weight], [result.sqnr_db])
        self._front_title.set_text(f"{db(result.sqnr_db)} for {result.bits_per_weight:.2f} bits per weight")

    def describe(self, result: GroupsResult) -> list[tuple[str, str]]:
        count = self._w.size
        return [
            ("bits", f"{result.num_bits}"),
            ("group size", f"{result.group_size}"),
            ("scales", f"{result.num_scales}, 16 bits each"),
            ("bits per weight", f"{result.bits_per_weight:.3f}"),
            ("memory", f"{count * result.bits_per_weight / 8000:.0f} kB (float32: {count * 4 / 1000:.0f} kB)"),
            ("SQNR", f"{db(result.sqnr_db)} (Δ²/12: {db(result.theory_db)})"),
            ("weights that become 0", f"{result.zeros:.1%} of all"),
            ("spoilt groups", f"{result.spoilt} of {result.num_scales} ({result.spoilt / result.num_scales:.2%})"),
        ]


def _rows_of(w: Any) -> np.ndarray:
    """`w` as a (rows, columns) float array; raises for what cannot be quantized."""
    w = float_array(w, "w")
    if w.ndim == 0 or w.shape[-1] < 2:
        raise ValueError(f"w needs rows of at least two values, got shape {w.shape}")
    if not w.any():
        raise ValueError(f"w needs values that are not all zero, got shape {w.shape}")
    return w.reshape(-1, w.shape[-1])


def _grouped(quantize: Callable, w: np.ndarray, num_bits: int, group_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales from a learner's function, or Wrong where they could not be drawn."""
    answer = ask(quantize, read_scaled, w, num_bits, group_size)
    q, scales = answer["q"], answer["scales"]
    wanted = (w.shape[0], -(-w.shape[1] // group_size))
    require_drawable_codes(w, q, "w")
    if scales.shape != wanted:
        raise Wrong(f"scales has shape {scales.shape}, and should have {wanted}: a scale for each group of each row")
    if not (scales > 0).all() or not np.isfinite(scales).all():
        raise Wrong("scales holds something that is not a positive number")
    return q, scales


def _mean_square(x: np.ndarray) -> float:
    flat = x.reshape(-1)
    return float(np.dot(flat, flat)) / flat.size


def _measured(w: np.ndarray, q: np.ndarray, scales: np.ndarray, group_size: int, unit: float) -> float:
    """The mean squared error of codes, in squared `unit`s; tile by tile, so that nothing large is made on the way."""
    rows, length = w.shape
    step, total = max(1, 2**16 // length), 0.0
    scales = (scales / unit).astype(w.dtype)
    for start in range(0, rows, step):
        piece = slice(start, start + step)
        error = np.repeat(scales[piece], group_size, axis=1)[:, :length]
        error = error * q[piece]
        error -= w[piece] / w.dtype.type(unit)
        total += float(np.dot(error.reshape(-1), error.reshape(-1)))
    return total / w.size
