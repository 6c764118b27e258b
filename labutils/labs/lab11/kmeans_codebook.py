"""kmeans_codebook: the table of values that loses least of given data, by Lloyd's method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays import codebooks
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array
from labutils.labs.contract import once_for_each_input, trained_weights
from labutils.labs.lab11 import LESSON
from labutils.labs.recipes import Recipe

LEFT = 0.01  # share of the error that another round may take away: after 50 rounds it is less, with medians more
WORST = 3.0  # times the reference's error: where to start is left open, and there are many places where nothing moves


def kmeans_codebook(x: np.ndarray, num_bits: int = 4) -> np.ndarray:
    """2^num_bits values, ascending, each of which is the mean of what is nearest to it in `x`.

    >>> kmeans_codebook(np.array([-8.0, -8.0, -1.0, 1.0, 4.0, 5.0, 8.0]), num_bits=2)
    array([-8. ,  0. ,  4.5,  8. ])

    Lloyd, 1982, "Least squares quantization in PCM". `arrays.codebooks.kmeans_codebook` does it for
    many scales at once.
    """
    return np.array(codebooks.kmeans_codebook(x, num_bits).values) * np.abs(x).max()


HAND = np.array([-8.0, -8.0, -1.0, 1.0, 4.0, 5.0, 8.0], dtype=np.float32)


def cases() -> list[Case]:
    rng = np.random.default_rng(14)
    w = trained_weights()
    heavy = rng.standard_t(4, size=1200).astype(np.float32)
    two = np.concatenate([rng.normal(-3, 0.3, 400), rng.normal(5, 0.5, 800)]).astype(np.float32)
    return [
        Case("a Gaussian, 4 bits", (rng.normal(size=1200).astype(np.float32), 4)),
        Case("a Gaussian, 2 bits", (rng.normal(size=1200).astype(np.float32), 2)),
        Case("trained weights, 4 bits", (w[:24], 4)),
        Case("trained weights, 3 bits", (w[:20], 3)),
        Case("heavy tails", (heavy, 4)),
        Case("only positive values", (np.abs(w[:20]), 3)),
        Case("two heaps", (two, 3)),
        Case("evenly spread values", (rng.uniform(-1, 1, 1000).astype(np.float32), 3)),
        Case("tiny values", (w[:20] * np.float32(1e-6), 4)),
        Case("a strided view", (w[:40, ::3], 4)),
    ]


def read(value: Any) -> dict:
    return {"values": as_array(value, "the result").astype(np.float64)}


def loss(x: np.ndarray, values: np.ndarray) -> float:
    """The mean squared distance to the nearest of ascending `values`."""
    x = x.reshape(-1).astype(np.float64)
    place = np.searchsorted((values[1:] + values[:-1]) / 2, x)
    return float(np.mean((x - values[place]) ** 2))


def next_round(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each value moved to the mean of what is nearest to it."""
    flat = x.reshape(-1).astype(np.float64)
    return moved(flat, np.searchsorted((values[1:] + values[:-1]) / 2, flat), values)


@once_for_each_input
def least(x: np.ndarray, num_bits: int) -> float:
    return loss(x, kmeans_codebook(x, num_bits))


def judge(answer: dict, case: Case) -> None:
    (x, num_bits), values = case.args, answer["values"]
    if values.shape != (2**num_bits,):
        raise Wrong(f"{num_bits} bits have {2**num_bits} values, but the result has shape {values.shape}")
    if not np.isfinite(values).all():
        raise Wrong("the result holds NaN or Inf: a value to which nothing is nearest has no mean")
    if (np.diff(values) < 0).any():
        raise Wrong("the values should ascend")
    found, wanted = loss(x, values), least(x, num_bits)
    if found > WORST * wanted:
        raise Wrong(
            f"with these values the mean squared error is {found:.4g}, {found / wanted:.3g} times what is possible"
        )
    again = loss(x, next_round(x, values))
    if again < (1 - LEFT) * found:
        raise Wrong(
            f"not every value is the mean of what is nearest to it: another round lowers the mean squared error by "
            f"{1 - again / found:.1%}, from {found:.4g} to {again:.4g}"
        )


def spread(x, count):
    """The quantiles of the data, each in the middle of its share."""
    return np.quantile(x, (np.arange(count) + 0.5) / count)


def even(x, count):
    return np.linspace(x.min(), x.max(), count)


