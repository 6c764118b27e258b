"""qat_step: torch's optimizer, on the fake-quantized weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from labutils.labs.answers import qat_step
from labutils.labs.lab10._grid import limits
from labutils.labs.lab10.qat_step import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.lab10.test_fake_quantize_ste import clamp_then_round_through, detach_trick, own_function
from tests.labs.right_answers import passes

ONE = torch.ones(1, 1)
BAD = {
    "a negative learning rate": (
        (ONE, ONE, ONE, torch.tensor(1.0), 4, -0.1),
        ValueError,
        ("learning_rate must be positive, got -0.1",),
    ),
    "scale 0": ((ONE, ONE, ONE, torch.tensor(0.0), 4, 0.1), ValueError, ("scale must be positive",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_bad_input_is_refused(args, kind, words):
    refuses(kind, words, qat_step, *args)


def test_a_step_is_that_of_torchs_optimizer():
    generator = torch.Generator().manual_seed(0)
    w, x, target = (torch.randn(*shape, generator=generator) for shape in ((5, 8), (20, 8), (20, 5)))
    scale = w.abs().amax(1, keepdim=True) / 2.9  # no weight on the last code, where estimators may differ
    torch.testing.assert_close(qat_step(w, x, target, scale, 3, 0.1), by_an_optimizer(w, x, target, scale, 3, 0.1))


def by_autograd(w, x, target, scale, num_bits, learning_rate):
    leaf = torch.nn.Parameter(w.clone())
    loss = ((x @ clamp_then_round_through(leaf, scale, num_bits).T - target) ** 2).mean()
    loss.backward()
    return leaf.detach() - learning_rate * leaf.grad


def by_an_optimizer(w, x, target, scale, num_bits, learning_rate):
    w = w.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([w], lr=learning_rate)
    torch.nn.functional.mse_loss(torch.nn.functional.linear(x, detach_trick(w, scale, num_bits)), target).backward()
    optimizer.step()
    return w


def by_hand(w, x, target, scale, num_bits, learning_rate):
    low, high = limits(num_bits)
    w_hat = (w / scale).round().clamp(low, high) * scale
    error = x @ w_hat.T - target
    gradient = 2 / error.numel() * error.T @ x
    inside = (w >= low * scale) & (w <= high * scale)
    return w - learning_rate * gradient * inside


def in_numpy(w, x, target, scale, num_bits, learning_rate):
    w, x, target, scale = (t.numpy().astype(np.float64) for t in (w, x, target, scale))
    v = w / scale
    w_hat = np.clip(np.rint(v), *limits(num_bits)) * scale
    gradient = 2 * np.einsum("nk,nc->kc", x @ w_hat.T - target, x) / target.size
    return np.where(np.rint(v) == np.clip(np.rint(v), *limits(num_bits)), w - learning_rate * gradient, w).astype("f4")


def gradient_at_a_leaf_of_quantized_weights(w, x, target, scale, num_bits, learning_rate):
    v = w / scale
    w_hat = (v.round().clamp(*limits(num_bits)) * scale).requires_grad_()
    ((x @ w_hat.T - target) ** 2).mean().backward()
    return torch.where(v == v.clamp(*limits(num_bits)), w - learning_rate * w_hat.grad, w)


def through_a_module(w, x, target, scale, num_bits, learning_rate):
    layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    layer.load_state_dict({"weight": w})
    weight = own_function(layer.weight, scale, num_bits)
    loss = torch.nn.MSELoss()(torch.func.functional_call(layer, {"weight": weight}, (x,)), target)
    loss.backward()
    with torch.no_grad():
        return layer.weight.sub(layer.weight.grad, alpha=learning_rate)


def the_recipe(w, x, target, scale, num_bits, learning_rate):
    return right(w, x, target, scale, num_bits, learning_rate)


RIGHT = [
    by_autograd, by_an_optimizer, by_hand, in_numpy, gradient_at_a_leaf_of_quantized_weights, through_a_module,
    the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("qat_step", answer)
