"""Right answers to lab 04, written as people write them."""

import math

import numpy as np


def top(bits):
    return 2 ** (bits - 1) - 1


def kind(bits):
    return np.int8 if bits <= 8 else np.int16


# --- quantize_group ---


def pad_and_reshape(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % group_size)])
    groups = padded.reshape(*x.shape[:-1], -1, group_size)
    scales = np.abs(groups).max(-1, keepdims=True) / top(num_bits)
    scales[scales == 0] = 1
    q = np.clip(np.round(groups / scales), -top(num_bits) - 1, top(num_bits)).astype(kind(num_bits))
    return q.reshape(*x.shape[:-1], -1)[..., :n], scales[..., 0]


def loop_over_groups(x, num_bits=4, group_size=128):
    starts = range(0, x.shape[-1], group_size)
    q = np.zeros(x.shape, kind(num_bits))
    scales = np.ones((*x.shape[:-1], len(starts)), np.float64)
    for g, start in enumerate(starts):
        group = x[..., start : start + group_size].astype(np.float64)
        largest = np.abs(group).max(axis=-1)
        scales[..., g] = np.where(largest > 0, largest / top(num_bits), 1)
        q[..., start : start + group_size] = np.rint(group / scales[..., g : g + 1])
    return q, scales


def element_by_element(x, num_bits=4, group_size=128):
    rows = x.reshape(-1, x.shape[-1])
    q = np.zeros(rows.shape, kind(num_bits))
    scales = np.ones((len(rows), math.ceil(rows.shape[1] / group_size)), np.float32)
    for r, row in enumerate(rows):
        for g in range(scales.shape[1]):
            members = range(g * group_size, min((g + 1) * group_size, len(row)))
            largest = max(abs(float(row[i])) for i in members)
            scale = largest / top(num_bits) or 1.0
            for i in members:
                q[r, i] = max(-top(num_bits), min(top(num_bits), round(float(row[i]) / scale)))
            scales[r, g] = scale
    return q.reshape(x.shape), scales.reshape(*x.shape[:-1], -1)


