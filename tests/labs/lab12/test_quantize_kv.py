"""quantize_kv: keys channel by channel, values token by token, and what the packed cache reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labutils import sqnr_db
from labutils.labs.answers import quantize_kv
from labutils.labs.lab12._kv import keys_and_values
from labutils.labs.lab12.quantize_kv import KEYS, VALUES, right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

bits = st.integers(2, 8)
seeds = st.integers(0, 99)


def steps(x, axis, num_bits):
    low, high = np.minimum(x.min(axis, keepdims=True), 0), np.maximum(x.max(axis, keepdims=True), 0)
    return (high - low) / (2**num_bits - 1)


@given(bits, seeds)
def test_each_value_is_off_by_half_a_step_of_its_channel_or_token(num_bits, seed):
    keys, values = keys_and_values(seed=seed)
    for x, back, axis in zip((keys, values), quantize_kv(keys, values, num_bits), (1, 2)):
        step = steps(x, axis, num_bits)
        assert (np.abs(back - x) <= 0.5001 * step + 1e-6).all()
        levels = np.round((back / step), 3)
        assert (np.ptp(levels, axis=axis) <= 2**num_bits - 1).all()


@given(bits, seeds)
def test_a_loud_channel_hurts_no_other_and_a_loud_token_no_other(num_bits, seed):
    keys, values = keys_and_values(seed=seed)
    louder_keys, louder_values = keys.copy(), values.copy()
    louder_keys[:, :, 4] *= 1000
    louder_values[:, 5] *= 1000
    quiet, loud = quantize_kv(keys, values, num_bits), quantize_kv(louder_keys, louder_values, num_bits)
    np.testing.assert_array_equal(np.delete(quiet[0], 4, axis=2), np.delete(loud[0], 4, axis=2))
    np.testing.assert_array_equal(np.delete(quiet[1], 5, axis=1), np.delete(loud[1], 5, axis=1))


def test_keys_per_channel_are_nearer_than_per_token_where_channels_are_loud():
    keys, values = keys_and_values(tokens=64)
    quiet = np.delete(np.arange(16), [3, 10])  # the channels that are not loud
    per_channel, per_token = quantize_kv(keys, values, 4)[0], quantize_kv(values, keys, 4)[1]
    found = [sqnr_db(keys[:, :, quiet], back[:, :, quiet]) for back in (per_channel, per_token)]
    assert found[0] > found[1] + 6


def test_the_packed_cache_reads_the_same_but_for_the_rounding_of_scales():
    pytest.importorskip("transformers")
    from labutils.models.kv_cache.format import CacheFormat
    from labutils.models.kv_cache.states import CachedStates

    keys, values = (torch.tensor(x) for x in keys_and_values(tokens=32))
    format = CacheFormat(num_bits=4, group_size=32, window=0)
    for kind, x, mine in zip(("keys", "values"), (keys, values), quantize_kv(keys, values, 4)):
        states = CachedStates(kind, format)
        states.append(x[None])
        states.quantize_old()
        step = torch.tensor(steps(x.numpy(), 1 if kind == "keys" else 2, 4))
        assert states.quantized == 32
        off = (states.read()[0] - mine).abs() / step
        assert off.max() < 1.01, "a scale that float16 rounds up may move a value that lies between two levels"
        assert (off < 0.02).float().mean() > 0.95


def test_numpy_and_torch_agree_dtypes_stay_and_zeros_come_back():
    keys, values = keys_and_values()
    keys[0, :, 2], values[1, 3] = 0, 0
    both = quantize_kv(keys, values)
    tensors = quantize_kv(torch.tensor(keys), torch.tensor(values))
    for array, tensor in zip(both, tensors):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-6)
    assert not both[0][0, :, 2].any()
    assert not both[1][1, 3].any()
    assert quantize_kv(torch.tensor(keys).half(), torch.tensor(values).half())[0].dtype == torch.float16


BAD = {
    "one bit": ((KEYS, VALUES, 1), ValueError, ("num_bits", "1")),
    "nine bits": ((KEYS, VALUES, 9), ValueError, ("num_bits", "9")),
    "a fourth axis": ((KEYS[None], VALUES), ValueError, ("keys must have shape", "(1, 1, 3, 2)")),
    "values of two axes": ((KEYS, VALUES[0]), ValueError, ("values must have shape", "(3, 2)")),
    "NaN": ((KEYS * np.nan, VALUES), ValueError, ("keys must be finite",)),
    "Inf": ((KEYS, VALUES + np.inf), ValueError, ("values must be finite",)),
    "a list": (([1.0], VALUES), TypeError, ("keys", "list")),
    "two libraries": ((KEYS, torch.tensor(VALUES)), TypeError, ("one library",)),
    "no tokens": ((KEYS[:, :0], VALUES[:, :0]), ValueError, ("must not be empty",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_cannot_be_cached_is_refused(args, kind, words):
    with np.errstate(invalid="ignore"):
        refuses(kind, words, quantize_kv, *args)


def on_grid(x, axis, num_bits):
    low, high = x.amin(axis, keepdim=True).clamp(max=0), x.amax(axis, keepdim=True).clamp(min=0)
    top = 2**num_bits - 1
    scale = (high - low) / top
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round(-low / scale)
    return (torch.clamp(torch.round(x / scale) + zero, 0, top) - zero) * scale


def same_function_twice(keys, values, num_bits=4):
    return on_grid(keys, 1, num_bits), on_grid(values, 2, num_bits)


def negative_axes_and_a_list(keys, values, num_bits=4):
    return [on_grid(keys, -2, num_bits), on_grid(values, -1, num_bits)]


def transposed_keys(keys, values, num_bits=4):
    return on_grid(keys.transpose(1, 2), 2, num_bits).transpose(1, 2), on_grid(values, 2, num_bits)


def zero_point_added_before_rounding(keys, values, num_bits=4):
    def grid(x, axis):
        low, high = torch.clamp(x.amin(axis, keepdim=True), max=0), torch.clamp(x.amax(axis, keepdim=True), min=0)
        scale = ((high - low) / (2**num_bits - 1)).masked_fill(high == low, 1.0)
        zero = (-low / scale).round()
        return ((x / scale + zero).round().clamp(0, 2**num_bits - 1) - zero) * scale

    return grid(keys, 1), grid(values, 2)


def slice_by_slice_in_numpy(keys, values, num_bits=4):
    def row(x):
        low, high = min(x.min(), 0.0), max(x.max(), 0.0)
        scale = (high - low) / (2**num_bits - 1) or 1.0
        zero = np.round(-low / scale)
        return (np.clip(np.round(x / scale) + zero, 0, 2**num_bits - 1) - zero) * scale

    k, v = keys.numpy().astype(np.float64), values.numpy().astype(np.float64)
    for head in range(len(k)):
        for channel in range(k.shape[2]):
            k[head, :, channel] = row(k[head, :, channel])
        for token in range(v.shape[1]):
            v[head, token] = row(v[head, token])
    return k, v


def codes_in_uint8(keys, values, num_bits=4):
    def grid(x, axis):
        ends = [
            x.amin(axis, keepdim=True).minimum(torch.zeros(())),
            x.amax(axis, keepdim=True).maximum(torch.zeros(())),
        ]
        scale = (ends[1] - ends[0]) / (2**num_bits - 1)
        scale[scale == 0] = 1
        zero = torch.round(-ends[0] / scale).to(torch.uint8)
        q = (torch.round(x / scale) + zero).clamp(0, 2**num_bits - 1).to(torch.uint8)
        return (q.int() - zero.int()) * scale

    return grid(keys, 1), grid(values, 2)


def the_recipe(keys, values, num_bits=4):
    return right(keys, values, num_bits)


RIGHT = [
    same_function_twice, negative_axes_and_a_list, transposed_keys, zero_point_added_before_rounding,
    slice_by_slice_in_numpy, codes_in_uint8, the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("quantize_kv", answer)
