"""Lab 08: outliers moved, folded, split."""

import copy

import torch
from torch import nn

from labutils.models import outliers
from tests.labs.natural import mistake


@mistake("smooth_scales", "alpha on the wrong side")
def alpha_on_the_weights(activation_max, weight, alpha=0.5):
    s = activation_max ** (1 - alpha) / weight.abs().amax(0) ** alpha
    return torch.where(torch.isfinite(s) & (s > 0), s, torch.ones_like(s))


@mistake("smooth_scales", "rows|output|axis")
def maximum_of_rows(activation_max, weight, alpha=0.5):
    return activation_max**alpha / weight.abs().amax(1) ** (1 - alpha)


@mistake("smooth_scales", "floor|smallest|1e-5|epsilon")
def clamped_maxima(activation_max, weight, alpha=0.5):
    return activation_max.clamp(min=1e-5) ** alpha / weight.abs().amax(0).clamp(min=1e-5) ** (1 - alpha)


@mistake("smooth_scales", "guard|divi|NaN|0")
def no_guard(activation_max, weight, alpha=0.5):
    return activation_max**alpha / weight.abs().amax(0) ** (1 - alpha)


@mistake("smooth_scales", "signed|magnitude|max")
def signed_maximum(activation_max, weight, alpha=0.5):
    s = activation_max**alpha / weight.amax(0).abs() ** (1 - alpha)
    return torch.where(torch.isfinite(s) & (s > 0), s, torch.ones_like(s))


@mistake("smooth_scales", "product|multipl")
def multiplied(activation_max, weight, alpha=0.5):
    s = activation_max**alpha * weight.abs().amax(0) ** (1 - alpha)
    return torch.where(s > 0, s, torch.ones_like(s))


class Divide(nn.Module):
    def __init__(self, scales):
        super().__init__()
        self.register_buffer("scales", scales)

    def forward(self, x):
        return x / self.scales


def smoothed(linear, scales, weight, bias=True):
    made = copy.deepcopy(linear)
    made.weight = nn.Parameter(weight(linear.weight.detach(), scales))
    return nn.Sequential(Divide(scales), made)


@mistake("smooth_linear", "behind|output|after")
def division_behind_the_layer(linear, scales):
    made = copy.deepcopy(linear)
    made.weight = nn.Parameter(linear.weight.detach() * scales)
    return nn.Sequential(made, Divide(scales))


@mistake("smooth_linear", "rows")
def rows_of_the_weight(linear, scales):
    return smoothed(linear, scales, lambda w, s: w * s[:, None])


@mistake("smooth_linear", "divided, too|weight is divided")
def weight_divided(linear, scales):
    return smoothed(linear, scales, lambda w, s: w / s)


@mistake("smooth_linear", "changed")
def in_place(linear, scales):
    linear.weight.data *= scales
    return nn.Sequential(Divide(scales), linear)


@mistake("smooth_linear", "the input is not divided")
def forgets_the_division(linear, scales):
    made = copy.deepcopy(linear)
    made.weight = nn.Parameter(linear.weight.detach() * scales)
    return made


@mistake("fold_division", "bias")
def bias_forgotten(before, scales):
    made = copy.deepcopy(before)
    weight = made.weight.detach()
    made.weight = nn.Parameter(weight / (scales[:, None] if weight.ndim == 2 else scales))
    return made


@mistake("fold_division", "columns")
def columns_divided(before, scales):
    made = copy.deepcopy(before)
    made.weight = nn.Parameter(made.weight.detach() / scales)
    if made.bias is not None:
        made.bias = nn.Parameter(made.bias.detach() / scales)
    return made


@mistake("fold_division", "bias|RMSNorm|no bias")
def every_module_has_a_bias(before, scales):
    made = copy.deepcopy(before)
    weight = made.weight.detach()
    made.weight = nn.Parameter(weight / (scales[:, None] if weight.ndim == 2 else scales))
    made.bias = nn.Parameter(made.bias.detach() / scales)
    return made


