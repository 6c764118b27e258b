"""nvfp4_quantize: blocks of 16 with scales in E4M3, counted in units of one float for the tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from labutils.arrays import affine
from labutils.arrays.block_formats import NVFP4
from labutils.arrays.grids import E2M1, E4M3, E5M2
from labutils.arrays.scales import scale_codes
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, distinct, parts, place
from labutils.labs.contract import largest_at, trained_weights
from labutils.labs.floats import as_float64
from labutils.labs.lab11 import LESSON
from labutils.labs.lab11._blocks import blocks, judge_positive, peaks, rounded
from labutils.labs.recipes import Recipe

BLOCK, REACH, LARGEST = 16, 6.0, 448.0  # the ends of E2M1 and of E4M3
NOISE = 1e-5  # relative, for scales in float32

# Of the lesson: the largest magnitude is 6 * 448 / 100, so the tensor's scale is 0.01.
HAND = np.array([[26.88] + 15 * [1.0], [0.6, -0.3, 0.2] + 13 * [0.02]], dtype=np.float32)


def nvfp4_quantize(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Values on E2M1, a scale on E4M3 for each block of 16 along the last axis, and one float for the whole tensor.

    >>> x = np.float32([[26.88] + 15 * [1.0], [0.6, -0.3, 0.2] + 13 * [0.02]])
    >>> q, scales, tensor_scale = nvfp4_quantize(x)
    >>> q[1, :4], scales[:, 0], round(float(tensor_scale), 6)
    (array([ 6., -3.,  2.,  0.], dtype=float32), array([448.,  10.], dtype=float32), 0.01)

    x is about q * scale of its block * tensor_scale. tensor_scale = max|x| / (6 * 448); a block's scale is max|block|
    / 6 in units of it, on E4M3 and not 0; q is what is nearest to x / (scale * tensor_scale). Rows are multiples of 16.
    NVIDIA, 2025, "Pretraining Large Language Models with NVFP4" (arXiv:2509.25149).
    """
    if x.ndim and x.shape[-1] % BLOCK:
        raise ValueError(f"rows must be multiples of {BLOCK}, got {x.shape[-1]}")
    quantized = affine.quantize(x, NVFP4)
    codes, tensor_scale = scale_codes(xp, quantized.scale, NVFP4)
    return E2M1.to_steps(xp, quantized.codes, x.dtype), E4M3.to_steps(xp, codes, x.dtype), tensor_scale


def cases() -> list[Case]:
    rng = np.random.default_rng(13)
    w = trained_weights()
    spread = (rng.normal(size=(12, 64)) * 10.0 ** rng.uniform(-3, 1, (12, 1))).astype(np.float32)
    silent = w[:4].copy()
    silent[1, 32:48] = 0
    faint = w[:4].copy()
    faint[2, :16] *= np.float32(1e-9)
    faint[3, :16] *= np.float32(1.4 * E4M3.least / LARGEST * np.abs(w[:4]).max() / np.abs(w[3, :16]).max())
    spiked = w[:8].copy()
    spiked[3, 17] = 60.0
    return [
        Case("the worked example", (HAND,)),
        Case("trained weights", (w,)),
        Case("rows of different sizes", (spread,)),
        Case("one outlier", (spiked,)),
        Case("the largest magnitude is negative", (-np.abs(w[:6]),)),
        Case("a block of zeros", (silent,)),
        Case("blocks so small that their scales are at E4M3's end", (faint,)),
        Case("all zero", (np.zeros((2, 32), np.float32),)),
        Case("values a billion times smaller", (w[:4] * np.float32(1e-9),)),
        Case("values a billion times larger", (w[:4] * np.float32(1e9),)),
        Case("a row, one axis", (w[0].copy(),)),
        Case("three axes", (w.reshape(8, 16, 64)[:2, :3].copy(),)),
        Case("a strided view", (spread[::2, ::2],)),
    ]


