"""window_split: which tokens of a cache are quantized, and which stay in full precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays.inputs import Array, real_array, require_finite
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import parts
from labutils.labs.contract import arguments
from labutils.labs.floats import as_float64
from labutils.labs.lab12 import LESSON
from labutils.labs.lab12._kv import keys_and_values
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import on_tensors, require_unchanged


def window_split(x: Array, window: int = 32, group_size: int = 32) -> tuple[Array, Array]:
    """The old tokens, in whole groups, and the newest ones: at least `window`, or all where there are fewer.

    >>> x = np.arange(10.0).reshape(1, 10, 1)  # (heads, tokens, channels)
    >>> old, newest = window_split(x, window=3, group_size=4)
    >>> old.ravel(), newest.ravel()
    (array([0., 1., 2., 3.]), array([4., 5., 6., 7., 8., 9.]))

    `old` holds as many whole groups of `group_size` tokens as lie before the newest `window` tokens, `newest` the rest.
    Liu et al., 2024, "KIVI" (arXiv:2402.02750), section 3.2. TypeError or ValueError for other shapes, a negative
    window, a group size below 1.
    """
    from labutils.models.kv_cache import CacheFormat

    xp, x = real_array(x)
    if x.ndim != 3:
        raise ValueError(f"x must have shape (heads, tokens, channels), got {tuple(x.shape)}")
    require_finite(xp, x)
    count = CacheFormat(window=window, group_size=group_size).quantized_tokens(x.shape[1])
    return x[:, :count], x[:, count:]


def tokens(count: int, heads: int = 2, channels: int = 5) -> np.ndarray:
    return keys_and_values(heads, count, channels, seed=count)[0]


def cases() -> list[Case]:
    return [
        Case("the worked example", (tokens(10, 1, 2), 3, 4)),
        Case("a window that whole groups leave exactly", (tokens(24), 8, 8)),
        Case("one token more", (tokens(25), 8, 8)),
        Case("one token less than a group would need", (tokens(23), 8, 8)),
        Case("fewer tokens than the window", (tokens(6), 8, 4)),
        Case("no window", (tokens(22), 0, 8)),
        Case("no window, whole groups", (tokens(24), 0, 8)),
        Case("groups of one token", (tokens(12), 5, 1)),
        Case("window and groups left at their defaults, 32", (tokens(100),)),
        Case("a window that is no multiple of the group", (tokens(50), 10, 16)),
        Case("as many heads and channels as tokens", (tokens(12, 12, 12), 4, 4)),
        Case("fewer tokens than a group", (tokens(3), 0, 8)),
    ]


def read(value: Any) -> dict:
    require_unchanged(value)
    old, newest = parts(value, ("old", "newest"))
    return {"old": as_float64(old, "old"), "newest": as_float64(newest, "newest")}


def judge(answer: dict, case: Case) -> None:
    x, window, group = arguments(window_split, case)
    wanted = dict(zip(answer, window_split(x, window, group)))
    asked = f"of {x.shape[1]} tokens, with a window of {window} and groups of {group}"
    for name, part in answer.items():
        if part.shape != wanted[name].shape:
            if part.ndim == 3 and part.shape[::2] == x.shape[::2]:
                raise Wrong(f"{asked}, {name} should hold {wanted[name].shape[1]}, but holds {part.shape[1]}")
            raise Wrong(f"{asked}, {name} should have shape {wanted[name].shape}, but has {part.shape}")
        if not np.array_equal(part, wanted[name]):
            raise Wrong(f"{asked}, {name} holds the right number of tokens, but others than it should")


def whole_groups(tokens, window, group):
    return max(0, tokens - window) // group * group


@dataclass(frozen=True)
class Split(Recipe):
    """result(x[:, :n], x[:, n:]), with n = count(tokens, window, group)."""

    count: Callable = whole_groups
    old: Callable = lambda x, n: x[:, :n]
    newest: Callable = lambda x, n: x[:, n:]
    result: Callable = lambda old, newest: (old, newest)

    def __call__(self, x, window=32, group_size=32):
        n = self.count(x.shape[1], window, group_size)
        return self.result(self.old(x, n), self.newest(x, n))


right = Split()


def from_the_wrong_end(x, window=32, group_size=32):
    n = whole_groups(x.shape[1], window, group_size)
    return x[:, x.shape[1] - n :], x[:, : x.shape[1] - n]


def oldest_kept(x, window=32, group_size=32):
    return x[:, window:], x[:, :window]


def negative_slice(x, window=32, group_size=32):
    return x[:, :-window], x[:, -window:]


def along(axis):
    def split(x, window=32, group_size=32):
        n = whole_groups(x.shape[axis], window, group_size)
        return x.narrow(axis, 0, n), x.narrow(axis, n, x.shape[axis] - n)

    return split


MISCONCEPTIONS = (
    Misconception("the window counted from the wrong end", from_the_wrong_end,
        "The first tokens stay in full precision here, and the newest are quantized. New tokens are added at the end "
        "of the axis, and the window holds the newest."),
    Misconception("the oldest tokens are kept, whatever the groups", oldest_kept,
        "The first tokens stay in full precision here. New tokens are added at the end of the axis, and the window "
        "holds the newest; what is quantized comes in whole groups."),
    Misconception("a slice of minus the window", negative_slice,
        "`x[:, :-window]` does not look at groups, and with a window of 0 it is empty. Compute how many tokens are "
        "quantized, and slice with that."),
    Misconception("groups that are not full",
        right.but(count=lambda tokens, window, group: max(0, tokens - window)),
        "A group shares its scales, which would change with each token that joins it. Only whole groups are quantized: "
        "round their number down."),
    Misconception("the last group is begun too early",
        right.but(count=lambda tokens, window, group: min(tokens, -(-max(0, tokens - window) // group) * group)),
        "Rounding up takes tokens out of the window. Round the number of groups down: the rest waits."),
    Misconception("the window is not kept", right.but(count=lambda tokens, window, group: tokens // group * group),
        "All whole groups were quantized. The newest `window` tokens stay out of them."),
    Misconception("the window is rounded to groups, down",
        right.but(count=lambda tokens, window, group: max(0, tokens // group - window // group) * group),
        "Round once: subtract the window from the number of tokens first, then count whole groups. A window of less "
        "than a group would be no window here."),
    Misconception("the window counted in groups",
        right.but(count=lambda tokens, window, group: max(0, tokens // group - window) * group),
        "`window` is a number of tokens, not of groups."),
    Misconception("the number of groups instead of tokens",
        right.but(count=lambda tokens, window, group: max(0, tokens - window) // group),
        "That is how many groups are quantized. Each holds `group_size` tokens."),
    Misconception("a window that is larger than the text counts backwards",
        right.but(count=lambda tokens, window, group: (tokens - window) // group * group),
        "With fewer tokens than the window the number is negative, and a slice counts it from the end. Nothing is "
        "quantized then: not less than 0."),
    Misconception("one group at most",
        right.but(count=lambda tokens, window, group: group if tokens - window >= group else 0),
        "Several groups may lie before the window, and all of them are quantized."),
    Misconception("split along the channels", along(2),
        "The last axis holds the channels. Tokens are axis 1."),
    Misconception("split along the heads", along(0),
        "Axis 0 holds the heads. Tokens are axis 1."),
    Misconception("32 and 32, whatever was asked for",
        right.but(count=lambda tokens, window, group: max(0, tokens - 32) // 32 * 32),
        "32 is the default of both. Use `window` and `group_size`."),
    Misconception("newest first", right.but(result=lambda old, newest: (newest, old)),
        "Both parts are right, in the wrong order: the old tokens first."),
)  # fmt: skip

EXERCISE = Exercise(
    name="window_split",
    lab=LESSON,
    place=60,
    points=2,
    reference=window_split,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
    run=on_tensors,
)