def with_reduceat(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    starts = np.arange(0, n, group_size)
    scales = np.maximum.reduceat(np.abs(x), starts, axis=-1) / top(num_bits)
    scales = np.where(scales > 0, scales, 1)
    each = np.take(scales, np.arange(n) // group_size, axis=-1)
    return np.round(x / each).clip(-top(num_bits), top(num_bits)).astype(kind(num_bits)), scales


def with_split(x, num_bits=4, group_size=128):
    pieces = np.split(x, np.arange(group_size, x.shape[-1], group_size), axis=-1)
    scales = [np.abs(piece).max(axis=-1, keepdims=True) / top(num_bits) for piece in pieces]
    scales = [np.where(scale == 0, 1.0, scale) for scale in scales]
    q = [np.floor(piece / scale + 0.5) for piece, scale in zip(pieces, scales)]
    q = np.concatenate(q, axis=-1).clip(-top(num_bits) - 1, top(num_bits))
    return q.astype(kind(num_bits)), np.concatenate(scales, axis=-1)


def with_torch_unfold(x, num_bits=4, group_size=128):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    n = t.shape[-1]
    padded = torch.nn.functional.pad(t, (0, -n % group_size))
    groups = padded.unflatten(-1, (-1, group_size))
    scales = groups.abs().amax(-1) / top(num_bits)
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    q = (groups / scales.unsqueeze(-1)).round().clamp(-top(num_bits) - 1, top(num_bits)).flatten(-2)[..., :n]
    return q.to(torch.int8 if num_bits <= 8 else torch.int16), scales


def nan_for_filling(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    filled = np.full((*x.shape[:-1], -(-n // group_size) * group_size), np.nan, x.dtype)
    filled[..., :n] = x
    scales = np.nanmax(np.abs(filled.reshape(*x.shape[:-1], -1, group_size)), axis=-1) / top(num_bits)
    scales = np.where(scales == 0, 1, scales)
    q = np.round(x / np.repeat(scales, group_size, axis=-1)[..., :n])
    return [q.astype(kind(num_bits)), scales]


# --- dequantize_group ---


def with_repeat(q, scales, group_size):
    return q.astype(np.float32) * np.repeat(scales, group_size, axis=-1)[..., : q.shape[-1]]


def with_take(q, scales, group_size):
    return (q * np.take(scales, np.arange(q.shape[-1]) // group_size, axis=-1)).astype(np.float32)


def group_by_group(q, scales, group_size):
    x = q.astype(np.float32)
    for g in range(scales.shape[-1]):
        x[..., g * group_size : (g + 1) * group_size] *= scales[..., g : g + 1]
    return x


def with_einsum(q, scales, group_size):
    n = q.shape[-1]
    padded = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -n % group_size)]).astype(np.float32)
    groups = padded.reshape(*q.shape[:-1], -1, group_size)
    return np.einsum("...gk,...g->...gk", groups, scales).reshape(*q.shape[:-1], -1)[..., :n]


def with_kron(q, scales, group_size):
    each = np.kron(scales.astype(np.float64), np.ones(group_size))[..., : q.shape[-1]]
    return np.asarray(q * each, dtype=np.float32)


def torch_repeat_interleave(q, scales, group_size):
    import torch

    each = torch.tensor(scales).repeat_interleave(group_size, dim=-1)[..., : q.shape[-1]]
    return torch.tensor(q).float() * each


# --- pack_int4 ---


def mask_shift_or(q):
    even = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)]).astype(np.uint8)
    return (even[..., ::2] & 15) | ((even[..., 1::2] & 15) << 4)


def modulo_and_sixteen(q):
    unsigned = np.where(q < 0, q + 16, q).astype(np.int64)
    if unsigned.shape[-1] % 2:
        unsigned = np.concatenate([unsigned, np.zeros_like(unsigned[..., :1])], axis=-1)
    return (unsigned[..., 0::2] + 16 * unsigned[..., 1::2]).astype(np.uint8)


def byte_by_byte(q):
    rows = []
    for row in q.reshape(-1, q.shape[-1]).tolist():
        row = row + [0] * (len(row) % 2)
        rows.append([row[i] % 16 + row[i + 1] % 16 * 16 for i in range(0, len(row), 2)])
    return np.array(rows, dtype=np.uint8).reshape(*q.shape[:-1], -1)


def into_an_empty_array(q):
    packed = np.zeros((*q.shape[:-1], (q.shape[-1] + 1) // 2), dtype=np.uint8)
    packed[...] = q[..., ::2] & 0xF
    packed[..., : q.shape[-1] // 2] |= (q[..., 1::2].astype(np.uint8) << 4).astype(np.uint8)
    return packed


def as_16_bit_words(q):
    even = np.ascontiguousarray(np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)]))
    words = even.view("<u2")
    return ((words & 0x0F) | ((words >> 4) & 0xF0)).astype(np.uint8)


def bits_by_packbits(q):
    bits = (q[..., None].astype(np.int64) >> np.arange(4)) & 1
    return np.packbits(bits.astype(bool).reshape(*q.shape[:-1], -1), axis=-1, bitorder="little")


def torch_pack(q):
    import torch

    t = torch.tensor(np.ascontiguousarray(q))
    t = torch.nn.functional.pad(t, (0, t.shape[-1] % 2)).to(torch.uint8) & 15
    return t[..., ::2] | (t[..., 1::2] << 4)


# --- unpack_int4 ---


def stack_and_subtract(packed, length):
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)[..., :length]
    return np.where(codes >= 8, codes.astype(np.int8) - 16, codes).astype(np.int8)


def arithmetic_shifts(packed, length):
    signed = packed.view(np.int8)
    pairs = np.stack([np.left_shift(signed, 4) >> 4, signed >> 4], axis=-1)
    return pairs.reshape(*packed.shape[:-1], -1)[..., :length]


def xor_and_subtract(packed, length):
    codes = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), dtype=np.int8)
    codes[..., ::2] = packed & 15
    codes[..., 1::2] = packed >> 4
    return ((codes ^ 8) - 8)[..., :length]


