"""How an answer may stand to the right one: a table of relations between two arrays.

Each entry of DIFFERENCES takes a `Pair` and yields a `Claim` for what holds exactly in it: "every scale is 2.008 times
too large: that is 255/127". A relation with a free parameter needs more than one number to show itself, so that two
unrelated arrays stand in none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from labutils.course.comparison import same_value
from labutils.course.constants import name_of

NOUNS = {
    "q": "code",
    "scales": "scale",
    "falls": "fall",
    "bits": "number of bits",
    "packed": "byte",
    "bytes": "number of bytes",
}  # of a key of an answer


@dataclass(frozen=True)
class Claim:
    """One true statement about a pair.

    key       equal in all cases in which the same statement holds, with other numbers perhaps
    sentence  the statement with this case's numbers, without a full stop
    needs     the number of cases in which it must hold, because one could be chance
    rank      of two that hold in as many cases, the one with the lower rank is said
    """

    key: Hashable
    sentence: str
    needs: int = 1
    rank: int = 0


@dataclass(frozen=True)
class Pair:
    """An entry of an answer and of the right one, and what they may have to do with: factors by name, and arguments."""

    name: str
    answer: np.ndarray
    right: np.ndarray
    factors: dict[str, tuple[float, str]] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    alone: bool = False  # the answer has no other entry

    @property
    def noun(self) -> str:
        return NOUNS.get(self.name, "value" if self.alone else f"value of `{self.name}`")

    @property
    def every(self) -> str:
        return f"every {self.noun}" if self.right.ndim else self.it

    @property
    def it(self) -> str:
        return "the result" if self.alone else f"`{self.name}`"

    @property
    def same_shape(self) -> bool:
        return self.answer.shape == self.right.shape

    @property
    def single(self) -> int:
        """How many cases a parameter that was read off must hold in: one number alone has some factor to any other."""
        return 1 if np.unique(self.right[np.isfinite(self.right)]).size >= 3 else 3

    def __post_init__(self):
        object.__setattr__(self, "a", self.answer.astype(np.float64))
        object.__setattr__(self, "r", self.right.astype(np.float64))


Claims = Iterator[Claim]


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-5) -> bool:
    """All equal up to rounding; NaN where NaN is."""
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=0, equal_nan=True))


def digits(a: float, b: float) -> tuple[str, str]:
    """Two numbers as text, with as many digits as show that they differ, and six at least.

    >>> digits(2.029104, 2.0291041), digits(1.0, 2.0)
    (('2.029104', '2.0291041'), ('1', '2'))
    """
    for precision in range(6, 18):
        if f"{a:.{precision}g}" != f"{b:.{precision}g}":
            break
    return f"{a:.{precision}g}", f"{b:.{precision}g}"


def other_dtype(pair: Pair) -> Claims:
    a, r = pair.answer, pair.right
    if pair.same_shape and a.dtype != r.dtype and a.ndim and close(pair.a, pair.r):
        yield Claim("dtype", f"the values of {pair.it} are right, but their dtype is {a.dtype} instead of {r.dtype}")


def an_argument(pair: Pair) -> Claims:
    """The answer is an argument as it came, or the right one times it, and so on."""
    for name, value in pair.arguments.items():
        value = _numbers(value)
        if value is None or (value.ndim == 0 and pair.right.ndim == 0 and value == 0):
            continue
        if pair.a.size > 1 and pair.a.shape == value.shape and close(pair.a, value) and not close(pair.r, value):
            yield Claim(("is", name), f"{pair.it} is `{name}` as it came")
        if not pair.same_shape or pair.r.size == 0 or not pair.r.any():
            continue
        for words, changed in (
            ("times `{}`", lambda r, v: r * v),
            ("divided by `{}`", lambda r, v: r / v),
            ("plus `{}`", lambda r, v: r + v),
            ("minus `{}`", lambda r, v: r - v),
        ):
            with np.errstate(all="ignore"):
                try:
                    wrong = changed(pair.r, value)
                except ValueError:  # no shapes that meet
                    break
            if (
                wrong.shape == pair.a.shape
                and np.isfinite(wrong).all()
                and not close(wrong, pair.r)
                and close(pair.a, wrong)
            ):
                yield Claim(
                    (words, name), f"{pair.it} is the right one {words.format(name)}", 1 if pair.r.size > 1 else 2
                )


def _numbers(value: Any) -> np.ndarray | None:
    if isinstance(value, (bool, str, bytes)) or not isinstance(value, (int, float, np.ndarray, np.number)):
        return None
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "iuf" and array.size else None


def a_factor(pair: Pair) -> Claims:
    a, r = pair.a, pair.r
    used = r != 0
    if not pair.same_shape or not used.any() or not (np.isfinite(a).all() and np.isfinite(r).all()) or a[~used].any():
        return
    factors = a[used] / r[used]
    factor = float(factors.flat[np.argmax(np.abs(r[used]))])
    if factor in (0, 1) or not close(factors, np.full(factors.shape, factor)) or abs(factor - 1) < 1e-5:
        return
    if math.isclose(factor, -1, rel_tol=1e-6):
        yield Claim("sign", f"{pair.every} has the wrong sign")
        return
    sign = "has the wrong sign, and is" if factor < 0 else "is"
    size = abs(factor)
    words = _times(size)
    for formula, written in name_of(size, pair.factors):
        spelled = f", {formula}" if formula not in written and "b" in formula else ""
        if written.startswith("1/") and formula == written:
            words = f"{written} of what it should be"
        known = (
            ""
            if words.startswith(f"{written} of") or words.startswith(f"{written} times")
            else f": that is {written}{spelled}"
        )
        needs = 1 if used.sum() > 1 or len(written) < 9 else 2
        yield Claim(("times", np.sign(factor), formula), f"{pair.every} {sign} {words}{known}", needs)
    yield Claim(("times", float(f"{factor:.4g}")), f"{pair.every} {sign} {words}", pair.single)


def _times(size: float) -> str:
    """'2.008 times too large', or in percent where it is nearly right."""
    if abs(size - 1) < 0.001:
        return f"too {'large' if size > 1 else 'small'} by {100 * abs(size - 1):.3g} percent"
    return f"{size:.4g} times too large" if size > 1 else f"{size:.4g} times what it should be"


def a_shift(pair: Pair) -> Claims:
    a, r = pair.a, pair.r
    if not pair.same_shape or not a.size or not (np.isfinite(a).all() and np.isfinite(r).all()):
        return
    reach = max(np.abs(a).max(), np.abs(r).max())
    shift = float((a - r).flat[0])
    if abs(shift) > 1e-6 * reach and np.allclose(a - shift, r, rtol=0, atol=max(1e-3 * abs(shift), 1e-7 * reach)):
        formula = next((f" ({f})" for f, w in name_of(abs(shift), pair.factors) if f != w and "b" in f), "")
        words = f"{abs(shift):.3g}{formula} too {'large' if shift > 0 else 'small'}"
        yield Claim(("plus", float(f"{shift:.3g}")), f"{pair.every} is {words}", pair.single)
    total = float((a + r).flat[0])
    if abs(total) > 1e-4 * reach and np.allclose(total - a, r, rtol=1e-6, atol=1e-6 * reach):
        least = 2 if total in (1, 100) and not r.ndim else pair.single
        yield Claim(("minus", float(f"{total:.6g}")), f"{pair.every} is {total:.6g} minus what it should be", least)


def a_floor(pair: Pair) -> Claims:
    """Nothing is below a small round number, or such a number divided by the largest code."""
    a, r = pair.a, pair.r
    if not pair.same_shape or not a.size or not np.isfinite(a).all() or not (a > 0).all():
        return
    wrong = ~np.isclose(a, r, rtol=1e-5, atol=0)
    least = float(a[wrong].min()) if wrong.any() else 0.0
    if not 0 < least < 1e-2 or not (r[wrong] < least).all() or not np.allclose(a[wrong], least, rtol=1e-5, atol=0):
        return
    bits = pair.arguments.get("num_bits")
    for divisor in (1, 2 ** (bits - 1) - 1, 2**bits - 1) if isinstance(bits, int) else (1, 127):
        number = least * divisor
        power = 10.0 ** round(math.log10(number))
        for floor in (power, *EPSILONS):
            if math.isclose(number, floor, rel_tol=1e-5):
                over = f", {floor:.3g} / {divisor}" if divisor > 1 else ""
                where = "" if wrong.all() else " where it should be smaller"
                yield Claim(
                    ("floor", floor),
                    f"{pair.every} is {least:.3g}{over}{where}: a smallest scale flattens what is smaller, and only "
                    "a scale of exactly 0 needs another",
                )
                return


EPSILONS = tuple(float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64, np.float16))


def _bfloat16(r: np.ndarray) -> np.ndarray:
    bits = r.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


# Words -> (the function of the right values, and whether one number is enough to show it).
FUNCTIONS: dict[str, tuple[Callable, bool]] = {
    "the square of what it should be": (np.square, True),
    "the square root of what it should be": (np.sqrt, True),
    "1 / what it should be": (np.reciprocal, True),
    "without its sign": (np.abs, False),
    "10 to the power of a tenth of what it should be": (lambda r: 10 ** (r / 10), True),
    "the power of 2 that it should be the exponent of": (np.exp2, True),
    "the base-2 logarithm of what it should be": (np.log2, True),
    "the natural logarithm of what it should be": (np.log, True),
    "rounded to the nearest integer": (np.round, False),
    "cut off behind the point": (np.trunc, False),
    "rounded down to an integer": (np.floor, False),
    "rounded up to an integer": (np.ceil, False),
    "rounded to half precision": (lambda r: r.astype(np.float16), False),
    "rounded to bfloat16": (_bfloat16, False),
    "rounded up to a power of 2": (lambda r: np.exp2(np.ceil(np.log2(r))), False),
    "rounded to a power of 2": (lambda r: np.exp2(np.round(np.log2(r))), False),
    "0 where it should be negative": (lambda r: np.maximum(r, 0), False),
    "0 where it should be positive": (lambda r: np.minimum(r, 0), False),
}


def a_function(pair: Pair) -> Claims:
    if not pair.same_shape or not pair.a.size or not np.isfinite(pair.a).all() or not np.isfinite(pair.r).all():
        return
    for words, (function, single) in FUNCTIONS.items():
        with np.errstate(all="ignore"):
            wrong = np.asarray(function(pair.r), dtype=np.float64)
        if not close(wrong, pair.r) and close(pair.a, wrong, 1e-6):
            verb = "comes" if words.startswith(("rounded", "cut")) else "is"
            yield Claim(("of", words), f"{pair.every} {verb} {words}", 1 if single else min(pair.single, 2))


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


def _count(wrong: np.ndarray, pair: Pair) -> str:
    """'1 of 12 codes is', '3 of 12 codes are'."""
    count = np.count_nonzero(wrong)
    return f"{count} of {wrong.size} {pair.noun}s {'is' if count == 1 else 'are'}"


def wrapped(pair: Pair) -> Claims:
    a, r = pair.answer, pair.right
    if not (pair.same_shape and a.dtype.kind in "iu" and r.dtype.kind in "iu" and a.size >= 3):
        return
    off = a.astype(np.int64) - r.astype(np.int64)
    for bits in (16, 8, 4):
        if off.any() and not (off % 2**bits).any():
            yield Claim(("wrapped", bits), f"{_count(off, pair)} wrapped around: off by a multiple of {2**bits}")
            return


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
            yield Claim(("one", words), f"{count}, {value:.4g}: {words} of the right ones")
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


def not_a_number(pair: Pair) -> Claims:
    if not pair.same_shape or not pair.a.size:
        return
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
        if np.array_equal(wrong, place) or (
            wrong.sum() >= 4 and not (wrong & ~place).any() and wrong.sum() >= 0.2 * place.sum()
        ):
            yield Claim(("wrong", words), f"{but} not {words}")
    yield from _on_an_axis(pair, wrong, but)
    count = int(wrong.sum())
    if count <= wrong.size // 2:
        first = np.unravel_index(np.argmax(wrong), wrong.shape)
        index = ", ".join(str(int(i)) for i in first)
        yield Claim("few", f"{but} for {count} of {wrong.size} {pair.noun}s, the first of them at [{index}]")


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


def off_by_one(pair: Pair) -> Claims:
    a, r = pair.answer, pair.right
    if not (pair.same_shape and a.dtype.kind in "iu" and r.dtype.kind in "iu" and a.size >= 4):
        return
    off = a.astype(np.int64) - r.astype(np.int64)
    if not off.any() or np.abs(off).max() > 1 or np.ptp(pair.r) < 6:
        return
    count = _count(off, pair)
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
            numbers = "" if a.ndim else ": {1} instead of {0}".format(*digits(float(r), float(a)))
            yield Claim(("side", words), f"{pair.every} is too {words}{numbers}", enough)


DIFFERENCES: dict[str, Callable[[Pair], Claims]] = {
    "another dtype": other_dtype,
    "NaN or infinity": not_a_number,
    "a smallest value": a_floor,
    "a known factor, or one factor": a_factor,
    "a constant shift": a_shift,
    "another order": another_order,
    "a function of the right value": a_function,
    "an argument": an_argument,
    "wrapped around": wrapped,
    "cut off": cut_off,
    "one value": all_the_same,
    "another axis": another_axis,
    "another length": too_long_or_short,
    "off by one": off_by_one,
    "wrong in one place only": wrong_in_one_place,
    "too large or too small": on_one_side,
}


def claims(pair: Pair) -> Iterator[Claim]:
    """Everything that holds in a pair, the most telling first."""
    for rank, find in enumerate(DIFFERENCES.values()):
        with np.errstate(all="ignore"):
            yield from (replace(claim, rank=rank) for claim in find(pair))
