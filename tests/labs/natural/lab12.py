"""Lab 12: perplexity, a cache in few bits, rotations."""

import copy
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tests.labs.natural import mistake


@mistake("perplexity", "not shifted")
def same_position(windows):
    losses = [F.cross_entropy(logits, tokens, reduction="none") for logits, tokens in windows]
    return torch.cat(losses).mean().exp()


@mistake("perplexity", "mean of means|windows' perplexities")
def mean_loss_of_each_window(windows):
    losses = []
    for logits, tokens in windows:
        if len(tokens) > 1:
            losses.append(F.cross_entropy(logits[:-1], tokens[1:]).item())
    return math.exp(sum(losses) / len(losses))


@mistake("perplexity", "mean of means|NaN")
def mean_with_an_empty_window(windows):
    losses = torch.stack([F.cross_entropy(logits[:-1], tokens[1:]) for logits, tokens in windows])
    return losses.mean().exp().item()


@mistake("perplexity", "windows' perplexities|mean of means")
def mean_of_exps(windows):
    each = [F.cross_entropy(l[:-1], t[1:]).exp().item() for l, t in windows if len(t) > 1]  # noqa: E741
    return sum(each) / len(each)


@mistake("perplexity", "every token is counted")
def divides_by_all_tokens(windows):
    total = sum(F.cross_entropy(logits[:-1], tokens[1:], reduction="sum") for logits, tokens in windows)
    return torch.exp(total / sum(len(tokens) for _, tokens in windows)).item()


@mistake("perplexity", "base 2")
def two_to_the_nats(windows):
    losses = [F.cross_entropy(logits[:-1], tokens[1:], reduction="none") for logits, tokens in windows]
    return 2 ** torch.cat(losses).mean().item()


@mistake("perplexity", "mean loss itself")
def forgets_exp(windows):
    return torch.cat([F.cross_entropy(a[:-1], b[1:], reduction="none") for a, b in windows]).mean()


@mistake("perplexity", "overflow|NaN|inf")
def softmax_by_hand(windows):
    logs = []
    for logits, tokens in windows:
        e = torch.exp(logits)
        p = e / e.sum(dim=-1, keepdim=True)
        logs.append(torch.log(p[:-1][torch.arange(len(tokens) - 1), tokens[1:]]))
    return torch.exp(-torch.cat(logs).mean())


@mistake("perplexity", "softmax twice")
def probabilities_into_cross_entropy(windows):
    losses = [F.cross_entropy(logits[:-1].softmax(-1), tokens[1:], reduction="none") for logits, tokens in windows]
    return torch.cat(losses).mean().exp()


@mistake("perplexity", "upside down")
def forgets_the_minus(windows):
    logs = [logits.log_softmax(-1)[:-1].gather(1, tokens[1:, None]) for logits, tokens in windows]
    return torch.cat(logs).mean().exp()


@mistake("perplexity", "window")
def returns_in_the_loop(windows):
    for logits, tokens in windows:
        return F.cross_entropy(logits[:-1], tokens[1:]).exp()


@mistake("perplexity", "probability that became 0")
def log_after_softmax(windows):
    losses = [-logits[:-1].softmax(-1).gather(1, tokens[1:, None]).log() for logits, tokens in windows]
    return torch.cat(losses).mean().exp().item()


@mistake("perplexity", "epsilon")
def log_of_softmax_plus_epsilon(windows):
    losses = [-(logits[:-1].softmax(-1).gather(1, tokens[1:, None]) + 1e-9).log() for logits, tokens in windows]
    return torch.cat(losses).mean().exp().item()


@mistake("perplexity", "shifted twice")
def labels_after_the_next(windows):
    losses = [F.cross_entropy(logits[:-2], tokens[2:], reduction="none") for logits, tokens in windows]
    return torch.cat(losses).mean().exp()


@mistake("perplexity", "first row")
def first_of_both_left_out(windows):
    losses = [F.cross_entropy(logits[1:], tokens[1:], reduction="none") for logits, tokens in windows]
    return torch.cat(losses).mean().exp()


@mistake("perplexity", "wrong axis")
def softmax_along_the_text(windows):
    total = count = 0
    for logits, tokens in windows:
        logs = logits[:-1].log_softmax(0)
        total -= logs[torch.arange(len(tokens) - 1), tokens[1:]].sum().item()
        count += len(tokens) - 1
    return math.exp(total / count)


