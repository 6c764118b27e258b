"""Explorers in JupyterLab in a headless browser: the time from a key press, and from the end of a drag, to the update.

All times are measured in the page. They start at the time stamp of the event and end when the page has the readout's
new text and has decoded the new picture.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
from playwright.sync_api import Locator, Page

from benchmarks import THREADS
from benchmarks.explorer import NAMES, SIZE
from tools.browser import find_browser, notebook_in_browser

ROOT = Path(__file__).resolve().parents[1]
PRESSES = 20  # per control
DRAGS = 2  # per slider, over its whole range, alternately up and down
STEPS = 30  # mouse positions in one drag
PAUSE = 60  # milliseconds between an update and the next key press
CONTROLS = ".widget-slider, .widget-toggle-buttons"
SETUP = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from benchmarks.explorer import opened"

WATCH = """
(area) => {
    const image = area.querySelector('img'), readout = area.querySelector('.widget-html-content');
    const seen = window.seen = {key: 0, release: 0, readout: 0, picture: 0};
    const note = name => event => { seen[name] = event.timeStamp };
    area.addEventListener('keydown', note('key'), true);
    document.addEventListener('pointerup', note('release'), true);
    new MutationObserver(() => { seen.readout = performance.now() })
        .observe(readout, {childList: true, subtree: true, characterData: true});
    new MutationObserver(() => {
        image.decode().then(() => { seen.picture = performance.now() }, () => {});  // refused: the next one has come
    }).observe(image, {attributes: true, attributeFilter: ['src']});
    window.shown = async () =>
        readout.innerHTML + new Uint8Array(await (await fetch(image.src)).arrayBuffer()).join();
}
"""
ANSWERED = "() => Math.min(seen.readout, seen.picture) > seen.key"
STILL = """
() => performance.now() - Math.max(seen.release, seen.readout, seen.picture) > 700
    && window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'
"""


def tables(progress=lambda rounds, title: rounds):
    """One (title, rows) section, or none on a machine without a browser."""
    if find_browser() is None:
        print("No Chromium or Chrome here: explorers in a browser are left out.", file=sys.stderr)
        return []
    return [("Explorers in JupyterLab in a headless browser, a million values", table(progress=progress))]


def table(names=NAMES, size=SIZE, presses=PRESSES, drags=DRAGS, progress=lambda rounds, title: rounds):
    """A row for each control, in milliseconds: from a key press to the update, median and 95th percentile; and from the
    release of the mouse to the update for the last value, the longest of several fast drags."""
    sources = {name: f"opened({name!r}, {size})" for name in names}
    with explorers_in_browser(SETUP, *sources.values()) as show:
        return [
            {"explorer": name, **row(control, presses, drags)}
            for name in progress(names, "explorers in a browser")
            for control in show(sources[name]).locator(CONTROLS).all()
        ]


@contextlib.contextmanager
def explorers_in_browser(setup: str, *sources: str) -> Iterator[Callable[[str], Locator]]:
    """Open a notebook of these cells and run `setup`. Yields a function that runs another cell and returns its output,
    with WATCH installed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "explorers.ipynb"
        path.write_text(json.dumps(notebook_of(setup, *sources)), encoding="utf-8")
        with as_many_threads_as_cores(), notebook_in_browser(path) as notebook:
            notebook.run(setup)

            def show(source: str) -> Locator:
                notebook.run(source)
                area = notebook.output(source)
                area.locator("img").wait_for()
                area.evaluate(WATCH)
                return area

            yield show


@contextlib.contextmanager
def as_many_threads_as_cores() -> Iterator[None]:
    """Start processes without THREADS in their environment, so that they use as many threads as there are cores."""
    with mock.patch.dict(os.environ):
        for name in THREADS:
            os.environ.pop(name, None)
        yield


def row(control: Locator, presses: int, drags: int) -> dict:
    milliseconds = [after_key(control.page, press) for press in islice(keys(control), presses)]
    return {
        "control": control.locator(".widget-label").first.inner_text(),
        "median ms": median(milliseconds),
        "p95 ms": float(np.percentile(milliseconds, 95)),
        "after a drag ms": max(after_drags(control, drags), default=float("nan")),
    }


def keys(control: Locator) -> Iterator[Callable]:
    """Endless key presses that each change the control: a slider goes up and down, buttons are pressed in turn."""
    handle = control.locator(".noUi-handle")
    key = "ArrowRight"
    while handle.count():
        now, low, high = (handle.get_attribute(f"aria-value{which}") for which in ("now", "min", "max"))
        key = {low: "ArrowRight", high: "ArrowLeft"}.get(now, key)
        yield partial(handle.press, key)
    while True:  # the next button, or the first after the last
        yield partial(control.locator("button.mod-active + button, button:first-child").last.press, "Enter")


def after_key(page: Page, press: Callable) -> float:
    """Milliseconds from a key press to the new picture and readout."""
    page.wait_for_timeout(PAUSE)
    press()
    page.wait_for_function(ANSWERED)
    return page.evaluate("() => Math.max(seen.readout, seen.picture) - seen.key")


def after_drags(control: Locator, drags: int) -> list[float]:
    """Milliseconds from the end of each fast drag to the picture and readout of the last value; none for buttons.

    A drag goes from one end of the range to the other. RuntimeError if it ends on the picture of another value.
    """
    page, handle = control.page, control.locator(".noUi-handle")
    if not handle.count():
        return []
    handle.press("Home")
    page.wait_for_function(STILL)
    left, right = ends(control.locator(".noUi-target"))
    took = []  # milliseconds
    for key, opposite, x in islice(cycle((("End", "Home", right), ("Home", "End", left))), drags):
        handle.hover()
        page.mouse.down()
        page.mouse.move(x, handle.bounding_box()["y"], steps=STEPS)
        page.mouse.up()
        page.wait_for_function(STILL)
        took.append(page.evaluate("() => Math.max(seen.readout - seen.release, seen.picture - seen.release, 0)"))
        dragged = page.evaluate("() => shown()")
        after_key(page, partial(handle.press, opposite))
        after_key(page, partial(handle.press, key))  # to the same value by single steps
        if page.evaluate("() => shown()") != dragged:
            raise RuntimeError("a fast drag ended on another picture or readout than its last value has")
    return took


def ends(track: Locator) -> tuple[float, float]:
    """The x coordinates to the left and to the right of a slider's track."""
    box = track.bounding_box()
    return box["x"] - 20, box["x"] + box["width"] + 20


def notebook_of(*sources: str) -> dict:
    empty = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    cells = [{**empty, "id": f"cell-{i}", "source": source} for i, source in enumerate(sources)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
