"""The states of an explorer: every combination of its controls' values, thinned out evenly where they are too many.

>>> sliders = {"num_bits": Slider("bits", 2, 8, 4), "clip": Slider("clip", 0.05, 1.0, 1.0, 0.01)}
>>> {name: len(axis.values) for name, axis in thinned(axes_of(sliders), 300).items()}
{'num_bits': 7, 'clip': 42}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labutils.course.controls import Choice, Notches, Slider

DIGITS = 10  # of a float slider's values: 0.1 + 0.2 is 0.3


@dataclass(frozen=True)
class Axis:
    """A control's values in order, of which one is where it starts."""

    control: Slider | Choice | Notches
    values: tuple[Any, ...]

    @property
    def start(self) -> int:
        """The place of the value at which the control starts."""
        return self.values.index(self.control.start)

    @property
    def texts(self) -> tuple[str, ...]:
        """The values as the control shows them."""
        return tuple(_text(self.control, value) for value in self.values)

    @property
    def fewest(self) -> int:
        """How many values must stay: both ends and the start; of buttons all, since each is something of its own."""
        if isinstance(self.control, Choice):
            return len(self.values)
        return len({0, self.start, len(self.values) - 1})

    def thinned(self, count: int) -> Axis:
        """The axis with `count` values: both ends, the start, and the rest as evenly as whole steps allow."""
        last = len(self.values) - 1
        below = round((count - 1) * self.start / max(last, 1))  # gaps below the start; the others are above it
        below = min(max(below, self.start > 0), count - 1 - (self.start < last))
        places = {*_even(0, self.start, below), *_even(self.start, last, count - 1 - below)}
        return replace(self, values=tuple(self.values[place] for place in sorted(places)))


def axes_of(sliders: dict[str, Slider | Choice | Notches]) -> dict[str, Axis]:
    """All values of every control, by its name."""
    return {name: Axis(control, tuple(_values(control))) for name, control in sliders.items()}


def thinned(axes: dict[str, Axis], limit: int) -> dict[str, Axis]:
    """Thin out until there are at most `limit` states, always the slider that has most values.

    Ends, starts and all buttons stay, although they may be more than `limit`.
    """
    counts = {name: len(axis.values) for name, axis in axes.items()}
    while math.prod(counts.values()) > limit:
        thinnable = [name for name, axis in axes.items() if counts[name] > axis.fewest]
        if not thinnable:
            break
        counts[max(thinnable, key=counts.__getitem__)] -= 1
    return {name: axis.thinned(counts[name]) for name, axis in axes.items()}


def states(axes: dict[str, Axis]) -> Iterator[dict[str, Any]]:
    """Every combination, the last control's values running fastest."""
    for values in itertools.product(*(axis.values for axis in axes.values())):
        yield dict(zip(axes, values))


def _values(control: Slider | Choice | Notches) -> list[Any]:
    if not isinstance(control, Slider):
        return list(control.options)
    steps = range(math.floor((control.high - control.low) / control.step + 1e-9) + 1)
    if isinstance(control.step, int):
        return [control.low + step * control.step for step in steps]
    return [round(control.low + step * control.step, DIGITS) for step in steps]


def _text(control: Slider | Choice | Notches, value: Any) -> str:
    """A value as ipywidgets writes it beside the slider."""
    return f"{value:.2f}" if isinstance(control, Slider) and not isinstance(control.step, int) else str(value)


def _even(low: int, high: int, gaps: int) -> list[int]:
    return np.linspace(low, high, gaps + 1).round().astype(int).tolist() if gaps else [low]