def grid(x, dim, num_bits, zero=True):
    low, high = x.amin(dim=dim, keepdim=True), x.amax(dim=dim, keepdim=True)
    if zero:
        low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**num_bits - 1)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zp = torch.round(-low / scale)
    q = torch.clamp(torch.round(x / scale) + zp, 0, 2**num_bits - 1)
    return (q - zp) * scale


@mistake("quantize_kv", "keys per token")
def both_along_the_last_axis(keys, values, num_bits=4):
    return grid(keys, -1, num_bits), grid(values, -1, num_bits)


@mistake("quantize_kv", "values per channel")
def both_along_the_tokens(keys, values, num_bits=4):
    return grid(keys, 1, num_bits), grid(values, 1, num_bits)


@mistake("quantize_kv", "keys per token and values per channel|other way")
def axes_exchanged(keys, values, num_bits=4):
    return grid(keys, 2, num_bits), grid(values, 1, num_bits)


@mistake("quantize_kv", "hold 0|without 0")
def range_as_it_is(keys, values, num_bits=4):
    return grid(keys, 1, num_bits, zero=False), grid(values, 2, num_bits, zero=False)


@mistake("quantize_kv", "symmetric")
def symmetric_scales(keys, values, num_bits=4):
    def q(x, dim):
        top = 2 ** (num_bits - 1) - 1
        s = x.abs().amax(dim=dim, keepdim=True) / top
        s[s == 0] = 1
        return torch.clamp(torch.round(x / s), -top - 1, top) * s

    return q(keys, 1), q(values, 2)


@mistake("quantize_kv", "offset")
def minimum_subtracted(keys, values, num_bits=4):
    def q(x, dim):
        low = x.amin(dim=dim, keepdim=True)
        s = (x.amax(dim=dim, keepdim=True) - low) / (2**num_bits - 1)
        s[s == 0] = 1
        return torch.round((x - low) / s) * s + low

    return q(keys, 1), q(values, 2)


@mistake("quantize_kv", "guard|zeros")
def divides_by_a_range_of_zero(keys, values, num_bits=4):
    def q(x, dim):
        low, high = x.amin(dim, True).clamp(max=0), x.amax(dim, True).clamp(min=0)
        s = (high - low) / (2**num_bits - 1)
        z = torch.round(-low / s)
        return (torch.clamp(torch.round(x / s) + z, 0, 2**num_bits - 1) - z) * s

    return q(keys, 1), q(values, 2)


@mistake("quantize_kv", "heads")
def heads_together(keys, values, num_bits=4):
    def q(x, dims):
        low, high = x.amin(dims, True).clamp(max=0), x.amax(dims, True).clamp(min=0)
        s = (high - low) / (2**num_bits - 1)
        s[s == 0] = 1
        z = torch.round(-low / s)
        return (torch.clamp(torch.round(x / s) + z, 0, 2**num_bits - 1) - z) * s

    return q(keys, (0, 1)), q(values, (0, 2))


@mistake("quantize_kv", "codes")
def returns_codes(keys, values, num_bits=4):
    def q(x, dim):
        low, high = x.amin(dim, True).clamp(max=0), x.amax(dim, True).clamp(min=0)
        s = (high - low) / (2**num_bits - 1)
        s[s == 0] = 1
        return torch.clamp(torch.round(x / s) + torch.round(-low / s), 0, 2**num_bits - 1).to(torch.uint8)

    return q(keys, 1), q(values, 2)


@mistake("quantize_kv")
def uint8_wraps(keys, values, num_bits=4):
    def q(x, dim):
        low, high = x.amin(dim, True).clamp(max=0), x.amax(dim, True).clamp(min=0)
        s = (high - low) / (2**num_bits - 1)
        s[s == 0] = 1
        z = torch.round(-low / s).to(torch.uint8)
        codes = torch.clamp(torch.round(x / s) + z, 0, 2**num_bits - 1).to(torch.uint8)
        return (codes - z) * s

    return q(keys, 1), q(values, 2)


@mistake("quantize_kv", "nothing is rounded")
def as_they_came(keys, values, num_bits=4):
    return keys, values


@mistake("quantize_kv", "groups of 32")
def keys_group_by_group(keys, values, num_bits=4):
    return torch.cat([grid(part, 1, num_bits) for part in keys.split(32, dim=1)], dim=1), grid(values, 2, num_bits)


