"""Sliders, a picture and a readout: what every explorer has.

An explorer says what it is by four methods: `controls`, `build` (the axes and artists, once), `compute` (state ->
result, pure) and `draw` (moves the artists), and `describe` puts the numbers into words. The rest is here.

The picture is matplotlib's Agg canvas in an Image widget. What never moves is drawn once and kept as a bitmap; an
update restores it, draws the moving artists over it and encodes a PNG. That is several times faster than drawing the
figure anew, and never flickers.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from traitlets import Unicode

from labutils.course import guard, palette
from labutils.course.compat import TOOLTIP, view
from labutils.course.exercise import Wrong
from labutils.course.panel import escape, frame, prose
from labutils.course.reading import error_text, read_answer

DPI = 108  # 972 pixels for 900 on the page: sharp enough, and fewer pixels are drawn sooner
TIME_LIMIT = 2.0  # seconds a learner's function may take for one update


@dataclass(frozen=True)
class Slider:
    """One control: a range of whole numbers, or of floats where `step` is one."""

    label: str
    low: float
    high: float
    start: float
    step: float = 1
    hint: str = ""

    def widget(self) -> widgets.Widget:
        kind = widgets.IntSlider if isinstance(self.step, int) else widgets.FloatSlider
        return kind(
            value=self.start,
            min=self.low,
            max=self.high,
            step=self.step,
            description=self.label,
            **{TOOLTIP: self.hint or self.label},
            style={"description_width": "initial"},
            layout={"width": "340px", "max_width": "100%"},
        )


@dataclass(frozen=True)
class Choice:
    """One control: a row of buttons, of which one is pressed. The state holds its label."""

    label: str
    options: tuple[str, ...]
    start: str
    hint: str = ""

    def widget(self) -> widgets.Widget:
        buttons = widgets.ToggleButtons(
            value=self.start,
            options=self.options,
            description=self.label,
            **{TOOLTIP: self.hint or self.label},
            style={"description_width": "initial", "button_width": "auto"},
            layout={"width": "max-content", "max_width": "100%"},
        )
        buttons.add_class("widget-inline-hbox")  # the label beside the buttons, as it stands beside a slider
        return buttons


@dataclass(frozen=True)
class Notches:
    """One control: a slider that stops at a few values only, such as powers of two."""

    label: str
    options: Sequence[Any]
    start: Any
    hint: str = ""

    def widget(self) -> widgets.Widget:
        return widgets.SelectionSlider(
            options=list(self.options),
            value=self.start,
            description=self.label,
            **{TOOLTIP: self.hint or self.label},
            style={"description_width": "initial"},
            layout={"width": "340px", "max_width": "100%"},
        )


class TitledImage(widgets.Image):
    """An image with a title, which takes the place of the alt text that ipywidgets' images lack.

    ipywidgets makes a title of `tooltip` only for widgets that have a description; without one its JavaScript fails.
    """

    description = Unicode("").tag(sync=True)
    tooltip = Unicode("").tag(sync=True)


class Undone(Wrong):
    """The learner's function is still the stub: nothing to complain about."""