@mistake("fold_division", "multiplied")
def multiplies(before, scales):
    made = copy.deepcopy(before)
    weight = made.weight.detach()
    made.weight = nn.Parameter(weight * (scales[:, None] if weight.ndim == 2 else scales))
    if getattr(made, "bias", None) is not None:
        made.bias = nn.Parameter(made.bias.detach() * scales)
    return made


@mistake("split_outliers", "single values")
def single_values(x, threshold=6.0):
    mask = x.abs() > threshold
    return x.masked_fill(mask, 0), x.masked_fill(~mask, 0)


@mistake("split_outliers", "position|sequence|every|axis")
def only_the_first_axis(x, threshold=6.0):
    mask = x.abs().amax(0) > threshold
    return x.masked_fill(mask, 0), x.masked_fill(~mask, 0)


@mistake("split_outliers", "exchanged")
def outliers_first(x, threshold=6.0):
    mask = x.abs().reshape(-1, x.shape[-1]).amax(0) > threshold
    return x.masked_fill(~mask, 0), x.masked_fill(mask, 0)


@mistake("split_outliers", "signed")
def signed(x, threshold=6.0):
    mask = x.reshape(-1, x.shape[-1]).amax(0) > threshold
    return x.masked_fill(mask, 0), x.masked_fill(~mask, 0)


@mistake("split_outliers", "mean")
def mean_of_the_channel(x, threshold=6.0):
    mask = x.abs().reshape(-1, x.shape[-1]).mean(0) > threshold
    return x.masked_fill(mask, 0), x.masked_fill(~mask, 0)


@mistake("split_outliers", "channels removed instead of set to zero")
def channels_dropped(x, threshold=6.0):
    mask = x.abs().reshape(-1, x.shape[-1]).amax(0) > threshold
    return x[..., ~mask], x[..., mask]


# Written without a look at the tables of misconceptions.


@mistake("smooth_scales")
def smooth_precedence(activation_max, weight, alpha=0.5):
    """Precedence: w ** 1 - alpha."""
    a, w = activation_max, weight.abs().amax(dim=0)
    return torch.where((a > 0) & (w > 0), a**alpha / (w**1 - alpha), torch.ones_like(w))


def _smooth(a, w, alpha):
    scales = a**alpha / w ** (1 - alpha)
    return torch.where((a > 0) & (w > 0), scales, torch.ones_like(scales))


@mistake("smooth_scales")
def smooth_normalized(activation_max, weight, alpha=0.5):
    """AWQ's normalization on top: divides by sqrt(max * min) of the scales."""
    s = _smooth(activation_max, weight.abs().amax(dim=0), alpha)
    return s / (s.max() * s.min()).sqrt()


@mistake("smooth_scales")
def smooth_at_least_one(activation_max, weight, alpha=0.5):
    """clamp(min=1): channels that are quiet are never made louder."""
    return _smooth(activation_max, weight.abs().amax(dim=0), alpha).clamp(min=1)


@mistake("smooth_scales")
def smooth_max_pair(activation_max, weight, alpha=0.5):
    """torch's max(dim=0) returns a pair, and the pair is used: an error in its own line."""
    return _smooth(activation_max, weight.abs().max(dim=0), alpha)


@mistake("smooth_scales", "the weights' maximum over the wrong axis")
def smooth_wrong_axis(activation_max, weight, alpha=0.5):
    """The maximum over the inputs: a number for each output."""
    return _smooth(activation_max, weight.abs().amax(dim=1), alpha)


def _smoothed(linear, scales, change=lambda layer, s: None, factor=lambda w, s: w * s, order=1, divide=None):
    layer = copy.deepcopy(linear)
    with torch.no_grad():
        layer.weight.copy_(factor(layer.weight, scales))
        change(layer, scales)
    return nn.Sequential(*[outliers.Divide(scales if divide is None else divide(scales)), layer][::order])


@mistake("smooth_linear", "the division stands behind the layer")
def smoothed_order(linear, scales):
    """Divides after the layer: an error, or a wrong output for a square weight."""
    return _smoothed(linear, scales, order=-1)


@mistake("smooth_linear")
def smoothed_no_grad_missing(linear, scales):
    """weight *= scales without no_grad: torch raises, a leaf that requires a gradient is changed in place."""
    layer = copy.deepcopy(linear)
    layer.weight *= scales
    return nn.Sequential(outliers.Divide(scales), layer)


