"""A quantized model on one page: its bytes, bits, speed and quality, and what is still float.

It stands here and not beside the formats, because it draws: rooms below know no panels and figures. What it counts is
counted there (`models.inventory`, `formats.inventory`).
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import nn

from labutils.arrays.inputs import real_number
from labutils.course import palette
from labutils.course.figures import Picture, new_figure
from labutils.course.panel import Panel, escape, frame, table
from labutils.formats.inventory import file_inventory
from labutils.models.evaluation.side_by_side import side_by_side
from labutils.models.footprint import model_bytes
from labutils.models.inventory import Part, inventory

Quality = Callable[[nn.Module], float]

FLOAT_BITS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}
MEGABYTE = MILLION = 1e6
HEAD = ("part", "held as", "values", "MB", "bits each", "in float because")
NUMBERS = (2, 3, 4)  # columns of them
LABELLED, NARROW = 0.03, 0.2  # of the figure's width: no room for a name; for a name written across
CHARACTERS = 100  # in the whole width


@dataclass(frozen=True)
class ReportCard:
    """What `report_card` found: shown as a table and a figure in a notebook, printed as text elsewhere.

    parts         as `inventory` returns them
    float_bytes   of the model in float
    speed         how many times as fast as the float model, or None
    quality       name -> value, as it is shown
    """

    name: str
    parts: Sequence[Part]
    float_bytes: int
    speed: float | None = None
    quality: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not self.values:
            raise ValueError(f"{self.name} holds no values: there is nothing to report")

    @property
    def nbytes(self) -> int:
        """Bytes of the whole model."""
        return sum(part.nbytes for part in self.parts)

    @property
    def values(self) -> int:
        """How many weights it has, and other numbers."""
        return sum(part.values for part in self.parts)

    @property
    def bits_per_weight(self) -> float:
        """Of all values, those in float included."""
        return 8 * self.nbytes / self.values

    @property
    def quantized_bits(self) -> float:
        """Bits for each value of what is quantized, scales counted."""
        quantized = [part for part in self.parts if part.is_quantized]
        return 8 * sum(part.nbytes for part in quantized) / max(1, sum(part.values for part in quantized))

    @property
    def facts(self) -> dict[str, str]:
        """The numbers in words."""
        share = f"{self.nbytes / self.float_bytes:.0%} of {megabytes(self.float_bytes)} in float"
        quantized = f"of what is quantized {self.quantized_bits:.2f}" if self.quantized_bits else "nothing is quantized"
        facts = {
            "bytes": f"{megabytes(self.nbytes)}, {share}",
            "bits per weight": f"{self.bits_per_weight:.2f}; {quantized}",
        }
        if self.speed is not None:
            facts["speed"] = f"{self.speed:.2f} times that of the float model"
        return facts | dict(self.quality)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table: a row for each part."""
        return [
            (p.kind, p.form, f"{p.values:,}", _digits(p.nbytes), f"{p.bits:.2f}" if p.values else "-", p.why or "-")
            for p in self.parts
        ]

    @property
    def text(self) -> str:
        """The card as plain text."""
        facts = [f"  {name + ':':<17}{value}" for name, value in self.facts.items()]
        return "\n".join([self.name, *facts, "", *_aligned([HEAD, *self.rows])])

    @property
    def figure(self) -> Picture:
        """Values across, bits upwards: areas are bytes."""
        return draw(self)

    @property
    def html(self) -> str:
        """The facts and the table, without the figure."""
        facts = table([(f"<b>{escape(name)}</b>", escape(value)) for name, value in self.facts.items()])
        head = tuple(f"<b>{escape(cell)}</b>" for cell in HEAD)
        parts = table([head, *(tuple(map(escape, row)) for row in self.rows)])
        return frame(escape(self.name), facts + parts)

    def _repr_html_(self) -> str:
        """The whole card, with its figure within: it can be saved as a page."""
        figure = self.figure
        png = f"data:image/png;base64,{base64.b64encode(figure.png).decode()}"
        return f'{self.html}<img alt="{escape(figure.alt)}" style="width:100%;max-width:820px" src="{png}">'

    def _ipython_display_(self) -> None:
        """In a notebook the figure is an output of its own: a picture in its format, not text in a page."""
        from IPython.display import display

        display(Panel(self.html, self.text))
        display(self.figure)

    def __repr__(self) -> str:
        return self.text


def report_card(
    model: nn.Module,
    reference: nn.Module | None = None,
    run: Callable[[nn.Module], Any] | None = None,
    quality: Quality | Mapping[str, Quality] | None = None,
    name: str = "",
) -> ReportCard:
    """What a quantized model takes and gives: bytes, bits per weight, speed, quality, and what is in float and why.

    >>> from labutils.models import quantize_model
    >>> model = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 256, bias=False))
    >>> report_card(quantize_model(model), model)
    Sequential
      bytes:           0.043 MB, 47% of 0.091 MB in float
      bits per weight: 15.10; of what is quantized 8.50
    <BLANKLINE>
    part           held as                                        values     MB  bits each  in float because
    linear layers  int8, a scale for each row, scales in float32  16,384  0.017       8.50  -
    embeddings     float32                                         6,400  0.026      32.00  looked up, not multiplied

    reference  the model in float: it gives the bytes before, and what speed and quality are compared with. Without it,
               the bytes before are those of all values in the dtype of the rest
    run        model -> its output (a tensor, an array, or what transformers returns), such as
               `lambda model: model(ids)`: run alternately on both models, it gives the speed and, as quality, the
               cosine between their outputs
    quality    a function of a model, or several: {"perplexity": lambda model: ...}. The card has its value for `model`,
               and for `reference` in brackets

    Both models in eval mode: dropout would count as error. Speed is a ratio by the clock (see `side_by_side`): say of
    which machine. TypeError for what is no model; ValueError for a model without values, and for `run` alone.
    """
    parts = inventory(model)
    before = _in_float(parts) if reference is None else model_bytes(reference)
    speed, measured = None, {}
    if run is not None:
        if reference is None:
            raise ValueError("run compares two models: reference must be the model in float, got None")
        speed, cosine = side_by_side(model, reference, run)
        measured["cosine to float"] = f"{cosine:.4f}"
    given = {"quality": quality} if callable(quality) else quality or {}
    measured |= {what: _of_both(what, function, model, reference) for what, function in given.items()}
    return ReportCard(name or type(model).__name__, parts, before, speed, measured)