def moved(x, place, values):
    """The mean of what is nearest to each value; a value without data stays."""
    count = np.bincount(place, minlength=len(values))
    total = np.bincount(place, weights=x, minlength=len(values))
    return np.where(count > 0, total / np.maximum(count, 1), values)


@dataclass(frozen=True)
class Lloyd(Recipe):
    """From `start`, `rounds` times: each value moves to the mean of what is nearest to it."""

    start: Callable = even
    rounds: int = 60
    borders: Callable = lambda values: (values[1:] + values[:-1]) / 2
    move: Callable = moved
    count: Callable = lambda num_bits: 2**num_bits
    flat: Callable = lambda x: x.reshape(-1).astype(np.float64)
    result: Callable = lambda values, x: values

    def __call__(self, x, num_bits=4):
        flat = self.flat(x)
        values = np.sort(self.start(flat, self.count(num_bits)))
        for _ in range(self.rounds):
            place = np.searchsorted(self.borders(values), flat)
            with np.errstate(all="ignore"):
                values = self.move(flat, place, values)
        return self.result(values, x)


right = Lloyd()


def medians(x, place, values):
    return np.array([np.median(x[place == k]) if (place == k).any() else v for k, v in enumerate(values)])


def middles(x, place, values):
    return np.array([(x[place == k].min() + x[place == k].max()) / 2 if (place == k).any() else v
                     for k, v in enumerate(values)])  # fmt: skip


NOT_YET = (
    "That is where to start from, not where it ends: move each value to the mean of the data nearest to it, and repeat "
    "until nothing moves."
)
MEDIANS = "The median is best for the mean of |error|. For squared errors it is the mean."

MISCONCEPTIONS = (
    Misconception("nothing moves", right.but(start=spread, rounds=0), NOT_YET),
    Misconception("nothing moves", right.but(rounds=0), NOT_YET),
    Misconception("one round only", right.but(rounds=1),
        "After one round the borders have moved, so other data is nearest to each value: again, until nothing moves."),
    Misconception("one round only", right.but(start=spread, rounds=1),
        "After one round the borders have moved, so other data is nearest to each value: again, until nothing moves."),
    Misconception("medians instead of means", right.but(move=medians),
        MEDIANS),
    Misconception("medians instead of means", right.but(start=spread, move=medians), MEDIANS),
    Misconception("the middle of each cell instead of its mean", right.but(move=middles),
        "Within a cell there is more data on one side than on the other. The mean of what is in it loses least."),
    Misconception("the values are their own borders", right.but(borders=lambda values: values[1:]),
        "A border lies half way between two values: what is above it is nearer to the upper one."),
    Misconception("signs are lost", right.but(flat=lambda x: np.abs(x.reshape(-1)).astype(np.float64)),
        "The data has both signs, and so has its codebook."),
    Misconception("the same values on both sides of 0",
        right.but(result=lambda values, x: np.sort((values - values[::-1]) / 2)),
        "Nothing says that the data is symmetric: the table may be as lopsided as it is."),
    Misconception("in units of the largest magnitude", right.but(result=lambda values, x: values / np.abs(x).max()),
        "The values are those of x itself, in its own unit."),
    Misconception("half as many values", right.but(count=lambda num_bits: 2 ** (num_bits - 1)),
        "b bits tell 2^b values apart."),
    Misconception("as many values as bits", right.but(count=lambda num_bits: num_bits),
        "b bits tell 2^b values apart."),
    Misconception("an empty cell becomes NaN",
        right.but(start=lambda x, n: np.linspace(4 * x.min() - 3 * x.max(), x.max(), n),
            move=lambda x, place, values: np.bincount(place, weights=x, minlength=len(values))
            / np.bincount(place, minlength=len(values))),
        "A value to which nothing is nearest has no mean: 0 / 0. Leave it where it is."),
    Misconception("one value only for each row", lambda x, num_bits=4: x.reshape(-1)[: 2**num_bits].astype(np.float64),
        "The first values of x are no codebook. Start anywhere, but let the data move it."),
    Misconception("from the largest to the smallest", right.but(result=lambda values, x: values[::-1]),
        "The values ascend."),
)  # fmt: skip

EXERCISE = Exercise(
    name="kmeans_codebook",
    lab=LESSON,
    place=60,
    points=2,
    reference=kmeans_codebook,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
)
