"""fold_division: the outputs of a norm or a linear layer, divided at no cost."""

import copy

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from labutils.labs.lab08.fold_division import right
from tests.labs.right_answers import passes
from tests.models.outliers.examples import layer

NORMS = {
    "LayerNorm": lambda: nn.LayerNorm(24),
    "LayerNorm without bias": lambda: nn.LayerNorm(24, bias=False),
    "RMSNorm": lambda: nn.RMSNorm(24),
    "Linear": lambda: layer(24, 24),
    "Linear without bias": lambda: layer(10, 24, bias=False),
}


def copied_and_divided(before, scales):
    new = copy.deepcopy(before)
    new.weight.data = (new.weight.data.T / scales).T if new.weight.ndim == 2 else new.weight.data / scales
    if getattr(new, "bias", None) is not None:
        new.bias.data = new.bias.data / scales
    return new


def every_parameter_alike(before, scales):
    new = copy.deepcopy(before)
    for parameter in new.parameters():
        parameter.data.div_(scales.reshape(-1, *[1] * (parameter.ndim - 1)))
    return new


def from_a_state_dict(before, scales):
    new = copy.deepcopy(before)
    divided = {name: (value.t() / scales).t() if value.ndim == 2 else value / scales
               for name, value in before.state_dict().items()}  # fmt: skip
    new.load_state_dict(divided)
    return new


def by_a_diagonal(before, scales):
    new, diagonal = copy.deepcopy(before), torch.diag(1 / scales)
    for name, value in before.named_parameters():
        setattr(new, name, torch.nn.Parameter(diagonal @ value.detach()))
    return new


def by_kind(before, scales):
    has_bias = getattr(before, "bias", None) is not None
    if isinstance(before, torch.nn.Linear):
        new = torch.nn.Linear(before.in_features, before.out_features, bias=has_bias)
    elif isinstance(before, torch.nn.RMSNorm):
        new = torch.nn.RMSNorm(before.normalized_shape, eps=before.eps)
    else:
        new = torch.nn.LayerNorm(before.normalized_shape, eps=before.eps, bias=has_bias)
    with torch.no_grad():
        new.weight.copy_(before.weight / (scales[:, None] if isinstance(before, torch.nn.Linear) else scales))
        if has_bias:
            new.bias.copy_(before.bias / scales)
    return new


def the_recipe(before, scales):
    return right(before, scales)


RIGHT = [copied_and_divided, every_parameter_alike, from_a_state_dict, by_a_diagonal, by_kind, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("fold_division", answer)
