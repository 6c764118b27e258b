"""Right answers to lab 05, written as people write them. Those with torch import it when they run."""

import numpy as np

# --- quantized_matmul ---


def subtract_then_multiply(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    sums = (a_q.astype(np.int32) - a_zp) @ (b_q.astype(np.int32) - b_zp)
    return (sums * (a_scale * b_scale)).astype(np.float32)


def four_terms(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    a, b = a_q.astype(np.int64), b_q.astype(np.int64)
    sums = a @ b - a_zp * b.sum(axis=0) - b_zp * a.sum(axis=1, keepdims=True) + a.shape[1] * a_zp * b_zp
    return sums * a_scale * b_scale


def four_terms_in_int32(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    total = np.matmul(a_q, b_q, dtype=np.int32)
    if a_zp:
        total -= np.int32(a_zp) * b_q.sum(0, dtype=np.int32)
    if b_zp:
        total -= np.int32(b_zp) * a_q.sum(1, dtype=np.int32)[:, None]
    total += np.int32(a_q.shape[1] * a_zp * b_zp)
    return total.astype(np.float32) * np.float32(a_scale) * np.float32(b_scale)


def by_loops(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    rows, columns = (a_q.astype(int) - a_zp).tolist(), (b_q.T.astype(int) - b_zp).tolist()
    sums = [[sum(p * q for p, q in zip(row, column)) for column in columns] for row in rows]
    return np.array(sums, dtype=np.float64) * a_scale * b_scale


def with_einsum(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    a, b = np.subtract(a_q, a_zp, dtype=np.int64), np.subtract(b_q, b_zp, dtype=np.int64)
    return np.einsum("mk,kn->mn", a, b) * (a_scale * b_scale)


def whole_numbers_in_float64(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    """Floats, but of codes: sums of whole numbers are exact in float64 up to 2^53."""
    return (a_q.astype(np.float64) - a_zp) @ (b_q.astype(np.float64) - b_zp) * (a_scale * b_scale)


def with_torch_ints(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    import torch

    a, b = torch.tensor(np.ascontiguousarray(a_q)).int() - a_zp, torch.tensor(np.ascontiguousarray(b_q)).int() - b_zp
    return (a @ b).double() * torch.as_tensor(a_scale) * torch.as_tensor(b_scale)


# --- QuantizedLinear ---


def codes_of(torch, linear):
    w = linear.weight.detach()
    w = w if w.dtype == torch.float64 else w.float()
    scale = w.abs().amax(dim=1, keepdim=True) / 127
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (w / scale).round().clamp(-128, 127).to(torch.int8), scale


def copied(tensor):
    return None if tensor is None else tensor.detach().clone()


def as_in_the_lab_torch():
    import torch
    from torch import nn

    class QuantizedLinear(nn.Module):
        def __init__(self, q, scale, bias):
            super().__init__()
            self.register_buffer("q", q)
            self.register_buffer("scale", scale)
            self.register_buffer("bias", bias)

        @classmethod
        def from_float(cls, linear):
            return cls(*codes_of(torch, linear), copied(linear.bias))

        def forward(self, x):
            weight = (self.q * self.scale).to(x.dtype)
            return nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))

        def memory_bytes(self):
            return sum(buffer.nbytes for buffer in self.buffers())

    return QuantizedLinear


def by_sizes_torch():
    """Made empty and filled, as the seed of this exercise has it; scales of shape (N,); sizes in a list of names."""
    import torch
    from torch import nn

    class QuantizedLinear(nn.Module):
        def __init__(self, in_features, out_features, bias=True, dtype=torch.float32):
            super().__init__()
            self.in_features, self.out_features = in_features, out_features
            self.register_buffer("weight_quant", torch.zeros(out_features, in_features, dtype=torch.int8))
            self.register_buffer("weight_scales", torch.zeros(out_features, dtype=dtype))
            self.register_buffer("bias", torch.zeros(out_features, dtype=dtype) if bias else None)

        @staticmethod
        def from_float(linear):
            wide = torch.float64 if linear.weight.dtype == torch.float64 else torch.float32
            made = QuantizedLinear(linear.in_features, linear.out_features, linear.bias is not None, wide)
            q, scale = codes_of(torch, linear)
            made.weight_quant.copy_(q)
            made.weight_scales.copy_(scale[:, 0])
            if linear.bias is not None:
                made.bias.copy_(linear.bias.detach())
            return made

        def forward(self, x):
            y = (x.to(self.weight_scales.dtype) @ self.weight_quant.to(self.weight_scales.dtype).T) * self.weight_scales
            return (y if self.bias is None else y + self.bias).to(x.dtype)

        def memory_bytes(self):
            total = self.weight_quant.numel() + self.weight_scales.numel() * self.weight_scales.element_size()
            return total + (0 if self.bias is None else self.bias.numel() * self.bias.element_size())

        def extra_repr(self):
            return f"in_features={self.in_features}, out_features={self.out_features}"

    return QuantizedLinear


def bias_as_parameter_torch():
    import torch
    from torch import nn

    class QuantizedLinear(nn.Module):
        @classmethod
        def from_float(cls, linear):
            layer = cls()
            q, scale = codes_of(torch, linear)
            layer.register_buffer("weight", q)
            layer.register_buffer("s", scale.squeeze(1))
            layer.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())
            return layer

        def forward(self, x):
            y = torch.matmul(x, torch.mul(self.weight.to(self.s.dtype), self.s.unsqueeze(1)).to(x.dtype).T)
            return y if self.bias is None else y + self.bias.to(x.dtype)

        def memory_bytes(self):
            return sum(t.numel() * t.element_size() for t in [*self.parameters(), *self.buffers()])

    return QuantizedLinear


def with_no_grad_torch():
    """Computed under no_grad, scale a float16-free float32, forward by einsum."""
    import torch
    from torch import nn

    class QuantizedLinear(nn.Module):
        @classmethod
        @torch.no_grad()
        def from_float(cls, linear):
            layer = cls()
            w = linear.weight.double()
            scale = w.abs().max(dim=-1).values / 127
            scale[scale == 0] = 1.0
            layer.register_buffer("codes", torch.floor(w / scale[:, None] + 0.5).to(torch.int8))
            layer.register_buffer("scales", scale)
            layer.register_buffer("bias", None if linear.bias is None else linear.bias.clone())
            return layer

        def forward(self, x):
            y = torch.einsum("...k,nk->...n", x, (self.codes * self.scales[:, None]).to(x.dtype))
            return y if self.bias is None else y + self.bias.to(y.dtype)

        def memory_bytes(self):
            return sum(value.nbytes for value in self.state_dict().values())

    return QuantizedLinear


def transposed_torch():
    """Codes (in, out), so that forward needs no transpose."""
    import torch
    from torch import nn

    class QuantizedLinear(nn.Module):
        @classmethod
        def from_float(cls, linear):
            layer = cls()
            q, scale = codes_of(torch, linear)
            layer.register_buffer("q", q.T.contiguous())
            layer.register_buffer("scale", scale.T.contiguous())
            layer.register_buffer("bias", copied(linear.bias))
            return layer

        def forward(self, x):
            y = x @ (self.q * self.scale).to(x.dtype)
            if self.bias is not None:
                y = y + self.bias.to(x.dtype)
            return y

        def memory_bytes(self):
            return sum(b.element_size() * b.nelement() for _, b in self.named_buffers())

    return QuantizedLinear


def the_courses_own_torch():
    from labutils.models.layers import QuantizedLinear

    return QuantizedLinear


class Lazily:
    """A class that needs torch to be defined: made when its `from_float` is asked for."""

    def __init__(self, make):
        self.make, self.__name__ = make, make.__name__

    @property
    def from_float(self):
        return self.make().from_float


# --- int8_linear ---


def rows_and_int_matmul_torch(x, w_q, w_scale, bias=None):
    import torch

    from labutils.models.kernels import int_matmul

    rows = x.reshape(-1, x.shape[-1])
    scale = rows.abs().amax(dim=1, keepdim=True) / 127
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    sums = int_matmul((rows / scale).round().to(torch.int8), w_q.t())
    y = sums * scale * w_scale
    y = y.reshape(*x.shape[:-1], len(w_q))
    return y if bias is None else y + bias


def in_int32_torch(x, w_q, w_scale, bias=None):
    import torch

    scale = x.abs().max(dim=-1, keepdim=True).values / 127
    scale = scale.masked_fill(scale == 0, 1)
    q = torch.clamp(torch.round(x / scale), -127, 127).to(torch.int32)
    y = (q @ w_q.t().to(torch.int32)).float() * scale * w_scale
    return y if bias is None else y.add(bias)


def with_the_labs_matmul_torch(x, w_q, w_scale, bias=None):
    import torch

    from labutils.labs.answers import quantize_per_token, quantized_matmul

    rows = x.numpy().reshape(-1, x.shape[-1])
    if not len(rows):
        return torch.zeros(*x.shape[:-1], len(w_q))
    q, scale = quantize_per_token(rows)
    y = quantized_matmul(q, scale, w_q.numpy().T, w_scale.numpy()).reshape(*x.shape[:-1], len(w_q))
    return torch.from_numpy(y) if bias is None else torch.from_numpy(y) + bias


def row_by_row_torch(x, w_q, w_scale, bias=None):
    import torch

    y = torch.zeros(*x.shape[:-1], len(w_q))
    out = y.view(-1, len(w_q))
    for i, row in enumerate(x.reshape(-1, x.shape[-1])):
        scale = float(row.abs().max()) / 127 or 1.0
        q = torch.round(row / scale).long()
        out[i] = (w_q.long() @ q) * w_scale * scale
    return y if bias is None else y + bias


def floats_of_codes_in_float64_torch(x, w_q, w_scale, bias=None):
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    sums = (x / scale).round().double() @ w_q.double().T
    y = (sums * scale * w_scale).float()
    return y if bias is None else y + bias


RIGHT = {
    "quantized_matmul": [
        subtract_then_multiply, four_terms, four_terms_in_int32, by_loops, with_einsum, whole_numbers_in_float64,
        with_torch_ints,
    ],
    "QuantizedLinear": list(map(Lazily, [
        as_in_the_lab_torch, by_sizes_torch, bias_as_parameter_torch, with_no_grad_torch, transposed_torch,
        the_courses_own_torch,
    ])),
    "int8_linear": [
        rows_and_int_matmul_torch, in_int32_torch, with_the_labs_matmul_torch, row_by_row_torch,
        floats_of_codes_in_float64_torch,
    ],
}  # fmt: skip
