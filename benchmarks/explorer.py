"""One update of an explorer: from a control's new value to the picture and readout, in the kernel."""

from statistics import median
from time import perf_counter

import numpy as np

from labutils.explore import (
    explore_bits,
    explore_calibration,
    explore_clipping,
    explore_granularity,
    explore_groups,
    explore_zero_point,
)

SWEEPS = {  # explorer -> control -> the values it is dragged over
    explore_bits: {"num_bits": range(2, 9), "outlier": np.arange(1.5, 20, 2.5)},
    explore_clipping: {"num_bits": range(2, 9), "clip": np.arange(0.1, 1, 0.13)},
    explore_calibration: {"num_bits": range(2, 9), "clip": np.arange(0.1, 1, 0.13)},
    explore_zero_point: {"num_bits": range(2, 9), "shift": np.arange(-2, 2, 0.6)},
    explore_granularity: {
        "num_bits": range(2, 9),
        "spread": np.arange(2, 100, 14.0),
        "granularity": ("tensor", "axis 0", "axis 1"),
    },
    explore_groups: {"num_bits": range(2, 9), "group_size": (16, 32, 64, 128, 256)},
}
MATRICES = {explore_granularity, explore_groups}  # drawn row by row


def table(size=10**6, repeats=4, progress=lambda rounds, title: rounds):
    """Rows of median and 95th percentile for each control, in milliseconds, over `size` float32 normals."""
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)
    rows = []
    for explore, sweeps in progress(SWEEPS.items(), "explorers"):
        explorer = explore(x.reshape(-1, min(size, 1000)) if explore in MATRICES else x)
        for name, values in sweeps.items():
            took = [1e3 * update(explorer.controls[name], value) for _ in range(repeats) for value in values]
            rows.append({
                "explorer": explore.__name__, "control": name, "updates": len(took),
                "median ms": median(took), "p95 ms": float(np.percentile(took, 95)),
            })  # fmt: skip
    return rows


def other(control):
    """A value that a control does not have now."""
    first, last = (control.min, control.max) if hasattr(control, "min") else (control.options[0], control.options[-1])
    return last if control.value == first else first


def update(control, value):
    """Seconds that setting `control` takes, and so the update that observes it."""
    if control.value == value:  # no change, no update
        control.value = other(control)
    start = perf_counter()
    control.value = value
    return perf_counter() - start