class Explorer:
    """A picture that follows its sliders.

    controls  name -> widget; set `.controls["num_bits"].value` to drag from code
    result    what the last update computed, or None where the learner's function gave nothing that could be drawn
    readout   the HTML widget with the numbers; its text says the same as the picture
    picture   the Image widget with the PNG
    """

    size = (9.0, 3.3)  # inches
    title = ""  # what the picture shows, in a few words, for those who do not see it

    def __init__(self) -> None:
        self.controls = {name: slider.widget() for name, slider in self.sliders().items()}
        self.picture = TitledImage(
            format="png",
            tooltip=f"{self.title}. The numbers stand below.",
            layout={"width": "calc(100% - 4px)", "max_width": "900px"},  # a widget has a margin of 2 pixels
        )
        self.readout = widgets.HTML()
        with palette.look():
            self._figure = Figure(figsize=self.size, dpi=DPI, layout="constrained")
            self._canvas = FigureCanvasAgg(self._figure)
            self._moving = list(self.build(self._figure))
            for artist in self._moving:
                artist.set_animated(True)
                artist.set_in_layout(
                    isinstance(artist, Text)
                )  # titles need room; what is still empty must not take any
            self._figure.get_layout_engine().set(w_pad=palette.MARGIN, h_pad=palette.MARGIN)
            self._canvas.draw()
            self._figure.set_layout_engine("none")
            self._still = self._canvas.copy_from_bbox(self._figure.bbox)
        self.widget = widgets.VBox(
            [widgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"}), self.picture, self.readout]
        )
        self.update()
        self._first = self.picture.value, self._text
        for control in self.controls.values():
            control.observe(lambda change: self.update(), names="value")

    # What an explorer says of itself.

    def sliders(self) -> dict[str, Slider | Choice | Notches]:
        raise NotImplementedError

    def build(self, figure: Figure) -> Sequence[Artist]:
        """Make axes and artists; return those that move."""
        raise NotImplementedError

    def compute(self, state: dict[str, Any]) -> Any:
        """The numbers behind the picture. Pure; raises Wrong where the learner's function fails."""
        raise NotImplementedError

    def draw(self, result: Any) -> None:
        """Move the artists."""
        raise NotImplementedError

    def describe(self, result: Any) -> list[tuple[str, str]]:
        """(name, value) pairs for the readout."""
        raise NotImplementedError

    def note(self, result: Any) -> str:
        """A remark under the numbers, or nothing."""
        return ""

    # What all explorers do.

    @property
    def state(self) -> dict[str, Any]:
        return {name: control.value for name, control in self.controls.items()}

    def update(self) -> None:
        """Compute, draw and describe the present state. Nothing that a learner's function does escapes from here."""
        try:
            with np.errstate(
                all="ignore"
            ):  # a scale out of all proportion is the learner's to see, not to be warned of
                self.result = self.compute(self.state)
        except Wrong as wrong:
            self.result = None
            self._text = f"{self.title}: {wrong}"
            self.picture.value = self._render([])
            self.readout.value = frame(f"{prose(str(wrong))}.", "", "plain" if isinstance(wrong, Undone) else "bad")
            return
        self.draw(self.result)
        self.picture.value = self._render(self._moving)
        cells, note = self.describe(self.result), self.note(self.result)
        self._text = f"{self.title}: " + ", ".join(f"{name} {value}" for name, value in cells)
        self.readout.value = _strip(cells) + (f'<div style="opacity:.85">{prose(note)}</div>' if note else "")

    def _render(self, artists: Sequence[Artist]) -> bytes:
        self._canvas.restore_region(self._still)
        for artist in artists:
            self._figure.draw_artist(artist)
        png = io.BytesIO()
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB").save(png, "PNG", compress_level=1)
        return png.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """The widget, and beside it picture and text of the first state for where no kernel runs."""
        png, text = self._first
        data = view(self.widget) | {"image/png": base64.b64encode(png).decode(), "text/plain": text}
        return data, {"image/png": {"alt": text}}

    def __repr__(self) -> str:
        return self._text


def ask(function: Callable, read: Callable[[Any], dict], *args: Any) -> dict:
    """What a learner's function answers, read as its check reads it; Wrong says why there is no answer."""

    def call(function: Callable, *args: Any) -> guard.Outcome:
        return guard.call(function, *args, time_limit=TIME_LIMIT)

    own = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]  # it may write into what it is given
    outcome = call(function, *own)
    name = getattr(function, "__name__", "your function")
    if outcome.undone:
        raise Undone(f"`{name}` is not done yet: once it is, the sliders run it")
    if outcome.timed_out:
        raise Wrong(f"`{name}` gave {outcome.error}")
    if outcome.error is not None:
        raise Wrong(f"`{name}` raised {call(error_text, outcome.error).value}")
    try:
        return read_answer(read, outcome.value, call)
    except Wrong as wrong:
        raise Wrong(f"`{name}`: {wrong}") from None


def _strip(cells: list[tuple[str, str]]) -> str:
    """The numbers side by side, name above value."""
    inner = "".join(
        f'<div><div style="font-size:85%;opacity:.75">{escape(name)}</div>'
        f'<div style="font-weight:600;font-variant-numeric:tabular-nums">{escape(value)}</div></div>'
        for name, value in cells
    )
    return (
        '<div role="status" aria-live="polite" style="display:flex;flex-wrap:wrap;gap:4px 28px;line-height:1.35;'
        f'margin:2px 0 6px 4px">{inner}</div>'
    )
