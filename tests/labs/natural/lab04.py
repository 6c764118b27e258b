"""Lab 04: groups, packing, and what a weight costs."""

import numpy as np

from tests.labs.natural import mistake

DTYPES = {True: np.int8, False: np.int16}


def in_groups(x, num_bits, scales):
    q_max = 2 ** (num_bits - 1) - 1
    scales = np.where(scales == 0, 1, scales).astype(x.dtype)
    return np.clip(np.round(x / scales), -q_max - 1, q_max).astype(DTYPES[num_bits <= 8])


@mistake("quantize_group", "only full groups")
def reshape_of_the_first_hint(x, num_bits=4, group_size=128):
    g = x.reshape(*x.shape[:-1], -1, group_size)
    scales = np.abs(g).max(axis=-1) / (2 ** (num_bits - 1) - 1)
    return in_groups(g, num_bits, scales[..., None]).reshape(x.shape), np.where(scales == 0, 1, scales)


@mistake("quantize_group", "padding|whole")
def pads_a_full_group_too(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    pad = group_size - n % group_size
    g = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)]).reshape(*x.shape[:-1], -1, group_size)
    scales = np.abs(g).max(axis=-1) / (2 ** (num_bits - 1) - 1)
    q = in_groups(g, num_bits, scales[..., None]).reshape(*x.shape[:-1], -1)[..., :n]
    return q, np.where(scales == 0, 1, scales)


@mistake("quantize_group")
def pads_every_axis(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    g = np.pad(x, (0, -n % group_size)).reshape(*x.shape[:-1], -1, group_size)
    scales = np.abs(g).max(axis=-1) / (2 ** (num_bits - 1) - 1)
    return in_groups(g, num_bits, scales[..., None]).reshape(*x.shape[:-1], -1)[..., :n], scales


@mistake("quantize_group", "$^")
def pads_by_the_remainder(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    pad = n % group_size
    g = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)]).reshape(*x.shape[:-1], -1, group_size)
    scales = np.abs(g).max(axis=-1) / (2 ** (num_bits - 1) - 1)
    return in_groups(g, num_bits, scales[..., None]).reshape(*x.shape[:-1], -1)[..., :n], scales


@mistake("quantize_group")
def squeezed_scales(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    g = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % group_size)]).reshape(*x.shape[:-1], -1, group_size)
    s = np.abs(g).max(axis=-1, keepdims=True) / (2 ** (num_bits - 1) - 1)
    s = s.squeeze()
    return np.round(g / s).astype(np.int8).reshape(*x.shape[:-1], -1)[..., :n], s


@mistake("quantize_group", "epsilon|floor")
def epsilon_of_1e_5(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    g = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % group_size)]).reshape(*x.shape[:-1], -1, group_size)
    scales = np.maximum(np.abs(g).max(axis=-1) / (2 ** (num_bits - 1) - 1), 1e-5)
    return in_groups(g, num_bits, scales[..., None]).reshape(*x.shape[:-1], -1)[..., :n], scales


@mistake("quantize_group")
def fills_up_with_the_last_value_and_keeps_its_mean(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    g = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % group_size)]).reshape(*x.shape[:-1], -1, group_size)
    scales = 2 * np.abs(g).mean(axis=-1) / (2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, 1, scales)
    return in_groups(g, num_bits, scales[..., None]).reshape(*x.shape[:-1], -1)[..., :n], scales


def spread(scales, group_size, n):
    return np.repeat(scales, group_size, axis=-1)[..., :n]


@mistake("dequantize_group", "float64")
def all_in_float64(q, scales, group_size):
    return q * spread(scales, group_size, q.shape[-1]).astype(np.float64)


@mistake("dequantize_group", "turn|tile|every")
def tiled_scales(q, scales, group_size):
    return q.astype(np.float32) * np.tile(scales, group_size)[..., : q.shape[-1]]


@mistake("dequantize_group")
def repeat_without_an_axis(q, scales, group_size):
    return q.astype(np.float32) * np.repeat(scales, group_size)[: q.shape[-1]]


