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


# Written without a look at the tables of misconceptions.


def _ends(num_bits):
    return -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1


@mistake("fake_quantize_ste", "x is clamped to the codes, and then divided")
def ste_clamp_before_dividing(x, scale, num_bits=8):
    """Clamps x itself to the codes' range before dividing by the scale."""
    v = torch.clamp(x, *_ends(num_bits)) / scale
    return (v + (v.round() - v).detach()) * scale


@mistake("fake_quantize_ste")
def ste_unsigned_codes(x, scale, num_bits=8):
    """Clamps to 0 ... 2**b - 1, unsigned codes."""
    v = torch.clamp(x / scale, 0, 2**num_bits - 1)
    return (v + (v.round() - v).detach()) * scale


@mistake("fake_quantize_ste")
def ste_float64(x, scale, num_bits=8):
    """Computes in double and leaves it so."""
    v = torch.clamp(x.double() / scale, *_ends(num_bits))
    return (v + (v.round() - v).detach()) * scale


@mistake("fake_quantize_ste")
def ste_mask_strict_outer(x, scale, num_bits=8):
    """The mask lets only |x| < scale * 2**(b-2) through: half of the grid."""
    v = x / scale
    y = v.round().clamp(*_ends(num_bits)) * scale
    inside = (v.abs() < 2 ** (num_bits - 2)).to(x.dtype).detach()
    return y.detach() + (x - x.detach()) * inside


@mistake("fake_quantize_ste", "gradient outside the clip")
def ste_everywhere(x, scale, num_bits=8):
    """x + (y - x).detach(): the gradient passes beyond the grid, too."""
    y = torch.clamp(torch.round(x / scale), *_ends(num_bits)) * scale
    return x + (y - x).detach()


def _fake(w, scale, num_bits):
    v = torch.clamp(w / scale, *_ends(num_bits))
    return (v + (v.round() - v).detach()) * scale


@mistake("qat_step")
def qat_not_transposed(w, x, target, scale, num_bits, learning_rate):
    """x @ w in place of x @ w.T: an error unless w is square."""
    w = w.clone().requires_grad_()
    ((x @ _fake(w, scale, num_bits) - target) ** 2).mean().backward()
    return (w - learning_rate * w.grad).detach()


@mistake("qat_step")
def qat_weight_decay(w, x, target, scale, num_bits, learning_rate):
    """SGD with weight decay 0.01 left in from another script."""
    w = w.clone().requires_grad_()
    ((x @ _fake(w, scale, num_bits).t() - target) ** 2).mean().backward()
    return (w - learning_rate * (w.grad + 0.01 * w)).detach()


@mistake("qat_step")
def qat_doubled_gradient(w, x, target, scale, num_bits, learning_rate):
    """backward() twice: the gradients add up, zero_grad is missing."""
    w = w.clone().requires_grad_()
    for _ in range(2):
        ((x @ _fake(w, scale, num_bits).t() - target) ** 2).mean().backward()
    return (w - learning_rate * w.grad).detach()


@mistake("qat_step", "the quantized weights are updated")
def qat_moves_rounded(w, x, target, scale, num_bits, learning_rate):
    """Moves the rounded weights and returns these: the float weights are lost."""
    q = _fake(w, scale, num_bits).detach().requires_grad_()
    ((x @ q.t() - target) ** 2).mean().backward()
    return (q - learning_rate * q.grad).detach()


@mistake("qat_step", "the loss of the float weights")
def qat_float_loss(w, x, target, scale, num_bits, learning_rate):
    """The loss is computed with the float weights."""
    w = w.clone().requires_grad_()
    ((x @ w.t() - target) ** 2).mean().backward()
    return (w - learning_rate * w.grad).detach()


def _torch_codes(w, scale, num_bits, round_=None):
    steps = torch.clamp((round_ or torch.round)(w / scale), *_ends(num_bits))
    return steps.to(torch.int8 if num_bits <= 8 else torch.int16)


@mistake("convert_weight")
def convert_pair(w, scale, num_bits=8):
    """Returns (codes, scale)."""
    return _torch_codes(w, scale, num_bits), scale


@mistake("convert_weight")
def convert_without_lowest(w, scale, num_bits=8):
    """Clamps at -(2**(b-1) - 1): weights beyond come out one code too high."""
    high = 2 ** (num_bits - 1) - 1
    return torch.round(w / scale).clamp(-high, high).to(torch.int8 if num_bits <= 8 else torch.int16)


@mistake("convert_weight")
def convert_unsigned(w, scale, num_bits=8):
    """Two at once: the clamp is unsigned, 0 to 2**b - 1, and the dtype uint8."""
    return torch.clamp(torch.round(w / scale), 0, 2**num_bits - 1).to(torch.uint8)


@mistake("convert_weight")
def convert_int16_from_8(w, scale, num_bits=8):
    """int16 already at 8 bits: num_bits < 8."""
    steps = torch.clamp(torch.round(w / scale), *_ends(num_bits))
    return steps.to(torch.int8 if num_bits < 8 else torch.int16)


@mistake("convert_weight", "a new scale from the trained weights")
def convert_new_scale(w, scale, num_bits=8):
    """Chooses a new scale from max|w|."""
    own = w.abs().max() / (2 ** (num_bits - 1) - 1)
    return _torch_codes(w, own, num_bits)


def _lsq(x, scale, grad, num_bits, inside=None, beyond=None, divisor=None):
    low, high = _ends(num_bits)
    v = x / scale
    within = (v >= low) & (v <= high)
    inside = v.round() - v if inside is None else inside(v)
    beyond = v.clamp(low, high) if beyond is None else beyond(v)
    total = (grad * torch.where(within, inside, beyond)).sum()
    return total / (divisor if divisor is not None else (x.numel() * high) ** 0.5)


@mistake("lsq_gradient")
def lsq_mean(x, scale, grad, num_bits=8):
    """A mean in place of a sum over the root."""
    return _lsq(x, scale, grad, num_bits, divisor=x.numel())


@mistake("lsq_gradient")
def lsq_x_for_v(x, scale, grad, num_bits=8):
    """round(v) - x: the division by the scale is forgotten in one place."""
    return _lsq(x, scale, grad, num_bits, inside=lambda v: v.round() - x)


@mistake("lsq_gradient")
def lsq_multiplied(x, scale, grad, num_bits=8):
    """Multiplies by the root in place of dividing."""
    return _lsq(x, scale, grad, num_bits, divisor=(x.numel() * _ends(num_bits)[1]) ** -0.5)


@mistake("lsq_gradient", "the sign is turned")
def lsq_sign(x, scale, grad, num_bits=8):
    """v - round(v): the sign inside is turned."""
    return _lsq(x, scale, grad, num_bits, inside=lambda v: v - v.round())


@mistake("lsq_gradient", "round is not differentiated")
def lsq_code_only(x, scale, grad, num_bits=8):
    """The code everywhere: the second term of the product rule is missing."""
    return _lsq(x, scale, grad, num_bits, inside=lambda v: v.round())
