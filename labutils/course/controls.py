"""The controls of explorers, as data from which their ipywidgets are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets

from labutils.course.compat import TOOLTIP

SLIDER_LAYOUT = {"width": "340px", "max_width": "100%"}


@dataclass(frozen=True)
class Slider:
    """A slider over a range: of whole numbers, or of floats if `step` is a float."""

    label: str
    low: float
    high: float
    start: float
    step: float = 1
    hint: str = ""

    def widget(self) -> widgets.Widget:
        kind = widgets.IntSlider if isinstance(self.step, int) else widgets.FloatSlider
        return kind(value=self.start, min=self.low, max=self.high, step=self.step, layout=SLIDER_LAYOUT, **_text(self))


@dataclass(frozen=True)
class Choice:
    """A row of buttons, one of which is pressed. Its value is that button's text."""

    label: str
    options: tuple[str, ...]
    start: str
    hint: str = ""

    def widget(self) -> widgets.Widget:
        layout = {"width": "max-content", "max_width": "100%", "margin": "2px 20px 2px 2px"}  # room before the next
        buttons = widgets.ToggleButtons(value=self.start, options=self.options, layout=layout, **_text(self))
        buttons.style.button_width = "auto"
        buttons.add_class("widget-inline-hbox")  # puts the label beside the buttons, as it is with sliders
        return buttons


@dataclass(frozen=True)
class Notches:
    """A slider over a few values, such as powers of two."""

    label: str
    options: Sequence[Any]
    start: Any
    hint: str = ""

    def widget(self) -> widgets.Widget:
        options = list(self.options)
        return widgets.SelectionSlider(value=self.start, options=options, layout=SLIDER_LAYOUT, **_text(self))


def _text(control: Slider | Choice | Notches) -> dict[str, Any]:
    """The widget's label, shown in full, and its tooltip."""
    tooltip = {TOOLTIP: control.hint or control.label}
    return {"description": control.label, "style": {"description_width": "initial"}} | tooltip
