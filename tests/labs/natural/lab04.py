"""Lab 04: groups, packing, and what a weight costs."""

import numpy as np

from tests.labs.natural import mistake

DTYPES = {True: np.int8, False: np.int16}


def in_groups(x, num_bits, scales):
    q_max = 2 ** (num_bits - 1) - 1
    scales = np.where(scales == 0, 1, scales).astype(x.dtype)
    return np.clip(np.round(x / scales), -q_max - 1, q_max).astype(DTYPES[num_bits <= 8])


@mistake("quantize_group", "full groups|last group|squeez|dropped")
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


@mistake("quantize_group", "padded by the remainder")
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


@mistake("dequantize_group", "a float64 result where the scales are float64")
def in_the_dtype_of_the_scales(q, scales, group_size):
    return q.astype(np.float32) * spread(scales, group_size, q.shape[-1])


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


# Written without a look at the tables of misconceptions.


def _codes(x, scale, num_bits):
    """The clamp and the cast, which the versions below have right."""
    qmax = 2 ** (num_bits - 1) - 1
    return np.clip(np.round(x / scale), -qmax - 1, qmax).astype(np.int8 if num_bits <= 8 else np.int16)


@mistake("quantize_group")
def group_drops_rest(x, num_bits=4, group_size=128):
    """Number of groups = n // group_size: the short group at the end is left at 0."""
    number = max(x.shape[-1] // group_size, 1)
    q = np.zeros(x.shape, np.int8 if num_bits <= 8 else np.int16)
    scales = np.ones((*x.shape[:-1], number))
    for g in range(number):
        part = slice(g * group_size, (g + 1) * group_size)
        peak = np.abs(x[..., part]).max(axis=-1)
        scales[..., g] = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
        q[..., part] = _codes(x[..., part], scales[..., g, None], num_bits)
    return q, scales


@mistake("quantize_group")
def group_pads_all_axes(x, num_bits=4, group_size=128):
    """np.pad(x, (0, missing)) fills up every axis: rows of zeros are added."""
    missing = -x.shape[-1] % group_size
    padded = np.pad(x, (0, missing))
    groups = padded.reshape(*padded.shape[:-1], -1, group_size)
    peak = np.abs(groups).max(axis=-1, keepdims=True)
    scale = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
    return _codes(groups, scale, num_bits).reshape(padded.shape)[..., : x.shape[-1]], scale[..., 0]


@mistake("quantize_group")
def group_edge_padding(x, num_bits=4, group_size=128):
    """A last group taken from the end of the row (x[-group_size:]): it overlaps the group before it."""
    n = x.shape[-1]
    number = -(-n // group_size)
    q = np.zeros(x.shape, np.int8 if num_bits <= 8 else np.int16)
    scales = np.ones((*x.shape[:-1], number))
    for g in range(number):
        end = min((g + 1) * group_size, n)
        part = slice(max(end - group_size, 0), end)
        peak = np.abs(x[..., part]).max(axis=-1)
        scales[..., g] = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
        q[..., part] = _codes(x[..., part], scales[..., g, None], num_bits)
    return q, scales


@mistake("quantize_group", "only full groups can be made of a row")
def group_no_short_group(x, num_bits=4, group_size=128):
    """Reshapes without filling up: an error in its own line where the last group is short."""
    groups = x.reshape(*x.shape[:-1], -1, group_size)
    peak = np.abs(groups).max(axis=-1, keepdims=True)
    scale = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
    return _codes(groups, scale, num_bits).reshape(x.shape), scale[..., 0]


def _grouped(x, group_size):
    """(..., groups, group_size), filled up with zeros."""
    missing = -x.shape[-1] % group_size
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return padded.reshape(*x.shape[:-1], -1, group_size)


@mistake("quantize_group", "groups across rows")
def group_across_rows(x, num_bits=4, group_size=128):
    """Flattens first: groups reach across the ends of rows."""
    groups = _grouped(x.reshape(-1), group_size)
    peak = np.abs(groups).max(axis=-1, keepdims=True)
    scale = np.where(peak == 0, 1.0, peak / (2 ** (num_bits - 1) - 1))
    return _codes(groups, scale, num_bits).reshape(-1)[: x.size].reshape(x.shape), scale[..., 0]


@mistake("dequantize_group")
def degroup_modulo(q, scales, group_size):
    """Takes index % group_size for index // group_size."""
    index = np.arange(q.shape[-1]) % group_size
    return (q * scales[..., np.minimum(index, scales.shape[-1] - 1)]).astype(np.float32)


@mistake("dequantize_group")
def degroup_not_cut(q, scales, group_size):
    """Does not cut the rest of the last group off: an error where it is short."""
    return (q * np.repeat(scales, group_size, axis=-1)).astype(np.float32)


@mistake("dequantize_group")
def degroup_drops_rest(q, scales, group_size):
    """Loops over full groups only: the short last group stays 0."""
    out = np.zeros(q.shape, np.float32)
    for g in range(q.shape[-1] // group_size):
        part = slice(g * group_size, (g + 1) * group_size)
        out[..., part] = q[..., part] * scales[..., g, None]
    return out


@mistake("dequantize_group")
def degroup_matrices_only(q, scales, group_size):
    """A double loop over rows and columns: an error for one axis or three."""
    out = np.empty(q.shape, np.float32)
    for i in range(q.shape[0]):
        for j in range(q.shape[1]):
            out[i, j] = q[i, j] * scales[i, j // group_size]
    return out


@mistake("dequantize_group", "scales in turn instead of in runs")
def degroup_tile(q, scales, group_size):
    """np.tile in place of np.repeat: the scales alternate."""
    return (q * np.tile(scales, group_size)[..., : q.shape[-1]]).astype(np.float32)


def _even(q):
    return np.pad(q, [(0, 0)] * (q.ndim - 1) + [(0, q.shape[-1] % 2)])


@mistake("pack_int4")
def pack_abs(q):
    """Takes the magnitudes: signs are lost."""
    q = np.abs(_even(q)).astype(np.uint8)
    return q[..., 0::2] | (q[..., 1::2] << 4)


@mistake("pack_int4")
def pack_plus_precedence(q):
    """Precedence: a + b << 4 shifts the sum."""
    q = _even(q).astype(np.uint8) & 15
    return q[..., 0::2] + q[..., 1::2] << 4


@mistake("pack_int4")
def pack_loop_overwrites(q):
    """A loop that assigns the high nibble with = where |= is due: low nibbles are lost."""
    out = np.zeros((*q.shape[:-1], -(-q.shape[-1] // 2)), np.uint8)
    for i in range(q.shape[-1]):
        nibble = q[..., i].astype(np.uint8) & 15
        out[..., i // 2] = nibble if i % 2 == 0 else nibble << 4
    return out


@mistake("pack_int4", "nibbles swapped")
def pack_high_first(q):
    """The first of a pair goes into the high nibble."""
    q = _even(q).astype(np.uint8)
    return ((q[..., 0::2] & 15) << 4) | (q[..., 1::2] & 15)


@mistake("pack_int4", "the sign of the low code runs into the high nibble")
def pack_no_mask(q):
    """Does not mask the low nibble: the sign bits of a negative first code fill the high one."""
    q = _even(q).astype(np.uint8)
    return q[..., 0::2] | (q[..., 1::2] << 4)


@mistake("unpack_int4")
def unpack_from_7(packed, length):
    """Off by one: q >= 7 makes 7 into -9."""
    q = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1).astype(np.int8)
    return np.where(q >= 7, q - 16, q)[..., :length].astype(np.int8)


@mistake("unpack_int4")
def unpack_flat(packed, length):
    """Flattens, unpacks and cuts the whole stream at length: rows after the first are lost or the shape is wrong."""
    flat = packed.reshape(-1)
    q = np.stack([flat & 15, flat >> 4], axis=-1).reshape(-1).astype(np.int8)
    return np.where(q > 7, q - 16, q)[:length].astype(np.int8)


@mistake("unpack_int4", "the sign is not extended")
def unpack_unsigned(packed, length):
    """Does not look at signs: 14 in place of -2."""
    q = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
    return q[..., :length].astype(np.int8)


@mistake("unpack_int4", "halves instead of neighbours")
def unpack_concatenated(packed, length):
    """Concatenates all low and all high nibbles: neighbours are not neighbours."""
    q = np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.int8)
    return np.where(q > 7, q - 16, q)[..., :length].astype(np.int8)


@mistake("unpack_int4", "nibbles swapped")
def unpack_high_first(packed, length):
    """Takes the high nibble first."""
    q = np.stack([packed >> 4, packed & 15], axis=-1).reshape(*packed.shape[:-1], -1).astype(np.int8)
    return np.where(q > 7, q - 16, q)[..., :length].astype(np.int8)


@mistake("bits_per_weight")
def bits_rounded(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    """Rounds to two decimals."""
    return round(num_bits + (scale_bits + zero_point_bits) / group_size, 2)


@mistake("bits_per_weight", "a scale for each weight")
def bits_scale_per_weight(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    """Adds scale and zero point to every weight, without sharing them."""
    return num_bits + scale_bits + zero_point_bits


@mistake("bits_per_weight", "everything divided by the group size")
def bits_all_divided(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    """Divides the bits of the code by the group size, too."""
    return (num_bits + scale_bits + zero_point_bits) / group_size


@mistake("bits_per_weight", "a whole number of bits")
def bits_integer_division(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    """// drops the fraction: 4 in place of 4.5."""
    return num_bits + (scale_bits + zero_point_bits) // group_size


@mistake("bits_per_weight", "the zero point is left out")
def bits_no_zero_point(num_bits, group_size, scale_bits=16, zero_point_bits=0):
    """Forgets the zero point."""
    return num_bits + scale_bits / group_size


@mistake("pack_int3")
def pack3_eight_only(q):
    """Reshapes to groups of eight codes: an error in its own line for other lengths."""
    eight = (q.astype(np.uint32) & 7).reshape(*q.shape[:-1], -1, 8)
    word = (eight << (3 * np.arange(8, dtype=np.uint32))).sum(axis=-1, dtype=np.uint32)
    out = np.stack([word & 255, word >> 8 & 255, word >> 16 & 255], axis=-1)
    return out.reshape(*q.shape[:-1], -1).astype(np.uint8)


def _bits3(q):
    return (q[..., None] >> np.arange(3, dtype=q.dtype)) & 1


@mistake("pack_int3", "low bits first in bytes filled from their highest bit")
def pack3_big_order(q):
    """np.packbits in its default order, the highest bit first."""
    bits = _bits3(q).reshape(*q.shape[:-1], -1).astype(np.uint8)
    return np.packbits(bits, axis=-1)


@mistake("pack_int3", "each code reversed")
def pack3_high_bit_first(q):
    """Each code's highest bit first in the stream."""
    bits = _bits3(q)[..., ::-1].reshape(*q.shape[:-1], -1).astype(np.uint8)
    return np.packbits(bits, axis=-1, bitorder="little")


@mistake("pack_int3", "rows run into one another")
def pack3_flat(q):
    """np.packbits without axis: the rows become one stream, and the shape is lost."""
    return np.packbits(_bits3(q).astype(np.uint8), bitorder="little")


@mistake("pack_int3", "two codes a byte, two bits wasted")
def pack3_two_in_a_byte(q):
    """Two codes a byte, and two bits of each byte empty."""
    low = (_even(q).astype(np.uint8)) & 7
    return low[..., 0::2] | (low[..., 1::2] << 3)


def grouped(x, group_size):
    n = x.shape[-1]
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % group_size)]).reshape(*x.shape[:-1], -1, group_size)


def unsigned(steps, num_bits, x):
    q = np.clip(steps, 0, 2**num_bits - 1).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16)


@mistake("quantize_group_asymmetric", "range leaves 0 out")
def range_of_each_group_as_it_is(x, num_bits=4, group_size=128):
    g = grouped(x, min(group_size, x.shape[-1]))
    low, high = g.min(-1, keepdims=True), g.max(-1, keepdims=True)
    scales = (high - low) / (2**num_bits - 1)
    scales = np.where(scales == 0, 1, scales)
    zeros = np.round(-low / scales).astype(np.int32)
    return unsigned(np.round(g / scales) + zeros, num_bits, x), scales[..., 0], zeros[..., 0]


@mistake("quantize_group_asymmetric", "one range for the whole tensor|one range a row")
def range_of_the_tensor(x, num_bits=4, group_size=128):
    g = grouped(x, group_size)
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    zero = int(np.round(-low / scale))
    shape = g.shape[:-1]
    return unsigned(np.round(g / scale) + zero, num_bits, x), np.full(shape, scale), np.full(shape, zero)


@mistake("quantize_group_asymmetric", "moved by half")
def quantize_group_plus_eight(x, num_bits=4, group_size=128):
    g = grouped(x, group_size)
    scales = np.abs(g).max(-1, keepdims=True) / (2 ** (num_bits - 1) - 1)
    scales = np.where(scales == 0, 1, scales)
    half = 2 ** (num_bits - 1)
    return unsigned(np.round(g / scales) + half, num_bits, x), scales[..., 0], np.full(scales.shape[:-1], half)


@mistake("quantize_group_asymmetric", "stored as a float")
def zero_points_that_np_round_gives(x, num_bits=4, group_size=128):
    g = grouped(x, group_size)
    low, high = g.min(-1, keepdims=True).clip(None, 0), g.max(-1, keepdims=True).clip(0)
    scales = np.where(high > low, (high - low) / (2**num_bits - 1), 1)
    zeros = np.round(-low / scales)
    return unsigned(np.round(g / scales) + zeros, num_bits, x), scales[..., 0], zeros[..., 0]


@mistake("quantize_group_asymmetric", "divides by zero")
def no_guard_for_a_silent_group(x, num_bits=4, group_size=128):
    g = grouped(x, group_size)
    low, high = g.min(-1, keepdims=True).clip(None, 0), g.max(-1, keepdims=True).clip(0)
    scales = (high - low) / (2**num_bits - 1)
    with np.errstate(all="ignore"):
        zeros = np.round(-low / scales).astype(np.int32)
        return unsigned(np.round(g / scales) + zeros, num_bits, x), scales[..., 0], zeros[..., 0]


@mistake("quantize_group_asymmetric", "axis of length 1")
def scales_with_keepdims(x, num_bits=4, group_size=128):
    g = grouped(x, group_size)
    low, high = g.min(-1, keepdims=True).clip(None, 0), g.max(-1, keepdims=True).clip(0)
    scales = np.where(high > low, (high - low) / (2**num_bits - 1), 1)
    zeros = np.round(-low / scales).astype(np.int32)
    return unsigned(np.round(g / scales) + zeros, num_bits, x), scales, zeros


@mistake("quantize_group_asymmetric", "one zero point")
def zero_point_of_the_first_group(x, num_bits=4, group_size=128):
    g = grouped(x, group_size)
    low, high = g.min(-1, keepdims=True).clip(None, 0), g.max(-1, keepdims=True).clip(0)
    scales = np.where(high > low, (high - low) / (2**num_bits - 1), 1)
    zeros = np.round(-low / scales).astype(np.int32)
    zeros = np.broadcast_to(zeros[..., :1, :], zeros.shape)
    return unsigned(np.round(g / scales) + zeros, num_bits, x), scales[..., 0], zeros[..., 0]


def ends(x, group_size):
    g = grouped(x, group_size)
    return g, g.min(-1, keepdims=True).clip(None, 0), g.max(-1, keepdims=True).clip(0)


def of_groups(x, num_bits, g, scales, zeros):
    return unsigned(np.round(g / scales) + zeros, num_bits, x), scales[..., 0], zeros[..., 0]


def guarded_scales(low, high, num_bits):
    scales = (high - low) / (2**num_bits - 1)
    return np.where(scales == 0, 1, scales)


@mistake("quantize_group_asymmetric", "int16")
def zero_points_that_int16_cannot_hold(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    return of_groups(x, num_bits, g, scales, np.round(-low / scales).astype(np.int64).astype(np.int16))


@mistake("quantize_group_asymmetric", "uint8 at every bit width")
def zero_points_that_uint8_cannot_hold(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    return of_groups(x, num_bits, g, scales, np.round(-low / scales).astype(np.int64).astype(np.uint8))


@mistake("quantize_group_asymmetric", "a zero point in int8")
def zero_points_that_int8_cannot_hold(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    return of_groups(x, num_bits, g, scales, np.round(-low / scales).astype(np.int64).astype(np.int8))


@mistake("quantize_group_asymmetric")
def scales_of_1e_12_at_least(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = np.maximum((high - low) / (2**num_bits - 1), 1e-12)
    return of_groups(x, num_bits, g, scales, np.round(-low / scales).astype(np.int32))


@mistake("quantize_group_asymmetric")
def scales_below_1e_12_become_1(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = (high - low) / (2**num_bits - 1)
    scales = np.where(scales < 1e-12, 1, scales)
    return of_groups(x, num_bits, g, scales, np.round(-low / scales).astype(np.int32))


@mistake("quantize_group_asymmetric", "constant group")
def guard_before_widening(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = np.where(g.max(-1, keepdims=True) == g.min(-1, keepdims=True), 1, (high - low) / (2**num_bits - 1))
    return of_groups(x, num_bits, g, scales, np.round(-low / scales).astype(np.int32))


@mistake("quantize_group_asymmetric", "ends at 2\\^b")
def clamp_to_2_to_the_b(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    zeros = np.round(-low / scales).astype(np.int32)
    q = np.clip(np.round(g / scales) + zeros, 0, 2**num_bits).astype(np.int64)
    q = q.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
    return q.astype(np.uint8 if num_bits <= 8 else np.uint16), scales[..., 0], zeros[..., 0]


@mistake("quantize_group_asymmetric", "cast comes before the clamp")
def cast_and_then_clamp(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    zeros = np.round(-low / scales).astype(np.int32)
    q = (np.round(g / scales) + zeros).astype(np.int64).astype(np.uint8 if num_bits <= 8 else np.uint16)
    return unsigned(q, num_bits, x), scales[..., 0], zeros[..., 0]


@mistake("quantize_group_asymmetric", "shifted by the minimum")
def counted_from_the_minimum(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    zeros = np.round(-low / scales).astype(np.int32)
    return unsigned(np.round((g - low) / scales), num_bits, x), scales[..., 0], zeros[..., 0]


@mistake("quantize_group_asymmetric", "shifted by the minimum")
def codes_from_the_zero_point_before_rounding(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    zeros = -low / scales
    q = unsigned(np.round(g / scales + zeros), num_bits, x)
    return q, scales[..., 0], np.round(zeros[..., 0]).astype(np.int32)


@mistake("quantize_group_asymmetric", "not added")
def zero_points_only_returned(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    zeros = np.round(-low / scales).astype(np.int32)
    return unsigned(np.round(g / scales), num_bits, x), scales[..., 0], zeros[..., 0]


@mistake("quantize_group_asymmetric", "lie apart")
def groups_of_every_kth_value(x, num_bits=4, group_size=128):
    n = x.shape[-1]
    g = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -n % group_size)]).reshape(*x.shape[:-1], group_size, -1)
    low, high = g.min(-2, keepdims=True).clip(None, 0), g.max(-2, keepdims=True).clip(0)
    scales = guarded_scales(low, high, num_bits)
    zeros = np.round(-low / scales).astype(np.int32)
    return unsigned(np.round(g / scales) + zeros, num_bits, x), scales[..., 0, :], zeros[..., 0, :]


@mistake("quantize_group_asymmetric", "one lower end")
def minimum_of_the_tensor(x, num_bits=4, group_size=128):
    g, _, high = ends(x, group_size)
    low = np.full(high.shape, min(x.min(), 0))
    scales = guarded_scales(low, high, num_bits)
    return of_groups(x, num_bits, g, scales, np.round(-low / scales).astype(np.int32))


def of_the_tensor(x, num_bits):
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / (2**num_bits - 1) or 1.0
    return scale, int(np.round(-low / scale))


@mistake("quantize_group_asymmetric", "one zero point for all groups")
def one_zero_point_of_the_tensor(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    return of_groups(x, num_bits, g, scales, np.full(scales.shape, of_the_tensor(x, num_bits)[1]))


@mistake("quantize_group_asymmetric", "minimum of the row")
def zero_points_of_the_row(x, num_bits=4, group_size=128):
    g, low, high = ends(x, group_size)
    scales = guarded_scales(low, high, num_bits)
    return of_groups(x, num_bits, g, scales, np.round(-low.min(-2, keepdims=True) / scales).astype(np.int32))


@mistake("quantize_group_asymmetric", "one scale for all groups")
def one_scale_of_the_tensor(x, num_bits=4, group_size=128):
    g, low, _ = ends(x, group_size)
    scales = np.full(low.shape, of_the_tensor(x, num_bits)[0])
    return of_groups(x, num_bits, g, scales, np.round(-low / scales).astype(np.int32))


@mistake("quantize_group_asymmetric", "filled up with the last value")
def edges_for_padding_and_no_zero(x, num_bits=4, group_size=128):
    filling = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % group_size)]
    g = np.pad(x, filling, mode="edge").reshape(*x.shape[:-1], -1, group_size)
    scales = guarded_scales(g.min(-1, keepdims=True), g.max(-1, keepdims=True), num_bits)
    return of_groups(x, num_bits, g, scales, np.round(-g.min(-1, keepdims=True) / scales).astype(np.int32))
