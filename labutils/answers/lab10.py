"""Lab 10: fake quantization with a gradient, a step of training, the integers at the end, and a scale that learns.

These take torch tensors, and import torch when they are called: the exercises can be listed where it is not installed.
"""

from __future__ import annotations

from typing import Any

from labutils import affine
from labutils.scheme import Scheme, positive_number

Tensor = Any  # a torch.Tensor


def fake_quantize_ste(x: Tensor, scale: Tensor, num_bits: int = 8) -> Tensor:
    """scale * clamp(round(x / scale)), with the gradient 1 to `x` where nothing is clamped, and 0 where it is.

    >>> import torch
    >>> x = torch.tensor([-0.26, 0.04, 0.11, 0.9], requires_grad=True)
    >>> fake_quantize_ste(x, torch.tensor(0.1), num_bits=3).sum().backward()
    >>> x.grad
    tensor([1., 1., 1., 0.])

    `scale` is positive and broadcasts over `x`. The straight-through estimator (Bengio, Leonard and Courville, 2013,
    arXiv:1308.3432) inside the grid, the clamp's own derivative outside.
    """
    import torch

    from labutils import training

    affine.real_array(x)
    _, scale = affine.real_array(torch.as_tensor(scale), "scale")
    if not bool((scale > 0).all()):
        raise ValueError("scale must be positive everywhere")
    return training.fake_quantize_ste(x, scale, num_bits)


def qat_step(w: Tensor, x: Tensor, target: Tensor, scale: Tensor, num_bits: int, learning_rate: float) -> Tensor:
    """One step of quantization-aware training of a linear layer: the float weights after it.

    >>> import torch
    >>> w, x = torch.tensor([[0.24, 1.26]]), torch.tensor([[1.0, 2.0]])
    >>> qat_step(w, x, torch.tensor([[2.0]]), torch.tensor(0.5), num_bits=4, learning_rate=0.1)
    tensor([[0.0400, 0.8600]])

    `w` (K, C), `x` (N, C), `target` (N, K). The loss is the mean of (x @ w_hat.T - target)^2 over all N * K elements,
    w_hat the fake-quantized weights; its gradient, taken at w_hat, moves `w` itself (Jacob et al., 2018,
    arXiv:1712.05877, section 3). A new tensor: `w` stays as it is.
    """
    import torch

    rate = positive_number(learning_rate, "learning_rate")
    shadow = w.detach().clone().requires_grad_()
    loss = torch.nn.functional.mse_loss(x @ fake_quantize_ste(shadow, scale, num_bits).T, target)
    (gradient,) = torch.autograd.grad(loss, shadow)
    return (shadow - rate * gradient).detach()


def convert_weight(w: Tensor, scale: Tensor, num_bits: int = 8) -> Tensor:
    """The int8 (int16 above 8 bits) codes that the fake-quantized `w` stood for, on the scale that it was trained with.

    >>> import torch
    >>> convert_weight(torch.tensor([-0.26, 0.04, 0.11, 0.9]), torch.tensor(0.1), num_bits=3)
    tensor([-3,  0,  1,  3], dtype=torch.int8)

    `scale` broadcasts over `w`. codes * scale is `fake_quantize_ste(w, scale, num_bits)`, exactly.
    """
    _, w = affine.real_array(w, "w")
    library, scale = affine.real_array(scale, "scale")
    steps = w / scale  # a scale may broadcast as it likes; in steps, it is 1
    return affine.quantize(steps, Scheme(num_bits), (library.ones((), dtype=steps.dtype), 0)).codes


def lsq_gradient(x: Tensor, scale: Tensor, grad: Tensor, num_bits: int = 8) -> Tensor:
    """The gradient of the loss to the one `scale` of `x`, where `grad` is its gradient to the fake-quantized `x`.

    >>> import torch
    >>> x, grad = torch.tensor([0.14, -0.26, 0.9]), torch.tensor([1.0, 1.0, 1.0])
    >>> lsq_gradient(x, torch.tensor(0.1), grad, num_bits=3)
    tensor(0.7333)

    Each element gives round(v) - v with v = x / scale within the codes, and the last code beyond them; times `grad`,
    summed, over sqrt(N * quant_max). Esser et al., 2020, "Learned step size quantization" (arXiv:1902.08153),
    equation 3 and section 2.2.
    """
    from labutils import training

    affine.real_array(grad, "grad")
    step = scale.detach().clone().requires_grad_()
    training.fake_quantize_ste(x.detach(), step, num_bits).backward(grad)
    return step.grad
