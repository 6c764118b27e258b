"""quantized_matmul: the product of two quantized matrices, in integers, scaled once at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils import models
from labutils.arrays.inputs import Array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, distinct, place
from labutils.labs import answers
from labutils.labs.lab05 import LESSON
from labutils.labs.lab05._head import head, pooled
from labutils.labs.recipes import Recipe

HAND = (np.array([[130, 125, 140]], np.uint8), 0.1, np.array([[12], [-3], [5]], np.int8), 0.5)  # of the lesson
FLOAT32 = 2.0**-24  # the largest relative error of one rounding


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
    return models.quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp, b_zp)


def nearly_cancelling(rng: np.random.Generator) -> tuple:
    """Codes whose product is 1, the difference of two sums of about 5e8, of which float32 keeps 7 digits."""
    a, b = rng.integers(200, 256, 32_768), rng.integers(0, 128, 32_768)
    order = rng.permutation(a.size)
    codes = np.concatenate([a, a[order], [1]])[None].astype(np.uint8)
    return codes, 0.5, np.concatenate([b, -b[order], [1]])[:, None].astype(np.int8), 0.25


def cases() -> list[Case]:
    rng = np.random.default_rng(5)

    def codes(kind: type, *shape: int) -> np.ndarray:
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)

    weight, _ = head()
    x_q, x_scale, x_zp = answers.quantize_asymmetric(pooled())
    w_q, w_scales = answers.quantize_per_channel(weight, 0)
    one_q, one_scale = answers.quantize_symmetric(weight)
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
        Case("both have zero points", (codes(np.uint8, 4, 30), 0.02, codes(np.uint8, 30, 6), 0.5),
             {"a_zp": 200, "b_zp": 90}),
        Case("square, both have zero points", (codes(np.uint8, 8, 8), 0.02, codes(np.uint8, 8, 8), 0.5),
             {"a_zp": 3, "b_zp": 250}),
        Case("signed codes, zero points below 0", (codes(np.int8, 4, 9), 0.3, codes(np.int8, 9, 3), 0.2),
             {"a_zp": -100, "b_zp": -7}),
        Case("4-bit codes with zero points", (codes(np.uint8, 4, 16) & 15, 0.1, codes(np.uint8, 16, 3) & 15, 0.1),
             {"a_zp": 8, "b_zp": 5}),
        Case("activations of the digits network by its head", (x_q, x_scale, w_q.T, w_scales), {"a_zp": int(x_zp)}),
        Case("one scale for the head", (x_q, x_scale, one_q.T, one_scale), {"a_zp": int(x_zp)}),
        Case("a scale for each row and each column, square", (tokens, token_scales, codes(np.int8, 6, 6), channels)),
        Case("4096 of the largest codes", (largest, 0.01, largest.T.copy(), 0.01)),
        Case("4096 of the largest codes, with zero points", (high, 0.1, low, 1.0), {"a_zp": 1, "b_zp": 255}),
        Case("sums that are 0", (np.concatenate([row, row[:, ::-1]], axis=1), 0.1, balanced, 0.7)),
        Case("large sums that nearly cancel", nearly_cancelling(rng)),
        Case("one product", (np.array([[-128]], np.int8), 0.25, np.array([[-128]], np.int8), 0.25)),
        Case("one column by one row", (codes(np.int8, 4, 1), 0.25, codes(np.int8, 1, 3), 0.25), {"a_zp": 2}),
    ]  # fmt: skip


def read_product(value: object) -> dict:
    y = as_array(value, "the result")
    # float32 and float64 may both be returned, and a mistake is the same mistake in either.
    return {"y": y.astype(np.float64) if y.dtype == np.float32 else y}


def integer_sums(a_q: np.ndarray, b_q: np.ndarray, a_zp: int = 0, b_zp: int = 0) -> np.ndarray:
    return (a_q.astype(np.int64) - a_zp) @ (b_q.astype(np.int64) - b_zp)


def judge(answer: dict, case: Case) -> None:
    a_q, a_scale, b_q, b_scale = case.args
    y, sums = answer["y"], integer_sums(a_q, b_q, **case.kwargs)
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
        cancelled = "" if sums[worst] else ": the integers cancel, and floats do not"
        wanted, found = distinct(expected[worst], y[worst], 9)
        raise Wrong(
            f"result[{place(worst)}] should be {wanted}, the integer {sums[worst]} times the scales, "
            f"but it is {found}{cancelled}"
        )


@dataclass(frozen=True)
class Product(Recipe):
    """rescale(sums(a_q, b_q, a_zp, b_zp), a_scale, b_scale)."""

    sums: Callable = integer_sums
    rescale: Callable = lambda sums, a_scale, b_scale: sums * (a_scale * b_scale)

    def __call__(self, a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
        return self.rescale(self.sums(a_q, b_q, a_zp, b_zp), a_scale, b_scale)


right = Product()


def expanded(
    a_term: Callable = lambda a, b, za: -za * b.sum(axis=0),
    b_term: Callable = lambda a, b, zb: -zb * a.sum(axis=1, keepdims=True),
    last: Callable = lambda a, b, za, zb: a.shape[1] * za * zb,
) -> Product:
    """The sums as four terms, of which one can be replaced."""

    def sums(a, b, za, zb):
        a, b = a.astype(np.int64), b.astype(np.int64)
        return a @ b + a_term(a, b, za) + b_term(a, b, zb) + last(a, b, za, zb)

    return right.but(sums=sums)


def floats_of(dtype: type) -> Callable:
    """Dequantizes both matrices and multiplies the floats."""

    def quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
        a = (a_q.astype(dtype) - dtype(a_zp)) * np.asarray(a_scale, dtype)
        b = (b_q.astype(dtype) - dtype(b_zp)) * np.asarray(b_scale, dtype)
        return (a @ b).astype(np.float32)

    return quantized_matmul


def accumulated_in(dtype: type) -> Callable:
    """Sums in a float dtype, one product after the other."""

    def sums(a, b, za, zb):
        a, b = a.astype(dtype) - dtype(za), b.astype(dtype) - dtype(zb)
        total = np.zeros((a.shape[0], b.shape[1]), dtype)
        for k in range(a.shape[1]):
            total += a[:, k : k + 1] * b[k]
        return total.astype(np.float64)

    return sums


def wrapped_to(dtype: type) -> Callable:
    """a_q @ b_q in an integer dtype that is too narrow; the zero points' terms are right."""

    def sums(a, b, za, zb):
        products = integer_sums(a, b)
        return products.astype(dtype) + integer_sums(a, b, za, zb) - products

    return sums


