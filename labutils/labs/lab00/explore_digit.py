"""explore_digit: a digit, and a network that reads it, at fewer and fewer bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from labutils import data
from labutils.arrays.affine import fake_quantize
from labutils.arrays.inputs import whole_number
from labutils.arrays.scheme import Scheme
from labutils.course import palette
from labutils.course.explorer import Explorer, Slider

BITS = range(2, 9)


def explore_digit(index: int = 0) -> Explorer:
    """Drag one bit width over a handwritten digit of the test set, and over the weights of the network that reads it.

    >>> explorer = explore_digit(0)
    >>> explorer.controls["num_bits"].value = 2
    >>> explorer.result.grey_levels
    4

    `index` is the digit's place in the test set, 0 to 539.
    """
    return DigitExplorer(index)


@cache
def quantized_weights(num_bits: int) -> dict[str, np.ndarray]:
    """The network's weights rounded to `num_bits`, one scale a tensor; biases stay as they are."""
    scheme = Scheme(num_bits)
    weights = data.digits_network().weights
    return {name: fake_quantize(w, scheme) for name, w in weights.items() if name.endswith(".weight")}


@cache
def accuracy(num_bits: int) -> float:
    return data.digits_network().accuracy(quantized_weights(num_bits))


@dataclass(frozen=True)
class DigitResult:
    num_bits: int
    image: np.ndarray  # (8, 8), on the grid
    grey_levels: int
    probabilities: np.ndarray  # (10,)
    accuracy: float  # of the network on all test images, with its weights at num_bits

    @property
    def read_as(self) -> int:
        return int(self.probabilities.argmax())


class DigitExplorer(Explorer):
    title = "A digit and the network that reads it, at few bits"
    size = (9.0, 2.9)

    def __init__(self, index: int):
        images, labels = data.digits("test")
        place = whole_number(index, "index")
        if not 0 <= place < len(images):
            raise ValueError(f"index must be between 0 and {len(images) - 1}, got {place}")
        self._image, self._label = images[place, 0], int(labels[place])
        for num_bits in BITS:  # all test images at every bit width, a second now, so that no drag has to wait for it
            accuracy(num_bits)
        super().__init__()

    def sliders(self) -> dict[str, Slider]:
        return {"num_bits": Slider("bits", BITS[0], BITS[-1], 8, hint="bit width of pixels and weights")}

    def compute(self, state: dict[str, Any]) -> DigitResult:
        num_bits = state["num_bits"]
        image = fake_quantize(self._image, Scheme(num_bits, symmetric=False))  # pixels are never negative: lab 02
        logits = data.digits_network().logits(image[None, None], quantized_weights(num_bits))[0]
        odds = np.exp(logits - logits.max())
        return DigitResult(num_bits, image, 2**num_bits, odds / odds.sum(), accuracy(num_bits))

    def build(self, figure: Figure) -> Sequence[Artist]:
        before, after, chart = figure.subplots(1, 3, width_ratios=[1, 1, 1.7])
        look = {"cmap": "gray_r", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
        before.imshow(self._image, **look)
        before.set_title("the original, float32")
        self._picture = after.imshow(self._image, **look)
        self._after_title = after.set_title(" ")
        for axes in (before, after):
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(True)
        self._bars = chart.bar(range(10), np.zeros(10), color=palette.ORIGINAL)
        chart.set(ylim=(0, 1), xticks=range(10), xlabel=f"digit (this is a {self._label})", ylabel="probability")
        chart.grid(False, axis="x")
        self._chart_title = chart.set_title(" ")
        frame = after.spines.values()  # redrawn above the picture, which would cover half of each line
        return [self._picture, *frame, self._after_title, *self._bars, self._chart_title]

    def draw(self, result: DigitResult) -> None:
        self._picture.set_data(result.image)
        self._after_title.set_text(f"{result.num_bits} bits: {result.grey_levels} greys")
        for digit, bar in enumerate(self._bars):
            bar.set_height(result.probabilities[digit])
            right = digit == self._label
            chosen = digit == result.read_as
            bar.set_color(palette.GOOD if right else palette.QUANTIZED if chosen else palette.ORIGINAL)
        sure = result.probabilities.max()
        self._chart_title.set_text(f"weights at {result.num_bits} bits: reads a {result.read_as} ({sure:.0%} sure)")

    def describe(self, result: DigitResult) -> list[tuple[str, str]]:
        values = sum(w.size for w in quantized_weights(result.num_bits).values())
        return [
            ("bits", f"{result.num_bits}"),
            ("the network reads", f"{result.read_as} ({result.probabilities.max():.0%})"),
            ("right on all 540 test images", f"{result.accuracy:.1%}"),
            ("its weights take", f"{values * result.num_bits / 8 / 1000:.1f} kB (float32: {values * 4 / 1000:.1f} kB)"),
        ]
