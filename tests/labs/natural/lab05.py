"""Lab 05: integer products and the layer made of them."""

import numpy as np
import torch
from torch import nn

from tests.labs.natural import mistake


@mistake("quantized_matmul", "float")
def sums_in_float32(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    total = np.zeros((a_q.shape[0], b_q.shape[1]), np.float32)
    for k in range(a_q.shape[1]):
        total += np.outer(a_q[:, k].astype(np.float32) - a_zp, b_q[k].astype(np.float32) - b_zp).astype(np.float32)
    return total * a_scale * b_scale


@mistake("quantized_matmul", "zero point")
def zero_points_ignored(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    return (a_q.astype(np.int32) @ b_q.astype(np.int32)) * (a_scale * b_scale)


@mistake("quantized_matmul", "wrap|8 bits|dtype of the codes|integer")
def codes_multiplied_as_they_are(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    return ((a_q - a_zp) @ (b_q - b_zp)) * (a_scale * b_scale)


@mistake("quantized_matmul", "scale")
def scale_of_b_forgotten(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    return ((a_q.astype(np.int64) - a_zp) @ (b_q.astype(np.int64) - b_zp)) * a_scale


@mistake("quantized_matmul", "the scales are added")
def scales_added(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    return ((a_q.astype(np.int64) - a_zp) @ (b_q.astype(np.int64) - b_zp)) * (a_scale + b_scale)


@mistake("quantized_matmul", "K|last term|fourth|twice")
def fourth_term_forgotten(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    a, b = a_q.astype(np.int64), b_q.astype(np.int64)
    sums = a @ b - a_zp * b.sum(0) - b_zp * a.sum(1, keepdims=True)
    return sums * (a_scale * b_scale)


@mistake("quantized_matmul", "the zero points changed places")
def zero_points_exchanged(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    return ((a_q.astype(np.int64) - b_zp) @ (b_q.astype(np.int64) - a_zp)) * (a_scale * b_scale)


@mistake("quantized_matmul", "b is transposed")
def transposes_b(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    return ((a_q.astype(np.int64) - a_zp) @ (b_q.astype(np.int64) - b_zp).T) * (a_scale * b_scale)


def rows(x):
    scale = x.abs().amax(-1, keepdim=True) / 127
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (x / scale).round().clamp(-128, 127), scale


@mistake("int8_linear", "zero")
def no_guard_for_a_row_of_zeros(x, w_q, w_scale, bias=None):
    scale = x.abs().amax(-1, keepdim=True) / 127
    q = (x / scale).round().to(torch.int8)
    y = (q.to(torch.int32).float() @ w_q.float().t()) * scale * w_scale
    return y if bias is None else y + bias


@mistake("int8_linear", "fake|float|precision|integer")
def fake_quantization(x, w_q, w_scale, bias=None):
    q, scale = rows(x)
    return nn.functional.linear(q * scale, w_q * w_scale[:, None], bias)


@mistake("int8_linear", "one scale|whole")
def one_scale_for_x(x, w_q, w_scale, bias=None):
    scale = x.abs().max() / 127
    y = (x / scale).round() @ w_q.float().t() * scale * w_scale
    return y if bias is None else y + bias


@mistake("int8_linear", "scale")
def scale_of_the_weight_forgotten(x, w_q, w_scale, bias=None):
    q, scale = rows(x)
    y = q @ w_q.float().t() * scale
    return y if bias is None else y + bias


@mistake("int8_linear", "bias")
def bias_scaled_too(x, w_q, w_scale, bias=None):
    q, scale = rows(x)
    y = q @ w_q.float().t()
    return (y if bias is None else y + bias) * scale * w_scale


@mistake("int8_linear", "bias")
def bias_forgotten(x, w_q, w_scale, bias=None):
    q, scale = rows(x)
    return q @ w_q.float().t() * scale * w_scale


@mistake("int8_linear", "the weight is not transposed")
def weight_not_transposed(x, w_q, w_scale, bias=None):
    q, scale = rows(x)
    y = q @ w_q.float() * scale * w_scale
    return y if bias is None else y + bias


def layer(forward, scale_of, dtype=torch.int8):
    class QuantizedLinear(nn.Module):
        @classmethod
        def from_float(cls, linear):
            made = cls()
            w = linear.weight.detach()
            w = w if w.dtype == torch.float64 else w.float()
            scale = scale_of(w)
            made.register_buffer("q", (w / scale).round().clamp(-128, 127).to(dtype))
            made.register_buffer("scale", scale)
            made.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())
            return made

        def forward(self, x):
            return forward(self, x)

        def memory_bytes(self):
            return sum(t.nbytes for t in self.buffers())

    return QuantizedLinear


def linear(self, x):
    w = (self.q.to(self.scale.dtype) * self.scale).to(x.dtype)
    return nn.functional.linear(x, w, None if self.bias is None else self.bias.to(x.dtype))


def guarded(scale):
    return torch.where(scale == 0, torch.ones_like(scale), scale)


@mistake("QuantizedLinear", "zero")
def layer_without_a_guard(linear_):
    return layer(linear, lambda w: w.abs().amax(1, keepdim=True) / 127).from_float(linear_)


@mistake("QuantizedLinear", "smallest scale|floor|epsilon")
def layer_with_an_epsilon(linear_):
    return layer(linear, lambda w: (w.abs().amax(1, keepdim=True) / 127).clamp(min=1e-5)).from_float(linear_)


@mistake("QuantizedLinear", "axis|input")
def layer_with_scales_of_columns(linear_):
    return layer(linear, lambda w: guarded(w.abs().amax(0, keepdim=True) / 127)).from_float(linear_)


@mistake("QuantizedLinear", "scales rounded to 16 bits")
def layer_of_half_scales(linear_):
    return layer(linear, lambda w: guarded((w.abs().amax(1, keepdim=True) / 127).bfloat16().float())).from_float(
        linear_
    )


@mistake("QuantizedLinear", "transposed")
def layer_that_does_not_transpose(linear_):
    def forward(self, x):
        return x @ (self.q * self.scale).to(x.dtype)

    return layer(forward, lambda w: guarded(w.abs().amax(1, keepdim=True) / 127)).from_float(linear_)


@mistake("QuantizedLinear", "bias")
def layer_that_scales_its_bias(linear_):
    def forward(self, x):
        y = x @ self.q.to(x.dtype).t()
        y = y if self.bias is None else y + self.bias
        return (y * self.scale.reshape(-1)).to(x.dtype)

    return layer(forward, lambda w: guarded(w.abs().amax(1, keepdim=True) / 127)).from_float(linear_)
