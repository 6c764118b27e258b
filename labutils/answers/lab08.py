"""Lab 08: how much to move from activations into weights, a layer with it moved, and outlier channels split off.

`smooth_linear` and `fold_division` take modules of torch, which is imported when they are called: the exercises can be
listed where it is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import array_api_compat

from labutils import affine
from labutils.scheme import positive_number, real_number

if TYPE_CHECKING:
    from torch import nn

Array = Any  # a numpy.ndarray or a torch.Tensor


def smooth_scales(activation_max: Array, weight: Array, alpha: float = 0.5) -> Array:
    """What to divide each input channel by: s_j = max|X_j|^alpha / max|W_j|^(1 - alpha), its weights to be multiplied.

    >>> activation_max = np.array([64.0, 4.0, 1.0, 0.0])
    >>> weight = np.array([[0.5, -1.0, 0.25, 3.0], [-1.0, 0.5, 0.125, 1.0]])  # (out_features, in_features)
    >>> smooth_scales(activation_max, weight, alpha=0.5)
    array([8., 2., 2., 1.])
    >>> smooth_scales(activation_max, weight, alpha=1.0)
    array([64.,  4.,  1.,  1.])

    activation_max  (in_features,), the largest magnitude seen in each channel, from 0 on
    weight          (out_features, in_features), as in torch.nn.Linear
    alpha           the migration strength, 0 to 1: 1 gives every channel of the activations the same maximum, 0 every
                    column of the weight, 0.5 both the same two

    The scales are positive, float32 (float64 where an input is). A channel whose activations or weights are all 0 has
    nothing to move: its scale is 1. Xiao et al., 2023, "SmoothQuant" (arXiv:2211.10438), equation 4. TypeError or
    ValueError for shapes that do not match, an alpha outside [0, 1], NaN, Inf and negative maxima.
    """
    xp, activation_max = affine.real_array(activation_max, "activation_max")
    library, weight = affine.real_array(weight, "weight")
    if library is not xp:
        raise TypeError(
            f"activation_max and weight must come from one library, got {type(activation_max)} and {type(weight)}"
        )
    alpha = real_number(alpha, "alpha")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha:g}")
    if weight.ndim != 2:
        raise ValueError(f"weight must have two axes, (out_features, in_features), got shape {tuple(weight.shape)}")
    if tuple(activation_max.shape) != (weight.shape[1],):
        raise ValueError(
            f"activation_max must have shape ({weight.shape[1]},), one for each column of weight, "
            f"got {tuple(activation_max.shape)}"
        )
    dtype = xp.result_type(activation_max.dtype, weight.dtype, xp.float32)
    peaks = xp.astype(activation_max, xp.float64), xp.astype(xp.max(xp.abs(weight), axis=0), xp.float64)
    for name, peak in zip(("activation_max", "weight"), peaks):
        if not bool(xp.all(xp.isfinite(peak))):
            raise ValueError(f"{name} must be finite, but holds NaN or Inf")
    if bool(xp.any(peaks[0] < 0)):
        raise ValueError(f"activation_max holds magnitudes, from 0 on, got {float(xp.min(peaks[0])):g}")
    moves = (peaks[0] > 0) & (peaks[1] > 0)
    ones = xp.ones_like(peaks[0])
    activations, weights = (xp.where(moves, peak, ones) for peak in peaks)
    info = xp.finfo(dtype)
    scales = xp.clip(activations**alpha / weights ** (1 - alpha), float(info.smallest_normal), float(info.max))
    return xp.astype(xp.where(moves, scales, ones), dtype)


def smooth_linear(linear: nn.Linear, scales: Array) -> nn.Module:
    """The same function as `linear`, computed with its input divided by `scales` and its weight multiplied by them.

    >>> import torch
    >>> linear = torch.nn.Linear(3, 2)
    >>> smoothed = smooth_linear(linear, torch.tensor([8.0, 2.0, 1.0]))
    >>> smoothed
    Sequential(
      (0): Divide(3)
      (1): Linear(in_features=3, out_features=2, bias=True)
    )
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(smoothed(x), linear(x), atol=1e-5)
    True

    `scales` (in_features,), positive; `linear` stays as it is. The bias does not change: only what is multiplied with
    the input does. TypeError for what is no nn.Linear, ValueError for other scales.
    """
    from labutils import outliers

    return outliers.smooth_linear(linear, scales)


def split_outliers(x: Array, threshold: float = 6.0) -> tuple[Array, Array]:
    """Two arrays that add up to `x`: its regular channels with zeros elsewhere, and its outlier channels likewise.

    >>> x = np.array([[0.5, -9.0, 1.0], [2.0, 3.0, -1.0]])  # (tokens, channels)
    >>> regular, outliers = split_outliers(x, threshold=6.0)
    >>> regular
    array([[ 0.5,  0. ,  1. ],
           [ 2. ,  0. , -1. ]])
    >>> outliers
    array([[ 0., -9.,  0.],
           [ 0.,  3.,  0.]])

    Channels lie along the last axis. One is an outlier if any magnitude in it is larger than `threshold`; then it goes
    as a whole, since a matrix product can leave out a column, but no single value. Dettmers et al., 2022, "LLM.int8()"
    (arXiv:2208.07339), section 3.2. TypeError or ValueError for NaN, Inf, no axis, a threshold that is not positive.
    """
    xp, x = affine.real_array(x)
    threshold = positive_number(threshold, "threshold")
    if x.ndim == 0:
        raise ValueError("x needs at least one axis, the channels, got shape ()")
    peaks = xp.max(xp.reshape(xp.abs(x), (-1, x.shape[-1])), axis=0)
    if not bool(xp.all(xp.isfinite(peaks))):
        raise ValueError(f"x must be finite, but holds NaN or Inf (shape {tuple(x.shape)})")
    outlier, zero = peaks > threshold, xp.zeros((), dtype=x.dtype, device=array_api_compat.device(x))
    return xp.where(outlier, zero, x), xp.where(outlier, x, zero)


def fold_division(before: nn.Module, scales: Array) -> nn.Module:
    """A copy of a norm or a linear layer whose outputs are those of `before`, divided by `scales`, at no cost.

    >>> import torch
    >>> norm, x, scales = torch.nn.LayerNorm(3), torch.randn(5, 3), torch.tensor([8.0, 2.0, 1.0])
    >>> torch.allclose(fold_division(norm, scales)(x), norm(x) / scales, atol=1e-6)
    True

    `before` is an nn.LayerNorm or nn.RMSNorm with a weight, or an nn.Linear; `scales` has one positive number for each
    of its outputs. Right only where nothing else reads these outputs. TypeError for other modules, ValueError for a
    norm without a weight and for other scales.
    """
    from labutils import outliers

    return outliers.fold_division(before, scales)
