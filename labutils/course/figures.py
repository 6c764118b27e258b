"""Pictures in the labs: one palette, sharp on every screen, with a text for those who do not see them."""

from __future__ import annotations

import base64
import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from labutils.course import palette

CSS_PIXELS = 96  # to an inch, on the page
SHARPNESS = 1.5  # image pixels to a CSS pixel


def new_figure(width: float = 8.5, height: float = 3.0, columns: int = 1, **subplots: Any) -> tuple[Figure, Any]:
    """A figure in the course's colours and its axes (an array of them for more than one column).

    >>> figure, (left, right) = new_figure(columns=2)

    `width` and `height` are in inches; `subplots` goes to `Figure.subplots`. No pyplot and no global state: what a
    learner does with matplotlib changes nothing here, and nothing here changes theirs.
    """
    with palette.look():
        figure = Figure(figsize=(width, height), dpi=CSS_PIXELS * SHARPNESS, layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(w_pad=palette.MARGIN, h_pad=palette.MARGIN)
        return figure, figure.subplots(1, columns, **subplots)


class Picture:
    """A finished figure with `alt`, what it shows in a sentence. As a cell's last line it displays itself."""

    def __init__(self, figure: Figure, alt: str):
        if not alt.strip():
            raise ValueError("a picture needs a text: alt must say what it shows")
        self.alt = alt
        _dress(figure)
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


def _dress(figure: Figure) -> None:
    """What matplotlib decides when a title or legend is made, decided for all of them here."""
    for axes in figure.axes:
        title = axes.get_title()
        if title:
            axes.set_title("")
            axes.set_title(title, loc="left", weight="bold", size=palette.RC["axes.titlesize"])
        if legend := axes.get_legend():
            legend.set_frame_on(False)
