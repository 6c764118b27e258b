"""In the kernel that executes a solution for the site: an explorer is shown as HTML, and its states are recorded.

>>> recording = start("01", "build/states")  # doctest: +SKIP
>>> explore_bits(weights)  # doctest: +SKIP
>>> recording.write()  # doctest: +SKIP

The last line writes build/states/01_states.js.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labutils.course import explorer
from labutils.course.explorer import Explorer
from labutils.course.shown import Shown
from labutils.formats.whole_files import whole_files
from tools.site.placeholder import placeholder
from tools.site.script import BYTES, fitted
from tools.site.states import Axis, axes_of, states, thinned

# How many states an explorer may have. With more than the last, a lab's file would be too large. Few numbers, so that
# machines of another speed, and explorers of nearly the same cost, come to the same.
LIMITS = (8, 16, 32, 64, 128, 256, 400)
SECONDS = 150.0  # of processor time for an explorer's states: enough for the 28 of lab 12's, which take 4 s each
PATIENCE = 60.0  # seconds for a function in one state: nobody waits, and on a busy machine a right answer is slow
PROGRESS = "application/x-explorer-progress+json"  # a message to the process that executes the notebook

Key = tuple[Any, ...]  # the values of the controls


@dataclass(frozen=True, eq=False)
class Recorded:
    """An explorer's states: what each shows, and which values of the controls they are made of."""

    title: str
    axes: dict[str, Axis]
    shown: dict[Key, Shown]
    still: bytes  # a PNG of what never moves

    def thinned(self, limit: int) -> dict[str, Axis]:
        """The axes of at most `limit` of the states, all of which are recorded."""
        return thinned(self.axes, limit)

    def start(self) -> Shown:
        return self.shown[tuple(axis.control.start for axis in self.axes.values())]


class Recording:
    """Of one lab: an explorer that is displayed is recorded, and named by its place among those of the lab."""

    def __init__(self, lab: str, folder: str | Path, seconds: float = SECONDS, budget: int = BYTES):
        self.lab, self.folder, self.seconds, self.budget = lab, Path(folder), seconds, budget
        self.recorded: dict[str, Recorded] = {}
        self._names: dict[Explorer, str] = {}

    def display(self, shown: Explorer) -> tuple[dict[str, str], dict]:
        """The MIME bundle of an explorer: its first state as HTML and as text."""
        if shown not in self._names:
            self._names[shown] = name = f"{self.lab}-{len(self._names) + 1}"
            self.recorded[name] = recorded(shown, self.seconds, lambda done, total: _tell(name, done, total))
        name = self._names[shown]
        title, first = shown.title, self.recorded[name].start()
        return {"text/html": placeholder(name, first, title), "text/plain": first.text(title)}, {}

    def write(self) -> None:
        """Write the lab's file; none if it has no explorer."""
        if not self.recorded:
            return
        script = fitted(self.lab, self.recorded, self.budget, lambda done, total: _tell("pictures", done, total))
        with whole_files(self.folder / f"{self.lab}_states.js") as [file]:
            file.write_text(script, encoding="ascii")


def start(lab: str, folder: str | Path, **options: Any) -> Recording:
    """Begin to record in this kernel; call `write` of what is returned at the end."""
    from IPython import get_ipython

    explorer.TIME_LIMIT = PATIENCE
    recording = Recording(lab, folder, **options)
    get_ipython().display_formatter.mimebundle_formatter.for_type(Explorer, recording.display)
    return recording


def recorded(
    moving: Explorer, seconds: float = SECONDS, tell: Callable[[int, int], None] = lambda done, total: None
) -> Recorded:
    """Compute and draw an explorer's states: a few, which tell what one costs, and then as many as `seconds` allow."""
    every, shown = axes_of(moving.sliders()), {}

    def record(limit: int) -> dict[str, Axis]:
        axes = thinned(every, limit)
        for done, state in enumerate(some := list(states(axes)), 1):
            key = tuple(state.values())
            if key not in shown:
                shown[key] = moving.shown(state)
            tell(done, len(some))
        return axes

    begun = time.process_time()
    record(LIMITS[0])
    cost = (time.process_time() - begun) / len(shown)
    return Recorded(moving.title, record(affordable(cost, seconds)), shown, moving.still())


def affordable(cost: float, seconds: float) -> int:
    """The largest of LIMITS with which states of `cost` seconds each take `seconds` at most; else the smallest."""
    return max(limit for limit in LIMITS if limit == LIMITS[0] or limit * cost <= seconds)


def _tell(what: str, done: int, total: int) -> None:
    """Say to the process that executes the notebook how far it is."""
    from IPython.display import display

    display({PROGRESS: {"what": what, "done": done, "total": total}}, raw=True)
