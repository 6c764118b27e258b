"""A lab's states as one JavaScript file: a call of `explorerStates`, which also works where a page may not fetch files.

    explorerStates("01", {"sheets": [base64 of a WebP, ...], "strings": [...], "explorers": {"01-1": {
        "title": place of a string, "size": [width, height], "box": [left, top, width, height], "background": sheet,
        "controls": [{"label", "hint", "buttons", "texts", "start"}, ...],
        "states": [[sheet, place in the sheet, kind, note, name, value, name, value, ...], ...]}}})

States are in the order of their controls' values, those of the last control running fastest. Notes, names and values
are places in `strings`. Explorers share sheets and strings: one that runs the learner's function shows what the one
before it showed.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.course.controls import Choice
from labutils.course.shown import Shown
from tools.site.pictures import SHEET, Background, webp
from tools.site.states import Axis, states

if TYPE_CHECKING:
    from tools.site.recording import Recorded

BYTES = 3_000_000  # of a lab's file: all its explorers together
SHRINK = 0.97  # of the states that would fit if all took equal space
NUMBERS, WRONG = range(2)  # kinds of readout

Tell = Callable[[int, int], None]


class Pool(dict):
    """Things in the order in which they came, each once: `pool[thing]` is its place."""

    def __missing__(self, thing: Any) -> int:
        self[thing] = place = len(self)
        return place


def fitted(lab: str, recorded: Mapping[str, Recorded], budget: int = BYTES, tell: Tell = lambda *_: None) -> str:
    """The file with as many states as fit into `budget` bytes; one limit for all explorers: those alike share."""
    limit = max(len(each.shown) for each in recorded.values())
    while len(text := script(lab, recorded, limit, tell)) > budget and limit > 1:
        limit = int(SHRINK * limit * min(1, budget / len(text)))
    return text


def script(lab: str, recorded: Mapping[str, Recorded], limit: int, tell: Tell = lambda *_: None) -> str:
    """The file with at most `limit` states of each explorer."""
    sheets, strings = Pool(), Pool()
    explorers = {}
    for place, (name, each) in enumerate(recorded.items()):
        explorers[name] = explorer_data(each, limit, sheets, strings)
        tell(place + 1, len(recorded))
    data = {
        "sheets": [base64.b64encode(sheet).decode() for sheet in sheets],
        "strings": list(strings),
        "explorers": explorers,
    }
    return f"explorerStates({json.dumps(lab)}, {json.dumps(data, separators=(',', ':'))});\n"


def explorer_data(recorded: Recorded, limit: int, sheets: Pool, strings: Pool) -> dict[str, Any]:
    axes = recorded.thinned(limit)
    shown = [recorded.shown[tuple(state.values())] for state in states(axes)]
    background = _background(tuple(each.png for each in recorded.shown.values()), recorded.still)
    height, width = background.pixels.shape[:2]
    where: dict[int, tuple[int, int]] = {}
    for places in sheets_of(axes):
        sheet = sheets[_sheet(background, tuple(shown[place].png for place in places))]
        where |= {place: (sheet, row) for row, place in enumerate(places)}
    return {
        "title": strings[recorded.title],
        "size": [width, height],
        "box": [background.left, background.top, background.width, background.height],
        "background": sheets[webp(background.pixels)],
        "controls": [control_data(axis) for axis in axes.values()],
        "states": [[*where[place], *readout(each, strings)] for place, each in enumerate(shown)],
    }


def control_data(axis: Axis) -> dict[str, Any]:
    control = axis.control
    return {
        "label": control.label,
        "hint": control.hint,
        "buttons": isinstance(control, Choice),
        "texts": axis.texts,
        "start": axis.start,
    }


def readout(shown: Shown, strings: Pool) -> Iterator[int]:
    """Its kind, the note, and names and values in turn."""
    if shown.wrong:
        yield from (WRONG, strings[str(shown.wrong)])
    else:
        yield from (NUMBERS, strings[shown.note])
        yield from (strings[text] for cell in shown.cells for text in cell)


def sheets_of(axes: Mapping[str, Axis]) -> Iterator[list[int]]:
    """Which states share a sheet: neighbours along the slider that has most values."""
    shape = [len(axis.values) for axis in axes.values()]
    order = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), int(np.argmax(shape)), -1)
    for line in order.reshape(-1, max(shape)):
        yield from (part.tolist() for part in np.array_split(line, math.ceil(line.size / SHEET)))


# Explorers that are alike, and each try to fit, need the same again.


@functools.cache
def _background(pngs: tuple[bytes, ...], still: bytes) -> Background:
    return Background.of(pngs, still)


@functools.cache
def _sheet(background: Background, pngs: tuple[bytes, ...]) -> bytes:
    return background.sheet(pngs)
