"""Operate the explorers of a notebook in a browser with mouse and keyboard, and read what they show.

>>> for explorer in explorers(notebook):
...     for control in explorer.controls():
...         control.drag(upwards=True)
...         control.step(upwards=False)
...     print(explorer.readout())
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from playwright.sync_api import Locator

from tools.browser import Notebook

# (down, up) by application. Notebook 7 handles the arrow keys itself, to move between headings.
KEYS = {"lab": ("ArrowLeft", "ArrowRight"), "notebook": ("PageDown", "PageUp")}
WIDGET = "application/vnd.jupyter.widget-view+json"


def widgets(notebook: Notebook) -> Iterator[tuple[int, dict]]:
    """The index of every code cell that shows a widget, and its output's data by MIME type."""
    for cell in notebook.cells():
        for output in cell["outputs"]:
            if WIDGET in output.get("data", {}):
                yield cell["index"], output["data"]


def explorers(notebook: Notebook) -> Iterator[Explorer]:
    """Every explorer of a notebook, scrolled into view. Explorers are the widgets with a PNG in their output."""
    for index, data in widgets(notebook):
        if "image/png" in data:
            yield Explorer(notebook, notebook.output(index))


@dataclass(frozen=True)
class Explorer:
    """An explorer in `area`, the output of a cell."""

    notebook: Notebook
    area: Locator

    def controls(self) -> list[Slider | Buttons]:
        rows = self.area.locator(".widget-slider, .widget-toggle-buttons").all()
        return [(Slider if row.locator(".noUi-handle").count() else Buttons)(self.notebook, row) for row in rows]

    def readout(self) -> str:
        return self.area.locator("[role=status]").last.inner_text()

    def picture(self) -> str:
        """A digest of the picture: equal for equal pixels."""
        return self.area.locator("img.widget-image").evaluate(
            """async (image) => {
                await image.decode();
                const bytes = await (await fetch(image.src)).arrayBuffer();
                const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
                return `${image.naturalWidth} pixels wide: ${digest.toHex?.() ?? Array.from(digest)}`;
            }"""
        )


@dataclass(frozen=True)
class Control:
    """A control of an explorer, in `row`. Its methods return when the kernel has answered."""

    notebook: Notebook
    row: Locator

    def label(self) -> str:
        return self.row.locator(".widget-label").inner_text()

    def is_high(self) -> bool:
        """Whether the control is in the upper half of its range."""
        return self.position() > sum(self.ends()) / 2


class Slider(Control):
    @property
    def _handle(self) -> Locator:
        return self.row.locator(".noUi-handle")

    def _aria(self, which: str) -> float:
        return float(self._handle.get_attribute(f"aria-value{which}"))

    def position(self) -> float:
        return self._aria("now")

    def ends(self) -> tuple[float, float]:
        return self._aria("min"), self._aria("max")

    def drag(self, upwards: bool) -> None:
        """Drag it fast with the mouse to one end and a little beyond."""
        self._handle.scroll_into_view_if_needed()
        handle, track = self._handle.bounding_box(), self.row.locator(".noUi-base").bounding_box()
        height, mouse = handle["y"] + handle["height"] / 2, self.notebook.page.mouse
        mouse.move(handle["x"] + handle["width"] / 2, height)
        mouse.down()
        mouse.move(track["x"] + (track["width"] + 20 if upwards else -20), height, steps=5)
        mouse.up()
        self.notebook.settle()

    def step(self, upwards: bool) -> None:
        """Move it with the keyboard: one step in JupyterLab, several in Notebook 7."""
        self._handle.press(KEYS[self.notebook.application][upwards])
        self.notebook.settle()


class Buttons(Control):
    """A row of buttons, one of which is pressed; its index is the position."""

    @property
    def _all(self) -> Locator:
        return self.row.locator("button")

    def position(self) -> int:
        return self._all.evaluate_all("buttons => buttons.findIndex(button => button.matches('.mod-active'))")

    def ends(self) -> tuple[int, int]:
        return 0, self._all.count() - 1

    def drag(self, upwards: bool) -> None:
        """Click the last or the first button."""
        (self._all.last if upwards else self._all.first).click()
        self.notebook.settle()

    def step(self, upwards: bool) -> None:
        """Press the next or the previous button with the keyboard."""
        self._all.nth(self.position() + (1 if upwards else -1)).press("Enter")
        self.notebook.settle()