def read(value: Any) -> dict:
    q, scales, tensor_scale = parts(value, ("q", "scales", "tensor_scale"))
    return {
        "q": as_float64(q, "q"),
        "scales": as_float64(scales, "scales"),
        "tensor_scale": as_number(tensor_scale, "tensor_scale"),
    }


def judge(answer: dict, case: Case) -> None:
    (x,) = case.args
    x = x.astype(np.float64)
    judge_tensor_scale(answer["tensor_scale"], float(np.abs(x).max()))
    judge_block_scales(answer["scales"], peaks(x, BLOCK), answer["tensor_scale"])
    judge_values(answer["q"], x, answer["scales"].repeat(BLOCK, axis=-1) * answer["tensor_scale"])


def judge_tensor_scale(found: float, largest: float) -> None:
    if not np.isfinite(found) or found <= 0:
        raise Wrong(f"tensor_scale should be a positive number, but it is {found:g}")
    wanted = largest / (REACH * LARGEST)
    if largest and abs(found / wanted - 1) > NOISE:
        expected, came = distinct(wanted, found)
        raise Wrong(f"tensor_scale should be max|x| / (6 * 448) = {expected}, but it is {came}")


def judge_block_scales(scales: np.ndarray, largest: np.ndarray, tensor_scale: float) -> None:
    judge_positive(scales, largest.shape)
    levels = E4M3.ascending
    off = np.abs(rounded(scales, levels) - scales)
    if off.max() > 0:
        where = largest_at(off)
        raise Wrong(f"scales[{place(where)}] = {scales[where]:.7g} is no number of E4M3: the nearest is "
                    f"{rounded(scales[where], levels):g}")  # fmt: skip
    exact = np.minimum(largest / REACH / tensor_scale, LARGEST)
    fits = [np.maximum(rounded(exact * (1 + slip), levels), E4M3.least) for slip in (-NOISE, 0, NOISE)]
    wrong = ~np.any([scales == fit for fit in fits], axis=0) & (largest > 0)
    if wrong.any():
        where = largest_at(wrong)
        raise Wrong(
            f"the largest magnitude of block [{place(where)}] is {largest[where]:.5g}: / 6 / tensor_scale that is "
            f"{exact[where]:.5g}, and {fits[1][where]:g} on E4M3, but the scale is {scales[where]:g}"
        )


def judge_values(q: np.ndarray, x: np.ndarray, step: np.ndarray) -> None:
    if q.shape != x.shape:
        raise Wrong(f"q should have the shape of x, {x.shape}, but has {q.shape}")
    levels = E2M1.ascending
    off = np.abs(rounded(q, levels) - q)
    off = np.where(np.isfinite(off), off, np.inf)
    if off.max() > 0:
        where = largest_at(off)
        raise Wrong(
            f"q[{place(where)}] = {q[where]:.6g} is no number of E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives"
        )
    steps = x / step
    fits = [rounded(steps * (1 + slip), levels) for slip in (-NOISE, 0, NOISE)]
    wrong = ~np.any([q == fit for fit in fits], axis=0) & ~is_tie(steps, q)
    if wrong.any():
        where = largest_at(np.where(wrong, np.abs(q - steps), -1))
        raise Wrong(
            f"x[{place(where)}] = {x[where]:.5g} is {steps[where]:.5g} steps of scale * tensor_scale, and nearest to "
            f"that is {fits[1][where]:g}, but q is {q[where]:g}"
        )


