"""Right answers to lab 08, written as people write them."""

import copy

import numpy as np

# --- smooth_scales ---


def torch_where(activation_max, weight, alpha=0.5):
    import torch

    weight_max = weight.abs().amax(0)
    scales = activation_max**alpha / weight_max ** (1 - alpha)
    return torch.where((activation_max > 0) & (weight_max > 0), scales, torch.ones_like(scales))


def masked_fill(activation_max, weight, alpha=0.5):
    weight_max = weight.abs().max(dim=0).values
    scales = activation_max.pow(alpha).div(weight_max.pow(1 - alpha))
    return scales.masked_fill((activation_max == 0) | (weight_max == 0), 1)


def by_logarithms(activation_max, weight, alpha=0.5):
    logs = alpha * activation_max.log() - (1 - alpha) * weight.abs().amax(0).log()
    scales = logs.exp()
    scales[~scales.isfinite() | (scales == 0)] = 1
    return scales


def channel_by_channel(activation_max, weight, alpha=0.5):
    import torch

    scales = []
    for a, column in zip(activation_max.tolist(), weight.T):
        w = max(abs(v) for v in column.tolist())
        scales.append(a**alpha * w ** (alpha - 1) if a and w else 1.0)
    return torch.tensor(scales)


def scales_in_numpy(activation_max, weight, alpha=0.5):
    a, w = activation_max.numpy().astype(float), np.abs(weight.numpy()).max(axis=0).astype(float)
    with np.errstate(all="ignore"):
        scales = a**alpha / w ** (1 - alpha)
    return np.where((a == 0) | (w == 0), 1.0, scales)


def nan_to_one(activation_max, weight, alpha=0.5):
    import torch

    weight_max = torch.linalg.vector_norm(weight, ord=float("inf"), dim=0)
    ratio = (activation_max / weight_max) ** alpha * weight_max ** (2 * alpha - 1)
    return torch.nan_to_num(ratio, nan=1.0, posinf=1.0).masked_fill((activation_max == 0) | (weight_max == 0), 1.0)


# --- smooth_linear ---


def copied_and_multiplied(linear, scales):
    import torch

    from labutils.models.outliers import Divide

    new = copy.deepcopy(linear)
    new.weight.data *= scales
    return torch.nn.Sequential(Divide(scales), new)


def a_new_layer(linear, scales):
    import torch

    from labutils.models.outliers import Divide

    new = torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    with torch.no_grad():
        new.weight.copy_(linear.weight * scales)
        if linear.bias is not None:
            new.bias.copy_(linear.bias)
    return torch.nn.Sequential(Divide(scales), new)


def own_module(linear, scales):
    import torch

    class Smoothed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = copy.deepcopy(linear)
            self.inner.weight = torch.nn.Parameter(linear.weight.detach() @ torch.diag(scales))
            self.register_buffer("scales", scales)

        def forward(self, x):
            return self.inner(x / self.scales)

    return Smoothed()


def reciprocal_beforehand(linear, scales):
    import torch

    class Times(torch.nn.Module):
        def forward(self, x):
            return x * (1 / scales)

    new = copy.deepcopy(linear)
    new.weight = torch.nn.Parameter(torch.einsum("ij,j->ij", linear.weight, scales).detach())
    return torch.nn.Sequential(Times(), new)


def by_state_dict(linear, scales):
    import torch

    from labutils.models.outliers import Divide

    new = torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    new.load_state_dict(linear.state_dict() | {"weight": linear.weight.detach() * scales.unsqueeze(0)})
    return torch.nn.Sequential(Divide(scales), new).eval()


# --- split_outliers ---


def filled_by_mask(x, threshold=6.0):
    loud = x.abs().reshape(-1, x.shape[-1]).amax(0) > threshold
    return x.masked_fill(loud, 0), x.masked_fill(~loud, 0)


def times_mask(x, threshold=6.0):
    loud = (x.abs() > threshold).flatten(0, -2).any(0) if x.ndim > 1 else x.abs() > threshold
    return x * ~loud, x * loud


def torch_where_and_difference(x, threshold=6.0):
    import torch

    axes = tuple(range(x.ndim - 1))
    peaks = x.abs().amax(dim=axes) if axes else x.abs()
    outliers = torch.where(peaks > threshold, x, torch.zeros(()))
    return x - outliers, outliers


def index_by_index(x, threshold=6.0):
    regular, outliers = x.clone(), x.clone()
    for channel in range(x.shape[-1]):
        loud = float(x[..., channel].abs().max()) > threshold
        (regular if loud else outliers)[..., channel] = 0
    return regular, outliers


def split_in_numpy(x, threshold=6.0):
    x = x.numpy()
    loud = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0) > threshold
    return [np.where(loud, 0, x).astype("f4"), np.where(loud, x, 0).astype("f4")]


def copied_into_zeros(x, threshold=6.0):
    import torch

    loud = torch.nonzero(x.abs().reshape(-1, x.shape[-1]).max(0).values > threshold).flatten()
    outliers = torch.zeros_like(x)
    outliers[..., loud] = x[..., loud]
    regular = x.clone()
    regular[..., loud] = 0
    return regular, outliers


# --- fold_division ---


def copied_and_divided(before, scales):
    new = copy.deepcopy(before)
    new.weight.data = (new.weight.data.T / scales).T if new.weight.ndim == 2 else new.weight.data / scales
    if getattr(new, "bias", None) is not None:
        new.bias.data = new.bias.data / scales
    return new


def every_parameter_alike(before, scales):
    new = copy.deepcopy(before)
    for parameter in new.parameters():
        parameter.data.div_(scales.reshape(-1, *[1] * (parameter.ndim - 1)))
    return new


def from_a_state_dict(before, scales):
    new = copy.deepcopy(before)
    divided = {name: (value.t() / scales).t() if value.ndim == 2 else value / scales
               for name, value in before.state_dict().items()}  # fmt: skip
    new.load_state_dict(divided)
    return new


def by_a_diagonal(before, scales):
    import torch

    new, diagonal = copy.deepcopy(before), torch.diag(1 / scales)
    for name, value in before.named_parameters():
        setattr(new, name, torch.nn.Parameter(diagonal @ value.detach()))
    return new


def by_kind(before, scales):
    import torch

    has_bias = getattr(before, "bias", None) is not None
    if isinstance(before, torch.nn.Linear):
        new = torch.nn.Linear(before.in_features, before.out_features, bias=has_bias)
    elif isinstance(before, torch.nn.RMSNorm):
        new = torch.nn.RMSNorm(before.normalized_shape, eps=before.eps)
    else:
        new = torch.nn.LayerNorm(before.normalized_shape, eps=before.eps, bias=has_bias)
    with torch.no_grad():
        new.weight.copy_(before.weight / (scales[:, None] if isinstance(before, torch.nn.Linear) else scales))
        if has_bias:
            new.bias.copy_(before.bias / scales)
    return new


RIGHT = {
    "smooth_scales": [
        torch_where, masked_fill, by_logarithms, channel_by_channel, scales_in_numpy, nan_to_one,
    ],
    "smooth_linear": [
        copied_and_multiplied, a_new_layer, own_module, reciprocal_beforehand, by_state_dict,
    ],
    "split_outliers": [
        filled_by_mask, times_mask, torch_where_and_difference, index_by_index, split_in_numpy, copied_into_zeros,
    ],
    "fold_division": [
        copied_and_divided, every_parameter_alike, from_a_state_dict, by_a_diagonal, by_kind,
    ],
}  # fmt: skip
