"""convert_weight: the integers that a fake-quantized weight stood for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array, real_array
from labutils.arrays.scheme import Scheme
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_array, place
from labutils.labs import families
from labutils.labs.contract import float32_noise, largest_at, trained_weights
from labutils.labs.lab10 import LESSON
from labutils.labs.lab10._grid import HAND
from labutils.labs.recipes import Symmetric
from labutils.labs.tensors import as_tensors


def convert_weight(w: Array, scale: Array, num_bits: int = 8) -> Array:
    """The int8 (int16 above 8 bits) codes that the fake-quantized `w` stood for, on the scale that it was trained with.

    >>> import torch
    >>> convert_weight(torch.tensor([-0.26, 0.04, 0.11, 0.9]), torch.tensor(0.1), num_bits=3)
    tensor([-3,  0,  1,  3], dtype=torch.int8)

    `scale` broadcasts over `w`. codes * scale is `fake_quantize_ste(w, scale, num_bits)`, exactly.
    """
    _, w = real_array(w, "w")
    library, scale = real_array(scale, "scale")
    steps = w / scale  # a scale may broadcast as it likes; in steps, it is 1
    return affine.quantize(steps, Scheme(num_bits), (library.ones((), dtype=steps.dtype), 0)).codes


def half_way(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights that are k + 1/2 steps in float32, for scales by whose reciprocal some of them are not."""
    scale = rng.uniform(0.01, 0.1, (8, 1)).astype(np.float32)
    codes = rng.integers(-120, 120, (8, 200)).astype(np.float32) + np.float32(0.5)
    w = codes * scale
    return np.where(w / scale == codes, w, 0), scale


def cases() -> list[Case]:
    rng = np.random.default_rng(12)
    w = trained_weights()
    f4 = np.float32
    rows = np.abs(w).max(axis=1, keepdims=True)
    square = (rng.normal(size=(12, 12)) * np.geomspace(0.1, 10, 12)[:, None]).astype(f4)
    conv = rng.normal(size=(6, 2, 3, 3)).astype(f4)
    return [
        Case("the worked example", (HAND, f4(0.1), 3)),
        Case("weights that left the grid in training", (w[:20], (rows[:20] / 3).astype(f4), 2)),
        Case("weights that no longer fill the grid", (w[:20], (rows[:20] / 4).astype(f4), 4)),
        Case("8 bits, beyond the grid", (w[:20], (rows[:20] / 200).astype(f4), 8)),
        Case("a square matrix, a scale for each row", (square, np.geomspace(0.05, 5, 12).astype(f4)[:, None], 3)),
        Case("convolution weights", (conv, rng.uniform(0.2, 0.6, (6, 1, 1, 1)).astype(f4), 3)),
        Case("all weights zero", (np.zeros((2, 5), f4), np.array([[0.1], [0.2]], f4), 2)),
        Case("weights half way between two codes", (*half_way(rng), 8)),
        Case("12 bits", (w[:4], f4(np.abs(w[:4]).max() / 2000), 12)),
    ]