def by_lookup(packed, length):
    table = np.array([*range(8), *range(-8, 0)], dtype=np.int8)
    low, high = table[packed & 15], table[packed // 16]
    return np.stack([low, high], -1).reshape(*packed.shape[:-1], -1)[..., :length]


def code_by_code(packed, length):
    codes = np.zeros((*packed.shape[:-1], length), dtype=np.int8)
    for i in range(length):
        nibble = (packed[..., i // 2].astype(int) >> (4 * (i % 2))) % 16
        codes[..., i] = (nibble + 8) % 16 - 8
    return codes


def torch_unpack(packed, length):
    import torch

    t = torch.tensor(packed)
    codes = torch.stack([t & 15, t >> 4], dim=-1).flatten(-2).to(torch.int8)[..., :length]
    return torch.where(codes > 7, codes - 16, codes)


# --- bits_per_weight ---


def share_of_the_scale(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return num_bits + (scale_bits + zero_point_bits) / group_size


def whole_group(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return (num_bits * group_size + scale_bits + zero_point_bits) / group_size


def numpy_mean(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return np.mean([num_bits] * group_size) + np.float64(scale_bits) / group_size + zero_point_bits / group_size


def as_a_fraction(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    from fractions import Fraction

    return float(num_bits + Fraction(scale_bits + zero_point_bits, group_size))


def by_bytes(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return np.array(8 * (num_bits / 8 + scale_bits / 8 / group_size + zero_point_bits / 8 / group_size))


# --- pack_int3 ---


def little_packbits(q):
    bits = (q[..., None] >> np.arange(3)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(*q.shape[:-1], -1), axis=-1, bitorder="little")


def big_packbits_reversed(q):
    """np.packbits fills a byte from its highest bit: turn each byte round."""
    bits = ((q[..., None] >> np.arange(3)) & 1).astype(np.uint8).reshape(*q.shape[:-1], -1)
    bits = np.pad(bits, [(0, 0)] * (q.ndim - 1) + [(0, -bits.shape[-1] % 8)])
    return np.packbits(bits.reshape(*q.shape[:-1], -1, 8)[..., ::-1], axis=-1)[..., 0]


def one_long_integer(q):
    rows = []
    for row in q.reshape(-1, q.shape[-1]).tolist():
        number = sum((code % 8) << (3 * i) for i, code in enumerate(row))
        rows.append(list(number.to_bytes((3 * len(row) + 7) // 8, "little")))
    return np.array(rows, dtype=np.uint8).reshape(*q.shape[:-1], -1)


def bit_by_bit(q):
    packed = np.zeros((*q.shape[:-1], math.ceil(3 * q.shape[-1] / 8)), dtype=np.uint8)
    for j in range(3 * q.shape[-1]):
        bit = (q[..., j // 3].astype(int) >> (j % 3)) & 1
        packed[..., j // 8] |= (bit << (j % 8)).astype(np.uint8)
    return packed


def eight_at_a_time(q):
    n = q.shape[-1]
    codes = np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, -n % 8)]).astype(np.int64) & 7
    blocks = codes.reshape(*q.shape[:-1], -1, 8)
    words = (blocks << (3 * np.arange(8))).sum(axis=-1)
    pieces = np.stack([words & 255, words >> 8 & 255, words >> 16], axis=-1).astype(np.uint8)
    return pieces.reshape(*q.shape[:-1], -1)[..., : -(-3 * n // 8)]


RIGHT = {
    "quantize_group": [
        pad_and_reshape, loop_over_groups, element_by_element, with_reduceat, with_split, with_torch_unfold,
        nan_for_filling,
    ],
    "dequantize_group": [
        with_repeat, with_take, group_by_group, with_einsum, with_kron, torch_repeat_interleave,
    ],
    "pack_int4": [
        mask_shift_or, modulo_and_sixteen, byte_by_byte, into_an_empty_array, as_16_bit_words, bits_by_packbits,
        torch_pack,
    ],
    "unpack_int4": [
        stack_and_subtract, arithmetic_shifts, xor_and_subtract, by_lookup, code_by_code, torch_unpack,
    ],
    "bits_per_weight": [share_of_the_scale, whole_group, numpy_mean, as_a_fraction, by_bytes],
    "pack_int3": [little_packbits, big_packbits_reversed, one_long_integer, bit_by_bit, eight_at_a_time],
}  # fmt: skip
