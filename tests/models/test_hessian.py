"""The Hessian is that of all rows at once, however they come; what spoils it is named."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from labutils.models.hessian import checked_problem, layer_hessians, output_loss
from tests.arrays.bad_inputs import refuses, table
from tests.models.examples import inputs, model


def of(x):
    x = x.reshape(-1, x.shape[-1]).double()
    return (2 * x.t() @ x).float()


@given(st.integers(0, 100), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_batches_add_up_to_the_hessian_of_all_rows(seed, sizes):
    net, x = model(seed), inputs(sum(sizes), 3, 64, seed=seed)
    hessians = layer_hessians(net, x.split(sizes))
    torch.testing.assert_close(hessians["0"], of(x))
    with torch.no_grad():
        torch.testing.assert_close(hessians["2.0"], of(net[:2](x)), rtol=1e-4, atol=1e-4)
    assert [len(hessian) for hessian in hessians.values()] == [64, 64, 48]


def test_the_loss_is_the_squared_error_of_the_outputs():
    x, weight, changed = inputs(50, 6), inputs(4, 6, seed=2), inputs(4, 6, seed=3)
    expected = float(((x @ weight.t() - x @ changed.t()) ** 2).sum())
    assert output_loss(weight, changed, 2 * x.t() @ x) == pytest.approx(expected, rel=1e-5)


def test_the_hessian_is_the_second_derivative_of_the_loss():
    x, weight = inputs(50, 6).double(), inputs(1, 6, seed=2).double()
    second = torch.autograd.functional.hessian(lambda w: ((x @ (weight - w).t()) ** 2).sum(), weight)
    torch.testing.assert_close(second[0, :, 0], 2 * x.t() @ x)


def test_a_layer_that_runs_twice_counts_twice_and_has_one_hessian_under_both_names():
    layer = nn.Linear(8, 8)
    net, x = nn.Sequential(layer, nn.Tanh(), layer), inputs(30, 8)
    hessians = layer_hessians(net, [x])
    assert hessians["0"] is hessians["2"]
    torch.testing.assert_close(hessians["0"], of(torch.cat([x, net[:2](x)]).detach()))


def test_layers_that_share_a_weight_share_the_sum():
    net, x = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)), inputs(30, 8)
    net[2].weight = net[0].weight
    hessians = layer_hessians(net, [x])
    torch.testing.assert_close(hessians["2"], of(torch.cat([x, net[:2](x)]).detach()))
    assert hessians["0"] is hessians["2"]


def test_dtypes_and_modes():
    net = nn.Sequential(nn.Dropout(0.9), nn.Linear(8, 2)).train()
    x = inputs(30, 8)
    torch.testing.assert_close(layer_hessians(net, [x])["1"], of(x))  # nothing was dropped
    assert net.training and net[0].training
    assert layer_hessians(copy.deepcopy(net).double(), [x.double()])["1"].dtype == torch.float64
    half = layer_hessians(copy.deepcopy(net).bfloat16(), [x.bfloat16()])["1"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, of(x.bfloat16()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer_hessians(net, [x])["1"], of(x))


def test_how_a_batch_runs_is_free_and_layers_can_be_skipped():
    net, x = model(), inputs(30, 64)
    batches = ({"x": part} for part in x.split(7))
    hessians = layer_hessians(net, batches, run=lambda m, batch: m[0](batch["x"]), skip="2.*")
    assert list(hessians) == ["0"]
    torch.testing.assert_close(hessians["0"], of(x))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_what_is_not_finite_is_named_with_its_batch(value):
    batches = [inputs(5, 64) for _ in range(3)]
    batches[2][3, 1] = value
    refuses(ValueError, ("batch 2, 0: its input holds NaN, Inf",), layer_hessians, net := model(), batches)
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_what_was_never_reached_is_named():
    refuses(
        ValueError, ("2.0, 2.1", "no batch came here"), layer_hessians, model(), [inputs(3, 64)], lambda m, x: m[0](x)
    )
    for batches in ([], [inputs(0, 64)]):
        refuses(ValueError, ("nothing entered the linear layers",), layer_hessians, model(), batches)
    refuses(ValueError, ("ReLU has no nn.Linear",), layer_hessians, nn.ReLU(), [inputs(3, 64)])
    refuses(ValueError, ("no linear layer is called '2.9'",), layer_hessians, model(), [inputs(3, 64)], skip=["2.9"])
    refuses(TypeError, ("model must be an nn.Module",), layer_hessians, None, [])
    refuses(TypeError, ("batches must be a list", "got NoneType"), layer_hessians, model(), None)


W, H = torch.ones(2, 3), torch.eye(3)
BAD_PROBLEMS = {
    "a list": ([[1.0]], H, TypeError, ("weight must be a torch tensor, got list",)),
    "an ndarray": (W, H.numpy(), TypeError, ("hessian must be a torch tensor, got ndarray",)),
    "integers": (W.int(), H, TypeError, ("weight must hold floats",)),
    "NaN in the weight": (W * torch.nan, H, ValueError, ("weight must be finite",)),
    "Inf in the Hessian": (W, H * torch.inf, ValueError, ("hessian must be finite",)),
    "one axis": (W[0], H, ValueError, ("weight must have two axes", "(3,)")),
    "another size": (W, torch.eye(2), ValueError, ("hessian must have shape (3, 3)", "got (2, 2)")),
    "rows for a Hessian": (W, torch.ones(5, 3), ValueError, ("hessian must have shape (3, 3)", "got (5, 3)")),
    "negative": (W, -H, ValueError, ("must not be negative on its diagonal", "-1")),
    "not symmetric": (W, H + torch.tensor([0.0, 0.5, 0.0]), ValueError, ("hessian must be symmetric",)),
    "no columns": (W[:, :0], H[:0, :0], ValueError, ("weight must not be empty",)),
}


@pytest.mark.parametrize(("weight", "hessian", "kind", "words"), **table(BAD_PROBLEMS))
def test_a_hessian_that_does_not_fit_is_refused(weight, hessian, kind, words):
    refuses(kind, words, checked_problem, weight, hessian)
