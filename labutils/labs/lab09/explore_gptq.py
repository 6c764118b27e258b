"""Lab 09: GPTQ stopped at any column: where the errors are, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from labutils.arrays.affine import fake_quantize
from labutils.arrays.inputs import whole_number
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Explorer, Notches, Slider, ask
from labutils.labs import answers
from labutils.labs.contract import read_scaled
from labutils.labs.values import float_array, require_drawable_codes

BITS = (2, 3, 4, 6)
DAMPINGS = (0.001, 0.01, 0.1, 1.0, 10.0)
ROWS = 24  # of the weight that are rounded and drawn
STOPS = 64  # columns at which the cursor stops, at most
SHADES = LinearSegmentedColormap.from_list("error", [palette.ORIGINAL, palette.PAPER, palette.QUANTIZED])


def explore_gptq(
    weight: Any, hessian: Any, quantize: Callable = answers.gptq_quantize, group_size: int = 32
) -> Explorer:
    """Stop GPTQ at any column of a layer, and see where the errors are and what they cost, beside rounding to nearest.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 32)) + 0.3 * rng.normal(size=(200, 32))
    >>> explorer = explore_gptq(rng.normal(size=(16, 32)), 2 * x.T @ x)
    >>> explorer.controls["column"].value = 32  # all columns are rounded
    >>> round(explorer.result.lost / explorer.result.lost_nearest, 1), round(explorer.result.moved, 1)
    (0.1, 1.4)

    `weight` (N, K) and `hessian` (K, K) are NumPy arrays or torch tensors; 24 rows of the weight are looked at.
    `quantize(weight, hessian, num_bits, group_size, damping) -> (q, scales)` may be a learner's, and gets tensors.
    `.result.lost` is the outputs' squared error with the columns so far rounded and the others updated, and
    `.result.moved` how large the errors of the weights are beside those of rounding to nearest. TypeError or ValueError
    for arrays that do not belong together.
    """
    return GPTQExplorer(weight, hessian, quantize, whole_number(group_size, "group_size", least=1))


@dataclass(frozen=True)
class Run:
    """GPTQ of one bit width and damping, at each stop of the cursor."""

    states: np.ndarray  # (S, N, K): the weights, those so far rounded, the others updated; less the original ones
    lost: np.ndarray  # (S,) the outputs' squared error
    lost_nearest: np.ndarray  # (S,) with the columns so far rounded to nearest, the others as they were


@dataclass(frozen=True)
class GPTQResult:
    column: int  # so many are rounded
    num_bits: int
    damping: float
    stop: int
    run: Run
    step: float  # mean scale of rounding to nearest: what errors are measured in
    moved: float  # root mean square of all weights' errors so far, beside that of rounding to nearest at the end

    @property
    def lost(self) -> float:
        return float(self.run.lost[self.stop])

    @property
    def lost_nearest(self) -> float:
        return float(self.run.lost_nearest[self.stop])


class GPTQExplorer(Explorer):
    title = "Errors of a layer's weights while GPTQ goes from column to column, and what the outputs lose"
    size = (9.0, 3.5)

    def __init__(self, weight: Any, hessian: Any, quantize: Callable, group_size: int):
        weight, self._h = float_array(weight, "weight"), float_array(hessian, "hessian").astype(np.float64)
        if weight.ndim != 2 or self._h.shape != (weight.shape[1],) * 2:
            raise ValueError(
                f"weight must have two axes and hessian a row and a column for each of its inputs, got shapes "
                f"{weight.shape} and {self._h.shape}"
            )
        if not (self._h.diagonal() > 0).any():
            raise ValueError("hessian must have a positive diagonal entry: without inputs no error costs anything")
        self._w = np.ascontiguousarray(weight[:: max(1, len(weight) // ROWS)][:ROWS])
        self._quantize, self._group_size = quantize, group_size
        length = self._w.shape[1]
        self._stops = sorted({round(stop) for stop in np.linspace(0, length, min(length, STOPS) + 1)})
        self._power = float(np.sum((self._w @ self._h) * self._w)) / 2 or 1.0
        self._nearest = {bits: fake_quantize(self._w, self._scheme(bits)).astype(np.float64) for bits in BITS}
        self._factors: dict[float, np.ndarray] = {}
        self._runs: dict[tuple[int, float], Run] = {}
        super().__init__()

    def _scheme(self, num_bits: int) -> Scheme:
        return Scheme(num_bits, granularity=PerGroup(self._group_size))

    def sliders(self) -> dict[str, Slider | Notches]:
        start = self._stops[round(0.39 * (len(self._stops) - 1))]
        return {
            "column": Notches("columns rounded", self._stops, start, hint="how far GPTQ has come"),
            "num_bits": Notches("bits", BITS, 3, hint="bit width of the weights"),
            "damping": Notches("damping", DAMPINGS, 0.01, hint="what is added to the diagonal, as a part of its mean"),
        }

    def compute(self, state: dict[str, Any]) -> GPTQResult:
        column, bits, damping = state["column"], state["num_bits"], state["damping"]
        run = self._run(bits, damping)
        stop = self._stops.index(column)
        nearest = self._nearest[bits] - self._w
        return GPTQResult(
            column=column,
            num_bits=bits,
            damping=damping,
            stop=stop,
            run=run,
            step=float(np.sqrt(12 * np.mean(nearest**2))),
            moved=float(np.sqrt(np.mean(run.states[stop] ** 2) / np.mean(nearest**2))),
        )

    def _run(self, num_bits: int, damping: float) -> Run:
        """Kept once it was asked for: the cursor moves through it without another call of the learner's function."""
        if (num_bits, damping) not in self._runs:
            back = self._asked(num_bits, damping)
            if damping not in self._factors:
                damped = self._h + damping * self._h.diagonal().mean() * np.eye(len(self._h))
                self._factors[damping] = np.linalg.cholesky(np.linalg.inv(damped)).T
            states = _states(self._w.astype(np.float64), back, self._factors[damping], self._stops)
            until = np.arange(self._w.shape[1]) < np.asarray(self._stops)[:, None, None]
            nearest = np.where(until, self._nearest[num_bits] - self._w, 0.0)
            self._runs[num_bits, damping] = Run(states, self._losses(states), self._losses(nearest))
        return self._runs[num_bits, damping]

    def _asked(self, num_bits: int, damping: float) -> np.ndarray:
        """What the learner's codes stand for."""
        import torch

        given = torch.from_numpy(self._w.copy()), torch.from_numpy(self._h).float()
        answer = ask(self._quantize, read_scaled, *given, num_bits, self._group_size, damping)
        q, scales = answer["q"], answer["scales"]
        require_drawable_codes(self._w, q, "weight")
        shape = len(q), -(-q.shape[1] // self._group_size)
        if scales.shape != shape:
            raise Wrong(f"scales has shape {scales.shape}, and should have {shape}")
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise Wrong(f"scales go from {scales.min():g} to {scales.max():g}, and should be positive numbers")
        return q * np.repeat(scales, self._group_size, axis=1)[:, : q.shape[1]]

    def _losses(self, errors: np.ndarray) -> np.ndarray:
        """(S, N, K) -> (S,) 1/2 tr(E H E^T), as a part of what the outputs are."""
        return np.sum((errors @ self._h) * errors, axis=(1, 2)) / 2 / self._power

    def build(self, figure: Figure) -> Sequence[Artist]:
        field, loss = figure.subplots(1, 2, width_ratios=[1.25, 1])
        rows, length = self._w.shape
        field.grid(False)
        field.set(xlim=(0, length), ylim=(rows, 0), yticks=[], xlabel="column of the weight", ylabel="row")
        self._image = field.imshow(
            np.zeros((rows, length)), cmap=SHADES, vmin=-1, vmax=1, aspect="auto", interpolation="nearest",
            extent=(0, length, rows, 0),
        )  # fmt: skip
        figure.colorbar(self._image, ax=field, pad=0.02, label="error in steps", ticks=[-1, 0, 1], extend="both")
        self._cursor = field.axvline(0, color=palette.INK, lw=1.6)
        self._field_title = field.set_title(" ")
        loss.set(
            xlim=(-0.02 * length, 1.02 * length),
            xlabel="columns rounded",
            ylabel="lost of the output (%)",
            yscale="log",
        )
        self._loss = loss
        losses = [100 * self._losses((self._nearest[bits] - self._w)[None])[0] for bits in BITS]
        least, most = min(filter(None, losses), default=1.0) / 100, 3 * max(losses)
        loss.set_ylim(least or 1e-6, most or 1)
        (self._nearest_line,) = loss.plot([], [], "-", color=palette.THEORY, lw=1.8, label="to nearest")
        (self._line,) = loss.plot([], [], "-", color=palette.QUANTIZED, lw=2.2, label="errors passed on")
        (self._rest,) = loss.plot([], [], "-", color=palette.QUANTIZED, lw=1.2, alpha=0.35)
        (self._nearest_dot,) = loss.plot([], [], "o", ms=7, color=palette.THEORY, mec=palette.PAPER)
        (self._dot,) = loss.plot([], [], "o", ms=8, color=palette.QUANTIZED, mec=palette.PAPER)
        self._here = loss.axvline(0, color=palette.INK, lw=1.0, alpha=0.5)
        loss.legend(loc="lower right", fontsize=8)
        self._loss_title = loss.set_title(" ")
        return [self._image, self._cursor, self._field_title, self._here, self._nearest_line, self._rest, self._line,
                self._nearest_dot, self._dot, self._loss_title]  # fmt: skip

    def draw(self, result: GPTQResult) -> None:
        stop, run, column = result.stop, result.run, result.column
        self._image.set_data(run.states[stop] / result.step)
        for line in (self._cursor, self._here):
            line.set_xdata([column, column])
        left, right = _sizes(result)
        length = self._w.shape[1]
        if column == 0:
            told = "Nothing is rounded yet"
        elif column == length:
            told = f"All columns rounded: off by {left:.2f} steps"
        else:
            told = f"Off by {left:.2f} steps left, {right:.2f} right of the cursor"
        self._field_title.set_text(told)
        self._nearest_line.set_data(self._stops, 100 * run.lost_nearest)
        self._line.set_data(self._stops[: stop + 1], 100 * run.lost[: stop + 1])
        self._rest.set_data(self._stops[stop:], 100 * run.lost[stop:])
        self._nearest_dot.set_data([column], [100 * result.lost_nearest])
        self._dot.set_data([column], [100 * result.lost])
        self._loss_title.set_text(_comparison(result.lost, result.lost_nearest))

    def describe(self, result: GPTQResult) -> list[tuple[str, str]]:
        left, right = _sizes(result)
        return [
            ("columns rounded", f"{result.column} of {self._w.shape[1]}"),
            ("bits", f"{result.num_bits}"),
            ("damping", f"{result.damping:g}"),
            ("error of rounded columns", f"{left:.2f} steps"),
            ("of those to come", f"{right:.2f} steps"),
            ("lost of the outputs", f"{100 * result.lost:.2g}%"),
            ("to nearest", f"{100 * result.lost_nearest:.2g}%"),
            ("all errors of the weights", f"{result.moved:.2f} × to nearest's"),
        ]


def _states(w: np.ndarray, back: np.ndarray, factor: np.ndarray, stops: Sequence[int]) -> np.ndarray:
    """(S, N, K): what the weights have become at each stop, less `w`, with columns replaced by those of `back`."""
    now, states = w.copy(), []
    for j in range(w.shape[1] + 1):
        if j in stops:
            states.append(now - w)
        if j < w.shape[1]:
            error = (now[:, j] - back[:, j]) / factor[j, j]
            now[:, j + 1 :] -= np.outer(error, factor[j, j + 1 :])
            now[:, j] = back[:, j]
    return np.stack(states)


def _sizes(result: GPTQResult) -> tuple[float, float]:
    """Root mean square error of the columns that are rounded, and of those to come, in steps."""
    steps = result.run.states[result.stop] / result.step
    parts = steps[:, : result.column], steps[:, result.column :]
    return tuple(float(np.sqrt(np.mean(part**2))) if part.size else 0.0 for part in parts)


def _comparison(lost: float, lost_nearest: float) -> str:
    if not lost or not lost_nearest:
        return "Nothing is lost yet"
    factor = lost_nearest / lost
    return f"Outputs lose {max(factor, 1 / factor):.1f} times {'less' if factor > 1 else 'more'}"
