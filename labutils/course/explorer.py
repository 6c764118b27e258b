"""`Explorer`: sliders, a picture that follows them, and a readout of the numbers.

A subclass has five methods: `sliders` names the controls, `build` makes axes and artists once, `compute` turns a state
into a result, `draw` updates the artists and `describe` puts the result into words.

The picture is matplotlib's Agg canvas in an Image widget. Everything that never moves is drawn once and kept as a
bitmap; an update restores it, draws the moving artists over it and encodes a PNG. That is several times faster than
drawing the whole figure, and never flickers.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
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
from labutils.course.compat import view
from labutils.course.controls import Choice, Notches, Slider
from labutils.course.exercise import Wrong
from labutils.course.reading import error_text, read_answer
from labutils.course.shown import Shown, Undone

DPI = 108  # 972 pixels for 900 on the page: sharp enough, and more pixels would take longer to draw
TIME_LIMIT = 2.0  # seconds for the learner's function in one update


class TitledImage(widgets.Image):
    """An image with a title, since ipywidgets' images have no alt text.

    ipywidgets makes `tooltip` the title, and its JavaScript fails for widgets without a `description`.
    """

    description = Unicode("").tag(sync=True)
    tooltip = Unicode("").tag(sync=True)


class Explorer:
    """Base class: a picture that follows its sliders.

    controls  name -> widget; setting `.controls["num_bits"].value` has the effect of a drag
    result    of the last `compute`, or None where the learner's function failed
    readout   the HTML widget with the numbers behind the picture
    picture   the Image widget with the PNG
    """

    size = (9.0, 3.3)  # inches
    title = ""  # says in a few words what the picture shows; part of its alt text

    def __init__(self) -> None:
        self.controls = {name: slider.widget() for name, slider in self.sliders().items()}
        self.picture = TitledImage(
            format="png",
            tooltip=f"{self.title}. The numbers stand below.",
            layout={"width": "calc(100% - 4px)", "max_width": "900px"},  # a widget has a margin of 2 pixels
        )
        self.readout = widgets.HTML()
        with palette.look():
            self._build_figure()
        self.widget = widgets.VBox(
            [widgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"}), self.picture, self.readout]
        )
        self.update()
        self._initial = self.picture.value, self._text
        for control in self.controls.values():
            control.observe(lambda change: self.update(), names="value")

    def _build_figure(self) -> None:
        """Make the figure, and keep a bitmap of everything in it that does not move."""
        self._figure = Figure(figsize=self.size, dpi=DPI, layout="constrained")
        self._canvas = FigureCanvasAgg(self._figure)
        self._moving = list(self.build(self._figure))
        for artist in self._moving:
            artist.set_animated(True)
            # The layout leaves room for moving titles, but not for other artists, which are still empty.
            artist.set_in_layout(isinstance(artist, Text))
        self._figure.get_layout_engine().set(w_pad=palette.MARGIN, h_pad=palette.MARGIN)
        self._canvas.draw()
        self._figure.set_layout_engine("none")
        self._background = self._canvas.copy_from_bbox(self._figure.bbox)

    # Implemented by each explorer.

    def sliders(self) -> dict[str, Slider | Choice | Notches]:
        """The controls by name."""
        raise NotImplementedError

    def build(self, figure: Figure) -> Sequence[Artist]:
        """Make the axes and artists; return the artists that move."""
        raise NotImplementedError

    def compute(self, state: dict[str, Any]) -> Any:
        """Return the numbers behind the picture. Pure; raises Wrong where the learner's function fails."""
        raise NotImplementedError

    def draw(self, result: Any) -> None:
        """Update the moving artists."""
        raise NotImplementedError

    def describe(self, result: Any) -> list[tuple[str, str]]:
        """Return (name, value) pairs for the readout."""
        raise NotImplementedError

    def note(self, result: Any) -> str:
        """Return a remark to show below the numbers, or ""."""
        return ""

    # Common to all explorers.

    @property
    def state(self) -> dict[str, Any]:
        """The values of the controls by name."""
        return {name: control.value for name, control in self.controls.items()}

    def update(self) -> None:
        """Compute and show the current state. An error of the learner's function is shown in the readout."""
        try:
            result = self._computed(self.state)
        except Wrong as wrong:
            self.show_error(wrong)
        else:
            self.show(result)

    def shown(self, state: dict[str, Any]) -> Shown:
        """What a state looks like, computed to the end. Neither the controls nor what is on the screen change.

        >>> from labutils import explore_digit
        >>> explore_digit(7).shown({"num_bits": 2}).cells[0]
        ('bits', '2')
        """
        try:
            return self._shown(self._computed(state))
        except Wrong as wrong:
            return self._shown_error(wrong)

    def still(self) -> bytes:
        """A PNG of what never moves."""
        return self._render([])

    def show(self, result: Any, busy: bool = False) -> None:
        """Draw and describe a result; `busy` says that a more complete one is being computed."""
        self.result = result
        self._put(self._shown(result), busy)

    def show_error(self, wrong: Wrong) -> None:
        """Say in the readout what the learner's function did, under a picture without what moves."""
        self.result = None
        self._put(self._shown_error(wrong))

    def _computed(self, state: dict[str, Any]) -> Any:
        with np.errstate(all="ignore"):  # a learner's absurd scale is shown, not warned about
            return self.compute(state)

    def _shown(self, result: Any) -> Shown:
        self.draw(result)
        return Shown(self._render(self._moving), tuple(self.describe(result)), self.note(result))

    def _shown_error(self, wrong: Wrong) -> Shown:
        return Shown(self.still(), wrong=wrong)

    def _put(self, shown: Shown, busy: bool = False) -> None:
        self._text = shown.text(self.title)
        self.picture.value, self.readout.value = shown.png, shown.html(busy)

    def _render(self, artists: Sequence[Artist]) -> bytes:
        """A PNG of the background with these artists drawn over it."""
        self._canvas.restore_region(self._background)
        for artist in artists:
            self._figure.draw_artist(artist)
        png = io.BytesIO()
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB").save(png, "PNG", compress_level=1)
        return png.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        """The widget, and the picture and text of the first state, for pages that are shown without a kernel."""
        png, text = self._initial
        data = view(self.widget) | {"image/png": base64.b64encode(png).decode(), "text/plain": text}
        return data, {"image/png": {"alt": text}}

    def __repr__(self) -> str:
        return self._text


def ask(function: Callable, read: Callable[[Any], dict], *args: Any, limits: int = 1) -> dict:
    """Call a learner's function and read its answer as its check does; Wrong says why there is no answer.

    limits    how many time limits the call may take, where its arguments are large
    """

    def call(function: Callable, *args: Any) -> guard.Outcome:
        return guard.call(function, *args, time_limit=limits * TIME_LIMIT)

    copies = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in args]  # it may write into its arguments
    outcome = call(function, *copies)
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
