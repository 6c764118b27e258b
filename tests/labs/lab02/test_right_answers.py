"""Right answers to lab 02, however they are written. test_right_answers.py runs them; here is what is special to 02."""

import numpy as np
import pytest

from labutils.course import engine
from labutils.labs.catalogue import EXERCISES


def top(bits):
    return 2**bits - 1


def kind(bits):
    return np.uint8 if bits <= 8 else np.uint16


# --- quantize_asymmetric ---


def plain(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / top(num_bits) or 1.0
    zero_point = round(-low / scale)
    q = np.clip(np.round(x / scale) + zero_point, 0, top(num_bits))
    return q.astype(kind(num_bits)), scale, zero_point


def add_then_round(x, num_bits=8):
    """As compressed-tensors does: ties fall the other way for an odd zero point."""
    low, high = np.minimum(x.min(), 0), np.maximum(x.max(), 0)
    scale = np.where(high > low, (high - low) / top(num_bits), 1)
    zero_point = np.round(-low / scale).astype(np.int32)  # a 0-d array
    return np.round(x / scale + zero_point).clip(0, top(num_bits)).astype(kind(num_bits)), scale, zero_point


def zero_point_from_above(x, num_bits=8):
    """From the largest value down; half a step may go the other way."""
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    scale = (high - low) / top(num_bits) if high - low > 0 else 1.0
    zero_point = 0 if low == high else int(np.clip(top(num_bits) - np.rint(high / scale), 0, top(num_bits)))
    q = np.rint(x.astype(np.float64) / scale) + zero_point
    return np.maximum(np.minimum(q, top(num_bits)), 0).astype(kind(num_bits)), scale, zero_point


def half_up(x, num_bits=8):
    widened = np.append(x.ravel(), x.dtype.type(0))
    scale = np.float64(np.ptp(widened)) / top(num_bits)
    if scale == 0:
        return np.zeros(x.shape, kind(num_bits)), np.float32(1), np.uint8(0)
    zero_point = int(np.floor(-widened.min() / scale + 0.5))
    q = np.floor(x / scale + 0.5) + zero_point
    return np.clip(q, 0, top(num_bits)).astype(kind(num_bits)), scale, kind(num_bits)(zero_point)


def by_loops(x, num_bits=8):
    low = high = 0.0
    for value in x.flat:
        low, high = min(low, float(value)), max(high, float(value))
    scale = (high - low) / top(num_bits) if high > low else 1.0
    zero_point = round(-low / scale)
    q = np.empty(x.shape, kind(num_bits))
    for index, value in np.ndenumerate(x):
        q[index] = max(0, min(top(num_bits), round(float(value) / scale) + zero_point))
    return [q, scale, zero_point]


def clamp_values_first(x, num_bits=8):
    """Values are clipped to the ends of the rounded grid, so that codes need no clamp."""
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = np.float64(high - low) / top(num_bits) if high > low else np.float64(1)
    zero_point = int(np.round(-low / scale))
    inside = np.clip(x, -zero_point * scale, (top(num_bits) - zero_point) * scale)
    return (np.round(inside / scale) + zero_point).astype(kind(num_bits)), scale, zero_point


def with_torch(x, num_bits=8):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    low, high = t.amin().clamp(max=0), t.amax().clamp(min=0)
    scale = (high - low) / top(num_bits)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero_point = torch.round(-low / scale).to(torch.int32)
    q = torch.clamp(torch.round(t / scale) + zero_point, 0, top(num_bits))
    return q.to(torch.uint8 if num_bits <= 8 else torch.uint16), scale, zero_point


# --- dequantize_asymmetric ---


def cast_all(q, scale, zero_point):
    return (q.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def through_int32(q, scale, zero_point):
    return ((q.astype(np.int32) - int(zero_point)) * float(scale)).astype(np.float32)


def multiplied_out(q, scale, zero_point):
    return (q * np.float64(scale) - int(zero_point) * np.float64(scale)).astype("float32")


def into_out(q, scale, zero_point):
    out = q.astype(np.float32)
    out -= zero_point
    out *= scale
    return out


def by_table(q, scale, zero_point):
    """Every code looked up."""
    values = (np.arange(2 ** (8 * q.itemsize)) - int(zero_point)) * float(scale)
    return values.astype(np.float32)[q]


def torch_product(q, scale, zero_point):
    import torch

    return (torch.tensor(q.astype(np.int32)).float() - int(zero_point)) * float(scale)


# --- quantize_in_range ---


def clip_codes(x, low, high, num_bits=8):
    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / top(num_bits)
    zero_point = round(-low / scale)
    return np.clip(np.round(x / scale) + zero_point, 0, top(num_bits)).astype(kind(num_bits)), scale, zero_point


def clip_values(x, low, high, num_bits=8):
    """Clips the values to the widened range; codes still need a clamp, for the zero point was rounded."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / top(num_bits))
    zero_point = int(np.rint(-low / scale))
    q = np.rint(np.clip(x, low, high) / scale) + zero_point
    return q.clip(0, top(num_bits)).astype(kind(num_bits)), scale, zero_point


def ends_as_a_tensor(x, low, high, num_bits=8):
    """The range is that of a tensor with two values."""
    _, scale, zero_point = plain(np.array([low, high], dtype=np.float64), num_bits)
    q = np.clip(np.round(x / scale) + zero_point, 0, top(num_bits))
    return q.astype(kind(num_bits)), scale, zero_point


def by_where(x, low, high, num_bits=8):
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = (high - low) / top(num_bits)
    zero_point = np.int64(np.round(-low / scale))
    q = np.round(x / scale + zero_point)
    q = np.where(q < 0, 0, np.where(q > top(num_bits), top(num_bits), q))
    return q.astype(kind(num_bits)), scale, zero_point


def in_range_with_torch(x, low, high, num_bits=8):
    import torch

    low, high = min(low, 0), max(high, 0)
    scale = (high - low) / top(num_bits)
    zero_point = round(-low / scale)
    q = torch.clamp(torch.round(torch.tensor(x) / scale) + zero_point, 0, top(num_bits))
    return q.to(torch.uint8 if num_bits <= 8 else torch.uint16), torch.tensor(scale), torch.tensor(zero_point)


RIGHT = {
    "quantize_asymmetric": [
        plain, add_then_round, zero_point_from_above, half_up, by_loops, clamp_values_first, with_torch,
    ],
    "dequantize_asymmetric": [cast_all, through_int32, multiplied_out, into_out, by_table, torch_product],
    "quantize_in_range": [clip_codes, clip_values, ends_as_a_tensor, by_where, in_range_with_torch],
}  # fmt: skip


# Mistakes as people write them: in other words than the tables, often copied from a tutorial.


def _from_a_tutorial(x, num_bits=8):
    scale = (x.max() - x.min()) / (2**num_bits - 1)
    zero_point = max(0, min(255, round(float(-x.min() / scale))))
    return np.round(x / scale + zero_point).clip(0, 255).astype(np.uint8), scale, zero_point


def _unguarded(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1)
    zero_point = int(-low / scale)
    return (np.round(x / scale) + zero_point).astype(kind(num_bits)), scale, zero_point


def _torch_qint8(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1)
    zero_point = int(-(2 ** (num_bits - 1)) - np.round(low / scale))
    q = np.clip(np.round(x / scale) + zero_point, -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)
    return q.astype(np.int8 if num_bits <= 8 else np.int16), scale, zero_point


def _hqq(x, num_bits=8):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1)
    zero_point = -low / scale
    return np.clip(np.round(x / scale + zero_point), 0, 2**num_bits - 1).astype(kind(num_bits)), scale, zero_point


@pytest.mark.parametrize(
    ("submission", "diagnosis"),
    [
        (_from_a_tutorial, "the range leaves 0 out, and the clamp of the zero point flattens everything"),
        (_unguarded, "the zero point is truncated"),
        (_torch_qint8, "signed codes"),
        (_hqq, "the zero point is not rounded"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mistakes_in_other_words_are_recognised(submission, diagnosis):
    report = engine.examine(submission, EXERCISES["quantize_asymmetric"])
    assert not report.passed
    assert report.diagnosis == diagnosis, (report.diagnosis, report.first_failure)


def test_the_most_natural_way_back_is_told_why_it_is_float64():
    def natural(q, scale, zero_point):
        return (q.astype(np.float32) - zero_point) * scale

    report = engine.examine(natural, EXERCISES["dequantize_asymmetric"])
    assert report.diagnosis == "a float64 result where the zero point is an int32"