@mistake("dequantize_group")
def not_cut(q, scales, group_size):
    return q.astype(np.float32) * np.repeat(scales, group_size, axis=-1)


@mistake("dequantize_group", "the group size computed from the number of groups")
def index_of_the_next_group(q, scales, group_size):
    index = np.minimum((np.arange(q.shape[-1]) + 1) // group_size, scales.shape[-1] - 1)
    return q.astype(np.float32) * scales[..., index]


def even(q):
    return np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)]).view(np.uint8)


@mistake("pack_int4", "<< comes before &")
def precedence(q):
    u = even(q)
    return u[..., ::2] & 15 | u[..., 1::2] & 15 << 4


@mistake("pack_int4", "sign|mask")
def no_mask(q):
    u = even(q)
    return u[..., ::2] | (u[..., 1::2] << 4)


@mistake("pack_int4", "swapped|high")
def high_nibble_first(q):
    u = even(q)
    return (u[..., ::2] << 4) | (u[..., 1::2] & 15)


@mistake("pack_int4", "the shift is one short")
def shifted_by_three(q):
    u = even(q)
    return (u[..., ::2] & 15) | ((u[..., 1::2] & 15) << 3)


@mistake("pack_int4", "odd|last")
def odd_rows_lose_their_last(q):
    u = q.view(np.uint8)
    n = q.shape[-1] // 2 * 2
    return (u[..., :n:2] & 15) | ((u[..., 1:n:2] & 15) << 4)


@mistake("unpack_int4", "low nibble|shift")
def high_nibble_not_shifted(packed, length):
    low, high = (packed & 15).astype(np.int8), (packed & 240).astype(np.int8)
    q = np.stack([low, high], axis=-1).reshape(*packed.shape[:-1], -1)[..., :length]
    return np.where(q > 7, q - 16, q).astype(np.int8)


@mistake("unpack_int4", "sign")
def no_sign(packed, length):
    q = np.stack([packed & 15, packed >> 4], axis=-1)
    return q.reshape(*packed.shape[:-1], -1)[..., :length].astype(np.int8)


@mistake("unpack_int4", "swapped")
def high_first(packed, length):
    q = np.stack([packed >> 4, packed & 15], axis=-1).reshape(*packed.shape[:-1], -1)[..., :length].astype(np.int8)
    return np.where(q > 7, q - 16, q).astype(np.int8)


@mistake("unpack_int4")
def seven_is_negative_too(packed, length):
    q = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)[..., :length].astype(np.int8)
    return np.where(q >= 7, q - 16, q).astype(np.int8)


@mistake("pack_int3", "each code reversed")
def highest_bit_first(q):
    bits = (q[..., None] >> np.arange(2, -1, -1)) & 1
    return np.packbits(bits.reshape(*q.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little")


@mistake("pack_int3", "low bits first in bytes filled from their highest bit")
def packbits_by_default(q):
    bits = (q[..., None] >> np.arange(3)) & 1
    return np.packbits(bits.reshape(*q.shape[:-1], -1).astype(np.uint8), axis=-1)


@mistake("pack_int3", "offset|two's complement|sign")
def offset_of_four(q):
    bits = ((q + 4)[..., None] >> np.arange(3)) & 1
    return np.packbits(bits.reshape(*q.shape[:-1], -1).astype(np.uint8), axis=-1, bitorder="little")


@mistake("bits_per_weight", "zero point")
def zero_point_forgotten(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return num_bits + scale_bits / group_size


@mistake("bits_per_weight", "a whole number of bits")
def floor_division(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return num_bits + (scale_bits + zero_point_bits) // group_size


@mistake("bits_per_weight", "a zero point for each weight")
def zero_point_not_shared(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return num_bits + scale_bits / group_size + zero_point_bits


@mistake("bits_per_weight", "the bits of a group instead of a weight")
def whole_group(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    return num_bits * group_size + scale_bits + zero_point_bits
