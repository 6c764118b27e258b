"""round_to_grid: the nearest of a list of numbers, ties to the even code, and no value beyond the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays.grids import E2M1, E4M3, E5M2
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import place
from labutils.labs.contract import largest_at, trained_weights
from labutils.labs.floats import as_float64
from labutils.labs.lab11 import LESSON
from labutils.labs.lab11._blocks import nearest, rounded
from labutils.labs.recipes import Recipe

HAND = np.array([0.7, -1.2, 2.5, -5.0, 9.0], dtype=np.float32)  # of the lesson: 0.5, -1, 2, -4, 6 on E2M1


def round_to_grid(x: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The values of a grid that are nearest to `x`; `levels` are its numbers without a sign, ascending from 0.

    >>> round_to_grid(np.float32([0.7, -1.2, 2.5, -5.0, 9.0]), E2M1.ascending)
    array([ 0.5, -1. ,  2. , -4. ,  6. ])

    A number's place in `levels` is its code. Half way between two, the even code is taken; what is beyond the last
    level becomes the last. The result is float64 and has the shape of `x`. `grids.FloatGrid` is the fast form of this.
    """
    return rounded(np.asarray(x, np.float64), np.asarray(levels, np.float64))


def with_signs(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, -x]).astype(np.float32)


def cases() -> list[Case]:
    rng = np.random.default_rng(11)
    fp4, e4m3, e5m2 = E2M1.ascending, E4M3.ascending, E5M2.ascending
    w = trained_weights()
    wide = (rng.normal(size=400) * 10.0 ** rng.uniform(-4, 2.5, 400)).astype(np.float32)
    return [
        Case("the worked example", (HAND, fp4)),
        Case("half way between two numbers of E2M1", (with_signs((fp4[1:] + fp4[:-1]) / 2), fp4)),
        Case("a Gaussian on E2M1", (rng.normal(size=300).astype(np.float32) * 2, fp4)),
        Case("trained weights on E2M1", (w / np.abs(w).max(axis=1, keepdims=True) * 6, fp4)),
        Case("large and small values on E4M3", (wide, e4m3)),
        Case("half way between two numbers of E4M3", (with_signs((e4m3[1:] + e4m3[:-1]) / 2), e4m3)),
        Case("beyond the grid, E4M3", (with_signs(np.array([448, 449, 463, 470, 480, 500, 1e4, 1e6])), e4m3)),
        Case("beyond the grid, E5M2", (with_signs(np.array([57344, 60000, 61440, 65536, 1e9])), e5m2)),
        Case("only small values on E5M2", (rng.normal(size=200).astype(np.float32) * 1e-4, e5m2)),
        Case("a grid of three numbers, three axes", (rng.normal(size=(4, 3, 5)) * 2, np.array([0.0, 1.0, 3.0]))),
        Case("a grid of integers", (rng.normal(size=(5, 8)).astype(np.float32) * 4, np.arange(8.0))),
        Case("a strided view", (wide.reshape(20, 20)[::2, ::3], e4m3)),
        Case("all zero", (np.zeros((2, 3), np.float32), fp4)),
        Case("one value", (np.array([-3.2], np.float32), fp4)),
    ]


