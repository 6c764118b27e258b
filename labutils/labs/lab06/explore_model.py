"""Lab 06: a whole network with its linear layers quantized: what it takes, and what it still reads."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils import data, models
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course import palette
from labutils.course.exercise import Wrong
from labutils.course.explorer import Choice, Explorer, Notches, Slider, ask
from labutils.labs import answers
from labutils.labs.lab06.quantize_model import as_module

BITS = range(2, 9)
GROUP_SIZES = (8, 16, 32, 128)
NONE, FIRST, LAST = "none", "first", "last"  # which linear layer stays in float
BATCH = 60  # images at a time, so that activations stay in the processor's cache
SHOWN = (3, 6)  # rows and columns of images whose answer has changed


def explore_model(model: Any, quantize: Callable = answers.quantize_model) -> Explorer:
    """Drag bit width and group size of a network's linear layers, and watch its size and what it reads.

    >>> explorer = explore_model(data.digits_model())
    >>> explorer.result.right, explorer.result.size
    (519, 15576)
    >>> explorer.controls["left"].value = "first"
    >>> explorer.result.right > 530
    True

    `model` is an nn.Module from images (N, 1, 8, 8) of digits to logits (N, 10); it is not changed.
    `quantize(model, convert, skip) -> model` may be a learner's; `convert` is a `models.PackedLinear` of the chosen
    bits and groups. Sizes are bytes of what a file stores. What the course's own function makes of every bit width and
    group size is measured once, when a network is first explored, which takes seconds. TypeError for what is no
    module, ValueError for one without linear layers.
    """
    return ModelExplorer(model, quantize)


@dataclass(frozen=True)
class ModelResult:
    num_bits: int
    group_size: int
    left: str  # none, first or last: the linear layer that stays in float
    replaced: int  # linear layers
    size: int  # bytes stored
    right: int  # images read right
    predictions: np.ndarray  # (images,)
    changed: np.ndarray  # indices of the images whose prediction is not the float model's


class ModelExplorer(Explorer):
    title = "A network of quantized layers: images read wrong against size, and the answers that changed"
    size = (9.0, 3.5)

    def __init__(self, model: Any, quantize: Callable):
        self._names = list(models.linear_layers(model))
        if not self._names:
            raise ValueError(f"{type(model).__name__} has no nn.Linear to quantize")
        self._model, self._quantize = copy.deepcopy(model).eval(), quantize
        self._images, self._labels = data.digits("test")
        self._float_size, self._float = self._measure(self._model)
        self._map = _MAPS.get(self._digest()) or _MAPS.setdefault(self._digest(), self._measure_all())
        # No state is measured twice; those of the course's own function are all on the map.
        own = quantize is answers.quantize_model
        self._measured = dict(self._map) if own else {}
        super().__init__()

    def sliders(self) -> dict[str, Slider | Choice | Notches]:
        return {
            "num_bits": Slider("bits", BITS[0], BITS[-1], 3, hint="bit width of the weights of linear layers"),
            "group_size": Notches("group size", GROUP_SIZES, 32, hint="how many neighbours in a row share a scale"),
            "left": Choice("left in float", (NONE, FIRST, LAST), NONE, hint="the linear layer that is skipped"),
        }

    def compute(self, state: dict[str, Any]) -> ModelResult:
        key = state["num_bits"], state["group_size"], state["left"]
        if key not in self._measured:
            quantized = ask(self._quantize, _read, copy.deepcopy(self._model), *self._arguments(*key))["model"]
            try:
                size, predictions = self._measure(quantized)
            except Exception as error:
                raise Wrong(f"the returned model raised {type(error).__name__}: {error}") from None
            self._measured[key] = size, predictions, self._replaced(quantized)
        size, predictions, replaced = self._measured[key]
        return ModelResult(
            *key,
            replaced=replaced,
            size=size,
            right=self._count_right(predictions),
            predictions=predictions,
            changed=np.flatnonzero(predictions != self._float),
        )

    def build(self, figure: Figure) -> Sequence[Artist]:
        plot, grid = figure.subplots(1, 2, width_ratios=[1.5, 1])
        count = len(self._labels)
        wrong = count - self._count_right(self._float)
        error = math.sqrt(wrong * (1 - wrong / count))
        plot.axhspan(max(0.8, wrong - error), wrong + error, color=palette.ORIGINAL, alpha=0.13, lw=0,
                     label="float ± one standard error")  # fmt: skip
        plot.axhline(max(wrong, 0.8), color=palette.ORIGINAL, lw=1, ls="--")
        for num_bits in BITS:
            line = [(size / 1e3, max(count - right, 0.8)) for size, right in
                    (self._on_map(num_bits, group) for group in GROUP_SIZES)]  # fmt: skip
            plot.plot(*zip(*line), "o-", color=palette.THEORY, ms=3.5, lw=1.1, alpha=0.75)
            plot.annotate(f"{num_bits}", line[0], (0, 6), textcoords="offset points", ha="center", fontsize=8,
                          color=palette.THEORY)  # fmt: skip
        reached = (self._on_map(*state)[0] / 1e3 for state in itertools.product(BITS, GROUP_SIZES))
        sizes = [self._float_size / 1e3, *reached]
        plot.set(xscale="log", xlim=(0.92 * min(sizes), 1.08 * max(sizes)), yscale="log",
                 ylim=(count * 1.15, 0.7 * max(1, wrong - error)), xlabel="size of the stored model (kB)",
                 ylabel=f"images read wrong, of {count}")  # fmt: skip
        plot.set_xticks(*_ticks(*plot.get_xlim()))
        plot.set_yticks(*_ticks(1, count))
        plot.minorticks_off()
        plot.plot([self._float_size / 1e3], [max(wrong, 0.8)], "s", ms=7, color=palette.ORIGINAL)
        plot.annotate("float", (self._float_size / 1e3, max(wrong, 0.8)), (0, -14), textcoords="offset points",
                      ha="center", fontsize=9, color=palette.ORIGINAL)  # fmt: skip
        (self._here,) = plot.plot([], [], "o", ms=9, mfc=palette.QUANTIZED, mec=palette.PAPER, mew=1.2)
        plot.legend(loc="lower right", fontsize=8)
        self._plot_title = plot.set_title(" ")
        return [self._here, self._plot_title, *self._build_grid(grid)]

    def _build_grid(self, grid: Any) -> list[Artist]:
        """Places for images whose answer has changed, in one picture, with the answers before and after over each."""
        rows, columns = SHOWN
        grid.set_anchor("N")
        grid.set(xlim=(0, 10 * columns), ylim=(13 * rows, 0), xticks=[], yticks=[], aspect="equal")
        grid.spines[:].set_visible(False)
        grid.grid(False)
        self._canvas_of_images = np.ones((13 * rows, 10 * columns))
        self._gallery = grid.imshow(self._canvas_of_images, cmap="gray", vmin=0, vmax=1,
                                    extent=(0, 10 * columns, 13 * rows, 0))  # fmt: skip
        self._answers = [
            grid.text(10 * c + 5, 13 * r + 3.4, "", ha="center", va="bottom", fontsize=8.5, color=palette.QUANTIZED)
            for r, c in np.ndindex(rows, columns)
        ]
        self._grid_title = grid.set_title(" ")
        return [self._gallery, *self._answers, self._grid_title]

    def draw(self, result: ModelResult) -> None:
        count = len(self._labels)
        self._here.set_data([result.size / 1e3], [max(count - result.right, 0.8)])
        times = self._float_size / result.size
        self._plot_title.set_text(f"{result.right} of {count} read right, {times:.1f} times smaller than float")
        sheet = np.ones_like(self._canvas_of_images)
        for text in self._answers:
            text.set_text("")
        places = np.ndindex(SHOWN)
        for text, (r, c), i in zip(self._answers, places, result.changed, strict=False):
            sheet[13 * r + 4 : 13 * r + 12, 10 * c + 1 : 10 * c + 9] = 1 - self._images[i, 0]
            text.set_text(f"{self._float[i]} → {result.predictions[i]}")
        self._gallery.set_data(sheet)
        some = f", the first {math.prod(SHOWN)}" if len(result.changed) > math.prod(SHOWN) else ""
        self._grid_title.set_text(f"{_count(len(result.changed), 'changed answer')}{some}")

    def describe(self, result: ModelResult) -> list[tuple[str, str]]:
        count = len(self._labels)
        return [
            ("bits", f"{result.num_bits}"),
            ("group size", f"{result.group_size}"),
            ("left in float", {NONE: "nothing", FIRST: self._names[0], LAST: self._names[-1]}[result.left]),
            ("layers replaced", f"{result.replaced} of {len(self._names)}"),
            ("size", f"{result.size / 1e3:.1f} kB (float: {self._float_size / 1e3:.1f} kB)"),
            ("read right", f"{result.right} of {count} (float: {self._count_right(self._float)})"),
            ("same answer as float", f"{count - len(result.changed)} of {count}"),
        ]

    def note(self, result: ModelResult) -> str:
        count = len(self._labels)
        p = self._count_right(self._float) / count
        return (
            f"One image is {100 / count:.1f} percentage points, and one standard error of the float model's count is "
            f"{math.sqrt(count * p * (1 - p)):.1f} images: differences of a few images are noise."
        )

    # --- measuring ---

    def _arguments(self, num_bits: int, group_size: int, left: str) -> tuple[Callable, tuple[str, ...]]:
        """The arguments `convert` and `skip` for a state."""
        scheme = Scheme(num_bits, granularity=PerGroup(group_size))
        skip = {NONE: (), FIRST: self._names[:1], LAST: self._names[-1:]}[left]
        return (lambda linear: models.PackedLinear(linear, scheme)), tuple(skip)

    def _measure(self, model: Any) -> tuple[int, np.ndarray]:
        """Bytes stored, and the predicted digit of each image."""
        import torch

        with torch.no_grad():
            batches = torch.from_numpy(self._images).split(BATCH)
            predictions = torch.cat([model(batch).argmax(dim=1) for batch in batches]).numpy()
        return sum(tensor.nbytes for tensor in model.state_dict().values()), predictions

    def _measure_all(self) -> dict[tuple[int, int, str], tuple[int, np.ndarray, int]]:
        """State -> (bytes, predictions, layers replaced) of the course's own function, for every state."""
        reached = {}
        for state in itertools.product(BITS, GROUP_SIZES, (NONE, FIRST, LAST)):
            quantized = answers.quantize_model(self._model, *self._arguments(*state))
            reached[state] = *self._measure(quantized), self._replaced(quantized)
        return reached

    def _on_map(self, num_bits: int, group_size: int) -> tuple[int, int]:
        size, predictions, _ = self._map[num_bits, group_size, NONE]
        return size, self._count_right(predictions)

    def _count_right(self, predictions: np.ndarray) -> int:
        return int(np.count_nonzero(predictions == self._labels))

    def _replaced(self, model: Any) -> int:
        """How many of the places that held an nn.Linear hold another kind of module now."""
        from torch import nn

        found = dict(model.named_modules(remove_duplicate=False))
        return sum(name in found and type(found[name]) is not nn.Linear for name in self._names)

    def _digest(self) -> str:
        whole = hashlib.sha256(repr(self._model).encode())
        for tensor in self._model.state_dict().values():
            whole.update(tensor.numpy().tobytes())
        return whole.hexdigest()


_MAPS: dict[str, dict] = {}  # a network's digest -> its `_measure_all`, kept for the next explorer of the same network


def _ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Round numbers for a logarithmic axis, and how they are written."""
    ticks = [digit * 10**power for power in range(5) for digit in (1, 2, 3, 5, 7) if low <= digit * 10**power <= high]
    return ticks, [f"{tick}" for tick in ticks]


def _read(value: Any) -> dict:
    return {"model": as_module(value)}


def _count(number: int, noun: str) -> str:
    return f"{number or 'No'} {noun}" + ("" if number == 1 else "s")
