"""A right answer passes, however it is written.

Each exercise's test file writes out its right answers as people write them, and adds the mechanical variants of its
recipe: how ties are rounded, whether the lowest code is used, and what kind of number the scale is.
"""

import itertools

import numpy as np
import pytest

from labutils.course import engine
from labutils.labs.catalogue import EXERCISES


def half_up(steps):
    return np.floor(steps + 0.5)


def half_away(steps):
    return np.sign(steps) * np.floor(np.abs(steps) + 0.5)


def without_the_lowest(steps, num_bits):
    return np.clip(steps, -(2 ** (num_bits - 1) - 1), 2 ** (num_bits - 1) - 1)


def passes(name, function):
    """Assert that `function` passes the check of the exercise `name`."""
    if "torch" in function.__name__:
        pytest.importorskip("torch")
    report = engine.examine(function, EXERCISES[name])
    assert report.passed, f"{report.first_failure.name}: {report.first_failure.detail}"


STORED = {
    "as computed": lambda scale: scale,
    "float64": lambda scale: np.float64(scale),
    "an array": lambda scale: np.asarray(scale),
    "a Python float": lambda scale: float(scale) if np.ndim(scale) == 0 else scale,
}


def variants(right):
    """(id, function) of a symmetric recipe for each tie rule x lowest code x kind of scale."""
    rounds = {"half to even": np.round, "half up": half_up, "half away": half_away}
    clamps = {"all codes": right.clamp, "without the lowest": without_the_lowest}
    for (tie, round_), (low, clamp), (kind, stored) in itertools.product(
        rounds.items(), clamps.items(), STORED.items()
    ):
        yield (
            f"{tie}, {low}, {kind}",
            right.but(round=round_, clamp=clamp, result=lambda q, scale, x, stored=stored: (q, stored(scale))),
        )
