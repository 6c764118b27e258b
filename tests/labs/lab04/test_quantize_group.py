"""quantize_group: within half a step of each group, whatever the group size, and the same for tensors."""

import math

import numpy as np
import pytest

from labutils.labs.answers import dequantize_group, quantize_group
from labutils.labs.lab04.quantize_group import right
from tests.arrays.bad_inputs import BAD_WIDTHS, FINE, REFUSED, refuses, slack, table
from tests.labs.lab04.group_sizes import NO_GROUP_SIZES
from tests.labs.right_answers import passes, variants

pytestmark = pytest.mark.filterwarnings("error")

ONES = np.ones((2, 6), np.float32)


def quant_max(num_bits):
    return 2 ** (num_bits - 1) - 1


def code_dtype(num_bits):
    return np.int8 if num_bits <= 8 else np.int16


@pytest.mark.parametrize("make", **table(FINE))
@pytest.mark.parametrize("group_size", [1, 2, 5, 10**30])
def test_unusual_arrays_come_back_within_half_a_step_of_their_group(make, group_size):
    x = np.asarray(make())
    if x.ndim == 0:
        refuses(ValueError, ("needs at least one axis",), quantize_group, make(), 4, group_size)
        return
    q, scales = quantize_group(make(), 4, group_size)
    assert scales.shape == (*x.shape[:-1], -(-x.shape[-1] // group_size))
    each = np.repeat(scales, min(group_size, x.shape[-1]), axis=-1)[..., : x.shape[-1]]
    error = np.abs(x.astype(float) - np.asarray(q) * each.astype(float))  # dequantize_group's float32 holds less
    assert np.all(error <= each / 2 + slack(x))


@pytest.mark.parametrize("size, groups", [(4, 2), (5, 2), (6, 1), (7, 1), (10**30, 1), (np.int64(3), 2), (1, 6)])
def test_a_group_size_need_neither_divide_nor_fit_the_row(size, groups):
    x = np.linspace(-1, 2, 12, dtype=np.float32).reshape(2, 6)
    q, scales = quantize_group(x, 8, size)
    assert scales.shape == (2, groups)
    assert np.max(np.abs(x - dequantize_group(q, scales, size))) <= scales.max() / 2 * (1 + 1e-5)


@pytest.mark.parametrize("group_size", [4, 7, 64])
def test_tensors_get_the_same_codes_and_scales(group_size):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(3, 5, 30)).astype(np.float32)
    ours, theirs = quantize_group(x, 4, group_size), quantize_group(torch.from_numpy(x), 4, group_size)
    assert all(isinstance(part, torch.Tensor) for part in theirs)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


# Bad input.


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_no_array_of_finite_floats_is_refused(row):
    x, kind, words = REFUSED[row]
    refuses(kind, ("x ", *words) if "masked" not in words else words, quantize_group, x)


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    refuses(kind, words, quantize_group, ONES, num_bits)


@pytest.mark.parametrize("size, kind, words", **table(NO_GROUP_SIZES))
def test_what_is_no_group_size_is_refused(size, kind, words):
    refuses(kind, words, quantize_group, ONES, 4, size)


# Right answers, however they are written.


def pad_and_reshape(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % group_size)])
    groups = padded.reshape(*x.shape[:-1], -1, group_size)
    scales = np.abs(groups).max(-1, keepdims=True) / quant_max(num_bits)
    scales[scales == 0] = 1
    q = np.clip(np.round(groups / scales), -quant_max(num_bits) - 1, quant_max(num_bits)).astype(code_dtype(num_bits))
    return q.reshape(*x.shape[:-1], -1)[..., :n], scales[..., 0]


def loop_over_groups(x, num_bits=4, group_size=128):
    starts = range(0, x.shape[-1], group_size)
    q = np.zeros(x.shape, code_dtype(num_bits))
    scales = np.ones((*x.shape[:-1], len(starts)), np.float64)
    for g, start in enumerate(starts):
        group = x[..., start : start + group_size].astype(np.float64)
        largest = np.abs(group).max(axis=-1)
        scales[..., g] = np.where(largest > 0, largest / quant_max(num_bits), 1)
        q[..., start : start + group_size] = np.rint(group / scales[..., g : g + 1])
    return q, scales


def element_by_element(x, num_bits=4, group_size=128):
    rows = x.reshape(-1, x.shape[-1])
    q = np.zeros(rows.shape, code_dtype(num_bits))
    scales = np.ones((len(rows), math.ceil(rows.shape[1] / group_size)), np.float32)
    for r, row in enumerate(rows):
        for g in range(scales.shape[1]):
            members = range(g * group_size, min((g + 1) * group_size, len(row)))
            largest = max(abs(float(row[i])) for i in members)
            scale = largest / quant_max(num_bits) or 1.0
            for i in members:
                q[r, i] = max(-quant_max(num_bits), min(quant_max(num_bits), round(float(row[i]) / scale)))
            scales[r, g] = scale
    return q.reshape(x.shape), scales.reshape(*x.shape[:-1], -1)


def with_reduceat(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    starts = np.arange(0, n, group_size)
    scales = np.maximum.reduceat(np.abs(x), starts, axis=-1) / quant_max(num_bits)
    scales = np.where(scales > 0, scales, 1)
    each = np.take(scales, np.arange(n) // group_size, axis=-1)
    return np.round(x / each).clip(-quant_max(num_bits), quant_max(num_bits)).astype(code_dtype(num_bits)), scales


def with_split(x, num_bits=4, group_size=128):
    pieces = np.split(x, np.arange(group_size, x.shape[-1], group_size), axis=-1)
    scales = [np.abs(piece).max(axis=-1, keepdims=True) / quant_max(num_bits) for piece in pieces]
    scales = [np.where(scale == 0, 1.0, scale) for scale in scales]
    q = [np.floor(piece / scale + 0.5) for piece, scale in zip(pieces, scales)]
    q = np.concatenate(q, axis=-1).clip(-quant_max(num_bits) - 1, quant_max(num_bits))
    return q.astype(code_dtype(num_bits)), np.concatenate(scales, axis=-1)


def with_torch_unfold(x, num_bits=4, group_size=128):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    n = t.shape[-1]
    padded = torch.nn.functional.pad(t, (0, -n % group_size))
    groups = padded.unflatten(-1, (-1, group_size))
    scales = groups.abs().amax(-1) / quant_max(num_bits)
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    q = (
        (groups / scales.unsqueeze(-1))
        .round()
        .clamp(-quant_max(num_bits) - 1, quant_max(num_bits))
        .flatten(-2)[..., :n]
    )
    return q.to(torch.int8 if num_bits <= 8 else torch.int16), scales


def nan_for_filling(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    filled = np.full((*x.shape[:-1], -(-n // group_size) * group_size), np.nan, x.dtype)
    filled[..., :n] = x
    scales = np.nanmax(np.abs(filled.reshape(*x.shape[:-1], -1, group_size)), axis=-1) / quant_max(num_bits)
    scales = np.where(scales == 0, 1, scales)
    q = np.round(x / np.repeat(scales, group_size, axis=-1)[..., :n])
    return [q.astype(code_dtype(num_bits)), scales]


RIGHT = [
    pad_and_reshape,
    loop_over_groups,
    element_by_element,
    with_reduceat,
    with_split,
    with_torch_unfold,
    nan_for_filling,
    *variants(right),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_group", answer)
