"""Lab 05: integer products and the layer made of them."""

import numpy as np
import torch
from torch import nn

from labutils import kernels
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


# Written without a look at the tables of misconceptions.


@mistake("quantized_matmul")
def matmul_float16_scales(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    """The product of the scales in float16, where it underflows or has three digits."""
    total = (a_q.astype(np.int32) - int(a_zp)) @ (b_q.astype(np.int32) - int(b_zp))
    return total * (np.asarray(a_scale, np.float16) * np.asarray(b_scale, np.float16)).astype(np.float32)


@mistake("quantized_matmul")
def matmul_int64_scales_int(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    """Multiplies the scales into the integer sums with *=, which torch and NumPy refuse."""
    total = (a_q.astype(np.int32) - int(a_zp)) @ (b_q.astype(np.int32) - int(b_zp))
    total *= a_scale * b_scale
    return total


@mistake("quantized_matmul", "accumulates in int8")
def matmul_int8(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    """Multiplies in the dtype of the codes: the sums wrap in 8 bits."""
    product = (a_q @ b_q).astype(np.int32)
    k = a_q.shape[1]
    rows, columns = a_q.sum(axis=1, keepdims=True, dtype=np.int32), b_q.sum(axis=0, dtype=np.int32)
    return a_scale * b_scale * (product - a_zp * columns - b_zp * rows + k * a_zp * b_zp)


@mistake("quantized_matmul", "accumulates in int16")
def matmul_int16(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    """Adds up in int16: sums beyond 32767 wrap."""
    a, b = a_q.astype(np.int16) - np.int16(a_zp), b_q.astype(np.int16) - np.int16(b_zp)
    return (a @ b).astype(np.float32) * a_scale * b_scale


@mistake("quantized_matmul", "zero points subtracted in 8 bits")
def matmul_zero_points_in_8_bits(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    """Subtracts the zero points in the 8-bit dtype of the codes before widening: the differences wrap."""
    a, b = a_q - np.array(a_zp).astype(a_q.dtype), b_q - np.array(b_zp).astype(b_q.dtype)
    return (a.astype(np.int32) @ b.astype(np.int32)) * (np.float32(a_scale) * np.float32(b_scale))


class RightLayer(nn.Module):
    """Right and plain; each version below changes one thing in it."""

    def __init__(self, q, scales, bias):
        super().__init__()
        self.register_buffer("q", q)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", bias)

    @staticmethod
    def codes(weight):
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1, keepdim=True) / 127
        scales = torch.where(scales > 0, scales, torch.ones_like(scales))
        return (weight / scales).round().clamp(-128, 127).to(torch.int8), scales

    @classmethod
    def from_float(cls, linear):
        q, scales = cls.codes(linear.weight)
        return cls(q, scales, None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x):
        weight = (self.q.float() * self.scales).to(x.dtype)
        return nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))

    def memory_bytes(self):
        return sum(b.nbytes for b in self.buffers())


@mistake("QuantizedLinear", "the scales are a Parameter")
class LayerParameters(RightLayer):
    """Scales are an nn.Parameter: they would be trained."""

    def __init__(self, q, scales, bias):
        nn.Module.__init__(self)
        self.register_buffer("q", q)
        self.scales = nn.Parameter(scales)
        self.register_buffer("bias", bias)

    def memory_bytes(self):
        return self.q.nbytes + self.scales.nbytes + (0 if self.bias is None else self.bias.nbytes)


@mistake("QuantizedLinear")
class LayerIntParameter(RightLayer):
    """nn.Parameter of int8 codes: torch raises, since integers have no gradient."""

    def __init__(self, q, scales, bias):
        nn.Module.__init__(self)
        self.q = nn.Parameter(q)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", bias)


@mistake("QuantizedLinear", "a row of zeros gives NaN, cast to an integer")
class LayerZeroRow(RightLayer):
    """Forgets a row of zeros: its scale is 0, and its codes come from nan."""

    @staticmethod
    def codes(weight):
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1, keepdim=True) / 127
        return (weight / scales).round().clamp(-128, 127).to(torch.int8), scales


@mistake("QuantizedLinear", "the float weight of the first call is kept")
class LayerCachesWeight(RightLayer):
    """Keeps the float weight of the first forward in an attribute, for speed."""

    def forward(self, x):
        if not hasattr(self, "cached"):
            self.cached = self.q.float() * self.scales
        return nn.functional.linear(x, self.cached.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


@mistake("QuantizedLinear", "scales are computed in 16 bits")
class LayerBfloat16Scales(RightLayer):
    """Chooses the scales in the layer's own dtype: imprecise for bfloat16."""

    @staticmethod
    def codes(weight):
        weight = weight.detach()
        scales = weight.abs().amax(dim=1, keepdim=True) / 127
        scales = torch.where(scales > 0, scales, torch.ones_like(scales))
        return (weight / scales).round().clamp(-128, 127).to(torch.int8), scales


def _rows(x):
    """Row codes and scales of x, which the versions below have right: (M, K) int8 and (M, 1)."""
    flat = x.reshape(-1, x.shape[-1])
    scale = flat.abs().amax(dim=1, keepdim=True) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (flat / scale).round().clamp(-128, 127).to(torch.int8), scale


@mistake("int8_linear")
def int8_view(x, w_q, w_scale, bias=None):
    """x.view(-1, K): an error for a tensor that is not contiguous (where one comes)."""
    codes, scale = _rows(x.transpose(0, -1).contiguous().transpose(0, -1).view(-1, x.shape[-1]))
    y = kernels.int_matmul(codes, w_q.t()) * scale * w_scale
    return (y if bias is None else y + bias).view(*x.shape[:-1], len(w_q))


@mistake("int8_linear")
def int8_floor(x, w_q, w_scale, bias=None):
    """clamp(min=1e-5) of the row maxima: quiet rows vanish."""
    flat = x.reshape(-1, x.shape[-1])
    scale = flat.abs().amax(dim=1, keepdim=True).clamp(min=1e-5) / 127
    y = kernels.int_matmul((flat / scale).round().to(torch.int8), w_q.t()) * scale * w_scale
    return (y if bias is None else y + bias).reshape(*x.shape[:-1], len(w_q))


@mistake("int8_linear")
def int8_in_place_x(x, w_q, w_scale, bias=None):
    """x.div_(scale): the caller's activations change."""
    flat = x.reshape(-1, x.shape[-1])
    _, scale = _rows(x)
    y = kernels.int_matmul(flat.div_(scale).round().to(torch.int8), w_q.t()) * scale * w_scale
    return (y if bias is None else y + bias).reshape(*x.shape[:-1], len(w_q))


@mistake("int8_linear")
def int8_bias_always(x, w_q, w_scale, bias=None):
    """Adds the bias without asking whether there is one: an error for None."""
    codes, scale = _rows(x)
    return (kernels.int_matmul(codes, w_q.t()) * scale * w_scale + bias).reshape(*x.shape[:-1], len(w_q))


@mistake("int8_linear")
def int8_empty_batch(x, w_q, w_scale, bias=None):
    """x.abs().max(dim=...) over everything first: an error for an empty batch."""
    if x.abs().max() == 0:
        return torch.zeros(*x.shape[:-1], len(w_q)) + (0 if bias is None else bias)
    codes, scale = _rows(x)
    y = kernels.int_matmul(codes, w_q.t()) * scale * w_scale
    return (y if bias is None else y + bias).reshape(*x.shape[:-1], len(w_q))
