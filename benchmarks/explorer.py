"""One update of an explorer: from a control's new value to the picture and readout, in the kernel."""

from statistics import median
from time import perf_counter

import numpy as np

import labutils
from labutils import data
from labutils.labs.catalogue import EXPLORERS

NAMES = tuple(EXPLORERS)
OPENINGS = {  # how an explorer is opened that does not take any values: as its lab does, or over rows of values
    "explore_digit": lambda x: labutils.explore_digit(7),
    "explore_granularity": lambda x: labutils.explore_granularity(rows(x)),
    "explore_groups": lambda x: labutils.explore_groups(rows(x)),
    "explore_linear": lambda x: labutils.explore_linear(),
    "explore_model": lambda x: labutils.explore_model(data.digits_model()),
    "explore_smoothing": lambda x: labutils.explore_smoothing(rows(x)[:256], rows(x)),
    "explore_training": lambda x: labutils.explore_training(),
}
SIZE = 10**6  # values


def opened(name, size=SIZE):
    """The explorer `name`, over `size` float32 normals where it takes an array."""
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)
    return OPENINGS.get(name, getattr(labutils, name))(x)


def rows(x):
    """`x` as a square matrix, or nearly so."""
    width = int(x.size**0.5)
    return x[: x.size // width * width].reshape(-1, width)


def table(names=NAMES, size=SIZE, repeats=4, progress=lambda rounds, title: rounds):
    """Rows of median and 95th percentile for each control, in milliseconds."""
    table = []
    for name in progress(names, "explorers"):
        explorer = opened(name, size)
        for label, control in explorer.controls.items():
            took = [1e3 * update(control, value) for _ in range(repeats) for value in stops(control)]
            table.append({
                "explorer": name, "control": label, "updates": len(took),
                "median ms": median(took), "p95 ms": float(np.percentile(took, 95)),
            })  # fmt: skip
    return table


def stops(control, count=8):
    """The values that a control is dragged over: all of them, or `count` where there are many."""
    if hasattr(control, "options"):
        return control.options
    steps = round((control.max - control.min) / control.step)
    kind = type(control.value)
    return [kind(control.min + control.step * round(step)) for step in np.linspace(0, steps, min(steps + 1, count))]


def update(control, value):
    """Seconds that setting `control` takes, and so the update that observes it."""
    if control.value == value:  # no change, no update
        control.value = next(other for other in stops(control) if other != value)
    start = perf_counter()
    control.value = value
    return perf_counter() - start