def in_the_dtype_of_the_codes(a, b, za, zb):
    return (a - a.dtype.type(za)) @ (b - b.dtype.type(zb)) if min(za, zb) >= 0 else a @ b


def zero_points_subtracted_in(dtype: type | None) -> Callable:
    """Differences in 8 bits, where they do not fit: in `dtype`, or in the dtype of the codes."""

    def shifted(q, zero_point):
        return (q.astype(np.int64) - zero_point).astype(dtype or q.dtype) if zero_point else q

    return lambda a, b, za, zb: integer_sums(shifted(a, za), shifted(b, zb))


def lying_along_rows(scale):
    return scale[:, None] if np.ndim(scale) else scale


def lying_along_columns(scale):
    return scale.reshape(-1) if np.ndim(scale) else scale


WRAPS = (
    "Multiplying keeps the dtype of the codes: 127 * 127 = 16129 does not fit, and wraps around without a word. Cast "
    "both to a wide integer before you multiply."
)
FLOATS = (
    "Each code was turned into a float first, so this is the float product of two dequantized matrices: nothing is "
    "gained, and roundings add up. Multiply the codes, add up integers, and let the scales in at the very end."
)
SUBTRACTED = "In (p - z)(q - w) the terms with one zero point are subtracted: pq - zq - wp + zw."
NO_SCALE = "The sums count in steps of a_scale * b_scale. Multiply each sum once with both."
SIDE = (
    "a_scale belongs to the rows of the result, b_scale to its columns. Shape (N,) broadcasts along columns by itself; "
    "do not turn it."
)

