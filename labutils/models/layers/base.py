"""What all linear layers of this package have in common: their shape, their bias and what they accept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from labutils.arrays.affine import QuantizedArray
from labutils.arrays.grids import Integers
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.models.inputs import describe, in_autocast_dtype, require_features
from labutils.models.saved_form import SavesForm, scheme_numbers, scheme_of

Tensor = torch.Tensor

PER_CHANNEL = Scheme(8, granularity=PerAxis(0))
GROUPS = Scheme(4, granularity=PerGroup(128))


class LinearBase(SavesForm):
    """y = x @ weight.T + bias for x of shape (..., in_features); a subclass says how x and weight are multiplied.

    It is made of a `plain_linear`.
    """

    form_name = "scheme"

    def __init__(self, linear: nn.Linear, scheme: Scheme):
        super().__init__()
        self.scheme = scheme
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) floats -> (..., out_features), in the dtype of `input`, or that of `torch.autocast`."""
        require_features(input, self.in_features)
        x = in_autocast_dtype(input)
        rows = x.reshape(-1, self.in_features).contiguous()
        y = self._multiply(rows) if len(rows) else rows.new_empty(0, self.out_features)
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        return y.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def _multiply(self, rows: Tensor) -> Tensor:
        """rows @ weight.T, (M, in_features) -> (M, out_features)."""
        raise NotImplementedError

    def _form(self) -> list[int] | None:
        """Integers of a byte or two with one scale, or one for each output, can be read in one way only."""
        is_plain = isinstance(self.scheme.grid, Integers) and self.scheme.granularity in (PerTensor(), PerAxis(0))
        return None if is_plain else scheme_numbers(self.scheme)

    def _describe_form(self, numbers: Sequence[int] | None) -> str:
        return describe_scheme(self.scheme if numbers is None else scheme_of(numbers))

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


def describe_scheme(scheme: Scheme) -> str:
    """A scheme as a layer's repr shows it: "4 bits, PerGroup(group_size=32), asymmetric", or with its grids' names."""
    values = f"{scheme.num_bits} bits" if isinstance(scheme.grid, Integers) else repr(scheme.grid)
    scales = "" if scheme.scale_grid is None else f", scales in {scheme.scale_grid!r}"
    return f"{values}, {scheme.granularity}{'' if scheme.symmetric else ', asymmetric'}{scales}"


def require_codes_of(linear: nn.Linear, quantized: QuantizedArray) -> None:
    """TypeError or ValueError unless `quantized` holds one code for each weight of `linear`."""
    if not isinstance(quantized, QuantizedArray) or not isinstance(quantized.codes, Tensor):
        raise TypeError(f"quantized must be a QuantizedArray of torch tensors, got {describe(quantized)}")
    if quantized.codes.shape != linear.weight.shape:
        raise ValueError(f"codes must have shape {tuple(linear.weight.shape)}, got {tuple(quantized.codes.shape)}")
