"""quantize_group_asymmetric: each group as quantize_asymmetric has it, and one-sided groups among them."""

import numpy as np
import pytest

from labutils.labs.answers import quantize_asymmetric, quantize_group, quantize_group_asymmetric
from labutils.labs.lab04.quantize_group_asymmetric import right
from tests.arrays.bad_inputs import BAD_WIDTHS, REFUSED, refuses, table
from tests.labs.lab04.group_sizes import NO_GROUP_SIZES
from tests.labs.right_answers import half_up, passes

pytestmark = pytest.mark.filterwarnings("error")


def quant_max(num_bits):
    return 2**num_bits - 1


def code_dtype(num_bits):
    return np.uint8 if num_bits <= 8 else np.uint16


@pytest.mark.parametrize("num_bits", [2, 4, 8, 12])
def test_each_group_is_what_quantize_asymmetric_makes_of_it(num_bits):
    x = np.random.default_rng(0).normal(0.5, size=(3, 20)).astype(np.float32)
    q, scales, zero_points = quantize_group_asymmetric(x, num_bits, 8)
    assert scales.shape == zero_points.shape == (3, 3)
    for row in range(3):
        for group, start in enumerate((0, 8, 16)):
            codes, scale, zero_point = quantize_asymmetric(x[row, start : start + 8], num_bits)
            assert np.array_equal(q[row, start : start + 8], codes)
            assert (scales[row, group], zero_points[row, group]) == (scale, zero_point)


def test_a_group_on_one_side_of_zero_keeps_its_values_apart():
    x = np.array([[10, 11, 12, -10, -11, -12]], np.float32)
    q, scales, zero_points = quantize_group_asymmetric(x, 8, 3)
    assert zero_points.tolist() == [[0, 255]]
    back = (q.astype(np.float32) - np.repeat(zero_points, 3, axis=-1)) * np.repeat(scales, 3, axis=-1)
    assert np.abs(x - back).max() <= scales.max() / 2


def test_a_balanced_group_gains_the_code_that_symmetric_leaves_unused():
    x = np.array([[-1, 1]], np.float32)
    (_, symmetric), (_, asymmetric, _) = quantize_group(x, 2, 2), quantize_group_asymmetric(x, 2, 2)
    assert symmetric / asymmetric == pytest.approx(3 / 2)


def test_tensors_get_the_same_codes_scales_and_zero_points():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(3, 5, 30)).astype(np.float32)
    ours, theirs = quantize_group_asymmetric(x, 4, 7), quantize_group_asymmetric(torch.from_numpy(x), 4, 7)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("x, kind, words", **table(REFUSED))
def test_what_cannot_be_quantized_is_refused(x, kind, words):
    refuses(kind, words, quantize_group_asymmetric, x, 4, 2)


@pytest.mark.parametrize("num_bits, kind, words", **table(BAD_WIDTHS))
def test_what_is_no_bit_width_is_refused(num_bits, kind, words):
    refuses(kind, words, quantize_group_asymmetric, np.ones((2, 6), np.float32), num_bits, 2)


@pytest.mark.parametrize("size, kind, words", **table(NO_GROUP_SIZES))
def test_what_is_no_group_size_is_refused(size, kind, words):
    refuses(kind, words, quantize_group_asymmetric, np.ones((2, 6), np.float32), 4, size)


# Right answers, however they are written.


def pad_and_reshape(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    g = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % group_size)]).reshape(*x.shape[:-1], -1, group_size)
    low, high = np.minimum(g.min(-1), 0), np.maximum(g.max(-1), 0)
    scales = (high - low) / quant_max(num_bits)
    scales[scales == 0] = 1
    zeros = np.round(-low / scales).astype(np.int32)
    q = np.clip(np.round(g / scales[..., None]) + zeros[..., None], 0, quant_max(num_bits))
    return q.reshape(*x.shape[:-1], -1)[..., :n].astype(code_dtype(num_bits)), scales, zeros