def read(value: Any) -> dict:
    return {"x": as_float64(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    x, levels = case.args
    found, wanted = answer["x"], round_to_grid(x, levels)
    if found.shape != x.shape:
        raise Wrong(f"the result should have the shape of x, {x.shape}, but has {found.shape}")
    off = np.abs(found - wanted)
    off = np.where(np.isfinite(off), off, np.inf) / np.maximum(np.abs(wanted), levels[1])
    worst = largest_at(off)
    if off[worst] <= 1e-6:
        return
    size, code = abs(float(x[worst])), int(nearest(np.abs(np.float64(x[worst])), levels))
    why = "the nearest"
    if size > levels[-1]:
        why = "the last, since there is none beyond it"
    elif size in (levels[1:] + levels[:-1]) / 2:
        why = f"half way, and its code {code} is even"
    raise Wrong(f"x[{place(worst)}] = {x[worst]:.7g} should become {wanted[worst]:g} ({why}), but it is "
                f"{found[worst]:.6g}")  # fmt: skip


def even(place: np.ndarray, tie: np.ndarray) -> np.ndarray:
    return place + (tie & (place % 2 == 1))


@dataclass(frozen=True)
class Rounding(Recipe):
    """The level at the place that `settle` picks of the lower one of two and whether it is a tie, with its sign."""

    middles: Callable = lambda levels: (levels[1:] + levels[:-1]) / 2
    settle: Callable = even
    beyond: Callable = lambda values, magnitude, levels: values
    sign: Callable = np.copysign
    result: Callable = lambda values, place, x: values

    def __call__(self, x, levels):
        magnitude, middles = np.abs(x).astype(np.float64), self.middles(levels)
        place = np.searchsorted(middles, magnitude)
        place = np.clip(self.settle(place, np.isin(magnitude, middles)), 0, len(levels) - 1)
        values = self.beyond(levels[place], magnitude, levels)
        return self.result(self.sign(values, x), place, x)


right = Rounding()


def overflowing(to, middle=True):
    """What is beyond the grid becomes `to`, from half a step beyond it on, as where there were one more number."""

    def beyond(values, magnitude, levels):
        end = levels[-1] + (levels[-1] - levels[-2]) / 2 * middle
        return np.where(magnitude > end, to, values)

    return beyond


def another_level(x, levels):
    """The grid goes on: one more number beyond its last."""
    return right(x, np.append(levels, 2 * levels[-1] - levels[-2]))


def around(x, levels):
    """Codes beyond the last one start again from 0."""
    step = levels[-1] - levels[-2]
    more = np.where(np.abs(x) > levels[-1], levels[0], np.abs(right(x, levels)))
    return np.copysign(np.where(np.abs(x) > levels[-1] + step / 2, more, np.abs(right(x, levels))), x)


def down(x, levels):
    return np.copysign(levels[np.searchsorted(levels, np.abs(x), side="right") - 1], x)


def up(x, levels):
    return np.copysign(levels[np.minimum(np.searchsorted(levels, np.abs(x)), len(levels) - 1)], x)


def without_signs(x, levels):
    place = np.abs(np.asarray(x, np.float64)[..., None] - levels).argmin(axis=-1)
    return levels[place]


def even_steps(x, levels):
    step = levels[1]
    return np.clip(np.round(x / step) * step, -levels[-1], levels[-1])


def whole_numbers(x, levels):
    return np.clip(np.round(x), -levels[-1], levels[-1])


def in_place(x, levels):
    result = right(x, levels)
    x[...] = result
    return result


def geometric(levels):
    return np.sqrt(levels[1:] * levels[:-1])


TIES = (
    "Half way between two numbers, take the one whose code is even: sometimes the lower, sometimes the upper. So ties "
    "do not push the mean one way."
)
SATURATE = (
    "A value beyond the grid is still a number, and the last number of the grid is nearest to it. Saturate: that is "
    "what a quantizer does before it casts."
)
CODES = "The place of the nearest level is its code. The result is what it stands for: the level, with its sign."

MISCONCEPTIONS = (
    Misconception("ties away from zero", right.but(settle=lambda place, tie: place + tie), TIES),
    Misconception("ties towards zero", right.but(settle=lambda place, tie: place), TIES),
    Misconception("ties to the odd code", right.but(settle=lambda place, tie: place + (tie & (place % 2 == 0))),
        "The other one of the two: codes are counted from 0, which is even, the code of 0."),
    Misconception("ties up, towards plus infinity",
        lambda x, levels: np.where(x > 0, right.but(settle=lambda p, t: p + t)(x, levels),
            right.but(settle=lambda p, t: p)(x, levels)), TIES),
    Misconception("down to the next number", down,
        "`searchsorted` on the levels finds between which two a value lies, and the lower one is not always the "
        "nearer. Compare with the middle between the two."),
    Misconception("up to the next number", up,
        "`searchsorted` on the levels gives the first number that is not smaller, which is not always the nearer one. "
        "Compare with the middle between two."),
    Misconception("beyond the grid becomes NaN", right.but(beyond=overflowing(np.nan)), SATURATE),
    Misconception("beyond the grid becomes NaN", right.but(beyond=overflowing(np.nan, middle=False)), SATURATE),
    Misconception("beyond the grid becomes infinity", right.but(beyond=overflowing(np.inf)), SATURATE),
    Misconception("beyond the grid becomes infinity", right.but(beyond=overflowing(np.inf, middle=False)), SATURATE),
    Misconception("beyond the grid becomes 0", right.but(beyond=overflowing(0.0, middle=False)), SATURATE),
    Misconception("beyond the grid starts again from 0", around, SATURATE),
    Misconception("beyond the grid stays as it is", lambda x, levels: np.where(np.abs(x) > levels[-1], x,
        right(x, levels)), SATURATE),
    Misconception("one number more than the grid has", another_level,
        "The grid ends with its last number, and a step further there is none."),
    Misconception("the sign is lost", right.but(sign=lambda values, x: values),
        "The levels have no signs, but x has: give each result the sign of its value."),
    Misconception("negative values become the smallest level", without_signs,
        "No level is below 0, so a negative value is nearest to 0. Round the magnitude, and put the sign back."),
    Misconception("evenly spaced numbers", even_steps,
        "The numbers of a small float are not evenly spaced: above 2, E2M1 knows 3, 4 and 6 only. Look for the nearest "
        "of `levels`."),
    Misconception("rounded to whole numbers", whole_numbers,
        "The numbers of a grid need not be whole, and not every whole number is on it. Look for the nearest of "
        "`levels`."),
    Misconception("nearest in ratio instead of distance", right.but(middles=geometric),
        "The nearest number is the one with the smallest distance: the border is the mean of two, not the root of "
        "their product."),
    Misconception("returns the codes", right.but(result=lambda values, place, x: place.astype(np.float32)),
        CODES),
    Misconception("returns the codes", right.but(result=lambda values, place, x: np.copysign(place, x)), CODES),
    Misconception("returns the error", right.but(result=lambda values, place, x: x - values),
        "The result is the rounded value, not what rounding took away."),
    Misconception("the input is changed", in_place,
        "Writing to `x[...]` changes the caller's array. Make a new one."),
)  # fmt: skip

EXERCISE = Exercise(
    name="round_to_grid",
    lab=LESSON,
    place=20,
    points=3,
    reference=round_to_grid,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
