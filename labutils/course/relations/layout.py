"""Relations of one array to another as a whole: another order, another axis, another length, one value everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from labutils.course.comparison import same_value
from labutils.course.relations.pair import Claim, Claims, Pair, close


def another_order(pair: Pair) -> Claims:
    """The same values at other places of an array of the same shape, or of one with its axes exchanged."""
    a, r = pair.answer, pair.right
    if a.size != r.size or np.unique(r[~np.isnan(pair.r)]).size < 4 or same_value(a, r):
        return
    for words, moved in _orders(r):
        if moved.shape == a.shape and close(pair.a, moved.astype(np.float64)):
            yield Claim(("order", words), f"{pair.it} {words}")
    if a.shape != r.shape and close(pair.a.reshape(-1), pair.r.reshape(-1)):
        yield Claim(
            "shape", f"the values of {pair.it} are right, and in order, but its shape is {a.shape} instead of {r.shape}"
        )
    elif close(np.sort(pair.a, axis=None), np.sort(pair.r, axis=None)):
        yield Claim("sorted", f"{pair.it} has the right values, but in another order", 1)


def _orders(r: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if r.ndim == 2:
        yield "is transposed", r.T
    for i in range(r.ndim):
        for j in range(i):
            if r.ndim > 2:
                yield f"has axes {j} and {i} exchanged", np.swapaxes(r, i, j)
    for axis in range(r.ndim):
        of = f" along axis {axis}" if r.ndim > 1 else ""
        yield f"is in reverse order{of}", np.flip(r, axis)
        yield f"is shifted by one place{of}", np.roll(r, 1, axis)
        yield f"is shifted back by one place{of}", np.roll(r, -1, axis)
    if r.ndim and r.shape[-1] % 2 == 0:
        pairs = r.reshape(*r.shape[:-1], -1, 2)
        yield "has the two of each pair of neighbours exchanged", pairs[..., ::-1].reshape(r.shape)
        yield (
            "has all the first of each pair of neighbours before all the second",
            pairs.swapaxes(-1, -2).reshape(r.shape),
        )
        yield "has its halves in turns", r.reshape(*r.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(r.shape)
    if r.ndim == 2:
        yield "has its values in the order of columns", r.T.reshape(r.shape)
        yield "has its values in the order of columns", r.reshape(r.shape[::-1]).T


REDUCTIONS = {
    "the largest": np.max, "the smallest": np.min, "the mean": np.mean, "the sum": np.sum, "the median": np.median,
    "the first": lambda r: r.flat[0], "the last": lambda r: r.flat[-1],
}  # fmt: skip


def all_the_same(pair: Pair) -> Claims:
    a, r = pair.a, pair.r
    if r.size < 3 or not a.size or not np.isfinite(a.flat[0]) or not np.isfinite(r).all():
        return
    value = float(a.flat[0])
    if not close(a, np.full(a.shape, value)) or np.ptp(r) <= 1e-5 * np.abs(r).max():
        return
    count = "there is one value" if a.size == 1 else f"every {pair.noun} is the same"
    for words, reduce in REDUCTIONS.items():
        if math.isclose(value, float(reduce(r)), rel_tol=1e-6) and value:
            yield Claim(("reduced", words), f"{count}, {value:.4g}: {words} of the right ones")
    if a.size > 1:
        yield Claim(("one", value), f"{count}, {value:.4g}")
        yield Claim("one", f"{count}, {value:.4g}")


def another_axis(pair: Pair) -> Claims:
    """Proportional to the largest magnitudes of an argument along some of its axes, but not along the right ones."""
    a, r = pair.a, pair.r
    for name, x in pair.arguments.items():
        if not isinstance(x, np.ndarray) or not 2 <= x.ndim <= 4 or not x.size or x.dtype.kind != "f" or a.size < 2:
            continue
        for axes in (c for n in range(x.ndim) for c in combinations(range(x.ndim), n)):
            peaks = np.abs(x).max(axis=axes, keepdims=True).astype(np.float64) if axes else np.abs(x).astype(np.float64)
            used = peaks.reshape(-1) > 0
            if peaks.size != a.size or used.sum() < 2 or peaks.squeeze().shape != a.squeeze().shape:
                continue
            ratio = a.reshape(-1)[used] / peaks.reshape(-1)[used]
            if np.isfinite(ratio).all() and ratio[0] > 0 and close(ratio, np.full(ratio.shape, ratio[0])):
                if a.shape == r.shape and close(a, r):
                    continue
                along = "each value" if not axes else f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
                kept = ", ".join(str(i) for i in range(x.ndim) if i not in axes)
                left = f"there is one for each index of axis {kept}" if len(kept) == 1 else f"axes {kept} are left"
                words = (
                    f"has one for each value of `{name}`" if not axes else f"is taken along {along} of `{name}`: {left}"
                )
                yield Claim(("axis", name, axes), f"{pair.it} {words}")


def too_long_or_short(pair: Pair) -> Claims:
    """A part of the right array, or more than it, along one axis."""
    a, r = pair.a, pair.r
    if a.ndim != r.ndim or not a.ndim or a.shape == r.shape or not (a.size and r.size):
        return
    differing = [axis for axis in range(a.ndim) if a.shape[axis] != r.shape[axis]]
    if len(differing) != 1 or min(a.size, r.size) < 2:
        return
    (axis,) = differing
    n, m = a.shape[axis], r.shape[axis]
    along = f" along axis {axis}" if a.ndim > 1 else ""
    few, many = sorted((n, m))
    for words, start in (("last", 0), ("first", many - few)):
        if close(
            *(
                np.take(
                    v, range(start if v.shape[axis] > few else 0, few + (start if v.shape[axis] > few else 0)), axis
                )
                for v in (a, r)
            )
        ):
            what = f"the {words} {many - few} {'are' if many - few > 1 else 'is'} {'missing' if n < m else 'too many'}"
            yield Claim(("length", words, n < m), f"{pair.it} is right, but {what}{along}")
            return
