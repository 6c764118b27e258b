"""Lab 03: right answers, differently written."""

import numpy as np

from labutils import PerAxis, PerTensor, Scheme
from labutils import dequantize as come_back
from labutils import quantize as go
from labutils.arrays.metrics import quantization_error


def top(bits):
    return 2 ** (bits - 1) - 1


def kind(bits):
    return np.int8 if bits <= 8 else np.int16


def along(values, ndim, axis):
    shape = [1] * ndim
    shape[axis] = -1
    return np.reshape(values, shape)


# --- quantize_per_channel ---


def over_the_other_axes(x, axis, num_bits=8):
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    scales = np.abs(x).max(axis=others, keepdims=True) / top(num_bits)
    scales[scales == 0] = 1
    q = np.clip(np.rint(x / scales), -top(num_bits) - 1, top(num_bits))
    return q.astype(kind(num_bits)), scales.ravel()


def by_a_loop_over_channels(x, axis, num_bits=8):
    rows = np.moveaxis(x, axis, 0)
    q, scales = np.empty(rows.shape, kind(num_bits)), np.empty(len(rows))
    for c, row in enumerate(rows):
        scales[c] = float(np.max(np.abs(row))) / top(num_bits) or 1.0
        q[c] = np.round(row / scales[c])
    return np.moveaxis(q, 0, axis), scales


def flat_rows(x, axis, num_bits=8):
    """Channels first, each as one row; half up."""
    rows = np.moveaxis(x, axis, 0)
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    scales = np.abs(flat).max(1) / top(num_bits)
    scales = np.where(scales > 0, scales, 0.5)
    q = np.floor(flat / scales[:, None] + 0.5).clip(-top(num_bits), top(num_bits)).astype(kind(num_bits))
    return np.moveaxis(q.reshape(rows.shape), 0, axis), scales


