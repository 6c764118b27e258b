"""quantize_per_token: a scale for each vector along the last axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labutils import data
from labutils.arrays import affine
from labutils.arrays.inputs import Array, real_array
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs import families, slices
from labutils.labs.contract import judge_codes, judge_rounding, judge_scales, read_scaled
from labutils.labs.lab03 import LESSON
from labutils.labs.lab03._channels import uneven
from labutils.labs.recipes import Symmetric
from labutils.labs.slices import largest_of_each


def quantize_per_token(x: Array, num_bits: int = 8) -> tuple[Array, Array]:
    """Codes, and a scale for each vector along the last axis: one for each token of (..., features).

    >>> x = np.array([[[0.0, 1.27], [-12.7, 3.0]]], dtype=np.float32)  # (batch, tokens, features)
    >>> q, scales = quantize_per_token(x)
    >>> q.tolist(), scales.ravel().round(3), scales.shape
    ([[[0, 127], [-127, 30]]], array([0.01, 0.1 ], dtype=float32), (1, 2, 1))

    The scales have the shape (*x.shape[:-1], 1), so that `q * scales` is the reconstruction.
    """
    _, x = real_array(x)
    if x.ndim == 0:
        raise ValueError("x needs at least one axis, the features, got shape ()")
    quantized = affine.quantize(x, Scheme(num_bits, granularity=PerGroup(x.shape[-1])))
    return quantized.codes, quantized.scale


def cases() -> list[Case]:
    images, _ = data.digits("test")
    pixels = np.moveaxis(data.digits_network().activations(images[:4])["block2.depthwise"], 1, -1).copy()
    silent = uneven((5, 8), 0, seed=7)
    silent[3] = 0
    quiet = uneven((6, 10), 0, seed=8) * np.array([1, 1e-20, 1, 1e-7, 1, 1], dtype=np.float32)[:, None]
    return [
        Case("(batch, tokens, features)", (uneven((2, 5, 7), 1),)),
        Case("(tokens, features)", (uneven((6, 11), 0, seed=1),)),
        Case("real activations: (images, height, width, channels)", (pixels,), {"num_bits": 4}),
        Case("as many tokens as features", (uneven((3, 6, 6), 1, seed=2),)),
        Case("one vector", (uneven((9,), 0, seed=3),)),
        Case("one feature", (uneven((4, 1), 0, seed=4),)),
        Case("a token that is all zero", (silent,)),
        Case("tokens of tiny values", (quiet,)),
        Case("only negative values", (-np.abs(uneven((2, 3, 4), 1, seed=5)),), {"num_bits": 6}),
        Case("16 bits", (uneven((2, 4, 8), 1, seed=6),), {"num_bits": 16}),
    ]


def judge(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.kwargs.get("num_bits", 8)
    q, scales = answer["q"], answer["scales"]
    judge_codes(q, x, num_bits)
    if scales.shape != (*x.shape[:-1], 1):
        raise Wrong(
            f"x has shape {x.shape}: with one scale for each token, scales should have shape {(*x.shape[:-1], 1)}, "
            f"but has {scales.shape}"
        )
    judge_scales(scales, largest_of_each(x.astype(np.float64)), num_bits, "the largest magnitude of that token")
    judge_rounding(q, scales, x, num_bits)


right = Symmetric(span=largest_of_each)


def over(axes: Callable) -> Callable:
    """The largest magnitudes over `axes(ndim)`, which are kept with length 1."""
    return lambda x: np.abs(x).max(axis=axes(x.ndim), keepdims=True)


def in_place(x, num_bits=8):
    q, scales = right(x, num_bits)
    x /= scales
    np.round(x, out=x)
    x *= scales
    return q, scales


MISCONCEPTIONS = (
    Misconception("a scale for each feature", right.but(span=over(lambda ndim: tuple(range(ndim - 1)))),
        "The features lie along the last axis. A token's scale is shared by its features, so the last axis is the one "
        "that is reduced."),
    Misconception("a scale for each sequence", right.but(span=over(lambda ndim: tuple(range(1, ndim)) or 0)),
        "All tokens of one sequence share a scale here. Reduce the last axis only."),
    Misconception("axis 1 is reduced", right.but(span=over(lambda ndim: min(1, ndim - 1))),
        "That is right for (tokens, features). With a batch in front the features are no longer axis 1, but they are "
        "always the last."),
    Misconception("one scale for the whole tensor", right.but(span=over(lambda ndim: None)),
        "Every token has a scale of its own: reduce the last axis only."),
    Misconception("the last axis is lost", right.but(result=lambda q, scales, x: (q, scales[..., 0])),
        "Keep the reduced axis with length 1, so that `q * scales` works without another thought."),
    Misconception("a scale for each position, shared by the batch",
        right.but(span=over(lambda ndim: (0, -1) if ndim > 1 else -1)),
        "The same position in two sequences holds two tokens. Reduce the last axis only."),
    *slices.spans(right, "token"),
    Misconception("a floor under the magnitudes", right.but(span=lambda x: np.maximum(largest_of_each(x), 1e-5)),
        "A smallest magnitude such as 1e-5 rounds a quiet token to zero. Only a scale of exactly 0 needs replacing."),
    *slices.floors(right, "token", where=" (padding often is)"),
    *families.divisors(right, reach="max|token|"),
    *families.rounding(right),
    *families.units(right),
    *families.signed_dtypes(right),
    Misconception("the input is changed", in_place,
        "Dividing in place writes into the caller's activations, which another layer may still need."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_per_token",
    lab=LESSON,
    place=40,
    points=2,
    reference=quantize_per_token,
    cases=cases,
    read=read_scaled,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
)