def group_by_group(x, num_bits=4, group_size=128):
    starts = range(0, x.shape[-1], group_size)
    q = np.zeros(x.shape, code_dtype(num_bits))
    scales, zeros = np.ones((*x.shape[:-1], len(starts))), np.zeros((*x.shape[:-1], len(starts)), np.uint16)
    for g, start in enumerate(starts):
        part = x[..., start : start + group_size].astype(np.float64)
        low, high = part.min(axis=-1).clip(None, 0), part.max(axis=-1).clip(0)
        scale = np.where(high > low, (high - low) / quant_max(num_bits), 1)
        scales[..., g], zeros[..., g] = scale, np.rint(-low / scale)
        steps = part / scale[..., None] + zeros[..., g, None]
        q[..., start : start + group_size] = np.rint(steps).clip(0, quant_max(num_bits))
    return q, scales, zeros


def element_by_element(x, num_bits=4, group_size=128):
    rows = x.reshape(-1, x.shape[-1])
    q = np.zeros(rows.shape, code_dtype(num_bits))
    count = -(-rows.shape[1] // group_size)
    scales, zeros = np.ones((len(rows), count)), np.zeros((len(rows), count), int)
    for r, row in enumerate(rows.astype(float)):
        for g in range(count):
            group = row[g * group_size : (g + 1) * group_size]
            scale = (max(*group, 0, 0) - min(*group, 0, 0)) / quant_max(num_bits) or 1.0
            zero = round(-min(*group, 0, 0) / scale)
            for i, value in enumerate(group):
                q[r, g * group_size + i] = min(max(round(value / scale) + zero, 0), quant_max(num_bits))
            scales[r, g], zeros[r, g] = scale, zero
    shape = (*x.shape[:-1], count)
    return q.reshape(x.shape), scales.reshape(shape), zeros.reshape(shape)


def with_reduceat(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    starts = np.arange(0, n, group_size)
    low, high = (f.reduceat(x, starts, axis=-1) for f in (np.minimum, np.maximum))
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scales = np.where(low == high, 1, (high - low) / quant_max(num_bits))
    zeros = np.round(-low / scales).astype(code_dtype(num_bits))
    scale, zero = (np.take(part, np.arange(n) // group_size, axis=-1) for part in (scales, zeros))
    return np.clip(np.round(x / scale + zero), 0, quant_max(num_bits)).astype(code_dtype(num_bits)), scales, zeros


def with_each_group_quantized_by_lab_02(x, num_bits=4, group_size=128):
    pieces = np.split(x, np.arange(group_size, x.shape[-1], group_size), axis=-1)
    q = np.empty(x.shape, code_dtype(num_bits))
    scales, zeros = np.empty((*x.shape[:-1], len(pieces))), np.empty((*x.shape[:-1], len(pieces)), np.int64)
    for where in np.ndindex(scales.shape):
        columns = slice(where[-1] * group_size, (where[-1] + 1) * group_size)
        q[(*where[:-1], columns)], scales[where], zeros[where] = quantize_asymmetric(
            pieces[where[-1]][where[:-1]], num_bits
        )
    return q, scales, zeros


def with_torch(x, num_bits=4, group_size=128):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    n = t.shape[-1]
    g = torch.nn.functional.pad(t, (0, -n % group_size)).unflatten(-1, (-1, group_size))
    low, high = g.amin(-1, keepdim=True).clamp(max=0), g.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / quant_max(num_bits)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / scale).round().to(torch.int32)
    q = ((g / scale).round() + zero).clamp(0, quant_max(num_bits)).flatten(-2)[..., :n]
    return q.numpy().astype(code_dtype(num_bits)), scale[..., 0], zero[..., 0]


RIGHT = [
    pad_and_reshape,
    group_by_group,
    element_by_element,
    with_reduceat,
    with_each_group_quantized_by_lab_02,
    with_torch,
    pytest.param(right, id="the recipe"),
    pytest.param(right.but(round=half_up), id="half up"),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("quantize_group_asymmetric", answer)
