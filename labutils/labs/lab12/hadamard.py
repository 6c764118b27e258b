"""hadamard: the orthonormal matrix of plus and minus one that spreads one channel over all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays.inputs import whole_number
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import place
from labutils.labs.contract import largest_at
from labutils.labs.floats import as_float64
from labutils.labs.lab12 import LESSON
from labutils.labs.recipes import Recipe


def hadamard(n: int) -> np.ndarray:
    """Sylvester's matrix of order `n`, a power of two, with rows of length 1: (n, n) float32.

    >>> hadamard(4)
    array([[ 0.5,  0.5,  0.5,  0.5],
           [ 0.5, -0.5,  0.5, -0.5],
           [ 0.5,  0.5, -0.5, -0.5],
           [ 0.5, -0.5, -0.5,  0.5]], dtype=float32)

    H(2n) = [[H(n), H(n)], [H(n), -H(n)]] / sqrt(2), from H(1) = [[1]] (Sylvester, 1867). It is its own inverse.
    `models.rotation.hadamard` is the same for these, and knows other orders, such as 576. TypeError or ValueError for
    what is no power of two.
    """
    n = whole_number(n, "n", least=1)
    if n & (n - 1):
        raise ValueError(f"n must be a power of two, got {n}")
    from labutils.models import rotation

    return rotation.hadamard(n).numpy()


def cases() -> list[Case]:
    return [
        Case("the worked example, n = 4", (4,)),
        Case("n = 2", (2,)),
        Case("n = 8", (8,)),
        Case("n = 64", (64,)),
        Case("n = 512", (512,)),
        Case("n = 1: one number, and nothing to spread", (1,)),
    ]


def read(value: Any) -> dict:
    return {"h": as_float64(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    """Any orthogonal matrix whose entries are all of one size: Sylvester's, its rows in another order, other signs."""
    (n,), h = case.args, answer["h"]
    if h.shape != (n, n):
        raise Wrong(f"the matrix should have shape ({n}, {n}), but has {h.shape}")
    if not np.isfinite(h).all():
        raise Wrong("the matrix holds NaN or Inf")
    length = float(np.sqrt((h[0] ** 2).sum()))
    if not math.isclose(length, 1, rel_tol=1e-4):
        raise Wrong(f"row 0 should have length 1, so that nothing grows or shrinks, but its length is {length:.6g}")
    worst = largest_at(np.abs(np.abs(h) - n**-0.5))
    if abs(abs(h[worst]) - n**-0.5) > 1e-4 * n**-0.5:
        raise Wrong(f"every entry should be 1/sqrt({n}) = {n**-0.5:.6g} or minus that, but entry [{place(worst)}] is "
                    f"{h[worst]:.6g}")  # fmt: skip
    products = np.abs(h @ h.T - np.eye(n))
    worst = largest_at(products)
    if products[worst] > 1e-4:
        raise Wrong(f"rows {worst[0]} and {worst[1]} should be orthogonal, but their product is {(h @ h.T)[worst]:.4g}")


def blocks(h):
    return np.block([[h, h], [h, -h]])


@dataclass(frozen=True)
class Hadamard(Recipe):
    """result(start doubled while it is smaller than n, n)."""

    start: Callable = lambda: np.ones((1, 1))
    double: Callable = blocks
    times: Callable = lambda n: n.bit_length() - 1
    result: Callable = lambda h, n: h / np.sqrt(n)

    def __call__(self, n):
        h = self.start()
        for _ in range(self.times(n)):
            h = self.double(h)
        return self.result(h, n)


right = Hadamard()


def random_orthogonal(n):
    return np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]


MISCONCEPTIONS = (
    Misconception("not normalised", right.but(result=lambda h, n: h),
        "The entries are +1 and -1, so a rotation makes vectors sqrt(n) times longer. Divide by the length of a row."),
    Misconception("divided by n instead of its square root", right.but(result=lambda h, n: h / n),
        "A row of n entries of size 1 has length sqrt(n), by Pythagoras. Divide by that."),
    Misconception("normalised once instead of at each doubling", right.but(result=lambda h, n: h / np.sqrt(2)),
        "sqrt(2) is right for one doubling. Each of them makes the rows sqrt(2) times longer: k doublings, sqrt(2) to "
        "the power of k."),
    Misconception("no minus sign", right.but(double=lambda h: np.block([[h, h], [h, h]])),
        "All rows are equal, so nothing can be told apart afterwards. One of the four blocks is negative."),
    Misconception("two minus signs in a row", right.but(double=lambda h: np.block([[h, h], [-h, -h]])),
        "The lower half is minus the upper half: those rows are parallel, not orthogonal. One of the four blocks is "
        "negative."),
    Misconception("two minus signs in a column", right.but(double=lambda h: np.block([[h, -h], [h, -h]])),
        "Upper and lower half are equal. One of the four blocks is negative."),
    Misconception("two minus signs on the diagonal", right.but(double=lambda h: np.block([[-h, h], [h, -h]])),
        "The rows of the lower half are minus those of the upper half. One of the four blocks is negative."),
    Misconception("zeros beside the blocks",
        right.but(double=lambda h: np.block([[h, h * 0], [h * 0, -h]]), result=lambda h, n: h),
        "This matrix has zeros, so a channel stays where it was. Every entry must be of one size: all four blocks are "
        "the smaller matrix, one of them negative."),
    Misconception("the identity", lambda n: np.eye(n),
        "The identity is orthogonal, but spreads nothing. Every entry must be of one size."),
    Misconception("a random rotation", random_orthogonal,
        "That is an orthogonal matrix, and spreads outliers nearly as well. But its entries are of all sizes, while "
        "those of a Hadamard matrix are +1 and -1 over sqrt(n): that makes it fast."),
    Misconception("one doubling too few", right.but(times=lambda n: max(0, n.bit_length() - 2)),
        "The matrix is half as large as it should be: double until it has n rows."),
    Misconception("one doubling too many", right.but(times=lambda n: n.bit_length()),
        "The matrix is twice as large as it should be: n is the number of rows, and the first one, of one row, is "
        "there before you double."),
    Misconception("n doublings", right.but(times=lambda n: min(n, 11)),
        "Doubling n times gives 2 to the power of n rows. Double while the matrix is smaller than n."),
    Misconception("starts from two rows without signs", right.but(start=lambda: np.ones((2, 2)),
        times=lambda n: max(0, n.bit_length() - 2)),
        "The smallest matrix is [[1]], of one row. One of two equal rows is no Hadamard matrix, and doubling does not "
        "mend it."),
)  # fmt: skip

EXERCISE = Exercise(
    name="hadamard",
    lab=LESSON,
    place=30,
    points=2,
    reference=hadamard,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
