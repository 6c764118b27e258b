"""Static figures of the labs: in the course's colours, sharp on every screen, and with alt text."""

from __future__ import annotations

import base64
import io
import textwrap
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from labutils.course import palette

CSS_PIXELS = 96  # per inch, on the page
SHARPNESS = 1.5  # image pixels per CSS pixel


def new_figure(width: float = 8.5, height: float = 3.0, columns: int = 1, **subplots: Any) -> tuple[Figure, Any]:
    """Return a figure in the course's colours, and its axes (an array of them for more than one column).

    >>> figure, (left, right) = new_figure(columns=2)

    `width` and `height` are in inches; `subplots` is passed to `Figure.subplots`. It uses neither pyplot nor the
    global rcParams, so that it neither depends on the learner's own matplotlib settings nor changes them.
    """
    with palette.look():
        figure = Figure(figsize=(width, height), dpi=CSS_PIXELS * SHARPNESS, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=palette.MARGIN, h_pad=palette.MARGIN)
        return figure, figure.subplots(1, columns, **subplots)


def wrapped(text: str, width: int, lines: int) -> str:
    """`text` in lines of `width` characters, at most `lines` of them; what a font may lack becomes a box.

    >>> wrapped("a little girl", 8, 2)
    'a little\\ngirl'
    """
    plain = "".join(c if _has_glyph(c) else " " if c.isspace() else "□" for c in text)
    return "\n".join(textwrap.wrap(plain, width, max_lines=lines, placeholder=" …"))


def _has_glyph(character: str) -> bool:
    return character.isprintable() and (ord(character) < 0x250 or character == "…")


class Picture:
    """A finished figure with alt text, a sentence that says what it shows. A cell that ends in one displays it."""

    def __init__(self, figure: Figure, alt: str):
        if not alt.strip():
            raise ValueError("a picture needs a text: alt must say what it shows")
        self.alt = alt
        _style_titles_and_legends(figure)
        png = io.BytesIO()
        with palette.look():
            figure.savefig(png, format="png", metadata={"Software": None})
        self.png = png.getvalue()
        self._width = round(figure.get_figwidth() * CSS_PIXELS)

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data = {"image/png": base64.b64encode(self.png).decode(), "text/plain": self.alt}
        return data, {"image/png": {"alt": self.alt, "width": self._width}}

    def __repr__(self) -> str:
        return self.alt


def _style_titles_and_legends(figure: Figure) -> None:
    """Apply the palette to them again: matplotlib takes their style from the settings in force when they are made."""
    for axes in figure.axes:
        title = axes.get_title()
        if title:
            axes.set_title("")
            axes.set_title(title, loc="left", weight="bold", size=palette.RC["axes.titlesize"])
        if legend := axes.get_legend():
            legend.set_frame_on(False)
