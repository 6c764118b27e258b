"""How much of its embeddings a quantized encoder has kept: their directions, and what is found with them."""

from __future__ import annotations

from typing import Any

from labutils.arrays.inputs import Array, real_array, require_finite, require_one_library

TIE = 1e-6  # similarities this close are equal: float32 embeddings cannot tell them apart


def mean_cosine(a: Array, b: Array) -> float:
    """The cosine of the angle between each row of `a` and the same row of `b`, averaged: 1.0 where none has turned.

    >>> mean_cosine(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 0.0], [3.0, 0.0]]))
    0.5

    (n, d) both, floats, NumPy or torch. A common factor does not show: use `sqnr_db` where size matters, too. TypeError
    or ValueError for anything else, and for a row of zeros, which has no direction.
    """
    xp, a, b = _directions(a, "a", b, "b")
    return float(xp.mean(xp.sum(a * b, axis=1)))


def retrieval_at_1(questions: Array, answers: Array) -> float:
    """The fraction of questions whose nearest answer, by cosine, is their own: 0.0 to 1.0.

    >>> questions = np.array([[1.0, 0.1], [0.1, 1.0]])
    >>> retrieval_at_1(questions, np.array([[1.0, 0.0], [0.0, 1.0]]))
    1.0
    >>> retrieval_at_1(questions, np.array([[1.0, 0.0], [1.0, 0.0]]))
    0.5

    Embeddings, (n, d) both, floats, NumPy or torch; row i of `answers` belongs to row i of `questions`. Where k answers
    are equally near, to 1e-6, and the right one is among them, the question counts 1/k, as if lots were drawn. Errors
    as in `mean_cosine`.
    """
    xp, questions, answers = _directions(questions, "questions", answers, "answers")
    similarity = questions @ answers.T  # (n, n)
    nearest = similarity >= xp.max(similarity, axis=1, keepdims=True) - TIE
    own = xp.asarray([bool(row[i]) for i, row in enumerate(nearest)])
    return float(xp.mean(own / xp.sum(nearest, axis=1)))


def _directions(a: Array, a_name: str, b: Array, b_name: str) -> tuple[Any, Array, Array]:
    """Both as float64 rows of length 1, checked."""
    (xp, a), (_, b) = real_array(a, a_name), real_array(b, b_name)
    require_one_library(**{a_name: a, b_name: b})
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"{a_name} and {b_name} must have one shape (n, d), got {tuple(a.shape)} and {tuple(b.shape)}")
    return xp, _unit_rows(xp, a, a_name), _unit_rows(xp, b, b_name)


def _unit_rows(xp: Any, x: Array, name: str) -> Array:
    require_finite(xp, x, name)
    x = xp.astype(x, xp.float64)
    largest = xp.max(xp.abs(x), axis=1, keepdims=True)
    if not bool(xp.all(largest > 0)):
        raise ValueError(f"{name} must not hold a row of zeros, which has no direction")
    x = x / largest  # or squares of tiny values would vanish
    return x / xp.sqrt(xp.sum(x * x, axis=1, keepdims=True))
