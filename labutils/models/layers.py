"""Linear layers with integer weights.

| layer | weight | activations | multiplies |
|---|---|---|---|
| `QuantizedLinear` | codes, any `Scheme` | float | floats: the weight is dequantized at each call |
| `Int8Linear` | 8 bits, a scale for each output | 8 bits, a scale and zero point for each row | integers |
| `PackedLinear` | 2 to 8 bits in real bytes, groups | float | on torch's int4 kernel where it fits, else floats |

They are for inference: what they hold are buffers, and no gradient reaches a weight. They go through `state_dict`,
`deepcopy`, `pickle`, `.to()` and safetensors like any layer; what is saved does not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from labutils.arrays import affine, packing
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models import kernels

Tensor = torch.Tensor

PER_CHANNEL = Scheme(8, granularity=PerAxis(0))
GROUPS = Scheme(4, granularity=PerGroup(128))


class _Linear(nn.Module):
    """What the three layers have in common: y = x @ weight.T + bias for x of shape (..., in_features)."""

    def __init__(self, linear: nn.Linear):
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"expected an nn.Linear, got {type(linear).__name__}")
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) floats -> (..., out_features), in the dtype of `x`."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"x must be a float tensor, got {kernels.what(x)}")
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must have shape (..., {self.in_features}), got {tuple(x.shape)}")
        rows = x.reshape(-1, self.in_features)
        y = self._multiply(rows) if len(rows) else rows.new_empty(0, self.out_features)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class QuantizedLinear(_Linear):
    """Integer weights, float activations (W8A16): the codes are dequantized at each call, and floats are multiplied.

    >>> layer = QuantizedLinear.from_float(nn.Linear(512, 256))
    >>> layer, layer.memory_bytes()
    (QuantizedLinear(512, 256, bias=True, int8 codes, 8 bits, PerAxis(axis=0)), 133120)

    131,072 codes of a byte, 256 scales and 256 biases of 4. Smaller than float, and slower: dequantizing comes on top.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme = PER_CHANNEL):
        super().__init__(linear)
        quantized = affine.quantize(linear.weight, scheme)
        self.scheme = scheme
        self.register_buffer("codes", quantized.codes)
        self.register_buffer("scale", quantized.scale)
        self.register_buffer("zero_point", None if scheme.symmetric else quantized.zero_point)

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: Scheme = PER_CHANNEL) -> QuantizedLinear:
        """The layer with `linear`'s weight under `scheme`, and a copy of its bias; `linear` stays as it is."""
        return cls(linear, scheme)

    @property
    def weight(self) -> Tensor:
        """The weight, dequantized: (out_features, in_features) in the dtype of `scale`."""
        zero_point = 0 if self.zero_point is None else self.zero_point
        return affine.dequantize(
            affine.QuantizedArray(self.codes, self.scale, zero_point, self.scheme, self.scale.dtype)
        )

    def memory_bytes(self) -> int:
        """Bytes of all buffers: codes, scales, zero points, bias."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def _multiply(self, rows: Tensor) -> Tensor:
        return functional.linear(rows, self.weight.to(rows.dtype))

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """`.half()` and its like go past the scale: 16 bits would round it, and turn 1e-8 into 0."""
        scale = self.scale
        super()._apply(fn, recurse)
        self.scale = scale.to(self.codes.device)
        return self

    def extra_repr(self) -> str:
        dtype = str(self.codes.dtype).removeprefix("torch.")
        return f"{super().extra_repr()}, {dtype} codes, {_described(self.scheme)}"


class _HeldLinear(_Linear):
    """A layer whose weight is held as a kernel wants it, and saved in plain form (see `kernels`)."""

    _weights: Any  # a kernels.Int8Weights, PackedWeights or Int4Weights

    @property
    def weight(self) -> Tensor:
        """The weight, dequantized: (out_features, in_features) float32."""
        return self._weights.dequantize()

    @property
    def kernel(self) -> str:
        """What multiplies here; `kernels.report()` says why."""
        return self._weights.kernel

    def memory_bytes(self) -> int:
        """Bytes held: codes, scales, zero points as the kernel wants them, and the bias."""
        return self._weights.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def _hold(self, plain: Mapping[str, Tensor]) -> Any:
        raise NotImplementedError

    def _multiply(self, rows: Tensor) -> Tensor:
        return self._weights.linear(rows.detach())

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: tensor for name, tensor in self._weights.plain().items()})

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        own = self._weights.plain()
        found = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        missing += [prefix + name for name in own if name not in found]
        for name, tensor in found.items():
            if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
                errors.append(f"{prefix}{name} must be {_form(own[name])}, got {_form(tensor)}")
        if len(found) == len(own) and not errors:
            self._weights = self._hold({name: tensor.to(self._weights.device) for name, tensor in found.items()})
        rest = {name: tensor for name, tensor in state_dict.items() if name.removeprefix(prefix) not in own}
        super()._load_from_state_dict(rest, prefix, metadata, strict, missing, unexpected, errors)

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """Only a move to another device concerns the weight: `.half()` and its like would spoil the scales."""
        super()._apply(fn, recurse)
        device = fn(torch.empty(0, dtype=torch.int8, device=self._weights.device)).device
        if device != self._weights.device:
            self._weights = self._hold({name: tensor.to(device) for name, tensor in self._weights.plain().items()})
        return self

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_weights": {name: tensor.clone() for name, tensor in self._weights.plain().items()}}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._weights = self._hold(self._weights)


class Int8Linear(_HeldLinear):
    """Integers by integers (W8A8): each row of activations is quantized as it comes, products add up in int32.

    >>> layer = Int8Linear.from_float(nn.Linear(512, 256))
    >>> layer.memory_bytes()
    134144

    A byte for each weight, and 12 for each output: its scale, its bias, and the sum of its weights, by which the zero
    points of activations are accounted for. A row of `x` that holds NaN or Inf comes out not finite, and alone.
    Computes in float32 whatever the dtype of `x`.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)
        quantized = affine.quantize(linear.weight, PER_CHANNEL)
        self._weights = self._hold({"codes": quantized.codes, "scale": quantized.scale})

    @classmethod
    def from_float(cls, linear: nn.Linear) -> Int8Linear:
        """The layer with `linear`'s weight in 8 bits, a scale for each output; `linear` stays as it is."""
        return cls(linear)

    def _hold(self, plain: Mapping[str, Tensor]) -> kernels.Int8Weights:
        return kernels.Int8Weights(**plain)

    def _multiply(self, rows: Tensor) -> Tensor:
        return super()._multiply(rows.to(torch.float32))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, int8 by int8, kernel: {self.kernel}"


