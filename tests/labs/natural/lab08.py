"""Lab 08: outliers moved, folded, split."""

import copy

import torch
from torch import nn

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
