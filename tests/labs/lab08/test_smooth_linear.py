"""smooth_linear: the same function, with outliers that cost less."""

import copy

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from labutils.labs.lab08.smooth_linear import right
from labutils.models.outliers import Divide
from tests.labs.right_answers import passes


def copied_and_multiplied(linear, scales):
    new = copy.deepcopy(linear)
    new.weight.data *= scales
    return torch.nn.Sequential(Divide(scales), new)


def a_new_layer(linear, scales):
    new = torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    with torch.no_grad():
        new.weight.copy_(linear.weight * scales)
        if linear.bias is not None:
            new.bias.copy_(linear.bias)
    return torch.nn.Sequential(Divide(scales), new)


def own_module(linear, scales):
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
    class Times(torch.nn.Module):
        def forward(self, x):
            return x * (1 / scales)

    new = copy.deepcopy(linear)
    new.weight = torch.nn.Parameter(torch.einsum("ij,j->ij", linear.weight, scales).detach())
    return torch.nn.Sequential(Times(), new)


def by_state_dict(linear, scales):
    new = torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    new.load_state_dict(linear.state_dict() | {"weight": linear.weight.detach() * scales.unsqueeze(0)})
    return torch.nn.Sequential(Divide(scales), new).eval()


def the_recipe(linear, scales):
    return right(linear, scales)


RIGHT = [copied_and_multiplied, a_new_layer, own_module, reciprocal_beforehand, by_state_dict, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("smooth_linear", answer)
