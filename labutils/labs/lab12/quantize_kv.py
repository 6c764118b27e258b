"""quantize_kv: the keys and values of one layer's attention in few bits, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.arrays import affine
from labutils.arrays.inputs import Array, bit_width, real_array, require_finite, require_one_library
from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Exercise, Misconception
from labutils.course.reading import parts
from labutils.labs.contract import arguments
from labutils.labs.floats import as_float64
from labutils.labs.lab12 import LESSON
from labutils.labs.lab12._kv import judge_row_grids, keys_and_values
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import on_tensors, require_unchanged


def quantize_kv(keys: Array, values: Array, num_bits: int = 4) -> tuple[Array, Array]:
    """What attention reads from a cache of `num_bits`: keys rounded channel by channel, values token by token.

    >>> keys = np.array([[[0.0, 30.0], [1.0, 60.0], [3.0, 0.0]]])  # (heads, tokens, channels)
    >>> values = np.array([[[0.0, 3.0], [10.0, 30.0], [1.0, 2.0]]])
    >>> quantize_kv(keys, values, num_bits=2)[0]  # levels 0, 1, 2, 3 in one channel, 0, 20, 40, 60 in the other
    array([[[ 0., 40.],
            [ 1., 60.],
            [ 3.,  0.]]])

    keys    (heads, tokens, channels): all tokens of a channel of a head share a scale and a zero point
    values  (heads, tokens, channels): all channels of a token of a head do

    The grids are asymmetric, and their ranges hold 0. Both come back dequantized, in their shapes and dtypes. Liu et
    al., 2024, "KIVI" (arXiv:2402.02750). A `QuantizedCache` packs the codes, and does so for groups of tokens.
    TypeError or ValueError for other shapes, NaN, Inf, and a bit width outside 2 to 8.
    """
    num_bits = bit_width(num_bits, 8, "to be packed")
    (xp, keys), (_, values) = real_array(keys, "keys"), real_array(values, "values")
    require_one_library(keys=keys, values=values)
    for name, states in (("keys", keys), ("values", values)):
        if states.ndim != 3:
            raise ValueError(f"{name} must have shape (heads, tokens, channels), got {tuple(states.shape)}")
        require_finite(xp, states, name)
    swapped = affine.fake_quantize(xp.matrix_transpose(keys), _rows(keys.shape[1], num_bits))
    return xp.matrix_transpose(swapped), affine.fake_quantize(values, _rows(values.shape[2], num_bits))


def _rows(length: int, num_bits: int) -> Scheme:
    return Scheme(num_bits, symmetric=False, granularity=PerGroup(length))


# The lesson's example, one head: three tokens of two channels.
KEYS = np.array([[[0, 30], [1, 60], [3, 0]]], np.float32)
VALUES = np.array([[[0, 3], [10, 30], [1, 2]]], np.float32)


def cases() -> list[Case]:
    keys, values = keys_and_values()
    square = keys_and_values(2, 16, 16, seed=1)
    shifted = tuple(np.abs(x) + np.float32(5) for x in keys_and_values(seed=2))
    negative = tuple(-np.abs(x) - np.float32(1) for x in keys_and_values(seed=3))
    silent = keys_and_values(seed=4)
    silent[0][:, :, 5], silent[1][:, 7] = 0, 0
    tiny = tuple(x * np.float32(1e-6) for x in keys_and_values(seed=5))
    halves = tuple(np.clip(x, -1.5, 1.5) for x in keys_and_values(1, 8, 8, seed=10))
    halves[0][:, 0], halves[0][:, 1], halves[1][:, :, 0], halves[1][:, :, 1] = -1.5, 1.5, -1.5, 1.5
    apart = tuple(x * np.array([1, 30], np.float32)[:, None, None] for x in keys_and_values(seed=6))
    return [
        Case("the worked example, 2 bits", (KEYS, VALUES), {"num_bits": 2}),
        Case("two large channels in the keys, 4 bits", (keys, values), {"num_bits": 4}),
        Case("bits left at their default, 4", (keys, values)),
        Case("as many tokens as channels", square, {"num_bits": 3}),
        Case("two heads of different sizes", apart, {"num_bits": 4}),
        Case("8 bits", (keys, values), {"num_bits": 8}),
        Case("2 bits", keys_and_values(seed=7), {"num_bits": 2}),
        Case("all values positive, far from 0", shifted, {"num_bits": 4}),
        Case("all values negative", negative, {"num_bits": 4}),
        Case("a channel and a token of zeros", silent, {"num_bits": 4}),
        Case("a million times smaller", tiny, {"num_bits": 4}),
        Case("70 tokens, and one scale for a channel all the same", keys_and_values(1, 70, 8, seed=9), {"num_bits": 4}),
        Case("both ends half way between two levels", halves, {"num_bits": 2}),
        Case("one head", keys_and_values(1, 20, 8, seed=8), {"num_bits": 4}),
    ]


def read(value: Any) -> dict:
    require_unchanged(value)
    keys, values = parts(value, ("keys", "values"))
    return {"keys": as_float64(keys, "keys"), "values": as_float64(values, "values")}


def judge(answer: dict, case: Case) -> None:
    keys, values, num_bits = arguments(quantize_kv, case)
    judge_row_grids(answer["keys"], keys, 1, num_bits, "keys", "channel")
    judge_row_grids(answer["values"], values, 2, num_bits, "values", "token")


def ends_with_zero(x, axis):
    return x.amin(axis, keepdim=True).clamp(max=0), x.amax(axis, keepdim=True).clamp(min=0)


def step(low, high, levels):
    """The range divided into `levels` steps; 1 for a range of 0."""
    scale = (high - low) / levels
    return scale.where(scale > 0, scale.new_ones(()))


def rounded(x, low, high, levels):
    """x on the grid of `levels` steps from low to high, which hold 0; the zero point is a whole number."""
    scale = step(low, high, levels)
    zero = (-low / scale).round()
    return (((x / scale).round() + zero).clamp(0, levels) - zero) * scale


@dataclass(frozen=True)
class KeysAndValues(Recipe):
    """result(grid(keys, *ends(keys, 1), levels), grid(values, *ends(values, 2), levels))."""

    keys_axis: Any = 1
    values_axis: Any = 2
    ends: Callable = ends_with_zero
    grid: Callable = rounded
    levels: Callable = lambda num_bits: 2**num_bits - 1
    result: Callable = lambda keys, values: (keys, values)

    def __call__(self, keys, values, num_bits=4):
        levels = self.levels(num_bits)
        both = [self.grid(x, *self.ends(x, axis), levels)
                for x, axis in ((keys, self.keys_axis), (values, self.values_axis))]  # fmt: skip
        return self.result(*both)


right = KeysAndValues()


def unclamped(x, low, high, levels):
    scale = step(low, high, levels)
    return (x / scale).round() * scale


def symmetric_ends(x, axis):
    largest = x.abs().amax(axis, keepdim=True)
    return -largest, largest


def symmetric_grid(x, low, high, levels):
    top = (levels + 1) // 2 - 1
    scale = high / top
    scale = scale.where(scale > 0, scale.new_ones(()))
    return (x / scale).round().clamp(-top - 1, top) * scale


def offset_grid(x, low, high, levels):
    scale = step(low, high, levels)
    return ((x - low) / scale).round() * scale + low


def wrong_zero(x, low, high, levels):
    scale = step(low, high, levels)
    zero = (low / scale).round()
    return (((x / scale).round() + zero).clamp(0, levels) - zero) * scale


def unguarded(x, low, high, levels):
    scale = (high - low) / levels
    zero = (-low / scale).round()
    return (((x / scale).round() + zero).clamp(0, levels) - zero) * scale


def floored(x, low, high, levels):
    scale = step(low, high, levels)
    zero = (-low / scale).round()
    return (((x / scale).floor() + zero).clamp(0, levels) - zero) * scale


def with_codes(x, low, high, levels):
    scale = step(low, high, levels)
    return ((x / scale).round() + (-low / scale).round()).clamp(0, levels)


def zero_not_subtracted(x, low, high, levels):
    scale = step(low, high, levels)
    return with_codes(x, low, high, levels) * scale


def floor_under_the_scale(x, low, high, levels):
    scale = ((high - low) / levels).clamp(min=1e-5)
    zero = (-low / scale).round()
    return (((x / scale).round() + zero).clamp(0, levels) - zero) * scale


def float_zero(x, low, high, levels):
    scale = step(low, high, levels)
    zero = -low / scale
    return (((x / scale).round() + zero).clamp(0, levels) - zero) * scale


def in_groups_of_32(keys, values, num_bits=4):
    import torch

    return torch.cat([right(part, values, num_bits)[0] for part in keys.split(32, 1)], 1), right(
        keys, values, num_bits
    )[1]


def one_range(x, axis):
    return ends_with_zero(x.reshape(1, 1, -1), 2)


MISCONCEPTIONS = (
    Misconception("nothing is rounded", right.but(grid=lambda x, low, high, levels: x),
        "Keys and values come back as they went in. Round them to the levels of their grids."),
    Misconception("the keys in groups of 32 tokens", lambda *args, **kwargs: in_groups_of_32(*args, **kwargs),
        "The caller cuts the cache into groups. Here *all* tokens of a channel share one scale."),
    Misconception("the zero point is no whole number", right.but(grid=float_zero),
        "A zero point is a code: round it, so that 0.0 is one of the levels and no value is cut off at the ends."),
    Misconception("keys per token", right.but(keys_axis=2),
        "The outliers of keys sit in a few channels, and a scale for each token makes all other channels pay for them. "
        "A channel shares a scale along the tokens: reduce axis 1."),
    Misconception("values per channel", right.but(values_axis=1),
        "Values have no loud channels, and their tokens are added up by attention: a token shares a scale. Reduce the "
        "last axis."),
    Misconception("keys per token and values per channel", right.but(keys_axis=2, values_axis=1),
        "It is the other way round. The axis that a scale is shared along is the one to reduce: tokens for keys, "
        "channels for values."),
    Misconception("all heads share a scale", right.but(keys_axis=(0, 1), values_axis=(0, 2)),
        "Each head has keys and values of its own, of another size. Reduce one axis only, and leave the heads."),
    Misconception("a scale for each head", right.but(keys_axis=(1, 2), values_axis=(1, 2)),
        "One scale for all channels and tokens of a head: the loudest channel sets it for everybody. Reduce one axis "
        "for each of the two."),
    Misconception("one scale for all keys, and one for all values", right.but(ends=one_range),
        "The loudest channel sets the scale for everybody here. Reduce one axis for each of the two, and keep it for "
        "broadcasting."),
    Misconception("a head's scale where a channel's or token's is due", right.but(keys_axis=0, values_axis=0),
        "Axis 0 holds the heads, and they share nothing. Tokens are axis 1, channels axis 2."),
    Misconception("the range does not hold 0",
        right.but(ends=lambda x, axis: (x.amin(axis, keepdim=True), x.amax(axis, keepdim=True))),
        "Where all values lie on one side of 0 the zero point falls off the grid, and is cut off or clamps the values. "
        "Widen the range to include 0 first, as in lab 02."),
    Misconception("the minimum as a float offset, from a range without 0",
        right.but(ends=lambda x, axis: (x.amin(axis, keepdim=True), x.amax(axis, keepdim=True)), grid=offset_grid),
        "This keeps the smallest value as a float, and 0.0 is no longer one of the levels. Here, as in lab 02, the "
        "range holds 0 and the zero point is a whole number."),
    Misconception("the minimum as a float offset", right.but(grid=offset_grid),
        "This keeps the smallest value as a float, so that 0.0 is no level unless by luck. The zero point is a whole "
        "number of steps: round it."),
    Misconception("symmetric", right.but(ends=symmetric_ends, grid=symmetric_grid),
        "A symmetric grid reaches as far below 0 as above it, and a channel on one side of 0 wastes half of its codes. "
        "Take minimum and maximum, and a zero point."),
    Misconception("2^b steps instead of 2^b - 1", right.but(levels=lambda b: 2**b),
        "b bits count from 0 to 2^b - 1: between the first code and the last lie 2^b - 1 steps. With one more, the "
        "largest code needs another bit."),
    Misconception("half of the levels", right.but(levels=lambda b: 2 ** (b - 1) - 1),
        "2^(b-1) - 1 is the largest *signed* code. These codes are unsigned, from 0 to 2^b - 1."),
    Misconception("4 bits, whatever was asked for", right.but(levels=lambda b: 15),
        "4 is the default. Use `num_bits`."),
    Misconception("8 bits, whatever was asked for", right.but(levels=lambda b: 255), "Use `num_bits`."),
    Misconception("floor instead of round", right.but(grid=floored),
        "Floor always goes down, so the error reaches a whole step. Go to the nearest level."),
    Misconception("the codes are not clamped", right.but(grid=unclamped),
        "Where both ends lie half way between two levels, both are rounded outwards: one level more than b bits can "
        "tell apart. Clamp the codes to 0 ... 2^b - 1."),
    Misconception("the sign of the zero point", right.but(grid=wrong_zero),
        "The zero point is the code of 0.0: how many steps lie *below* zero. With the smallest value negative, that is "
        "minus the smallest value, in steps."),
    Misconception("the zero point is not subtracted", right.but(grid=zero_not_subtracted),
        "A code counts from the lowest level. Subtract the zero point before you multiply by the scale."),
    Misconception("codes instead of floats", right.but(grid=with_codes),
        "These are the codes. What attention reads is floats: subtract the zero point and multiply by the scale."),
    Misconception("no guard for slices of zeros", right.but(grid=unguarded),
        "A channel that is all 0 has a range of 0, and 0 / 0 is NaN. Any scale gives zeros back; 1 will do."),
    Misconception("a floor under the scale", right.but(grid=floor_under_the_scale),
        "A smallest scale such as 1e-5 flattens small numbers. Only a scale of exactly 0 needs replacing."),
    Misconception("the values are left in float", right.but(result=lambda keys, values: (keys, None)),
        "Both are cached, and both are quantized."),
    Misconception("values first", right.but(result=lambda keys, values: (values, keys)),
        "Both are right, in the wrong order: keys first."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_kv",
    lab=LESSON,
    place=20,
    points=3,
    reference=quantize_kv,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_tensors,
)
