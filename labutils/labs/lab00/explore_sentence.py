"""explore_sentence: what a language model makes of one sentence, at fewer and fewer bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labutils import data
from labutils.course import palette
from labutils.course.explorer import Explorer, Notches
from labutils.course.figures import wrapped

WIDTH, LINES = 78, 2  # characters in a line of the picture, lines of a continuation


def explore_sentence() -> Explorer:
    """Drag the bits of a language model's weights, and read how it goes on with a sentence.

    >>> explorer = explore_sentence()
    >>> explorer.controls["num_bits"].value = 3
    >>> explorer.result.text
    ' a little sugar, and a little sugar, and a little sugar, and a little sugar, and'

    The model of lab 12 wrote these texts beforehand (`data.continuations`): nothing is downloaded.
    """
    return SentenceExplorer(data.continuations())


@dataclass(frozen=True)
class SentenceResult:
    num_bits: int
    text: str  # with which the prompt is continued
    megabytes: int  # of the weights, with their scales


class SentenceExplorer(Explorer):
    title = "One sentence, continued by a language model in few bits"
    size = (9.0, 3.6)

    def __init__(self, told: dict[str, Any]):
        self._told = told
        self._rows = {row["bits"]: row for row in told["continuations"]}
        super().__init__()

    def sliders(self) -> dict[str, Notches]:
        bits = tuple(self._rows)
        return {"num_bits": Notches("bits", bits, bits[0], hint="bit width of the model's weights")}

    def compute(self, state: dict[str, Any]) -> SentenceResult:
        row = self._rows[state["num_bits"]]
        return SentenceResult(row["bits"], row["text"], row["megabytes"])

    def build(self, figure: Figure) -> Sequence[Artist]:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(-len(self._rows) + 0.35, 1.1))
        self._title = axes.set_title(" ")
        axes.text(0.09, 0.7, self._told["prompt"] + " …", fontsize=13, weight="bold", va="center")
        axes.text(1, 0.7, "the weights take", color=palette.THEORY, va="center", ha="right")
        self._lines = {bits: self._build_row(axes, -place, bits) for place, bits in enumerate(self._rows)}
        return [self._title, *(artist for line in self._lines.values() for artist in line)]

    def _build_row(self, axes: Axes, y: float, bits: int) -> list[Artist]:
        """What is shown of one bit width: its name, the text, and what the weights take."""
        text = wrapped("… " + self._rows[bits]["text"].strip(), WIDTH, LINES)
        return [
            axes.text(0, y, f"{bits} bits", weight="bold", va="center"),
            axes.text(0.09, y, text, fontsize=12, va="center", linespacing=1.3),
            axes.text(1, y, f"{self._rows[bits]['megabytes']} MB", va="center", ha="right"),
        ]

    def draw(self, result: SentenceResult) -> None:
        self._title.set_text(f"A language model with its weights in {result.num_bits} bits")
        for bits, line in self._lines.items():
            for artist in line:
                artist.set_visible(bits >= result.num_bits)
                artist.set_color(palette.QUANTIZED if bits == result.num_bits else palette.THEORY)

    def describe(self, result: SentenceResult) -> list[tuple[str, str]]:
        return [
            ("bits", f"{result.num_bits}"),
            ("it goes on with", " ".join(result.text.split())),
            ("the weights take", f"{result.megabytes} MB"),
        ]
