"""rotate_linear: a linear layer that computes the same from rotated inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import describe
from labutils.labs.contract import trained_weights
from labutils.labs.families import copied_wrongly
from labutils.labs.floats import as_float64, judge_close
from labutils.labs.lab12 import LESSON
from labutils.labs.lab12.hadamard import hadamard
from labutils.labs.layers import on_module, output_of, read_parameters
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import require_unchanged

if TYPE_CHECKING:
    import torch
    from torch import nn


def rotate_linear(linear: nn.Linear, rotation: torch.Tensor) -> nn.Sequential:
    """Two layers for one: the first multiplies the inputs by `rotation`, the second has a weight that makes up for it.

    >>> import torch
    >>> linear, rotation = torch.nn.Linear(4, 2), torch.tensor(hadamard(4))
    >>> rotated, x = rotate_linear(linear, rotation), torch.randn(5, 4)
    >>> torch.allclose(rotated[0](x), x @ rotation, atol=1e-6), torch.allclose(rotated(x), linear(x), atol=1e-5)
    (True, True)

    `rotation` R is orthogonal, (in_features, in_features): (x R)(W R)^T = x R R^T W^T = x W^T, so the second weight is
    W R. The bias does not change, and `linear` stays as it is. `models.rotation.rotate_linear` does the same for
    Hadamard matrices, without the n x n product. TypeError or ValueError for what is no nn.Linear and for a matrix of
    another shape or that is not orthogonal.
    """
    import torch

    from labutils.models.linear import plain_linear

    linear = plain_linear(linear)
    n = linear.in_features
    if not isinstance(rotation, torch.Tensor) or tuple(rotation.shape) != (n, n):
        raise ValueError(f"rotation must be a tensor of shape ({n}, {n}), got {describe(rotation)}")
    if not torch.allclose(rotation @ rotation.T, torch.eye(n).to(rotation), atol=1e-4):
        raise ValueError("rotation must be orthogonal: rotation @ rotation.T is not the identity")
    return right(linear, rotation)


def rotations() -> tuple[np.ndarray, np.ndarray]:
    """Two that are not symmetric, of order 64 and 10: Hadamard with random signs, and any."""
    rng = np.random.default_rng(12)
    signs = rng.choice([-1, 1], 64).astype(np.float32)
    return signs[:, None] * hadamard(64), np.linalg.qr(rng.normal(size=(10, 10)))[0].astype(np.float32)


# The lesson's example.
WEIGHT = np.array([[2, 0, 1, 1]], np.float32)


def cases() -> list[Case]:
    rng = np.random.default_rng(120)
    w, bias = trained_weights(), rng.normal(size=128).astype(np.float32)
    square = rng.normal(size=(10, 10)).astype(np.float32)
    signed, some = rotations()
    return [
        Case("the worked example", (("Linear", WEIGHT, np.array([1], np.float32)), hadamard(4))),
        Case("as many outputs as inputs", (("Linear", square, bias[:10]), some)),
        Case("trained weights, a Hadamard matrix with random signs", (("Linear", w, bias), signed)),
        Case("a layer without bias", (("Linear", w[:20], None), signed)),
        Case("the identity changes nothing", (("Linear", square, bias[:10]), np.eye(10, dtype=np.float32))),
        Case("one output", (("Linear", square[:1], bias[:1]), some)),
        Case("square, a Hadamard matrix", (("Linear", w[:64], bias[:64]), signed)),
    ]


def read(value: Any) -> dict:
    import torch

    require_unchanged(value)
    if not isinstance(value.module, torch.nn.Module):
        came = "several values" if isinstance(value.module, (tuple, list)) else describe(value.module)
        raise Wrong(f"it returned {came}; expected one module, an nn.Sequential")
    if isinstance(value.module, torch.nn.Linear):
        raise Wrong("it returned one nn.Linear; expected a module that rotates the input first and holds such a layer")
    if not isinstance(value.module, torch.nn.Sequential) or not len(value.module):
        raise Wrong(f"it returned {describe(value.module)}; expected an nn.Sequential of two layers")
    if type(value.module[-1]) is not torch.nn.Linear:  # the lesson quantizes rotated[-1]
        came = describe(value.module[-1])
        raise Wrong(f"the last layer should be an nn.Linear with the rotated weight, but it is {came}")
    return {"y": as_float64(value.y, "its output")} | read_parameters(value.module[-1])


def judge(answer: dict, case: Case) -> None:
    spec, rotation = case.args
    _, weight, bias = spec
    wanted = weight.astype(np.float64) @ rotation.astype(np.float64)
    judge_close(answer["weight"], wanted, "weight", "that of W R")
    wanted = np.zeros(0) if bias is None else bias.astype(np.float64)
    if answer["bias"].shape != wanted.shape:
        raise Wrong("the layer had no bias, but now has one" if bias is None else "the layer's bias is gone")
    if bias is not None:
        judge_close(answer["bias"], wanted, "bias", "the bias as it was")
    judge_close(answer["y"], output_of(spec), "output", "what the layer gave before")


def as_layer(matrix):
    """x @ matrix, as an nn.Linear: it multiplies by the transpose of its weight."""
    from torch import nn

    layer = nn.Linear(*matrix.shape, bias=False)
    layer.weight = nn.Parameter(matrix.T.clone(), requires_grad=False)
    return layer


@dataclass(frozen=True)
class RotatedLayer(Recipe):
    """result(inputs(R), a layer with the weight weight(W, R)): made by `layer`, then given its bias."""

    layer: Callable = copy.deepcopy
    inputs: Callable = as_layer
    weight: Callable = lambda weight, r: weight @ r
    bias: Callable = lambda layer, r: None  # changes it in place
    result: Callable = None

    def __call__(self, linear, rotation):
        import torch

        made = self.layer(linear)
        weight = self.weight(linear.weight.detach(), rotation)
        made.weight = torch.nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
        with torch.no_grad():
            self.bias(made, rotation)
        return (self.result or torch.nn.Sequential)(self.inputs(rotation), made)


right = RotatedLayer()


def transposed(r):
    return as_layer(r.T)


def as_biased_layer(r):
    """As nn.Linear(n, n) makes it: with a random bias."""
    from torch import nn

    layer = nn.Linear(*r.shape)
    layer.weight = nn.Parameter(r.T.clone())
    return layer


def identity(r):
    from torch import nn

    return nn.Identity()


def behind(rotation, layer):
    """The rotation after the layer, where its size fits at all."""
    from torch import nn

    return nn.Sequential(layer, rotation)


def rotate_bias(layer, r):
    if layer.bias is not None and len(layer.bias) == len(r):
        layer.bias.copy_(layer.bias @ r)


def merged(rotation, layer):
    """One layer for both, which is the float layer again."""
    from torch import nn

    made = copy.deepcopy(layer)
    made.weight = nn.Parameter(layer.weight.detach() @ rotation.weight.detach())
    return nn.Sequential(made)


MISCONCEPTIONS = (
    Misconception("rotated on one side only: the weight", right.but(inputs=identity),
        "The weight is rotated, and what enters is not: the outputs are others. Both sides turn, so that their product "
        "stays."),
    Misconception("rotated on one side only: the inputs", right.but(weight=lambda weight, r: weight.clone()),
        "The inputs are rotated, and the weight is not: the outputs are others. Both sides turn, so that their product "
        "stays."),
    Misconception("the inputs turned backwards", right.but(inputs=transposed),
        "The inputs are multiplied by the transpose of the rotation. An nn.Linear computes x times the *transpose* of "
        "its weight: give it the transposed matrix. With a symmetric matrix nobody could tell."),
    Misconception("the weight turned backwards", right.but(weight=lambda weight, r: weight @ r.T),
        "The weight is multiplied by the transpose. A row of it meets the inputs element by element, so it turns the "
        "same way as they do. With a symmetric matrix nobody could tell."),
    Misconception("both turned backwards", right.but(inputs=transposed, weight=lambda weight, r: weight @ r.T),
        "The outputs are right, but this is the inverse rotation. What the contract calls x R has R on the right, as "
        "it is."),
    Misconception("the weight multiplied from the left",
        right.but(weight=lambda weight, r: (r @ weight if len(weight) == len(r) else (r @ weight.T).T)),
        "The weight is (out_features, in_features), and the rotation turns the inputs: its columns. Multiply from the "
        "right."),
    Misconception("multiplied element by element",
        right.but(weight=lambda weight, r: weight * (r if len(weight) == len(r) else r[:1])),
        "`*` multiplies element by element. A rotation mixes the channels: that is a matrix product, `@`."),
    Misconception("the rotation stands behind the layer", right.but(result=behind),
        "The rotation belongs to the inputs, and behind the layer there are outputs. Rotate first, then apply the "
        "layer."),
    Misconception("both in one layer", right.but(result=merged),
        "Merged into one weight, the rotation and its inverse cancel, and what is quantized later is the old weight. "
        "Keep two layers: one that rotates, one with the rotated weight."),
    Misconception("the layer that rotates has a bias", right.but(inputs=as_biased_layer),
        "x R has no bias. A new nn.Linear starts with a random one, unless it is made with bias=False."),
    Misconception("the bias is rotated, too", right.but(bias=rotate_bias),
        "The bias is added after the product, and the product did not change. Leave it as it is."),
    *copied_wrongly(right),
    Misconception("two values instead of a module", right.but(result=lambda rotation, layer: (rotation, layer)),
        "What rotates and what multiplies are to be one module, that can stand where the layer stood: nn.Sequential "
        "runs one after the other."),
)  # fmt: skip

EXERCISE = Exercise(
    name="rotate_linear",
    lab=LESSON,
    place=40,
    points=3,
    reference=rotate_linear,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=partial(on_module, name="rotation"),
)