def is_tie(steps: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Half way, either neighbour is as near: that ties go to the even code is the exercise before this one."""
    levels = E2M1.ascending
    middles = (levels[1:] + levels[:-1]) / 2
    half_way = np.isclose(np.abs(steps)[..., None], middles, rtol=NOISE, atol=0).any(axis=-1)
    return half_way & (np.abs(np.abs(q) - np.abs(steps)) <= 1.0 + NOISE)


@dataclass(frozen=True)
class TwoLevels(Recipe):
    """scales = fit(largest of the block / reach / unit), q = values(x / (scales * unit)); `result` is what is "
    "returned."""

    largest: Callable = lambda parts: np.abs(parts).max(axis=-1)
    size: int = BLOCK
    reach: float = REACH
    unit: Callable = lambda x: np.abs(x).max() / (REACH * LARGEST)
    fit: Callable = lambda exact: np.maximum(rounded(np.minimum(exact, LARGEST), E4M3.ascending), E4M3.least)
    used: Callable = lambda scales, exact: scales  # by which the values are divided
    values: Callable = lambda steps: rounded(steps, E2M1.ascending)
    result: Callable = lambda q, scales, unit: (q, scales, unit)

    def __call__(self, x):
        size = min(self.size, x.shape[-1])
        parts = blocks(x.astype(np.float64), size)
        unit = self.unit(x.astype(np.float64)) or 1.0
        exact = self.largest(parts) / self.reach / unit
        scales = self.fit(exact)
        with np.errstate(all="ignore"):
            q = self.values(parts / (self.used(scales, exact)[..., None] * unit))
        return self.result(q.reshape(x.shape), scales, unit)


right = TwoLevels()


def on(grid):
    return lambda exact: np.maximum(rounded(np.minimum(exact, LARGEST), grid.ascending), E4M3.least)


def float_scales(exact):
    return np.where(exact == 0, 1, exact)


def e4m3_down(exact):
    fit = on(E4M3)(exact)
    below = E4M3.ascending[np.maximum(np.searchsorted(E4M3.ascending, fit) - 1, 1)]
    return np.where(fit > exact, below, fit)


def powers_of_two(exact):
    with np.errstate(divide="ignore"):
        return np.clip(2.0 ** np.floor(np.log2(exact)), E4M3.least, 256)


def with_eight(steps):
    """E2M1 with one number more, where values beyond 7 go."""
    return rounded(steps, np.append(E2M1.ascending, 8.0))


ONE_LEVEL = (
    "E4M3 ends at 448 and, downwards, at 2^-9: scales of small tensors fall out of it. Divide them by one float for "
    "the whole tensor first, so that the largest scale becomes 448."
)

MISCONCEPTIONS = (
    Misconception("one level: no scale for the tensor", right.but(unit=lambda x: 1.0), ONE_LEVEL),
    Misconception("the tensor's scale leaves 448 out", right.but(unit=lambda x: np.abs(x).max() / REACH),
        "With max|x| / 6 as unit all block scales lie below 1, and small ones where E4M3 is coarse or ends. Divide by "
        "448, too: the largest scale becomes the largest number of E4M3."),
    Misconception("the tensor's scale leaves 6 out", right.but(unit=lambda x: np.abs(x).max() / LARGEST),
        "The largest block has the scale max|x| / 6, and that is what should become 448: divide by 6, too."),
    Misconception("the tensor's scale is upside down",
        right.but(result=lambda q, scales, unit: (q, scales, 1 / unit)),
        "The scale of the tensor is what the block scales are multiplied by on the way back: max|x| / (6 * 448)."),
    Misconception("the largest number of E4M3 taken for 240",
        right.but(unit=lambda x: np.abs(x).max() / (REACH * 240.0)),
        "E4M3 gives up its last code only, for NaN. Its largest number is 448."),
    Misconception("block scales left in float32", right.but(fit=float_scales),
        "A float32 for each block of 16 costs 2 bits a weight; NVFP4's 4.5 bits count on scales of 8 bits. Round each "
        "to E4M3."),
    Misconception("the values are divided by the scales before rounding",
        right.but(used=lambda scales, exact: float_scales(exact)),
        "On the way back they are multiplied by the rounded scale. Divide by that one, too, or an error of up to 1 / "
        "16 is added to each value."),
    Misconception("block scales are powers of two", right.but(fit=powers_of_two),
        "That is MXFP4. E4M3 has three bits of mantissa: eight numbers between a power of two and the next."),
    Misconception("block scales on E5M2", right.but(fit=on(E5M2)),
        "E5M2 has two bits of mantissa. NVFP4's scales are on E4M3."),
    Misconception("block scales are whole numbers",
        right.but(fit=lambda exact: np.clip(np.round(exact), 1, LARGEST)),
        "Block scales go to the nearest number of E4M3, which are dense near 0 and 32 apart at the end."),
    Misconception("block scales are rounded down", right.but(fit=e4m3_down),
        "NVFP4's block scales go to the nearest number of E4M3. It is MXFP4 whose scales are rounded down."),
    Misconception("a scale of 0", right.but(fit=lambda exact: rounded(np.minimum(exact, LARGEST), E4M3.ascending)),
        "Blocks of zeros, or of tiny values, get a scale that rounds to 0, and nobody can divide by that. Let no scale "
        "be below 2^-9, the smallest number of E4M3."),
    Misconception("the scales contain the tensor's scale",
        right.but(result=lambda q, scales, unit: (q, scales * unit, unit)),
        "The block scales are counted in units of the tensor's scale: numbers of E4M3, up to 448. Multiply the two "
        "when you use them."),
    Misconception("blocks of 32", right.but(size=32), "NVFP4's blocks have 16 values. 32 is MXFP4."),
    Misconception("a scale for each row", right.but(size=2**30), "A scale belongs to 16 neighbours, not to the row."),
    Misconception("divides by 4", right.but(reach=4.0),
        "The grid ends at 6, not at 4: that largest power of two belongs to MXFP4's rule. With 4, a third of the grid "
        "is left unused."),
    Misconception("divides by 7", right.but(reach=7.0), "7 is the end of 4-bit integers. E2M1 ends at 6."),
    Misconception("max(x) instead of max|x|",
        right.but(largest=lambda parts: np.maximum(parts.max(axis=-1), 0)),
        "The largest magnitude may be that of a negative value."),
    Misconception("the values are rounded to whole numbers",
        right.but(values=lambda steps: np.clip(np.round(steps), -6, 6)),
        "That is a grid of integers. E2M1 has 0, 0.5, 1, 1.5, 2, 3, 4 and 6: use your `round_to_grid`."),
    Misconception("the values do not saturate", right.but(values=with_eight),
        "At the lower end of E4M3 a scale may have been rounded down by a third, and leaves values beyond 7 steps. "
        "They go to 6, the last number there is."),
    Misconception("the values are not rounded", right.but(values=lambda steps: steps),
        "x / (scale * tensor_scale) is still any float. Round it to the grid of E2M1."),
    Misconception("the values lose their signs", right.but(values=lambda steps: np.abs(rounded(steps, E2M1.ascending))),
        "One of the four bits is the sign. Give each value its own."),
    Misconception("returns the reconstruction",
        right.but(result=lambda q, scales, unit: (q * scales.repeat(q.shape[-1] // scales.shape[-1], -1) * unit, scales,
            unit)),
        "q holds numbers of E2M1, as they are stored. The scales are multiplied again on the way back."),
    Misconception("returns codes instead of values",
        right.but(result=lambda q, scales, unit: (np.searchsorted(E2M1.ascending, np.abs(q)) + 8.0 * (q < 0), scales,
            unit)),
        "q holds what the codes stand for: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, as floats."),
    Misconception("returns scale before codes", right.but(result=lambda q, scales, unit: (q, unit, scales)),
        "The order is: q, the scales of the blocks, the scale of the tensor."),
    Misconception("the scales keep an axis of length 1",
        right.but(result=lambda q, scales, unit: (q, scales[..., None], unit)),
        "`keepdims` is good for dividing, but the result has one scale for each block and no more axes."),
)  # fmt: skip

EXERCISE = Exercise(
    name="nvfp4_quantize",
    lab=LESSON,
    place=40,
    points=3,
    reference=nvfp4_quantize,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
)
