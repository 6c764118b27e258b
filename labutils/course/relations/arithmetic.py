"""Relations of every value to the right one: a factor, a shift, a function, an argument of the call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.course.relations.constants import name_of
from labutils.course.relations.pair import Claim, Claims, Pair, close


def other_dtype(pair: Pair) -> Claims:
    a, r = pair.answer, pair.right
    if pair.same_shape and a.dtype != r.dtype and a.ndim and close(pair.a, pair.r):
        yield Claim("dtype", f"the values of {pair.it} are right, but their dtype is {a.dtype} instead of {r.dtype}")


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


EPSILONS = tuple(float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64, np.float16))


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
        if not single and np.unique(wrong).size < 2 and wrong.size > 1:  # one value everywhere, whatever was meant
            continue
        if not close(wrong, pair.r) and close(pair.a, wrong, 1e-6):
            verb = "comes" if words.startswith(("rounded", "cut")) else "is"
            yield Claim(("of", words), f"{pair.every} {verb} {words}", 1 if single else min(pair.single, 2))
