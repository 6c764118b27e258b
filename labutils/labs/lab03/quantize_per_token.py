"""quantize per token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils import data
from labutils.arrays import affine
from labutils.arrays.inputs import real_array
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.labs.contract import judge_codes, judge_rounding
from labutils.labs.lab03 import LESSON
from labutils.labs.lab03._shared import _uneven
from labutils.labs.lab03.quantize_per_channel import _judge_scales, read_scaled
from labutils.labs.recipes import wrapping

Array = Any  # a numpy.ndarray or a torch.Tensor


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


def _token_cases() -> list[Case]:
    images, _ = data.digits("test")
    pixels = np.moveaxis(data.digits_network().activations(images[:4])["block2.depthwise"], 1, -1).copy()
    silent = _uneven((5, 8), 0, seed=7)
    silent[3] = 0
    quiet = _uneven((6, 10), 0, seed=8) * np.array([1, 1e-9, 1, 1e-7, 1, 1], dtype=np.float32)[:, None]
    return [
        Case("(batch, tokens, features)", (_uneven((2, 5, 7), 1),)),
        Case("(tokens, features)", (_uneven((6, 11), 0, seed=1),)),
        Case("real activations: (images, height, width, channels)", (pixels,), {"num_bits": 4}),
        Case("as many tokens as features", (_uneven((3, 6, 6), 1, seed=2),)),
        Case("one vector", (_uneven((9,), 0, seed=3),)),
        Case("one feature", (_uneven((4, 1), 0, seed=4),)),
        Case("a token that is all zero", (silent,)),
        Case("tokens of tiny values", (quiet,)),
        Case("only negative values", (-np.abs(_uneven((2, 3, 4), 1, seed=5)),), {"num_bits": 6}),
        Case("16 bits", (_uneven((2, 4, 8), 1, seed=6),), {"num_bits": 16}),
    ]


def _judge_tokens(answer: dict, case: Case) -> None:
    x, num_bits = case.args[0], case.kwargs.get("num_bits", 8)
    q, scales = answer["q"], answer["scales"]
    judge_codes(q, x, num_bits)
    if scales.shape != (*x.shape[:-1], 1):
        raise Wrong(
            f"x has shape {x.shape}: with one scale for each token, scales should have shape {(*x.shape[:-1], 1)}, "
            f"but has {scales.shape}"
        )
    _judge_scales(scales, np.abs(x.astype(np.float64)).max(axis=-1, keepdims=True), num_bits, "that token")
    judge_rounding(q, scales, x, num_bits)


def _tokens(
    span: Callable = lambda x: np.abs(x).max(axis=-1, keepdims=True),
    guard: Callable = lambda scales: np.where(scales == 0, 1, scales),
    shape: Callable = lambda scales: scales,
    divisor: Callable = lambda bits: 2 ** (bits - 1) - 1,
) -> Callable:
    def quantize(x, num_bits=8):
        scales = guard(span(x) / divisor(num_bits))
        limit = 2 ** (num_bits - 1)
        q = wrapping(np.clip(np.round(x / scales), -limit, limit - 1), np.int8 if num_bits <= 8 else np.int16)
        return q, shape(scales)

    return quantize


def _in_place(x, num_bits=8):
    q, scales = quantize_per_token(x, num_bits)
    x /= scales
    np.round(x, out=x)
    x *= scales
    return q, scales


QUANTIZE_PER_TOKEN = (
    Misconception(
        "a scale for each feature",
        _tokens(span=lambda x: np.abs(x).max(axis=tuple(range(x.ndim - 1)), keepdims=True)),
        "The features lie along the last axis. A token's scale is shared by its features, so the last axis is the one "
        "that is reduced.",
    ),
    Misconception(
        "a scale for each sequence",
        _tokens(span=lambda x: np.abs(x).max(axis=tuple(range(1, x.ndim)) or 0, keepdims=True)),
        "All tokens of one sequence share a scale here. Reduce the last axis only.",
    ),
    Misconception(
        "axis 1 is reduced",
        _tokens(span=lambda x: np.abs(x).max(axis=min(1, x.ndim - 1), keepdims=True)),
        "That is right for (tokens, features). With a batch in front the features are no longer axis 1, but they are "
        "always the last.",
    ),
    Misconception(
        "one scale for the whole tensor",
        _tokens(span=lambda x: np.abs(x).max(keepdims=True)),
        "Every token has a scale of its own: reduce the last axis only.",
    ),
    Misconception(
        "the last axis is lost",
        _tokens(shape=lambda scales: scales[..., 0]),
        "Keep the reduced axis with length 1, so that `q * scales` works without another thought.",
    ),
    Misconception(
        "a scale for each position, shared by the batch",
        _tokens(span=lambda x: np.abs(x).max(axis=(0, -1) if x.ndim > 1 else -1, keepdims=True)),
        "The same position in two sequences holds two tokens. Reduce the last axis only.",
    ),
    Misconception(
        "max(x) instead of max|x|",
        _tokens(span=lambda x: x.max(axis=-1, keepdims=True)),
        "The scale must cover the largest magnitude of its token, which may be negative.",
    ),
    Misconception(
        "a token of zeros divides by zero",
        _tokens(guard=lambda scales: scales),
        "One token is all zero (padding often is): its scale is 0, and 0 / 0 is NaN. Replace that one scale by 1.",
    ),
    Misconception(
        "a floor under the scales",
        lambda x, num_bits=8: _tokens(span=lambda x: np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-5))(
            x, num_bits
        ),
        "A smallest magnitude such as 1e-5 rounds a quiet token to zero. Only a scale of exactly 0 needs replacing.",
    ),
    Misconception(
        "127 at every bit width",
        _tokens(divisor=lambda bits: 127),
        "127 is the largest code at 8 bits only. Compute it from num_bits.",
    ),
    Misconception(
        "the input is changed",
        _in_place,
        "Dividing in place writes into the caller's activations, which another layer may still need.",
    ),
)


EXERCISE = Exercise(
    name="quantize_per_token",
    lab=LESSON,
    place=40,
    points=2,
    reference=quantize_per_token,
    cases=_token_cases,
    read=read_scaled,
    judge=_judge_tokens,
    misconceptions=QUANTIZE_PER_TOKEN,
    stretch=True,
)