MISCONCEPTIONS = (
    Misconception("accumulates in int8", right.but(sums=wrapped_to(np.int8)), WRAPS),
    Misconception("accumulates in int8",
        right.but(sums=lambda a, b, za, zb: a.astype(np.int8) @ b.astype(np.int8)), WRAPS),
    Misconception("accumulates in the dtype of the codes", right.but(sums=in_the_dtype_of_the_codes), WRAPS),
    Misconception("accumulates in int16", right.but(sums=wrapped_to(np.int16)),
        "A product of two 8-bit codes fits into 16 bits, but a sum of more than one or two may not. Add up in 32."),
    Misconception("accumulates in float16", right.but(sums=accumulated_in(np.float16)),
        "float16 knows whole numbers up to 2048, and ends at 65504. Add up integers, in int32."),
    Misconception("accumulates in float32", right.but(sums=accumulated_in(np.float32)),
        "float32 knows whole numbers up to 2^24 = 16777216: about a thousand products of the largest codes. A longer "
        "sum loses its last digits. Add up integers, in int32."),
    Misconception("floats are multiplied", floats_of(np.float32), FLOATS),
    Misconception("floats are multiplied", floats_of(np.float64), FLOATS),
    Misconception("the zero points are left out", right.but(sums=lambda a, b, za, zb: integer_sums(a, b)),
        "A code with a zero point stands for (q - zero_point) steps. Without it, every value is off by the same "
        "amount, and every sum by K of those."),
    Misconception("the zero point of a is left out", right.but(sums=lambda a, b, za, zb: integer_sums(a, b, 0, zb)),
        "a stands for a_q - a_zp. Write the product out: a_zp meets every code of b, and b_zp."),
    Misconception("the zero point of b is left out", right.but(sums=lambda a, b, za, zb: integer_sums(a, b, za, 0)),
        "b stands for b_q - b_zp. Write the product out: b_zp meets every code of a, and a_zp."),
    Misconception("zero points are added", right.but(sums=lambda a, b, za, zb: integer_sums(a, b, -za, -zb)),
        "0.0 has the code zero_point, so zero_point is subtracted from a code. In (p - z)(q - w) both terms with one "
        "zero point are subtracted: pq - zq - wp + zw."),
    Misconception("the zero point's term of a is added",
        expanded(a_term=lambda a, b, za: za * b.sum(axis=0)), SUBTRACTED),
    Misconception("the zero point's term of b is added",
        expanded(b_term=lambda a, b, zb: zb * a.sum(axis=1, keepdims=True)), SUBTRACTED),
    Misconception("the sums of b run along the wrong axis", expanded(a_term=lambda a, b, za: -za * b.sum(axis=1)),
        "a_zp meets all K codes of one column of b. The sum runs over K, which is axis 0 of b, and leaves N numbers."),
    Misconception("the sums of a run along the wrong axis", expanded(b_term=lambda a, b, zb: -zb * a.sum(axis=0)),
        "b_zp meets all K codes of one row of a. The sum runs over K, which is axis 1 of a, and leaves M numbers."),
    Misconception("the sums of a lie along the columns", expanded(b_term=lambda a, b, zb: -zb * a.sum(axis=1)),
        "Each row of a has a sum of its own, so the M sums must lie along the rows of the result: they need shape "
        "(M, 1) to broadcast. A flat array lies along the columns."),
    Misconception("the zero points changed places",
        expanded(lambda a, b, za: -za * a.sum(axis=1, keepdims=True), lambda a, b, zb: -zb * b.sum(axis=0)),
        "The zero point of a meets the codes of b, and the other way round: a_zp times the column sums of b."),
    Misconception("sums over everything", expanded(lambda a, b, za: -za * b.sum(), lambda a, b, zb: -zb * a.sum()),
        "One number was subtracted from every result. Each column of b has a sum of its own, and so has each row "
        "of a."),
    Misconception("the last term is left out", expanded(last=lambda a, b, za, zb: 0),
        "Both corrections subtract the product of the zero points, so it has been subtracted once too often, K times "
        "in each sum. Add it again."),
    Misconception("the last term is counted once", expanded(last=lambda a, b, za, zb: za * zb),
        "a_zp * b_zp stands in every one of the K products of a sum. It comes K times."),
    Misconception("the last term is subtracted", expanded(last=lambda a, b, za, zb: -a.shape[1] * za * zb),
        "Minus times minus is plus: in (p - z)(q - w) the last term is + zw."),
    Misconception("the last term counts rows", expanded(last=lambda a, b, za, zb: a.shape[0] * za * zb),
        "The last term comes as often as there are products in a sum: K, the columns of a."),
    Misconception("the last term counts columns", expanded(last=lambda a, b, za, zb: b.shape[1] * za * zb),
        "The last term comes as often as there are products in a sum: K, the rows of b."),
    Misconception("zero points subtracted in 8 bits", right.but(sums=zero_points_subtracted_in(None)),
        "200 - 255 is -55, which uint8 does not know: it becomes 201. Cast to a wide integer first, then subtract."),
    Misconception("zero points subtracted in 8 bits", right.but(sums=zero_points_subtracted_in(np.int8)),
        "255 - 3 is 252, which int8 does not know: it becomes -4. The difference of two bytes needs 9 bits: cast to "
        "a wide integer first."),
    Misconception("the scales are left out", right.but(rescale=lambda sums, a, b: sums.astype(np.float64)), NO_SCALE),
    Misconception("the scale of b is left out", right.but(rescale=lambda sums, a, b: sums * a), NO_SCALE),
    Misconception("the scale of a is left out", right.but(rescale=lambda sums, a, b: sums * b), NO_SCALE),
    Misconception("the scales are applied twice", right.but(rescale=lambda sums, a, b: sums * (a * b) ** 2), NO_SCALE),
    Misconception("divides by the scales", right.but(rescale=lambda sums, a, b: sums / (a * b)), NO_SCALE),
    Misconception("the scales are added", right.but(rescale=lambda sums, a, b: sums * (a + b)), NO_SCALE),
    Misconception("the scales of columns lie along the rows",
        right.but(rescale=lambda sums, a, b: sums * a * lying_along_rows(b)), SIDE),
    Misconception("the scales of rows lie along the columns",
        right.but(rescale=lambda sums, a, b: sums * lying_along_columns(a) * b), SIDE),
    Misconception("the scales change sides",
        right.but(rescale=lambda sums, a, b: sums * lying_along_columns(a) * lying_along_rows(b)), SIDE),
    Misconception("b is transposed", right.but(sums=lambda a, b, za, zb: integer_sums(a, b.T, za, zb)),
        "b_q is (K, N) already, as in a_q @ b_q. Whoever calls with a weight (N, K) transposes it before."),
    Misconception("elements are multiplied, not matrices",
        right.but(sums=lambda a, b, za, zb: (a.astype(np.int64) - za) * (b.astype(np.int64) - zb)),
        "`*` multiplies element by element. A matrix product is `@`."),
    Misconception("the result is rounded",
        right.but(rescale=lambda sums, a, b: np.round(sums * (a * b)).astype(np.int32)),
        "The result is in units of the original numbers, not in steps. Return floats, as they are."),
    Misconception("the result is clipped to 8 bits",
        right.but(rescale=lambda sums, a, b: np.clip(sums, -128, 127) * (a * b)),
        "A sum of many products is far larger than a code, and nothing makes codes of it here. Do not clip it."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantized_matmul",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantized_matmul,
    cases=cases,
    read=read_product,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