def read(value: object) -> dict:
    return {"q": as_array(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    w, scale, num_bits = case.args
    q, wanted = answer["q"], Scheme(num_bits)
    if q.shape != w.shape:
        raise Wrong(f"the codes should have the shape of w, {w.shape}, but have {q.shape}")
    if q.dtype.kind != "i":
        raise Wrong(f"the codes should be signed integers ({wanted.code_dtype}), but their dtype is {q.dtype}")
    if q.dtype.name != wanted.code_dtype:
        raise Wrong(f"{num_bits}-bit codes belong into {wanted.code_dtype}, but the result has dtype {q.dtype}")
    if q.min() < wanted.quant_min or q.max() > wanted.quant_max:
        raise Wrong(
            f"{num_bits}-bit codes lie in [{wanted.quant_min}, {wanted.quant_max}], but the result reaches from "
            f"{q.min()} to {q.max()}"
        )
    judge_ties(q, w, w / scale)
    scale = np.broadcast_to(scale.astype(np.float64), w.shape)
    steps = w / scale
    v = np.clip(steps, wanted.quant_min, wanted.quant_max)
    off = np.abs(v - q)
    worst = largest_at(off)
    if off[worst] > 0.5 + float32_noise(wanted.quant_max):
        at_end = "" if v[worst] == steps[worst] else f", which is clamped to {v[worst]:.4g}"
        raise Wrong(
            f"w[{place(worst)}] = {w[worst]:.6g} was trained on a scale of {scale[worst]:.6g}: it is "
            f"{steps[worst]:.4g} steps of it{at_end}, but its code is {q[worst]}"
        )


def judge_ties(q: np.ndarray, w: np.ndarray, steps: np.ndarray) -> None:
    """Half way between two codes, all weights follow one rule, as they did in training."""
    tie = (np.abs(steps - np.floor(steps)) == 0.5) & (np.abs(steps) < 127)
    if tie.sum() < 100:
        return
    away = np.sign(steps) * np.floor(np.abs(steps) + 0.5)
    rules = [np.round(steps), np.floor(steps + 0.5), np.ceil(steps - 0.5), away]
    if not any(np.array_equal(q[tie], rule[tie]) for rule in rules):
        where = largest_at(tie & (q != rules[0]))
        raise Wrong(
            f"w[{place(where)}] is exactly {steps[where]:g} steps, which training rounded to {rules[0][where]:g}, but "
            f"its code is {q[where]}: a product with 1 / scale is not the quotient"
        )


@dataclass(frozen=True)
class OnGivenScale(Symmetric):
    """The codes of a symmetric quantizer whose scale is given: scale_of(w, scale, num_bits)."""

    scale_of: Callable = lambda w, scale, num_bits: scale
    result: Callable = lambda q, scale, w: q

    def __call__(self, w, scale, num_bits=8):
        w, scale = w.numpy(), scale.numpy()
        scale = self.scale_of(w, scale, num_bits)
        return self.result(self.codes(w, scale, num_bits), scale, w)


right = OnGivenScale()


def torch_one():
    import torch

    return torch.ones(())


def absmax_scale(w, num_bits, axes=None):
    return np.maximum(np.abs(w).max(axis=axes, keepdims=True), 1e-12) / (2 ** (num_bits - 1) - 1)


def absmax_scale_of_rows(w, scale, num_bits):
    return absmax_scale(w, num_bits, tuple(range(1, w.ndim)))


def squeezed(w, scale, num_bits):
    return scale.squeeze() if w.shape[0] == w.shape[-1] else scale


NEW_SCALE = (
    "In training the weights moved, the grid did not: its ends are no longer max|w|. The network learned to work "
    "on the scale that it was trained with, and on no other."
)

MISCONCEPTIONS = (
    Misconception("a new scale from the trained weights", right.but(scale_of=absmax_scale_of_rows), NEW_SCALE),
    Misconception("a new scale from the trained weights",
        right.but(scale_of=lambda w, scale, bits: absmax_scale(w, bits)), NEW_SCALE),
    Misconception("the scale loses its axes", right.but(scale_of=squeezed),
        "A scale of shape (K, 1) belongs to the rows. Squeezed to (K,) it lies along the last axis, and divides "
        "columns where the matrix is square."),
    Misconception("no clamp", right.but(clamp=families.unclamped),
        "Training may have pushed weights beyond the last code, where fake quantization clamped them. Clamp before you "
        "cast, or large codes wrap around."),
    Misconception("truncation instead of round", right.but(round=np.trunc),
        "A cast cuts the fraction off. Training rounded to the nearest: round before you cast."),
    Misconception("floor instead of round", right.but(round=np.floor),
        "`floor` always goes down. Training rounded to the nearest."),
    *families.signed_dtypes(right),
    Misconception("multiplies by the reciprocal of the scale",
        lambda w, scale, num_bits=8: right(w * (1 / scale), torch_one(), num_bits),
        "`w * (1 / scale)` rounds twice, and half way between two codes that decides. Training divided: divide, too."),
    Misconception("returns the fake-quantized weights", right.but(result=lambda q, scale, w: q * scale),
        "These are still floats. What is stored, and multiplied by the integer kernel, are the codes."),
    Misconception("multiplies by the scale", right.but(scale_of=lambda w, scale, bits: 1 / scale),
        "How many steps fit into w? Divide by the length of one."),
    Misconception("offset codes",
        lambda w, scale, num_bits=8: right(w, scale, num_bits).astype(np.int32) + 2 ** (num_bits - 1),
        "Codes from 0 on, with 2^(b-1) for zero, are how some files store them. Here codes are signed."),
)  # fmt: skip

EXERCISE = Exercise(
    name="convert_weight",
    lab=LESSON,
    place=30,
    points=1,
    reference=convert_weight,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=lambda submission, *args: submission(*as_tensors(*args)),
)
