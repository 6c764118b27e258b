"""Relations of those values that are wrong: where they stand, and how far off they are."""

from __future__ import annotations

import numpy as np

from labutils.course.reading import distinct
from labutils.course.relations.pair import Claim, Claims, Pair, close, count_of


def not_a_number(pair: Pair) -> Claims:
    if not pair.same_shape or not pair.a.size:
        return
    lost = np.isfinite(pair.a) & np.isinf(pair.r)
    if lost.all():
        yield Claim("not inf", f"{pair.every} is finite where it should be infinite, {pair.a.flat[0]:.4g}")
    bad = ~np.isfinite(pair.a) & np.isfinite(pair.r)
    if not bad.any():
        return
    kind = "NaN" if np.isnan(pair.a[bad]).all() else "infinite" if np.isinf(pair.a[bad]).all() else "NaN or infinite"
    where = "everywhere" if bad.all() else f"in {bad.sum()} of {bad.size} places"
    if pair.r.ndim == 0:
        yield Claim("nan", f"{pair.it} is {kind}")
    elif not bad.all() and np.array_equal(bad, pair.r == 0):
        yield Claim("nan at 0", f"{pair.it} is {kind} exactly where it should be 0")
    else:
        rest = ", and right in all others" if close(pair.a[~bad], pair.r[~bad]) and not bad.all() else ""
        yield Claim("nan", f"{pair.it} is {kind} {where}{rest}")


def wrong_in_one_place(pair: Pair) -> Claims:
    """Wrong for one sign only, or on one part of an axis only, and right everywhere else."""
    if not pair.same_shape or pair.a.size < 4:
        return
    wrong = ~np.isclose(pair.a, pair.r, rtol=1e-4, atol=0, equal_nan=True)
    if not wrong.any() or wrong.mean() > 0.9:
        return
    r, but = pair.r, f"{pair.it} is right, but"
    for words, place in (
        ("where it should be 0", r == 0), ("for the largest value", r == r.max()),
        ("for the smallest value", r == r.min()),
        ("for negative values", r < 0), ("for positive values", r > 0),
    ):  # fmt: skip
        if np.array_equal(wrong, place):
            yield Claim(("wrong", words), f"{but} not {words}")
        elif not (wrong & ~place).any() and wrong.sum() >= 4 and np.sum(~place) >= 4:
            count = f"in {wrong.sum()} of {place.sum()} places"
            yield Claim(("among", words), f"{pair.it} is wrong {words} only, {count}, and right everywhere else")
    yield from _on_an_axis(pair, wrong, but)
    count = int(wrong.sum())
    if count <= wrong.size // 2:
        first = np.unravel_index(np.argmax(wrong), wrong.shape)
        index = ", ".join(str(int(i)) for i in first)
        yield Claim("few", f"{but} for {count} of {wrong.size} {pair.nouns}, the first of them at [{index}]")


def _on_an_axis(pair: Pair, wrong: np.ndarray, but: str) -> Claims:
    names = {-1: {1: "column"}, -2: {1: "row"}} if wrong.ndim == 2 else {}
    for axis in range(-1, -wrong.ndim - 1, -1):
        n = wrong.shape[axis]
        hit = np.flatnonzero(wrong.any(axis=tuple(i for i in range(wrong.ndim) if i != wrong.ndim + axis)))
        if n < 2 or hit.size > n // 2:
            continue
        what = names.get(axis, {}).get(1, "place" if wrong.ndim == 1 else f"index along axis {wrong.ndim + axis}")
        if np.array_equal(hit, np.arange(n - hit.size, n)):
            last = f"the last {what}" if hit.size == 1 else f"the last {hit.size} of {n} {_plural(what)}"
            yield Claim(("last", what), f"{but} not in {last}")
        elif np.array_equal(hit, np.arange(hit.size)):
            first = f"the first {what}" if hit.size == 1 else f"the first {hit.size} of {n} {_plural(what)}"
            yield Claim(("first", what), f"{but} not in {first}")
        elif hit.size == n // 2 and (np.diff(hit) == 2).all() and hit.size > 1:
            yield Claim(
                ("every second", what, int(hit[0])),
                f"{but} not in every second {what}, from the {['first', 'second'][hit[0] % 2]}",
            )
        elif hit.size == 1:
            yield Claim(("one", what), f"{but} not in {what} {hit[0]}")


def _plural(what: str) -> str:
    return what.replace("index", "indices") if what.startswith("index") else f"{what}s"


def cut_off(pair: Pair) -> Claims:
    """Beyond some value everything is that value, and below it all is right."""
    if not pair.same_shape or pair.a.size < 4:
        return
    wrong = ~np.isclose(pair.a, pair.r, rtol=1e-5, atol=0, equal_nan=True)
    if wrong.sum() < 2 or wrong.all() or not np.isfinite(pair.a).all():
        return
    for end, over, side in ((pair.a.max(), np.minimum, "above"), (pair.a.min(), np.maximum, "below")):
        if close(pair.a, over(pair.r, end), 1e-6):
            yield Claim(("cut", side), f"{pair.it} is right, but for values {side} {end:.5g}, which became {end:.5g}")


def wrapped(pair: Pair) -> Claims:
    a, r = pair.answer, pair.right
    if not (pair.same_shape and a.dtype.kind in "iu" and r.dtype.kind in "iu" and a.size >= 3):
        return
    off = a.astype(np.int64) - r.astype(np.int64)
    for bits in (16, 8, 4):
        if off.any() and not (off % 2**bits).any():
            yield Claim(("wrapped", bits), f"{count_of(off, pair)} wrapped around: off by a multiple of {2**bits}")
            return


def off_by_one(pair: Pair) -> Claims:
    a, r = pair.answer, pair.right
    if not (pair.same_shape and a.dtype.kind in "iu" and r.dtype.kind in "iu" and a.size >= 4):
        return
    off = a.astype(np.int64) - r.astype(np.int64)
    if not off.any() or np.abs(off).max() > 1 or np.ptp(pair.r) < 6:
        return
    count = count_of(off, pair)
    sides = {
        "down": (off <= 0).all(), "up": (off >= 0).all(),
        "towards 0": (off * np.sign(r) <= 0).all(), "away from 0": (off * np.sign(r) >= 0).all(),
    }  # fmt: skip
    side = next((words for words, holds in sides.items() if holds and np.count_nonzero(off) >= 4), None)
    always = f", always {side}" if side else ""
    yield Claim(("one off", side), f"{count} off by one{always}, and the others are right")
    yield Claim("one off", f"{count} off by one, and the others are right")


def on_one_side(pair: Pair) -> Claims:
    """Too large everywhere, or too small: the vaguest of all, and said last."""
    a, r = pair.a, pair.r
    if not pair.same_shape or not a.size or not (np.isfinite(a).all() and np.isfinite(r).all()):
        return
    enough = 1 if a.size >= 12 else 2
    for words, over in (("large", a > r), ("small", a < r)):
        if (over & ~np.isclose(a, r, rtol=1e-4, atol=0)).all():
            numbers = "" if a.ndim else ": {1} instead of {0}".format(*distinct(float(r), float(a)))
            yield Claim(("side", words), f"{pair.every} is too {words}{numbers}", enough)