class PackedLinear(_HeldLinear):
    """Weights of 2 to 8 bits without a bit between them, in groups, with 16-bit scales; float activations (W4A16).

    >>> layer = PackedLinear.from_float(nn.Linear(512, 256, bias=False), Scheme(3, granularity=PerGroup(64)))
    >>> layer.memory_bytes() * 8 / (512 * 256)  # 3 + 16 / 64
    3.25

    Scales are rounded up to bfloat16, so that no weight is clipped for it.
    """

    def __init__(self, linear: nn.Linear, scheme: Scheme = GROUPS):
        super().__init__(linear)
        self.scheme = _in_groups(scheme, linear)
        scale, zero_point = affine.choose_qparams(linear.weight, self.scheme)
        scale = _up_to_bfloat16(scale)
        quantized = affine.quantize(linear.weight, self.scheme, (scale.to(torch.float32), zero_point))
        plain = {"packed": packing.pack(quantized.codes, scheme.num_bits), "scale": scale}
        self._weights = self._hold(plain if scheme.symmetric else plain | {"zero_point": zero_point.to(torch.uint8)})

    @classmethod
    def from_float(cls, linear: nn.Linear, scheme: Scheme = GROUPS) -> PackedLinear:
        """The layer with `linear`'s weight packed under `scheme`: groups, or PerAxis(0) for a group each row."""
        return cls(linear, scheme)

    def _hold(self, plain: Mapping[str, Tensor]) -> kernels.PackedWeights | kernels.Int4Weights:
        return kernels.hold_packed(**({"zero_point": None} | plain), scheme=self.scheme, length=self.in_features)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, packed, {_described(self.scheme)}, kernel: {self.kernel}"


def _in_groups(scheme: Scheme, linear: nn.Linear) -> Scheme:
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, got {scheme!r}")
    if isinstance(scheme.granularity, PerGroup):
        return scheme
    if scheme.granularity not in (PerAxis(0), PerAxis(-2)):
        raise ValueError(f"a packed weight has groups or PerAxis(0), got {scheme.granularity}")
    return Scheme(scheme.num_bits, scheme.symmetric, PerGroup(linear.in_features), scheme.clip)


def _up_to_bfloat16(scale: Tensor) -> Tensor:
    rounded = scale.to(torch.bfloat16)
    return torch.where(rounded < scale, torch.nextafter(rounded, torch.full_like(rounded, torch.inf)), rounded)


def _described(scheme: Scheme) -> str:
    return f"{scheme.num_bits} bits, {scheme.granularity}" + ("" if scheme.symmetric else ", asymmetric")


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
