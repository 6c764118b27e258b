"""lsq_gradient: the published formula, which is what autograd finds."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from labutils.labs.answers import lsq_gradient
from labutils.labs.lab10._grid import limits
from labutils.labs.lab10.lsq_gradient import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.lab10.test_fake_quantize_ste import clamp_then_round_through
from tests.labs.right_answers import passes

BAD = {
    "no gradient": ((torch.ones(2), torch.tensor(1.0), None, 4), TypeError, ("grad must be", "got NoneType")),
    "1 bit": ((torch.ones(2), torch.tensor(1.0), torch.ones(2), 1), ValueError, ("between 2 and 16, got 1",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_bad_input_is_refused(args, kind, words):
    refuses(kind, words, lsq_gradient, *args)


def top(bits):
    return limits(bits)[1]


@pytest.mark.parametrize("num_bits", [2, 3, 8])
def test_autograd_finds_it(num_bits):
    x, grad = torch.linspace(-3.13, 2.97, 60), torch.linspace(-1, 2, 60)
    scale = torch.tensor(1.7 / top(num_bits))
    torch.testing.assert_close(lsq_gradient(x, scale, grad, num_bits), scale_by_autograd(x, scale, grad, num_bits))


def papers_formula(x, scale, grad, num_bits=8):
    low, high = limits(num_bits)
    v = x / scale
    each = torch.where(v <= low, low, torch.where(v >= high, high, v.round() - v))
    return (grad * each).sum() / math.sqrt(x.numel() * high)


def clamped_code_minus_masked_v(x, scale, grad, num_bits=8):
    low, high = limits(num_bits)
    v = x / scale
    inside = (v >= low) & (v <= high)
    return ((v.round().clamp(low, high) - v * inside) * grad).sum() * (x.numel() * high) ** -0.5


def from_the_fake_quantized_values(x, scale, grad, num_bits=8):
    low, high = limits(num_bits)
    q = (x / scale).round()
    back = q.clamp(low, high) * scale
    each = ((back - x) / scale) * (q == q.clamp(low, high)) + low * (q < low) + high * (q > high)
    return float((each * grad).sum()) / np.sqrt(x.numel() * high)


def scale_by_autograd(x, scale, grad, num_bits=8):
    scale = scale.clone().requires_grad_()
    y = clamp_then_round_through(x, scale, num_bits)
    (step,) = torch.autograd.grad(y, scale, grad)
    return step / torch.sqrt(torch.tensor(x.numel() * top(num_bits)))


def element_by_element(x, scale, grad, num_bits=8):
    low, high = limits(num_bits)
    total = 0.0
    for value, g in zip(x.reshape(-1).tolist(), grad.reshape(-1).tolist()):
        v = value / float(scale)
        total += g * (low if v < low else high if v > high else round(v) - v)
    return np.float64(total / math.sqrt(x.numel() * high))


def gradient_in_numpy(x, scale, grad, num_bits=8):
    v = x.numpy().astype(float) / float(scale)
    each = np.select([v < limits(num_bits)[0], v > top(num_bits)], [limits(num_bits)[0], top(num_bits)], np.rint(v) - v)
    return np.array([np.vdot(each, grad.numpy()) / np.sqrt(each.size) / np.sqrt(top(num_bits))])


def the_recipe(x, scale, grad, num_bits=8):
    return right(x, scale, grad, num_bits)


RIGHT = [
    papers_formula, clamped_code_minus_masked_v, from_the_fake_quantized_values, scale_by_autograd, element_by_element,
    gradient_in_numpy, the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("lsq_gradient", answer)
