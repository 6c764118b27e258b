"""AWQ: the few input channels that carry the activations are scaled up before the weight is rounded.

Lin et al., 2023, "AWQ" (arXiv:2306.00978). A column of the weight times s, its channel of the inputs divided by s: the
function is the same, and the column's rounding error is divided by s as long as it does not set its group's scale.
s = magnitude^alpha, and alpha is the one of a grid at which the layer's outputs lose least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from labutils.arrays.affine import QParams, choose_qparams, dequantize, fake_quantize, quantize
from labutils.arrays.inputs import true_or_false, whole_number
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.models.behind import Behind
from labutils.models.hessian import checked_problem, output_loss
from labutils.models.layers import GROUPS, layer_kind
from labutils.models.linear import plain_linear
from labutils.models.outliers import smooth_linear
from labutils.models.outliers.channels import require_maxima

Tensor = torch.Tensor

CLIPS = tuple(1 - step / 20 for step in range(11))  # 1.0, 0.95, ..., 0.5


def awq_scales(
    weight: Tensor, hessian: Tensor, scheme: Scheme = GROUPS, magnitudes: Tensor | None = None, steps: int = 20
) -> Tensor:
    """s (K,): with weight * s rounded under `scheme` and the inputs divided by s, the outputs lose least.

    >>> weight = torch.tensor([[0.3, 0.7, 0.2, 0.4]])
    >>> hessian = torch.diag(torch.tensor([256.0, 1.0, 1.0, 1.0]))  # the first channel is 16 times as large
    >>> awq_scales(weight, hessian, Scheme(3))
    tensor([1.5157, 0.6598, 0.6598, 0.6598])

    weight      (N, K); weights of several layers that read the same inputs, joined along their outputs, get one s
    hessian     (K, K), 2 X^T X of the inputs
    magnitudes  (K,), how large each input channel is; the root of its mean square where left out, and the mean of |x|
                in the paper. A common factor does not matter
    steps       s = magnitudes^alpha is tried at alpha = 0, 1/steps, ..., 1, each over the root of its largest times its
                smallest element

    alpha = 0 is plain rounding: on the calibration data the outputs lose no more than that. A channel that was always
    0 keeps its scale of 1. Fold s into what comes before by `outliers.fold_division`, or divide by `outliers.Divide`.
    """
    weight, hessian = checked_problem(weight, hessian)
    hessian = hessian.to(weight.dtype)
    magnitudes = hessian.diagonal().sqrt() if magnitudes is None else magnitudes
    require_maxima(magnitudes, weight.shape[1], "magnitudes")
    magnitudes = magnitudes.to(weight).expand(weight.shape[1])
    steps = whole_number(steps, "steps", least=1)
    candidates = [_scales(magnitudes, step / steps) for step in range(steps + 1)]
    return min(candidates, key=lambda s: output_loss(weight, fake_quantize(weight * s, scheme) / s, hessian))


def awq_linear(
    linear: nn.Linear, hessian: Tensor, scheme: Scheme = GROUPS, clip: bool = False, steps: int = 20
) -> Behind:
    """A division of the inputs by `awq_scales`, and the layer with the scaled weight; `linear` stays as it is.

    >>> x, linear = torch.randn(512, 64), nn.Linear(64, 32)
    >>> awq_linear(linear, 2 * x.t() @ x, Scheme(4, granularity=PerGroup(32)))
    Behind(
      (0): Divide(64)
      (1): PackedLinear(64, 32, bias=True, packed, 4 bits, PerGroup(group_size=32), kernel: ...)
    )

    clip  whether the ranges of the scaled weight are searched by `clip_search`
    """
    kind, linear = layer_kind(scheme), plain_linear(linear)
    scales = awq_scales(linear.weight, hessian, scheme, steps=steps)
    divide, scaled = smooth_linear(linear, scales)
    if not true_or_false(clip, "clip"):
        return Behind(divide, kind(scaled, scheme))
    scale, zero_point = clip_search(scaled.weight, hessian.to(scales) / torch.outer(scales, scales), scheme)
    quantized = quantize(scaled.weight, scheme, (kind.held_scale(scale), zero_point))
    return Behind(divide, kind.from_codes(scaled, quantized))


def clip_search(weight: Tensor, hessian: Tensor, scheme: Scheme = GROUPS, clips: Sequence[float] = CLIPS) -> QParams:
    """(scale, zero_point) of each group at the clip with which this group's part of the outputs loses least.

    >>> clip_search(torch.tensor([[1.0, 0.4, 0.4, 0.4, -0.4]]), torch.eye(5), Scheme(2))  # of the full range: 1.0
    (tensor(0.5000), 0)

    A clip is the fraction of the range that the grid spans, `Scheme.clip`. Every group is judged alone, by its own
    block of the Hessian: errors that cancel between groups do not count. `scheme` has PerGroup, PerAxis(0) or
    PerTensor; there, a row or the whole weight is the group, and the loss is never above that of the full range.
    ValueError for a scheme with a tensor's scale: it would be another one at every clip.
    """
    if isinstance(scheme, Scheme) and scheme.tensor_scale:
        raise ValueError(f"clips of single groups do not go with one scale of the tensor, got {scheme}")
    weight, hessian = checked_problem(weight, hessian)
    hessian = hessian.to(weight.dtype)
    choices = [choose_qparams(weight, replace(scheme, clip=clip * scheme.clip)) for clip in clips]
    if not choices:
        raise ValueError("clips must hold at least one fraction of the range, got none")
    errors = (weight - dequantize(quantize(weight, scheme, qparams)) for qparams in choices)
    best = torch.stack([_group_losses(error, hessian, scheme) for error in errors]).argmin(0, keepdim=True)
    scale = torch.stack([scale for scale, _ in choices]).gather(0, best)[0]
    if scheme.symmetric:
        return scale, 0
    return scale, torch.stack([zero_point for _, zero_point in choices]).gather(0, best)[0]


def _scales(magnitudes: Tensor, alpha: float) -> Tensor:
    alive = magnitudes > 0
    scales = torch.where(alive, magnitudes, 1.0) ** alpha
    if not alive.any():
        return scales
    middle = (scales[alive].max() * scales[alive].min()).sqrt()
    return torch.where(alive, scales / middle, 1.0)


def _group_losses(error: Tensor, hessian: Tensor, scheme: Scheme) -> Tensor:
    """error_g H_gg error_g^T of every group g, in the shape of the scale."""
    if scheme.granularity == PerTensor():
        return torch.sum(error @ hessian * error)
    if scheme.granularity in (PerAxis(0), PerAxis(-2)):
        return torch.sum(error @ hessian * error, dim=1)
    if not isinstance(scheme.granularity, PerGroup):
        raise ValueError(f"clips are searched with PerGroup, PerAxis(0) or PerTensor, got {scheme.granularity}")
    size = scheme.granularity.group_size
    blocks = [slice(start, start + size) for start in range(0, error.shape[1], size)]
    return torch.stack([torch.sum(error[:, g] @ hessian[g, g] * error[:, g], dim=1) for g in blocks], dim=1)
