"""A layer under examination, and the numbers that it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Subject:
    """A layer under examination, and where it came from."""

    from_float: Callable
    linear: Any  # the float layer
    before: dict  # its state_dict before from_float saw it
    layer: Any
    x: Any

    @property
    def registered(self) -> list:
        return [*self.layer.parameters(), *self.layer.buffers()]

    @property
    def unregistered(self) -> list:
        """Tensors that are plain attributes, of the layer or of a module in it."""
        import torch

        attributes = (value for module in self.layer.modules() for value in vars(module).values())
        return [value for value in attributes if isinstance(value, torch.Tensor)]


@dataclass(frozen=True)
class Expected:
    """The float layer and its input as float64 arrays, and the precision of their dtypes."""

    weight: np.ndarray
    bias: np.ndarray  # zeros where there is none
    x: np.ndarray
    dtype: str  # of the input, and so of the result
    eps: float  # of the coarser of the two

    @classmethod
    def of(
        cls, weight: np.ndarray, bias: np.ndarray | None, x: Any, dtype: str = "float32", x_dtype: str | None = None
    ) -> Expected:
        """`x` is a tensor, and taken to `x_dtype`: the dtype of the layer where it is left out."""
        import torch

        linear = float_layer(weight, np.zeros(len(weight), np.float32) if bias is None else bias, dtype)
        x = x.to(getattr(torch, x_dtype or dtype))
        eps = max(float(torch.finfo(tensor.dtype).eps) for tensor in (linear.weight, x))
        return cls(as_float64(linear.weight), as_float64(linear.bias), as_float64(x), dtype_name(x), eps)

    @property
    def scale(self) -> np.ndarray:
        return np.abs(self.weight).max(axis=1, keepdims=True) / 127


def float_layer(weight: np.ndarray, bias: np.ndarray | None, dtype: str = "float32") -> Any:
    """An nn.Linear with these numbers."""
    import torch

    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        if bias is not None:
            linear.bias.copy_(torch.from_numpy(bias))
    return linear.to(getattr(torch, dtype))


def as_float64(tensor: Any) -> np.ndarray:
    return tensor.detach().double().numpy()


def dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def same(a: Any, b: Any) -> bool:
    """Whether two tensors are equal, NaN included."""
    import torch

    return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
