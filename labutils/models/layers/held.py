"""A layer whose weight is held in the form that a kernel wants (see `kernels`), and saved in a plain one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from labutils.models.layers.base import LinearBase
from labutils.models.straight_through import straight_through

Tensor = torch.Tensor


class HeldLinear(LinearBase):
    """A linear layer whose weight is an Int8Weights, PackedWeights or Int4Weights."""

    _weights: Any
    repacked = False

    @property
    def weight(self) -> Tensor:
        """The weight, dequantized: (out_features, in_features) float32."""
        return self._weights.dequantize()

    @property
    def kernel(self) -> str:
        """The name of the kernel that multiplies here; `kernels.report()` says why."""
        return self._weights.kernel

    def memory_bytes(self) -> int:
        """Bytes held: codes, scales, zero points as the kernel wants them, and the bias."""
        return self._weights.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def share_weight(self, other: HeldLinear) -> None:
        """Hold the weight of `other`, not a second copy of it."""
        self._weights = other._weights

    def _hold(self, plain: Mapping[str, Tensor]) -> Any:
        """The weight in its kernel's form, made of the tensors that are saved."""
        raise NotImplementedError

    def _multiply(self, rows: Tensor) -> Tensor:
        return straight_through(rows, self._exact, self._smooth)

    def _exact(self, rows: Tensor) -> Tensor:
        """The product on the kernel, through which no gradient passes."""
        return self._weights.linear(rows)

    def _smooth(self, rows: Tensor) -> Tensor:
        """The product whose gradient stands for the kernel's."""
        return functional.linear(rows, self.weight.to(rows.dtype))

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: tensor for name, tensor in self._weights.plain().items()})

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        own = self._weights.plain()
        found = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        missing += [prefix + name for name in own if name not in found]
        for name, tensor in found.items():
            if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
                errors.append(f"{prefix}{name} must be {_dtype_and_shape(own[name])}, got {_dtype_and_shape(tensor)}")
        rest = {name: tensor for name, tensor in state_dict.items() if name.removeprefix(prefix) not in own}
        super()._load_from_state_dict(rest, prefix, metadata, strict, missing, unexpected, errors)
        if len(found) == len(own) and not errors:
            self._weights = self._hold({name: tensor.to(self._weights.device) for name, tensor in found.items()})

    def _apply(self, fn: Callable, recurse: bool = True) -> nn.Module:
        """The weight follows to another device; `.half()` and other casts would spoil its scales."""
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


def repack(model: nn.Module) -> nn.Module:
    """Let the integer layers of a model hold their weights for a text that is written a token at a time.

    >>> from labutils.arrays.scheme import PerGroup, Scheme
    >>> from labutils.models.layers import PackedLinear
    >>> layer = PackedLinear(nn.Linear(512, 256, bias=False), Scheme(3, granularity=PerGroup(64)))
    >>> repack(layer).memory_bytes() * 8 / (512 * 256)  # 4 + 32 / 64: the kernel's scales come with a zero of 16 bits
    4.5

    `model` is changed and returned. Outputs are those of the same codes and scales; what is saved stays the same.

    PackedLinear  codes of 2 to 4 bits go to the int4 kernel, which is many times as fast. Every code then takes 4 bits,
                  4-bit codes with a zero point 8, and groups that are no multiple of 32 are filled up: `memory_bytes`
                  says what it comes to. More than 4 bits, and groups below 16, stay as they are
    Int8Linear    FBGEMM multiplies instead of oneDNN: about twice as fast for one row, slower from 16 or 32 rows on

    Where a machine lacks a kernel, nothing changes.
    """
    held: dict[int, Any] = {}  # layers that share a weight go on sharing it
    for layer in model.modules():
        if isinstance(layer, HeldLinear):
            layer.repacked, before = True, layer._weights
            if id(before) not in held:
                held[id(before)] = before, layer._hold(before.plain())  # `before` is kept: its id stays its own
            layer._weights = held[id(before)][1]
    return model


def _dtype_and_shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
