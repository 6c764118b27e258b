"""Quantizers with many scales: `Symmetric`, with the array seen as slices whose elements share a scale.

A slice is a channel, a token or a group. Only the view differs: its elements lie along the last axis.

>>> w = np.array([[0.05, -0.254], [2.54, 0.3]], dtype=np.float32)
>>> per_channel = Sliced(split=channels, join=join_channels)
>>> per_channel(w, 0)  # along axis 0
(array([[  25, -127],
       [ 127,   15]], dtype=int8), array([0.002, 0.02 ], dtype=float32))
>>> per_group = Sliced(split=groups, join=join_groups)
>>> per_group(w, 1)[1]  # groups of one
array([[0.00039..., 0.002     ],
       [0.02      , 0.0023...]], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labutils.course.exercise import Misconception
from labutils.labs.families import Rows
from labutils.labs.recipes import Symmetric, wrapping

Codes = Scales = np.ndarray


def largest_of_each(slices: np.ndarray) -> np.ndarray:
    """The largest magnitude of each slice, (..., elements) -> (..., 1)."""
    return np.abs(slices).max(axis=-1, keepdims=True)


def largest_of_all(slices: np.ndarray) -> np.ndarray:
    """The largest magnitude of the array, for each slice."""
    return np.full((*slices.shape[:-1], 1), np.abs(slices).max())


@dataclass(frozen=True)
class Sliced(Symmetric):
    """`Symmetric` with a scale for each slice; `where` is the axis of the channels or the size of the groups.

    split(x, where) has shape (..., elements). join(q, scales, x, where) takes codes of that shape and scales of shape
    (..., 1), and returns both in the shapes that the exercise asks for.
    """

    span: Callable = largest_of_each
    split: Callable = lambda x, where: x
    join: Callable = lambda q, scales, x, where: (q, scales)

    def __call__(self, x, where, num_bits=8):
        q, scales = super().__call__(self.split(x, where), num_bits)
        return self.join(q, scales, x, where)


def channels(x: np.ndarray, axis: int) -> np.ndarray:
    """One row for each index along `axis`: (C, elements)."""
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)


def codes_of_channels(q: np.ndarray, x: np.ndarray, axis: int) -> Codes:
    """Undo `channels`: (C, elements) -> the shape of `x`."""
    return np.moveaxis(q.reshape(np.moveaxis(x, axis, 0).shape), 0, axis)


def join_channels(q: np.ndarray, scales: np.ndarray, x: np.ndarray, axis: int) -> tuple[Codes, Scales]:
    """Codes in the shape of `x`, scales in the shape (C,)."""
    return codes_of_channels(q, x, axis), scales.reshape(-1)


def along_axis(scales: np.ndarray, ndim: int, axis: int) -> Scales:
    """Scales of shape (C,) as (1, C, 1, ...), to broadcast along `axis` of an array with `ndim` axes."""
    shape = [1] * ndim
    shape[axis] = -1
    return np.reshape(scales, shape)


def groups(x: np.ndarray, group_size: int, mode: str = "constant") -> np.ndarray:
    """(..., n) -> (..., G, group_size); a short last group of a row is padded, by a mode of `np.pad`."""
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % group_size)], mode=mode)
    return padded.reshape(*x.shape[:-1], -1, group_size)


def codes_of_groups(q: np.ndarray, x: np.ndarray) -> Codes:
    """Undo `groups`: (..., G, group_size) -> the shape of `x`, without the padding."""
    return q.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]


def join_groups(q: np.ndarray, scales: np.ndarray, x: np.ndarray, group_size: int) -> tuple[Codes, Scales]:
    """Codes in the shape of `x`, scales in the shape (..., G)."""
    return codes_of_groups(q, x), scales[..., 0]


def along_groups(scales: np.ndarray, group_size: int, length: int) -> Scales:
    """The scale of each element: (..., G) -> (..., length)."""
    return np.repeat(scales, group_size, axis=-1)[..., :length]


# Families of mistakes, as in families.py. `of` is what a slice is called: channel, token, group.


def spans(right: Symmetric, of: str) -> Rows:
    """Other measures of a slice than its largest magnitude."""
    return (
        Misconception("max(x) instead of max|x|", right.but(span=lambda s: s.max(axis=-1, keepdims=True)),
            f"The scale must cover the largest magnitude of its {of}, which may be negative."),
        Misconception("the mean magnitude instead of the largest",
            right.but(span=lambda s: np.abs(s).mean(axis=-1, keepdims=True)),
            "With the mean, everything above it is cut off. "
            f"The grid must reach the largest magnitude of the {of}."),
        Misconception("the whole range max - min for the span",
            right.but(span=lambda s: np.ptp(s, axis=-1, keepdims=True), divisor=lambda bits: 2**bits - 1),
            "`(max - min) / (2^b - 1)` belongs to asymmetric quantization, which also has a zero point (lab 02). "
            "Here the grid reaches equally far both ways."),
    )  # fmt: skip


def floors(right: Symmetric, of: str, where: str = "") -> Rows:
    """What is done about a scale of 0 that harms other scales, or too little; `where` says which slices are zero."""
    tiny, only = np.float32(1e-8), "Only a scale of exactly 0 needs replacing."
    return (
        Misconception(f"a {of} of zeros divides by zero", right.but(floor=lambda scales: scales),
            f"One {of} is all zero{where}, so its scale is 0, and 0 / 0 is NaN. "
            "Replace that scale by 1, and leave the others."),
        Misconception("a floor under the scales", right.but(floor=lambda scales: np.maximum(scales, tiny)),
            f"A smallest scale such as 1e-8 rounds a quiet {of} to zero. {only}"),
        Misconception("an epsilon added to the scales", right.but(floor=lambda scales: scales + tiny),
            f"Adding 1e-8 wipes out {of}s whose scale is smaller than that. {only}"),
    )  # fmt: skip


def results(right: Sliced, inverse: str) -> Rows:
    """The right codes and scales, returned in another form; `inverse` is the exercise that undoes this one."""
    return (
        Misconception("returns the reconstruction instead of the codes",
            right.but(result=lambda q, scales, x: (q * scales, scales)),
            f"Quantizing ends with integers. Multiplying by the scales again is what `{inverse}` is for."),
        Misconception("returns scales and codes in the wrong order",
            right.but(join=lambda *parts: right.join(*parts)[::-1]),
            "The contract is `return q, scales`: codes first."),
        Misconception("the scales are upside down", right.but(result=lambda q, scales, x: (q, 1 / scales)),
            "quant_max / max|x| is how many steps fit into one unit. "
            "A scale is how long a step is: max|x| / quant_max."),
    )  # fmt: skip


def reconstructions(spread: Callable, of: str) -> Rows:
    """Other uses of the scales on the way back; `spread(scales, q, where)` broadcasts them over the codes."""
    return (
        Misconception("divides by the scales",
            lambda q, scales, where: (q / spread(scales, q, where)).astype(np.float32),
            "Quantizing divided by the scale; the way back multiplies."),
        Misconception("adds the scales", lambda q, scales, where: q.astype(np.float32) + spread(scales, q, where),
            "A code counts steps. What it stands for is that many steps of size scale: a product."),
        Misconception("the scales are not used", lambda q, scales, where: q.astype(np.float32),
            f"A code counts steps. What it stands for is that many steps of its {of}'s scale."),
        Misconception("a float64 result", lambda q, scales, where: q.astype(np.float64) * spread(scales, q, where),
            "float64 takes twice the memory of the float32 that was quantized. Turn the codes to float32."),
        Misconception("the scales are lost in integers",
            lambda q, scales, where: (q * wrapping(spread(scales, q, where), np.int8)).astype(np.float32),
            "A scale such as 0.1 is 0 as an integer. Turn the codes to float, not the scales to int."),
        Misconception("the product is cast back to integers",
            lambda q, scales, where: wrapping(q * spread(scales, q, where), q.dtype),
            "The point of coming back is to have floats again: leave the product as float32."),
    )  # fmt: skip