def file_report_card(path: Path | str) -> ReportCard:
    """The card of a folder or a .gguf file, of which no more is read than what its headers say.

    >>> file_report_card("all-MiniLM-L6-v2-W4A16").nbytes  # doctest: +SKIP
    53872032
    """
    parts = file_inventory(path)
    return ReportCard(Path(path).resolve().name, parts, _in_float(parts))


def _in_float(parts: Sequence[Part]) -> int:
    """Bytes if all values were in the dtype of most that are in float."""
    in_float = [part for part in parts if part.form in FLOAT_BITS]
    most = max(in_float, key=lambda part: part.values, default=None)
    return sum(part.values for part in parts) * (32 if most is None else FLOAT_BITS[most.form]) // 8


def _of_both(what: str, function: Callable[[nn.Module], float], model: nn.Module, reference: nn.Module | None) -> str:
    value = f"{real_number(function(model), what):.4g}"
    return value if reference is None else f"{value} (float: {real_number(function(reference), what):.4g})"


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(card: ReportCard) -> Picture:
    """Values across, bits for each of them upwards: areas are bytes, and the frame is the float model."""
    figure, axes = new_figure(height=3.6)
    before, left = 8 * card.float_bytes / card.values, 0.0
    axes.add_patch(Rectangle((0, 0), 1, before, facecolor=palette.GRID, edgecolor="none"))
    for part in card.parts:
        if part.values:
            width = part.values / card.values
            colour = palette.QUANTIZED if part.is_quantized else palette.ORIGINAL
            axes.add_patch(Rectangle((left, 0), width, part.bits, facecolor=colour, edgecolor=palette.PAPER))
            if width > LABELLED:
                _label(axes, part, left + width / 2, width, before)
            left += width
    if (saved := card.float_bytes - card.nbytes) > 0:
        axes.text(0.01, 0.97 * before, f"saved: {megabytes(saved)}", va="top", color=palette.THEORY, size=9.5)
    axes.set(
        xlim=(0, 1),
        ylim=(0, before),
        ylabel="bits for each value",
        xlabel=f"{_millions(card.values)} million values (an area is a number of bytes)",
    )
    axes.set_xticks(ticks := [0, 0.25, 0.5, 0.75, 1], [f"{tick:.0%}" for tick in ticks])
    axes.set_title(_message(card))
    axes.grid(False)
    rows = "; ".join(f"{part.kind} {megabytes(part.nbytes)}, {part.form}" for part in card.parts)
    return Picture(figure, f"{_message(card)}. {rows}.")


def _label(axes: Axes, part: Part, x: float, width: float, before: float) -> None:
    """A part's name and size: within it where it is high enough, else above it; upright where it is narrow."""
    is_narrow = width < NARROW
    lines = [part.kind, *textwrap.wrap(part.form, int(CHARACTERS * width)), megabytes(part.nbytes)]
    text = f"{part.kind}, {megabytes(part.nbytes)}" if is_narrow else "\n".join(lines)
    is_inside = part.bits > 0.6 * before
    y, colour = (part.bits / 2, palette.PAPER) if is_inside else (part.bits + 0.03 * before, palette.INK)
    place = {"ha": "center", "va": "center" if is_inside else "bottom", "rotation": 90 if is_narrow else 0}
    axes.text(x, y, text, color=colour, size=9.5, **place)


def _message(card: ReportCard) -> str:
    """The sentence above the figure: what came out, and what most of it is."""
    most = max(card.parts, key=lambda part: part.nbytes)
    share, form = f"{most.nbytes / card.nbytes:.0%}", most.form.partition(",")[0]
    return f"{megabytes(card.float_bytes)} became {megabytes(card.nbytes)}; {share} of that is {most.kind} in {form}"


def _millions(values: int) -> str:
    return f"{values / MILLION:.3g}"


def megabytes(nbytes: int) -> str:
    """Bytes in megabytes of 10^6.

    >>> megabytes(90_276_096), megabytes(8192)
    ('90.3 MB', '0.008 MB')
    """
    return f"{_digits(nbytes)} MB"


def _digits(nbytes: int) -> str:
    """Megabytes, to three digits and to a kilobyte."""
    size = nbytes / MEGABYTE
    return f"{size:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as text in columns: numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(_cell(*pair, place) for place, pair in enumerate(zip(row, widths))).rstrip() for row in rows]


def _cell(text: str, width: int, place: int) -> str:
    return text.rjust(width) if place in NUMBERS else text.ljust(width)