@mistake("quantize_kv", "no whole number")
def zero_point_not_rounded(keys, values, num_bits=4):
    def back(x, dim):
        low, high = x.amin(dim, keepdim=True).clamp(max=0), x.amax(dim, keepdim=True).clamp(min=0)
        scale = (high - low) / (2**num_bits - 1)
        scale[scale == 0] = 1
        zero = -low / scale
        return ((torch.round(x / scale) + zero).clamp(0, 2**num_bits - 1) - zero) * scale

    return back(keys, 1), back(values, 2)


@mistake("hadamard", "not normalised")
def plus_and_minus_one(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h


@mistake("hadamard", "divided by n")
def divides_by_n(n):
    return plus_and_minus_one(n) / n


@mistake("hadamard", "once")
def divides_by_root_two(n):
    return plus_and_minus_one(n) / math.sqrt(2)


@mistake("hadamard", "too many|twice")
def doubles_once_too_often(n):
    h = torch.ones(1, 1)
    while len(h) <= n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h / n**0.5


@mistake("hadamard", "minus|parallel|sign")
def minus_below(n):
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([-h, -h], 1)])
    return h / n**0.5


@mistake("hadamard")
def integers(n):
    h = np.ones((1, 1), dtype=int)
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h // int(np.sqrt(n))


@mistake("hadamard")
def a_list_of_rows(n):
    return (plus_and_minus_one(n) / np.sqrt(n)).tolist()


def turned(linear, turn, weight):
    layer = copy.deepcopy(linear)
    layer.weight = nn.Parameter(weight)
    first = nn.Linear(linear.in_features, linear.in_features, bias=False)
    first.weight = nn.Parameter(turn)
    return nn.Sequential(first, layer)


@mistake("rotate_linear", "inputs turned backwards")
def rotation_as_the_weight(linear, rotation):
    return turned(linear, rotation.clone(), linear.weight.detach() @ rotation)


@mistake("rotate_linear", "both turned backwards")
def everything_transposed(linear, rotation):
    return turned(linear, rotation.clone(), linear.weight.detach() @ rotation.T)


@mistake("rotate_linear", "weight turned backwards")
def inverse_on_the_weight(linear, rotation):
    return turned(linear, rotation.T.clone(), linear.weight.detach() @ rotation.T)


@mistake("rotate_linear", "one side")
def only_the_weight(linear, rotation):
    layer = copy.deepcopy(linear)
    layer.weight = nn.Parameter(linear.weight.detach() @ rotation)
    return nn.Sequential(layer)


@mistake("rotate_linear", "one side")
def only_the_inputs(linear, rotation):
    return turned(linear, rotation.T.clone(), linear.weight.detach().clone())


@mistake("rotate_linear", "left")
def from_the_left(linear, rotation):
    return turned(linear, rotation.T.clone(), rotation @ linear.weight.detach())


@mistake("rotate_linear", "bias is lost")
def without_bias(linear, rotation):
    first = nn.Linear(linear.in_features, linear.in_features, bias=False)
    layer = nn.Linear(linear.in_features, linear.out_features, bias=False)
    first.weight, layer.weight = nn.Parameter(rotation.T.clone()), nn.Parameter(linear.weight.detach() @ rotation)
    return nn.Sequential(first, layer)


@mistake("rotate_linear", "random")
def bias_not_copied(linear, rotation):
    first = nn.Linear(linear.in_features, linear.in_features, bias=False)
    layer = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    first.weight, layer.weight = nn.Parameter(rotation.T.clone()), nn.Parameter(linear.weight.detach() @ rotation)
    return nn.Sequential(first, layer)


@mistake("rotate_linear", "float layer|changed")
def in_place(linear, rotation):
    first = nn.Linear(linear.in_features, linear.in_features, bias=False)
    first.weight.data = rotation.T.clone()
    linear.weight.data = linear.weight.data @ rotation
    return nn.Sequential(first, linear)


@mistake("rotate_linear", "rotates has a bias")
def a_biased_rotation(linear, rotation):
    first = nn.Linear(linear.in_features, linear.in_features)
    first.weight.data = rotation.T.clone()
    layer = copy.deepcopy(linear)
    layer.weight.data = linear.weight.data @ rotation
    return nn.Sequential(first, layer)


@mistake("rotate_linear")
def a_module_that_cannot_be_indexed(linear, rotation):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = copy.deepcopy(linear)
            self.linear.weight.data = linear.weight.data @ rotation

        def forward(self, x):
            return self.linear(x @ rotation)

    return Turned()


