"""quantized matmul."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, place
from labutils.labs import answers
from labutils.labs.lab05 import LESSON
from labutils.labs.lab05._shared import _pooled, _trained

Array = Any  # a numpy.ndarray or a torch.Tensor


def quantized_matmul(
    a_q: Array,
    a_scale: float | Array,
    b_q: Array,
    b_scale: float | Array,
    a_zp: int | Array = 0,
    b_zp: int | Array = 0,
) -> Array:
    """a @ b for a = a_scale * (a_q - a_zp) and b = b_scale * (b_q - b_zp), multiplied as integers and scaled once.

    >>> a_q = np.array([[130, 125, 140]], dtype=np.uint8)  # 0.2, -0.3, 1.2
    >>> b_q = np.array([[12], [-3], [5]], dtype=np.int8)  # 5, -2.5, 1.5
    >>> quantized_matmul(a_q, 0.1, b_q, 0.5, a_zp=128, b_zp=2)
    array([[3.55]], dtype=float32)

    a_q (M, K) and b_q (K, N) hold integer codes of any width, NumPy or torch. A scale or zero point is one number, or
    one for each row of a, shape (M,) or (M, 1), or for each column of b, shape (N,) or (1, N): what varies along K
    cannot leave the sum. The integers are exact:

        a_q @ b_q - a_zp * (column sums of b_q) - b_zp * (row sums of a_q) + K * a_zp * b_zp

    (Jacob et al., 2018, arXiv:1712.05877, equation 7). The result is float32, or float64 where a scale is a float64
    array. TypeError for codes or zero points that are not integers and for scales that are not real; ValueError for
    shapes that do not match, scales that are not positive and finite, and sums that int64 may not hold.
    """
    from labutils.models import products

    return products.quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp, b_zp)


FLOAT32 = 2.0**-24  # the largest relative error of one rounding


HAND = (np.array([[130, 125, 140]], np.uint8), 0.1, np.array([[12], [-3], [5]], np.int8), 0.5)  # of the lesson


def _matmul_cases() -> list[Case]:
    rng = np.random.default_rng(5)

    def codes(kind: type, *shape: int) -> np.ndarray:
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)

    weight, _ = _trained("head")
    x_q, x_scale, x_zp = answers.quantize_asymmetric(_pooled())
    w_q, w_scales = answers.quantize_per_channel(weight, 0)
    _, w_scale = answers.quantize_symmetric(weight)
    tokens, token_scales = answers.quantize_per_token(rng.normal(size=(6, 6)).astype(np.float32))
    channels = np.geomspace(0.01, 0.1, 6).astype(np.float32)
    largest = np.where(rng.random((3, 4096)) < 0.9, 127, -128).astype(np.int8)
    high, low = np.where(largest > 0, 255, 254).astype(np.uint8), np.where(largest.T > 0, 0, 3).astype(np.uint8)
    column = rng.integers(-50, 51, (300, 1), dtype=np.int8)
    balanced = np.concatenate([column, -column[::-1]])  # beside a palindrome, every sum is 0
    row = rng.integers(-128, 128, (1, 300), dtype=np.int8)
    return [
        Case("the worked example", HAND, {"a_zp": 128, "b_zp": 2}),
        Case("both symmetric", (codes(np.int8, 3, 20), 0.02, codes(np.int8, 20, 4), 0.005)),
        Case("only a has a zero point", (codes(np.uint8, 3, 20), 0.02, codes(np.int8, 20, 4), 0.005), {"a_zp": 131}),
        Case("only b has a zero point", (codes(np.int8, 5, 20), 0.1, codes(np.uint8, 20, 4), 0.5), {"b_zp": 77}),
        Case(
            "both have zero points",
            (codes(np.uint8, 4, 30), 0.02, codes(np.uint8, 30, 6), 0.5),
            {"a_zp": 200, "b_zp": 90},
        ),
        Case("square, both have zero points", (codes(np.uint8, 8, 8), 0.02, codes(np.uint8, 8, 8), 0.5),
             {"a_zp": 3, "b_zp": 250}),
        Case("signed codes, zero points below 0", (codes(np.int8, 4, 9), 0.3, codes(np.int8, 9, 3), 0.2),
             {"a_zp": -100, "b_zp": -7}),
        Case("4-bit codes with zero points", (codes(np.uint8, 4, 16) & 15, 0.1, codes(np.uint8, 16, 3) & 15, 0.1),
             {"a_zp": 8, "b_zp": 5}),
        Case("activations of the digits network by its head", (x_q, x_scale, w_q.T, w_scales), {"a_zp": int(x_zp)}),
        Case("one scale for the head", (x_q, x_scale, answers.quantize_symmetric(weight)[0].T, w_scale),
             {"a_zp": int(x_zp)}),
        Case("a scale for each row and each column, square", (tokens, token_scales, codes(np.int8, 6, 6), channels)),
        Case("4096 of the largest codes", (largest, 0.01, largest.T.copy(), 0.01)),
        Case("4096 of the largest codes, with zero points", (high, 0.1, low, 1.0), {"a_zp": 1, "b_zp": 255}),
        Case("sums that are 0", (np.concatenate([row, row[:, ::-1]], axis=1), 0.1, balanced, 0.7)),
        Case("one product", (np.array([[-128]], np.int8), 0.25, np.array([[-128]], np.int8), 0.25)),
        Case("one column by one row", (codes(np.int8, 4, 1), 0.25, codes(np.int8, 1, 3), 0.25), {"a_zp": 2}),
    ]  # fmt: skip


def _read_product(value: object) -> dict:
    y = as_array(value, "the result")
    # A mistake is the same mistake in float32 and in float64, and both may be returned.
    return {"y": y.astype(np.float64) if y.dtype == np.float32 else y}


def _integer_sums(a_q: np.ndarray, b_q: np.ndarray, a_zp: int = 0, b_zp: int = 0) -> np.ndarray:
    return (a_q.astype(np.int64) - a_zp) @ (b_q.astype(np.int64) - b_zp)


def _judge_product(answer: dict, case: Case) -> None:
    a_q, a_scale, b_q, b_scale = case.args
    y, sums = answer["y"], _integer_sums(a_q, b_q, **case.kwargs)
    if y.shape != sums.shape:
        raise Wrong(f"the result should have shape {sums.shape}, rows of a by columns of b, but it has {y.shape}")
    if y.dtype.kind != "f":
        raise Wrong(f"the result should hold floats, for scales are floats, but its dtype is {y.dtype}")
    if y.dtype.itemsize < 4:
        raise Wrong(f"the result should be float32, but its dtype is {y.dtype}")
    expected = sums * np.asarray(a_scale, np.float64) * np.asarray(b_scale, np.float64)
    error = np.abs(y.astype(np.float64) - expected)
    allowed = 8 * FLOAT32 * np.abs(expected)  # the sum, two scales, their product and the result, each rounded
    if (bad := ~(error <= allowed)).any():
        worst = np.unravel_index(np.argmax(np.where(bad, np.nan_to_num(error - allowed, nan=np.inf), 0)), y.shape)
        told = "" if sums[worst] else ": the integers cancel, and floats do not"
        raise Wrong(
            f"result[{place(worst)}] should be {expected[worst]:.9g}, the integer {sums[worst]} times the scales, "
            f"but it is {y[worst]:.9g}{told}"
        )


def _multiplied(
    total: Callable = lambda a, b, za, zb: _integer_sums(a, b, za, zb),
    rescale: Callable = lambda sums, a_scale, b_scale: sums * (a_scale * b_scale),
) -> Callable:
    """A quantized matmul in which the integers or the scaling are wrong."""

    def quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
        return rescale(total(a_q, b_q, a_zp, b_zp), a_scale, b_scale)

    return quantized_matmul


def _expanded(
    a_term: Callable = lambda a, b, za: -za * b.sum(axis=0, keepdims=True),
    b_term: Callable = lambda a, b, zb: -zb * a.sum(axis=1, keepdims=True),
    last: Callable = lambda a, b, za, zb: a.shape[1] * za * zb,
) -> Callable:
    """The expansion in which one term is wrong, in int64."""

    def total(a, b, za, zb):
        a, b = a.astype(np.int64), b.astype(np.int64)
        return a @ b + a_term(a, b, za) + b_term(a, b, zb) + last(a, b, za, zb)

    return _multiplied(total)


def _floats(dtype: type, of_scales: type) -> Callable:
    """Dequantizes both, and multiplies what comes out."""

    def quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
        a = (a_q.astype(dtype) - dtype(a_zp)) * np.asarray(a_scale, of_scales)
        b = (b_q.astype(dtype) - dtype(b_zp)) * np.asarray(b_scale, of_scales)
        return (a @ b).astype(np.float32)

    return quantized_matmul


def _in_floats_of(dtype: type) -> Callable:
    """Adds up in a float type, one product after the other."""

    def total(a, b, za, zb):
        a, b = a.astype(dtype) - dtype(za), b.astype(dtype) - dtype(zb)
        sums = np.zeros((a.shape[0], b.shape[1]), dtype)
        for k in range(a.shape[1]):
            sums += a[:, k : k + 1] * b[k]
        return sums.astype(np.float64)

    return _multiplied(total)


def _wrapped(dtype: type, correct: bool = True) -> Callable:
    def total(a, b, za, zb):
        corrections = _integer_sums(a, b, za, zb) - a.astype(np.int64) @ b.astype(np.int64)
        return (a.astype(np.int64) @ b.astype(np.int64)).astype(dtype) + corrections * correct

    return _multiplied(total)


def _subtracted_in(signed: type | None) -> Callable:
    """The zero points are subtracted in the dtype of the codes, or in int8, where they do not fit."""

    def total(a, b, za, zb):
        moved = (
            (q.astype(np.int64) - zp).astype(signed or q.dtype).astype(np.int64) if zp else q.astype(np.int64)
            for q, zp in ((a, za), (b, zb))
        )
        a, b = moved
        return a @ b

    return _multiplied(total)


NO_SCALE = "The sums count in steps of a_scale * b_scale. Multiply each sum once with both."


FLOATS = (
    "floats are multiplied",
    "Each code was turned into a float first, so this is the float product of two dequantized matrices: nothing is "
    "gained, and roundings add up. Multiply the codes, add up integers, and let the scales in at the very end.",
)


WRAPS = (
    "Multiplying keeps the dtype of the codes: 127 * 127 = 16129 does not fit, and wraps around without a word. Cast "
    "both to a wide integer before you multiply."
)


SIDE = (
    "a_scale belongs to the rows of the result, b_scale to its columns. Shape (N,) broadcasts along columns by itself; "
    "do not turn it."
)


QUANTIZED_MATMUL = (
    Misconception("accumulates in int8", _wrapped(np.int8), WRAPS),
    Misconception(
        "accumulates in int8", _multiplied(lambda a, b, za, zb: a.astype(np.int8) @ b.astype(np.int8)), WRAPS
    ),
    Misconception(
        "accumulates in the dtype of the codes",
        _multiplied(
            lambda a, b, za, zb: (a - a.dtype.type(za)) @ (b - b.dtype.type(zb)) if min(za, zb) >= 0 else a @ b
        ),
        WRAPS,
    ),
    Misconception(
        "accumulates in int16",
        _wrapped(np.int16),
        "A product of two 8-bit codes fits into 16 bits, but a sum of more than one or two may not. Add up in 32.",
    ),
    Misconception(
        "accumulates in float16",
        _in_floats_of(np.float16),
        "float16 knows whole numbers up to 2048, and ends at 65504. Add up integers, in int32.",
    ),
    Misconception(
        "accumulates in float32",
        _in_floats_of(np.float32),
        "float32 knows whole numbers up to 2^24 = 16777216: about a thousand products of the largest codes. A longer "
        "sum loses its last digits. Add up integers, in int32.",
    ),
    Misconception(FLOATS[0], _floats(np.float32, np.float32), FLOATS[1]),
    Misconception(FLOATS[0], _floats(np.float64, np.float64), FLOATS[1]),
    Misconception(
        "the zero points are left out",
        _multiplied(lambda a, b, za, zb: _integer_sums(a, b)),
        "A code with a zero point stands for (q - zero_point) steps. Without it, every value is "
        "off by the same amount, and every sum by K of those.",
    ),
    Misconception(
        "the zero point of a is left out",
        _multiplied(lambda a, b, za, zb: _integer_sums(a, b, 0, zb)),
        "a stands for a_q - a_zp. Write the product out: a_zp meets every code of b, and b_zp.",
    ),
    Misconception(
        "the zero point of b is left out",
        _multiplied(lambda a, b, za, zb: _integer_sums(a, b, za, 0)),
        "b stands for b_q - b_zp. Write the product out: b_zp meets every code of a, and a_zp.",
    ),
    Misconception(
        "zero points are added",
        _multiplied(lambda a, b, za, zb: _integer_sums(a, b, -za, -zb)),
        "0.0 has the code zero_point, so zero_point is subtracted from a code. In (p - z)(q - w) both terms with one "
        "zero point are subtracted: pq - zq - wp + zw.",
    ),
    Misconception(
        "the zero point's term of a is added",
        _expanded(a_term=lambda a, b, za: za * b.sum(axis=0)),
        "In (p - z)(q - w) the terms with one zero point are subtracted: pq - zq - wp + zw.",
    ),
    Misconception(
        "the zero point's term of b is added",
        _expanded(b_term=lambda a, b, zb: zb * a.sum(axis=1, keepdims=True)),
        "In (p - z)(q - w) the terms with one zero point are subtracted: pq - zq - wp + zw.",
    ),
    Misconception(
        "the sums of b run along the wrong axis",
        _expanded(a_term=lambda a, b, za: -za * b.sum(axis=1)),
        "a_zp meets all K codes of one column of b. The sum runs over K, which is axis 0 of b, and leaves N numbers.",
    ),
    Misconception(
        "the sums of a run along the wrong axis",
        _expanded(b_term=lambda a, b, zb: -zb * a.sum(axis=0)),
        "b_zp meets all K codes of one row of a. The sum runs over K, which is axis 1 of a, and leaves M numbers.",
    ),
    Misconception(
        "the sums of a lie along the columns",
        _expanded(b_term=lambda a, b, zb: -zb * a.sum(axis=1)),
        "Each row of a has a sum of its own, so the M sums must lie along the rows of the result: they need shape "
        "(M, 1) to broadcast. A flat array lies along the columns.",
    ),
    Misconception(
        "the zero points changed places",
        _expanded(
            lambda a, b, za: -za * a.sum(axis=1, keepdims=True),
            lambda a, b, zb: -zb * b.sum(axis=0, keepdims=True),
        ),
        "The zero point of a meets the codes of b, and the other way round: a_zp times the column sums of b.",
    ),
    Misconception(
        "sums over everything",
        _expanded(lambda a, b, za: -za * b.sum(), lambda a, b, zb: -zb * a.sum()),
        "One number was subtracted from every result. Each column of b has a sum of its own, and so has each row of a.",
    ),
    Misconception(
        "the last term is left out",
        _expanded(last=lambda a, b, za, zb: 0),
        "Both corrections subtract the product of the zero points, so it has been subtracted once too often, K times "
        "in each sum. Add it again.",
    ),
    Misconception(
        "the last term is counted once",
        _expanded(last=lambda a, b, za, zb: za * zb),
        "a_zp * b_zp stands in every one of the K products of a sum. It comes K times.",
    ),
    Misconception(
        "the last term is subtracted",
        _expanded(last=lambda a, b, za, zb: -a.shape[1] * za * zb),
        "Minus times minus is plus: in (p - z)(q - w) the last term is + zw.",
    ),
    Misconception(
        "the last term counts rows",
        _expanded(last=lambda a, b, za, zb: a.shape[0] * za * zb),
        "The last term comes as often as there are products in a sum: K, the columns of a.",
    ),
    Misconception(
        "the last term counts columns",
        _expanded(last=lambda a, b, za, zb: b.shape[1] * za * zb),
        "The last term comes as often as there are products in a sum: K, the rows of b.",
    ),
    Misconception(
        "zero points subtracted in 8 bits",
        _subtracted_in(None),
        "200 - 255 is -55, which uint8 does not know: it becomes 201. Cast to a wide integer first, then subtract.",
    ),
    Misconception(
        "zero points subtracted in 8 bits",
        _subtracted_in(np.int8),
        "255 - 3 is 252, which int8 does not know: it becomes -4. The difference of two bytes needs 9 bits: cast to a "
        "wide integer first.",
    ),
    Misconception("the scales are left out", _multiplied(rescale=lambda sums, a, b: sums.astype(np.float64)), NO_SCALE),
    Misconception("the scale of b is left out", _multiplied(rescale=lambda sums, a, b: sums * a), NO_SCALE),
    Misconception("the scale of a is left out", _multiplied(rescale=lambda sums, a, b: sums * b), NO_SCALE),
    Misconception(
        "the scales are applied twice", _multiplied(rescale=lambda sums, a, b: sums * (a * b) * (a * b)), NO_SCALE
    ),
    Misconception("divides by the scales", _multiplied(rescale=lambda sums, a, b: sums / (a * b)), NO_SCALE),
    Misconception("the scales are added", _multiplied(rescale=lambda sums, a, b: sums * (a + b)), NO_SCALE),
    Misconception(
        "the scales of columns lie along the rows",
        _multiplied(rescale=lambda sums, a, b: sums * a * (b[:, None] if np.ndim(b) else b)),
        SIDE,
    ),
    Misconception(
        "the scales of rows lie along the columns",
        _multiplied(rescale=lambda sums, a, b: sums * (a.T if np.ndim(a) else a) * b),
        SIDE,
    ),
    Misconception(
        "the scales change sides",
        _multiplied(
            rescale=lambda sums, a, b: sums * (a.reshape(-1) if np.ndim(a) else a) * (b[:, None] if np.ndim(b) else b)
        ),
        SIDE,
    ),
    Misconception(
        "b is transposed",
        _multiplied(lambda a, b, za, zb: _integer_sums(a, b.T, za, zb)),
        "b_q is (K, N) already, as in a_q @ b_q. Whoever calls with a weight (N, K) transposes it before.",
    ),
    Misconception(
        "elements are multiplied, not matrices",
        _multiplied(lambda a, b, za, zb: (a.astype(np.int64) - za) * (b.astype(np.int64) - zb)),
        "`*` multiplies element by element. A matrix product is `@`.",
    ),
    Misconception(
        "the result is rounded",
        _multiplied(rescale=lambda sums, a, b: np.round(sums * (a * b)).astype(np.int32)),
        "The result is in units of the original numbers, not in steps. Return floats, as they are.",
    ),
    Misconception(
        "the result is clipped to 8 bits",
        _multiplied(rescale=lambda sums, a, b: np.clip(sums, -128, 127) * (a * b)),
        "A sum of many products is far larger than a code, and nothing makes codes of it here. Do not clip it.",
    ),
)


EXERCISE = Exercise(
    name="quantized_matmul",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantized_matmul,
    cases=_matmul_cases,
    read=_read_product,
    judge=_judge_product,
    misconceptions=QUANTIZED_MATMUL,
)
