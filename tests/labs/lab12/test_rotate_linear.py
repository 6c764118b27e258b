"""rotate_linear: the same outputs from turned inputs."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from labutils import sqnr_db
from labutils.labs.answers import hadamard, rotate_linear
from labutils.labs.lab12.rotate_linear import right, rotations
from labutils.models import outliers, rotation
from tests.labs.right_answers import passes

SIGNED, SOME = (torch.tensor(each) for each in rotations())


@pytest.mark.parametrize("turn", [SIGNED, SOME, torch.eye(7)], ids=["signed", "any", "identity"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_outputs_are_those_of_the_layer(turn, bias):
    torch.manual_seed(0)
    linear, x = nn.Linear(len(turn), 5, bias=bias), torch.randn(3, 4, len(turn))
    rotated = rotate_linear(linear, turn)
    torch.testing.assert_close(rotated(x), linear(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotated[0](x), x @ turn, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rotated[1].weight, linear.weight @ turn, rtol=1e-5, atol=1e-5)


def test_a_hadamard_matrix_gives_the_librarys_layer():
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 5), torch.randn(3, 64)
    mine, theirs = rotate_linear(linear, torch.tensor(hadamard(64))), rotation.rotate_linear(linear)
    torch.testing.assert_close(mine[1].weight, theirs[1].weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine[0](x), theirs[0](x), rtol=1e-5, atol=1e-6)


def test_one_loud_channel_costs_less_when_it_is_turned():
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 32), torch.randn(50, 64)
    x[:, 9] *= 60
    rotated = rotate_linear(linear, torch.tensor(hadamard(64)))
    found = {}
    for name, layer, inputs in (("plain", linear, x), ("turned", rotated[1], rotated[0](x))):
        found[name] = sqnr_db(linear(x), outliers.StaticInt8Linear(layer, inputs.abs().amax(0))(inputs))
    assert found["turned"] > found["plain"] + 6


@pytest.mark.parametrize(
    ("linear", "turn", "error", "sentence"),
    [
        (nn.ReLU(), SOME, TypeError, "ReLU"),
        (None, SOME, TypeError, "None"),
        (nn.Linear(4, 2), SOME, ValueError, r"shape \(4, 4\)"),
        (nn.Linear(10, 2), np.eye(10), ValueError, r"a tensor of shape \(10, 10\)"),
        (nn.Linear(10, 2), 2 * SOME, ValueError, "must be orthogonal"),
        (nn.Linear(10, 2), SOME * torch.nan, ValueError, "must be orthogonal"),
    ],
    ids=["no linear layer", "None", "another size", "an array", "not normalised", "NaN"],
)
def test_what_is_no_rotation_of_a_layer_is_refused(linear, turn, error, sentence):
    with pytest.raises(error, match=sentence):
        rotate_linear(linear, turn)


def two_layers(linear, rotation):
    n = linear.in_features
    turn, turned = nn.Linear(n, n, bias=False), copy.deepcopy(linear)
    with torch.no_grad():
        turn.weight.copy_(rotation.T)
        turned.weight.copy_(linear.weight @ rotation)
    return nn.Sequential(turn, turned)


def a_new_layer(linear, rotation):
    turned = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    turned.weight.data = linear.weight.data @ rotation
    if linear.bias is not None:
        turned.bias.data = linear.bias.data.clone()
    turn = nn.Linear(linear.in_features, linear.in_features, bias=False)
    turn.weight.data = rotation.t().contiguous()
    return nn.Sequential(turn, turned)


class Times(nn.Module):
    def __init__(self, rotation):
        super().__init__()
        self.register_buffer("rotation", rotation)

    def forward(self, x):
        return x @ self.rotation


class Turned(nn.Sequential):
    def __init__(self, linear, rotation):
        super().__init__(Times(rotation), copy.deepcopy(linear))
        self[-1].weight = nn.Parameter(linear.weight.detach() @ rotation)


def own_module(linear, rotation):
    return Turned(linear, rotation)


def with_a_function(linear, rotation):
    class Times(nn.Module):
        def forward(self, x):
            return torch.einsum("...i,ij->...j", x, rotation)

    turned = copy.deepcopy(linear)
    turned.weight = nn.Parameter((rotation.T @ linear.weight.detach().T).T)
    return nn.Sequential(Times(), turned)


def by_state_dict(linear, rotation):
    turned = nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)
    turned.load_state_dict(linear.state_dict() | {"weight": linear.weight.detach() @ rotation})
    turn = nn.Linear(*rotation.shape, bias=False)
    turn.load_state_dict({"weight": rotation.T})
    return nn.Sequential(turn, turned).eval()


def the_recipe(linear, rotation):
    return right(linear, rotation)


RIGHT = [two_layers, a_new_layer, own_module, with_a_function, by_state_dict, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("rotate_linear", answer)