@mistake("kv_cache_bytes", "keys or values")
def keys_only(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    old = 0 if num_bits == 16 else tokens // group_size * group_size
    bits = old * channels * num_bits + (old // group_size * channels + old) * (16 + num_bits) / 2
    return layers * heads * (bits + (tokens - old) * channels * 16) / 8


@mistake("kv_cache_bytes", "scales and zero points left out")
def plain_formula(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    old = 0 if num_bits == 16 else tokens // group_size * group_size
    return 2 * layers * heads * channels * (old * num_bits + (tokens - old) * 16) / 8


@mistake("kv_cache_bytes", "zero points left out")
def no_zero_points(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    old = 0 if num_bits == 16 else tokens // group_size * group_size
    scales = (old // group_size * channels + old) * 16
    return layers * heads * (2 * channels * (old * num_bits + (tokens - old) * 16) + scales) // 8


@mistake("kv_cache_bytes", "not full|full")
def rounds_groups_up(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    if num_bits == 16:
        return 4 * layers * heads * channels * tokens
    groups = math.ceil(tokens / group_size)
    scales = (groups * channels + tokens) * (16 + num_bits)
    return layers * heads * (2 * channels * tokens * num_bits + scales) // 8


@mistake("kv_cache_bytes", "nothing else")
def nothing_is_a_group(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    return 2 * layers * heads * channels * tokens * num_bits // 8


@mistake("kv_cache_bytes", "scales of one head")
def heads_share_their_scales(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    if num_bits == 16:
        return 4 * layers * heads * channels * tokens
    groups, waiting = divmod(tokens, group_size)
    scales = groups * (channels + group_size) * (16 + num_bits)
    numbers = groups * group_size * num_bits + waiting * 16
    return layers * (2 * heads * channels * numbers + scales) // 8


@mistake("kv_cache_bytes", "values per group")
def a_scale_for_each_group_of_values(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    if num_bits == 16:
        return 4 * layers * heads * channels * tokens
    groups, waiting = divmod(tokens, group_size)
    scales = groups * (channels + 1) * (16 + num_bits)
    return layers * heads * (2 * channels * (groups * group_size * num_bits + waiting * 16) + scales) // 8


@mistake("kv_cache_bytes", "keys once")
def a_scale_for_each_channel_of_the_text(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    if num_bits == 16:
        return 4 * layers * heads * channels * tokens
    old = tokens // group_size * group_size
    scales = ((channels if old else 0) + old) * (16 + num_bits)
    return layers * heads * (2 * channels * (old * num_bits + (tokens - old) * 16) + scales) // 8


@mistake("kv_cache_bytes", "still in float16")
def every_token_has_a_scale(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    if num_bits == 16:
        return 4 * layers * heads * channels * tokens
    groups, waiting = divmod(tokens, group_size)
    scales = (groups * channels + tokens) * (16 + num_bits)
    return layers * heads * (2 * channels * (groups * group_size * num_bits + waiting * 16) + scales) // 8


@mistake("kv_cache_bytes", "counted as full")
def the_last_group_is_full(tokens, num_bits=16, layers=30, heads=3, channels=64, group_size=32):
    if num_bits == 16:
        return 4 * layers * heads * channels * tokens
    groups = math.ceil(tokens / group_size)
    bits = 2 * groups * group_size * channels * num_bits + groups * (channels + group_size) * (16 + num_bits)
    return layers * heads * bits // 8


@mistake("window_split", "wrong end")
def newest_are_quantized(x, window=32, group_size=32):
    n = max(0, x.shape[1] - window) // group_size * group_size
    return x[:, -n:] if n else x[:, :0], x[:, : x.shape[1] - n]


@mistake("window_split", "minus the window|group|slice")
def negative_slices(x, window=32, group_size=32):
    return x[:, :-window], x[:, -window:]


@mistake("window_split", "not full|groups")
def no_groups(x, window=32, group_size=32):
    n = max(0, x.shape[1] - window)
    return x[:, :n], x[:, n:]


@mistake("window_split", "window is not kept")
def no_window(x, window=32, group_size=32):
    n = x.shape[1] // group_size * group_size
    return x[:, :n], x[:, n:]


@mistake("window_split", "backwards|larger than the text")
def negative_counts(x, window=32, group_size=32):
    n = (x.shape[1] - window) // group_size * group_size
    return x[:, :n], x[:, n:]


@mistake("window_split", "channels|heads")
def length_of_x(x, window=32, group_size=32):
    n = max(0, len(x) - window) // group_size * group_size
    return x[:n], x[n:]
