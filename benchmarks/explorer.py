"""Time of one update of an explorer in the kernel: from a control's new value to the picture and readout."""

from statistics import median
from time import perf_counter

import numpy as np

import labutils
from labutils import data
from labutils.labs.catalogue import EXPLORERS

NAMES = tuple(EXPLORERS)
OPENINGS = {  # for explorers that do not take an array of any shape: as in their lab, or over a matrix
    "explore_block": lambda x: labutils.explore_block(rows(x)),
    "explore_cache": lambda x: labutils.explore_cache(data.language_model()),
    "explore_digit": lambda x: labutils.explore_digit(7),
    "explore_gptq": lambda x: labutils.explore_gptq(*layer_of(x)),
    "explore_granularity": lambda x: labutils.explore_granularity(rows(x)),
    "explore_grids": lambda x: labutils.explore_grids(rows(x)),
    "explore_groups": lambda x: labutils.explore_groups(rows(x)),
    "explore_linear": lambda x: labutils.explore_linear(),
    "explore_model": lambda x: labutils.explore_model(data.digits_model()),
    "explore_sentence": lambda x: labutils.explore_sentence(),
    "explore_smoothing": lambda x: labutils.explore_smoothing(rows(x)[:256], rows(x)),
    "explore_text": lambda x: labutils.explore_text(data.language_model()),
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


def layer_of(x, width=384):
    """A weight, and the Hessian of inputs, as of one of MiniLM's layers."""
    import torch

    values = torch.from_numpy(x[: 2 * width * width]).view(2, width, width)
    return values[0], 2 * values[1].T @ values[1]


def table(names=NAMES, size=SIZE, repeats=4, progress=lambda rounds, title: rounds):
    """A row for each control: median and 95th percentile in milliseconds."""
    table = []
    for name in progress(names, "explorers"):
        explorer = opened(name, size)
        for label, control in explorer.controls.items():
            milliseconds = [1e3 * update(control, value) for _ in range(repeats) for value in stops(control)]
            table.append({
                "explorer": name, "control": label, "updates": len(milliseconds),
                "median ms": median(milliseconds), "p95 ms": float(np.percentile(milliseconds, 95)),
            })  # fmt: skip
    return table


def stops(control, count=8):
    """The values to which a control is set: all of them, or `count` evenly spaced ones if it has more."""
    if hasattr(control, "options"):
        return control.options
    steps = round((control.max - control.min) / control.step)
    kind = type(control.value)
    return [kind(control.min + control.step * round(step)) for step in np.linspace(0, steps, min(steps + 1, count))]


def update(control, value):
    """Seconds that it takes to set `control`, which includes the update."""
    if control.value == value:  # otherwise there would be no change and so no update
        control.value = next(other for other in stops(control) if other != value)
    start = perf_counter()
    control.value = value
    return perf_counter() - start
