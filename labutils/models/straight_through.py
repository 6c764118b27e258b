"""A value with another one's gradient, as in the straight-through estimator (Bengio et al., 2013, arXiv:1308.3432)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Tensor = torch.Tensor


class _WithGradientOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, differentiable: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        return None, grad


def straight_through(x: Tensor, exact: Callable[[Tensor], Tensor], smooth: Callable[[Tensor], Tensor]) -> Tensor:
    """exact(x), whose gradient to `x` is that of smooth(x); `smooth` is called only where a gradient is wanted.

    >>> x = torch.tensor([0.4, 1.6], requires_grad=True)
    >>> y = straight_through(x, torch.round, lambda x: x)
    >>> y.sum().backward()
    >>> y.detach(), x.grad
    (tensor([0., 2.]), tensor([1., 1.]))
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return exact(x)
    return _WithGradientOf.apply(exact(x.detach()).detach(), smooth(x))
