"""Lab 10: training with fake quantization."""

import math

import torch

from tests.labs.natural import mistake


def limits(num_bits):
    return -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1


def straight(x, y):
    return x + (y - x).detach()


@mistake("fake_quantize_ste", "gradient outside the clip")
def gradient_everywhere(x, scale, num_bits=8):
    low, high = limits(num_bits)
    return straight(x, (x / scale).round().clamp(low, high) * scale)


@mistake("fake_quantize_ste", "gradient|differentiated|zero")
def no_estimator(x, scale, num_bits=8):
    low, high = limits(num_bits)
    return (x / scale).round().clamp(low, high) * scale


@mistake("fake_quantize_ste", "own scale|computed|scale of its own|from x|given")
def scale_from_x(x, scale, num_bits=8):
    low, high = limits(num_bits)
    scale = x.detach().abs().max() / high
    v = (x / scale).clamp(low, high)
    return straight(v, v.round()) * scale


@mistake("fake_quantize_ste", "codes")
def codes_returned(x, scale, num_bits=8):
    low, high = limits(num_bits)
    v = (x / scale).clamp(low, high)
    return straight(v, v.round())


@mistake("fake_quantize_ste", "2\\^\\(b-1\\)|too many|highest|128")
def one_code_too_many(x, scale, num_bits=8):
    v = (x / scale).clamp(-(2 ** (num_bits - 1)), 2 ** (num_bits - 1))
    return straight(v, v.round()) * scale


@mistake("fake_quantize_ste", "lowest")
def symmetric_codes(x, scale, num_bits=8):
    high = 2 ** (num_bits - 1) - 1
    v = (x / scale).clamp(-high, high)
    return straight(v, v.round()) * scale


@mistake("convert_weight", "scale")
def scale_recomputed(w, scale, num_bits=8):
    low, high = limits(num_bits)
    scale = w.abs().max() / high
    return (w / scale).round().clamp(low, high).to(torch.int8 if num_bits <= 8 else torch.int16)


@mistake("convert_weight", "reciprocal|1 / scale|inverse|tie")
def reciprocal_of_the_scale(w, scale, num_bits=8):
    low, high = limits(num_bits)
    return (w * (1 / scale)).round().clamp(low, high).to(torch.int8 if num_bits <= 8 else torch.int16)


@mistake("convert_weight", "wrap|clamp")
def no_clamp(w, scale, num_bits=8):
    return (w / scale).round().to(torch.int32).to(torch.int8 if num_bits <= 8 else torch.int16)


@mistake("convert_weight", "int8|16 bits|wider")
def int8_always(w, scale, num_bits=8):
    low, high = limits(num_bits)
    return (w / scale).round().clamp(low, high).to(torch.int32).to(torch.int8)


@mistake("convert_weight", "trunc|cast|round")
def cast_for_round(w, scale, num_bits=8):
    low, high = limits(num_bits)
    return (w / scale).clamp(low, high).to(torch.int8 if num_bits <= 8 else torch.int16)


@mistake("lsq_gradient", "mean")
def mean_for_sum(x, scale, grad, num_bits=8):
    return lsq(x, scale, grad, num_bits, total=torch.mean)


def lsq(x, scale, grad, num_bits, total=torch.sum, factor=None):
    low, high = limits(num_bits)
    v = x / scale
    each = torch.where(
        v <= low, torch.tensor(float(low)), torch.where(v >= high, torch.tensor(float(high)), v.round() - v)
    )
    return total(grad * each) * (1 / math.sqrt(x.numel() * high) if factor is None else factor(x, high))


@mistake("lsq_gradient", "root")
def root_of_n_times_q(x, scale, grad, num_bits=8):
    return lsq(x, scale, grad, num_bits, factor=lambda x, high: 1 / (math.sqrt(x.numel()) * high))


@mistake("lsq_gradient", "number of rows")
def length_of_x(x, scale, grad, num_bits=8):
    return lsq(x, scale, grad, num_bits, factor=lambda x, high: 1 / math.sqrt(len(x) * high))


@mistake("lsq_gradient", "missing")
def no_factor(x, scale, grad, num_bits=8):
    return lsq(x, scale, grad, num_bits, factor=lambda x, high: 1)


@mistake("lsq_gradient", "2\\^b|levels|quant_max")
def q_of_the_whole_grid(x, scale, grad, num_bits=8):
    return lsq(x, scale, grad, num_bits, factor=lambda x, high: 1 / math.sqrt(x.numel() * 2**num_bits))


def step(w, x, target, scale, num_bits, rate, loss=lambda e: (e**2).mean(), at=None):
    low, high = limits(num_bits)
    shadow = w.detach().clone().requires_grad_()
    v = (shadow / scale).clamp(low, high)
    w_hat = straight(v, v.round()) * scale if at is None else at(shadow)
    loss(x @ w_hat.T - target).backward()
    return shadow, shadow.grad


@mistake("qat_step", "attached|graph|detach|autograd")
def still_attached(w, x, target, scale, num_bits, learning_rate):
    shadow, grad = step(w, x, target, scale, num_bits, learning_rate)
    return shadow - learning_rate * grad


@mistake("qat_step")
def forgets_to_transpose(w, x, target, scale, num_bits, learning_rate):
    low, high = limits(num_bits)
    shadow = w.detach().clone().requires_grad_()
    v = (shadow / scale).clamp(low, high)
    error = x @ (straight(v, v.round()) * scale) - target
    (error**2).mean().backward()
    return (shadow - learning_rate * shadow.grad).detach()


@mistake("qat_step", "sum")
def sum_for_mean(w, x, target, scale, num_bits, learning_rate):
    shadow, grad = step(w, x, target, scale, num_bits, learning_rate, lambda e: (e**2).sum())
    return (shadow - learning_rate * grad).detach()


@mistake("qat_step", "absolute|square")
def absolute_loss(w, x, target, scale, num_bits, learning_rate):
    shadow, grad = step(w, x, target, scale, num_bits, learning_rate, lambda e: e.abs().mean())
    return (shadow - learning_rate * grad).detach()


@mistake("qat_step", "uphill")
def adds_the_gradient(w, x, target, scale, num_bits, learning_rate):
    shadow, grad = step(w, x, target, scale, num_bits, learning_rate)
    return (shadow + learning_rate * grad).detach()


@mistake("qat_step", "float weights")
def loss_of_the_float_weights(w, x, target, scale, num_bits, learning_rate):
    shadow, grad = step(w, x, target, scale, num_bits, learning_rate, at=lambda w: w)
    return (shadow - learning_rate * grad).detach()