@mistake("smooth_linear")
def smoothed_bias_too(linear, scales):
    """Multiplies the bias as well: an error where there are more outputs than inputs, or wrong."""

    def change(layer, s):
        if layer.bias is not None:
            layer.bias.mul_(s[: len(layer.bias)] if len(s) >= len(layer.bias) else s.mean())

    return _smoothed(linear, scales, change)


@mistake("smooth_linear")
def smoothed_tensor_assigned(linear, scales):
    """Assigns a tensor to layer.weight: torch raises, it wants a Parameter."""
    layer = copy.deepcopy(linear)
    layer.weight = layer.weight * scales
    return nn.Sequential(outliers.Divide(scales), layer)


@mistake("smooth_linear", "the float layer is changed")
def smoothed_in_place(linear, scales):
    """No copy: the float layer's weight is multiplied."""
    with torch.no_grad():
        linear.weight.mul_(scales)
    return nn.Sequential(outliers.Divide(scales), linear)


@mistake("split_outliers", "a channel at the threshold counts as an outlier")
def split_at_threshold(x, threshold=6.0):
    """>= where > is due."""
    loud = x.abs().reshape(-1, x.shape[-1]).amax(dim=0) >= threshold
    return x * ~loud, x * loud


@mistake("split_outliers", "all values of the channel must be large")
def split_any_all(x, threshold=6.0):
    """all() where any() is due: only channels that are loud throughout."""
    loud = (x.abs() > threshold).reshape(-1, x.shape[-1]).all(dim=0)
    return x * ~loud, x * loud


@mistake("split_outliers", "the threshold is multiplied")
def split_relative_threshold(x, threshold=6.0):
    """Takes the threshold for tenths of the largest magnitude."""
    loud = x.abs().reshape(-1, x.shape[-1]).amax(dim=0) > threshold / 10 * x.abs().max()
    return x * ~loud, x * loud


@mistake("split_outliers", "single values instead of channels")
def split_by_value(x, threshold=6.0):
    """Splits single values, not channels."""
    loud = x.abs() > threshold
    return x.masked_fill(loud, 0), x.masked_fill(~loud, 0)


@mistake("split_outliers", "every position for itself")
def split_first_axis_only(x, threshold=6.0):
    """amax over dim 0 only: with a batch, a channel is loud for some tokens and not for others."""
    loud = x.abs().amax(dim=0) > threshold
    return x * ~loud, x * loud


@mistake("fold_division")
def fold_forward_hook(before, scales):
    """A forward hook divides the outputs: an operation is added, the weights are not touched."""
    module = copy.deepcopy(before)
    module.register_forward_hook(lambda module, args, output: output / scales)
    return module


@mistake("fold_division")
def fold_bias_always(before, scales):
    """before.bias without asking: an error for RMSNorm, or where there is none."""
    module = copy.deepcopy(before)
    with torch.no_grad():
        module.weight.div_(scales if module.weight.ndim == 1 else scales[:, None])
        module.bias.div_(scales)
    return module


def _folded(before, scales, weight=lambda w, s: w / (s if w.ndim == 1 else s[:, None]), bias=lambda b, s: b / s):
    module = copy.deepcopy(before)
    with torch.no_grad():
        module.weight.copy_(weight(module.weight, scales))
        if getattr(module, "bias", None) is not None:
            module.bias.copy_(bias(module.bias, scales))
    return module


@mistake("fold_division")
def fold_column_always(before, scales):
    """scales[:, None] for norms, too: an error in copy_, or a matrix."""
    return _folded(before, scales, lambda w, s: w / s[:, None])


@mistake("fold_division")
def fold_no_grad_missing(before, scales):
    """div_ of a parameter without no_grad: torch raises."""
    module = copy.deepcopy(before)
    module.weight.div_(scales if module.weight.ndim == 1 else scales[:, None])
    if getattr(module, "bias", None) is not None:
        module.bias.div_(scales)
    return module


@mistake("fold_division", "the bias is not divided")
def fold_bias_forgotten(before, scales):
    """The bias is not divided."""
    return _folded(before, scales, bias=lambda b, s: b)
