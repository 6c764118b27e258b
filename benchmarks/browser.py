"""Explorers in JupyterLab in a headless browser: how soon picture and readout follow a key, and the end of a drag.

All times are taken in the page. A key's is the time stamp of its event; the readout has changed when the page has the
new text, the picture when the new one is decoded.
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
PRESSES = 20  # for each control
DRAGS = 2  # over the whole range of each slider, to and fro
STEPS = 30  # positions of the mouse in one drag
PAUSE = 60  # milliseconds between an answer and the next key
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
    """The section, or none on a machine without a browser."""
    if find_browser() is None:
        print("No Chromium or Chrome here: explorers in a browser are left out.", file=sys.stderr)
        return []
    return [("Explorers in JupyterLab in a headless browser, a million values", table(progress=progress))]


def table(names=NAMES, size=SIZE, presses=PRESSES, drags=DRAGS, progress=lambda rounds, title: rounds):
    """Rows for each control, in milliseconds: from a key to picture and readout, median and 95th percentile, and the
    longest of several fast drags from the release of the mouse to the picture and readout of the last value."""
    sources = {name: f"opened({name!r}, {size})" for name in names}
    with explorers_in_browser(SETUP, *sources.values()) as show:
        return [
            {"explorer": name, **row(control, presses, drags)}
            for name in progress(names, "explorers in a browser")
            for control in show(sources[name]).locator(CONTROLS).all()
        ]


@contextlib.contextmanager
def explorers_in_browser(setup: str, *sources: str) -> Iterator[Callable[[str], Locator]]:
    """A notebook of these cells, the first of them run. What it gives runs another, and returns its output, watched."""
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
    """What is started here has the threads that it has where nobody says how many."""
    with mock.patch.dict(os.environ):
        for name in THREADS:
            os.environ.pop(name, None)
        yield


def row(control: Locator, presses: int, drags: int) -> dict:
    took = [after_key(control.page, press) for press in islice(keys(control), presses)]
    return {
        "control": control.locator(".widget-label").first.inner_text(),
        "median ms": median(took),
        "p95 ms": float(np.percentile(took, 95)),
        "after a drag ms": max(after_drags(control, drags), default=float("nan")),
    }


def keys(control: Locator) -> Iterator[Callable]:
    """Key presses without end, each of which changes the control: on a slider to and fro, on buttons one by one."""
    handle = control.locator(".noUi-handle")
    key = "ArrowRight"
    while handle.count():
        now, low, high = (handle.get_attribute(f"aria-value{what}") for what in ("now", "min", "max"))
        key = {low: "ArrowRight", high: "ArrowLeft"}.get(now, key)
        yield partial(handle.press, key)
    while True:  # the one beside the pressed one, or else the first
        yield partial(control.locator("button.mod-active + button, button:first-child").last.press, "Enter")


def after_key(page: Page, press: Callable) -> float:
    """Milliseconds from a key to the picture and readout that it asks for."""
    page.wait_for_timeout(PAUSE)
    press()
    page.wait_for_function(ANSWERED)
    return page.evaluate("() => Math.max(seen.readout, seen.picture) - seen.key")


def after_drags(control: Locator, drags: int) -> list[float]:
    """Milliseconds from the end of each fast drag to picture and readout of the last value, which must be right.

    A drag goes over the whole range, to the other end each time. Buttons have none.
    """
    page, handle = control.page, control.locator(".noUi-handle")
    if not handle.count():
        return []
    handle.press("Home")
    page.wait_for_function(STILL)
    left, right = ends(control.locator(".noUi-target"))
    took = []
    for key, opposite, x in islice(cycle((("End", "Home", right), ("Home", "End", left))), drags):
        handle.hover()
        page.mouse.down()
        page.mouse.move(x, handle.bounding_box()["y"], steps=STEPS)
        page.mouse.up()
        page.wait_for_function(STILL)
        took.append(page.evaluate("() => Math.max(seen.readout - seen.release, seen.picture - seen.release, 0)"))
        dragged = page.evaluate("() => shown()")
        after_key(page, partial(handle.press, opposite))
        after_key(page, partial(handle.press, key))  # the same value again, without haste
        if page.evaluate("() => shown()") != dragged:
            raise RuntimeError("a fast drag ended on another picture or readout than its last value has")
    return took


def ends(track: Locator) -> tuple[float, float]:
    """Where the mouse is beyond a slider's track, on the left and on the right."""
    box = track.bounding_box()
    return box["x"] - 20, box["x"] + box["width"] + 20


def notebook_of(*sources: str) -> dict:
    empty = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    cells = [{**empty, "id": f"cell-{i}", "source": source} for i, source in enumerate(sources)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