def max_reduceat(x, axis, num_bits=8):
    rows = np.moveaxis(np.abs(x), axis, 0)
    starts = np.arange(0, rows.size, rows.size // len(rows))
    scales = np.maximum.reduceat(rows.ravel(), starts) / np.float32(top(num_bits))
    scales = scales + (scales == 0)
    return np.round(x / along(scales, x.ndim, axis)).astype(kind(num_bits)), scales


def one_axis_at_a_time(x, axis, num_bits=8):
    largest = np.swapaxes(np.abs(x), axis, -1)
    while largest.ndim > 1:
        largest = largest.max(axis=0)
    scales = np.divide(largest, top(num_bits), out=np.ones_like(largest), where=largest != 0)
    steps = np.swapaxes(np.swapaxes(x, axis, -1) / scales, axis, -1)
    return np.round(steps).astype(kind(num_bits)), scales


def from_both_ends(x, axis, num_bits=8):
    """Without abs, and with an einsum for the product by the reciprocal."""
    rows = np.moveaxis(x, axis, 0).astype(np.float64)
    flat = rows.reshape(rows.shape[0], -1)
    peaks = np.maximum(flat.max(1), -flat.min(1))
    scales = np.where(peaks == 0, 1, peaks / top(num_bits))
    q = np.round(np.einsum("ck,c->ck", flat, 1 / scales)).clip(-top(num_bits) - 1, top(num_bits))
    return np.moveaxis(q.reshape(rows.shape), 0, axis).astype(kind(num_bits)), scales


def torch_amax(x, axis, num_bits=8):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    others = [i for i in range(t.ndim) if i != axis % t.ndim]
    largest = t.abs().amax(others, keepdim=True) if others else t.abs()
    scales = torch.where(largest == 0, torch.ones_like(largest), largest / top(num_bits))
    q = torch.clamp(torch.round(t / scales), -top(num_bits) - 1, top(num_bits))
    return q.to(torch.int8 if num_bits <= 8 else torch.int16), scales.flatten()


# --- dequantize_per_channel ---


def by_reshape(q, scales, axis):
    return q.astype(np.float32) * along(scales, q.ndim, axis)


def by_a_loop(q, scales, axis):
    x = q.astype(np.float32)
    for c in range(len(scales)):
        index = [slice(None)] * q.ndim
        index[axis] = c
        x[tuple(index)] *= scales[c]
    return x


def axis_to_the_end(q, scales, axis):
    return np.moveaxis(np.moveaxis(q, axis, -1) * scales, -1, axis).astype("float32")


def by_expand_dims(q, scales, axis):
    others = tuple(i for i in range(q.ndim) if i != axis % q.ndim)
    return np.multiply(q, np.expand_dims(scales, others), dtype=np.float32)


def by_einsum(q, scales, axis):
    letters = "abcdefgh"[: q.ndim]
    return np.einsum(f"{letters},{letters[axis]}->{letters}", q.astype(np.float64), scales).astype(np.float32)


def by_take(q, scales, axis):
    return q * np.take(scales, np.indices(q.shape)[axis]).astype(np.float32)


def torch_view(q, scales, axis):
    import torch

    shape = [1] * q.ndim
    shape[axis] = -1
    return torch.tensor(q).float() * torch.tensor(scales).view(shape)


# --- compare_quantization_methods ---


def four_lines(x, num_bits=8):
    def error(scheme):
        quantized = go(x, scheme)
        return quantization_error(x, quantized.codes, come_back(quantized))

    return {
        "symmetric_per_tensor": error(Scheme(num_bits)),
        "asymmetric_per_tensor": error(Scheme(num_bits, symmetric=False)),
        "symmetric_per_channel": error(Scheme(num_bits, granularity=PerAxis(0))),
        "asymmetric_per_channel": error(Scheme(num_bits, symmetric=False, granularity=PerAxis(0))),
    }


def two_loops_in_another_order(x, num_bits=8):
    errors = {}
    for symmetric in (False, True):
        for granularity in (PerAxis(-x.ndim), PerTensor()):
            quantized = go(x, Scheme(num_bits, symmetric, granularity))
            shared = "tensor" if granularity == PerTensor() else "channel"
            name = f"{'' if symmetric else 'a'}symmetric_per_{shared}"
            errors[name] = quantization_error(x, quantized.codes, come_back(quantized))
    return errors


def by_hand(x, num_bits=8, affine_first=False):
    """Without the package's quantizers, in float64."""
    x64, errors, levels = x.astype(np.float64), {}, 2**num_bits - 1
    for shared, axes in (("tensor", None), ("channel", tuple(range(1, x.ndim)))):
        low = np.minimum(x64.min(axis=axes, keepdims=True), 0)
        high = np.maximum(x64.max(axis=axes, keepdims=True), 0)
        scale = np.maximum(high, -low) / top(num_bits)
        q = np.round(x64 / scale)
        errors[f"symmetric_per_{shared}"] = quantization_error(x, q.astype(int), (q * scale).astype(x.dtype))
        scale = (high - low) / levels
        zero_point = np.round(-low / scale)
        q = np.round(x64 / scale + zero_point) if affine_first else np.round(x64 / scale) + zero_point
        q = np.clip(q, 0, levels)
        back = ((q - zero_point) * scale).astype(x.dtype)
        errors[f"asymmetric_per_{shared}"] = quantization_error(x, q.astype(int), back)
    return errors


def zero_point_added_before_rounding(x, num_bits=8):
    return by_hand(x, num_bits, affine_first=True)


def with_one_more_entry(x, num_bits=8):
    errors = four_lines(x, num_bits)
    return {name: errors[name] for name in reversed(errors)} | {"best": errors["asymmetric_per_channel"]}


def channel_after_channel(x, num_bits=8):
    """Per channel as per tensor of each channel; codes and values of all are measured together."""
    errors = {}
    for name, symmetric in (("symmetric", True), ("asymmetric", False)):
        whole = go(x, Scheme(num_bits, symmetric))
        errors[f"{name}_per_tensor"] = quantization_error(x, whole.codes, come_back(whole))
        parts = [go(channel, Scheme(num_bits, symmetric)) for channel in x]
        codes, values = np.stack([part.codes for part in parts]), np.stack([come_back(part) for part in parts])
        errors[f"{name}_per_channel"] = quantization_error(x, codes, values)
    return errors


# --- quantize_per_token ---


def over_the_last_axis(x, num_bits=8):
    scales = np.abs(x).max(-1, keepdims=True) / top(num_bits)
    scales = np.where(scales == 0, 1, scales)
    return np.round(x / scales).astype(kind(num_bits)), scales


def token_after_token(x, num_bits=8):
    flat = x.reshape(-1, x.shape[-1])
    q, scales = np.zeros(flat.shape, kind(num_bits)), np.ones(len(flat))
    for t in range(len(flat)):
        largest = max(abs(float(value)) for value in flat[t])
        if largest:
            scales[t] = largest / top(num_bits)
            q[t] = [round(float(value) / scales[t]) for value in flat[t]]
    return q.reshape(x.shape), scales.reshape(*x.shape[:-1], 1)


def tokens_are_channels(x, num_bits=8):
    q, scales = over_the_other_axes(x.reshape(-1, x.shape[-1]), 0, num_bits)
    return q.reshape(x.shape), scales.reshape((*x.shape[:-1], 1))


def new_axis(x, num_bits=8):
    largest = np.maximum(x.max(axis=-1), -x.min(axis=-1))
    scales = np.asarray(np.where(largest > 0, largest / top(num_bits), 1.0))[..., np.newaxis]
    return np.rint(x / scales).clip(-top(num_bits), top(num_bits)).astype(kind(num_bits)), scales


def apply_along(x, num_bits=8):
    scales = np.apply_along_axis(lambda token: [np.abs(token).max() / top(num_bits) or 1.0], -1, x)
    return np.round(x / scales).astype(kind(num_bits)), scales


def torch_tokens(x, num_bits=8):
    import torch

    t = torch.tensor(x)
    scales = t.abs().amax(-1, keepdim=True) / top(num_bits)
    scales[scales == 0] = 1
    return torch.round(t / scales).to(torch.int8 if num_bits <= 8 else torch.int16), scales


RIGHT = {
    "quantize_per_channel": [
        over_the_other_axes, by_a_loop_over_channels, flat_rows, max_reduceat, one_axis_at_a_time, from_both_ends,
        torch_amax,
    ],
    "dequantize_per_channel": [
        by_reshape, by_a_loop, axis_to_the_end, by_expand_dims, by_einsum, by_take, torch_view,
    ],
    "compare_quantization_methods": [
        four_lines, two_loops_in_another_order, by_hand, zero_point_added_before_rounding, with_one_more_entry,
        channel_after_channel,
    ],
    "quantize_per_token": [
        over_the_last_axis, token_after_token, tokens_are_channels, new_axis, apply_along, torch_tokens,
    ],
}  # fmt: skip
