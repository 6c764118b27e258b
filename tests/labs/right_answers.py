"""A right answer passes, however it is written.

Each exercise's test file writes out its right answers as people write them, and adds the mechanical variants of its
recipe: how ties are rounded, whether the lowest code is used, and what kind of number the scale is.
"""

import itertools

import numpy as np
import pytest

from labutils.labs.catalogue import EXERCISES
from labutils.labs.recipes import shifted_first
from tests.labs.unguarded import examine


def half_up(steps):
    return np.floor(steps + 0.5)


def half_away(steps):
    return np.sign(steps) * np.floor(np.abs(steps) + 0.5)


def without_the_lowest(steps, num_bits):
    return np.clip(steps, -(2 ** (num_bits - 1) - 1), 2 ** (num_bits - 1) - 1)


def passes(name, function):
    """Assert that `function` passes the check of the exercise `name`."""
    if "torch" in getattr(function, "__name__", ""):
        pytest.importorskip("torch")
    report = examine(function, EXERCISES[name])
    assert report.passed, f"{report.first_failure.name}: {report.first_failure.detail}"


STORED = {
    "as computed": lambda scale: scale,
    "float64": lambda scale: np.float64(scale),
    "an array": lambda scale: np.asarray(scale),
    "a Python float": lambda scale: float(scale) if np.ndim(scale) == 0 else scale,
}


def variants(right):
    """A symmetric recipe for each tie rule x lowest code x kind of scale, with the id that a test shows."""
    rounds = {"half to even": np.round, "half up": half_up, "half away": half_away}
    clamps = {"all codes": right.clamp, "without the lowest": without_the_lowest}
    return [
        pytest.param(
            right.but(round=round_, clamp=clamp, result=lambda q, scale, x, stored=stored: (q, stored(scale))),
            id=f"{tie}, {low}, {kind}",
        )
        for (tie, round_), (low, clamp), (kind, stored) in itertools.product(
            rounds.items(), clamps.items(), STORED.items()
        )
    ]


def asymmetric_variants(right):
    """An asymmetric recipe for each tie rule x kind of scale and zero point, with the id that a test shows."""
    ties = {
        "half to even": {"round": np.round},
        "half up": {"round": half_up},
        "half away": {"round": half_away},
        "added, then half to even": shifted_first(np.round),
    }
    return [
        pytest.param(
            right.but(**steps, result=lambda q, scale, zero, x, stored=stored: (q, stored(scale), np.int32(zero))),
            id=f"{tie}, {kind}",
        )
        for (tie, steps), (kind, stored) in itertools.product(ties.items(), STORED.items())
    ]
