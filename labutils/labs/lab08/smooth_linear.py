"""smooth_linear: a layer whose input is divided by scales and whose weight makes up for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils.arrays.inputs import Array
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import describe
from labutils.labs.contract import trained_weights
from labutils.labs.families import copied_wrongly
from labutils.labs.floats import as_float64, judge_close
from labutils.labs.lab08 import LESSON
from labutils.labs.lab08.smooth_scales import WEIGHT
from labutils.labs.layers import on_module, output_of, read_parameters
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import require_unchanged

if TYPE_CHECKING:
    from torch import nn


def smooth_linear(linear: nn.Linear, scales: Array) -> nn.Module:
    """The same function as `linear`, computed with its input divided by `scales` and its weight multiplied by them.

    >>> import torch
    >>> linear = torch.nn.Linear(3, 2)
    >>> smoothed = smooth_linear(linear, torch.tensor([8.0, 2.0, 1.0]))
    >>> smoothed
    Behind(
      (0): Divide(3)
      (1): Linear(in_features=3, out_features=2, bias=True)
    )
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(smoothed(x), linear(x), atol=1e-5)
    True

    `scales` (in_features,), positive; `linear` stays as it is. The bias does not change: only what is multiplied with
    the input does. TypeError for what is no nn.Linear, ValueError for other scales.
    """
    from labutils.models import outliers

    return outliers.smooth_linear(linear, scales)


def cases() -> list[Case]:
    rng = np.random.default_rng(80)
    w = trained_weights()
    bias = rng.normal(size=128).astype(np.float32)
    square = rng.normal(size=(10, 10)).astype(np.float32)
    scales = (np.geomspace(0.25, 16, 64)[rng.permutation(64)]).astype(np.float32)
    some = np.geomspace(0.5, 8, 10)[rng.permutation(10)].astype(np.float32)
    hand = ("Linear", WEIGHT, np.array([1.0, 2.0], np.float32)), np.array([4.0, 1.0, 4.0], np.float32)
    return [
        Case("the worked example", hand),
        Case("as many outputs as inputs", (("Linear", square, bias[:10]), some)),
        Case("trained weights", (("Linear", w, bias), scales)),
        Case("a layer without bias", (("Linear", w[:20], None), scales)),
        Case("scales of 1 change nothing", (("Linear", square, bias[:10]), np.ones(10, np.float32))),
        Case("powers of two", (("Linear", square[:3], bias[:3]), 2.0 ** np.arange(-4, 6, dtype=np.float32))),
        Case("one input channel", (("Linear", square[:, :1].copy(), bias[:10]), np.array([4.0], np.float32))),
    ]


def read(value: Any) -> dict:
    import torch

    require_unchanged(value)
    if not isinstance(value.module, torch.nn.Module):
        came = "several values" if isinstance(value.module, (tuple, list)) else describe(value.module)
        raise Wrong(f"it returned {came}; expected one nn.Module, such as an nn.Sequential")
    if isinstance(value.module, torch.nn.Linear):
        raise Wrong("it returned an nn.Linear; expected a module that divides the input first and holds such a layer")
    layers = [module for module in value.module.modules() if type(module) is torch.nn.Linear]
    if len(layers) != 1:
        raise Wrong(f"the module should hold one nn.Linear, to be quantized later, but it holds {len(layers)}")
    return {"y": as_float64(value.y, "its output")} | read_parameters(layers[0])


def judge(answer: dict, case: Case) -> None:
    spec, scales = case.args
    _, weight, bias = spec
    judge_close(answer["weight"], weight.astype(np.float64) * scales, "weight", "weight times the column's scale")
    wanted = np.zeros(0) if bias is None else bias.astype(np.float64)
    if answer["bias"].shape != wanted.shape:
        raise Wrong("the layer had no bias, but now has one" if bias is None else "the layer's bias is gone")
    if bias is not None:
        judge_close(answer["bias"], wanted, "bias", "the bias as it was")
    judge_close(answer["y"], output_of(spec), "output", "what the layer gave before")


@dataclass(frozen=True)
class SmoothedLayer(Recipe):
    """nn.Sequential(Divide(divisors(scales)), a layer with another weight): made by `layer`, then given its `bias`."""

    layer: Callable = copy.deepcopy  # of the layer that was given
    weight: Callable = lambda weight, scales: weight * scales
    bias: Callable = lambda layer, scales: None  # changes it in place
    divisors: Callable = lambda scales: scales
    result: Callable = lambda smoothed: smoothed

    def __call__(self, linear, scales):
        import torch

        from labutils.models.outliers import Divide

        made = self.layer(linear)
        made.weight = torch.nn.Parameter(self.weight(linear.weight.detach(), scales))
        with torch.no_grad():
            self.bias(made, scales)
        return self.result(torch.nn.Sequential(Divide(self.divisors(scales)), made))


right = SmoothedLayer()


def division_behind(linear, scales):
    import torch

    return torch.nn.Sequential(*reversed(right(linear, scales)))


def scale_bias(layer, scales):
    if layer.bias is not None:
        layer.bias.mul_(scales)


MISCONCEPTIONS = (
    Misconception("multiplied on the wrong side",
        right.but(weight=lambda weight, scales: weight / scales, divisors=lambda scales: 1 / scales),
        "The outputs are right, but the outliers grew: this multiplies the input and divides the weight. The size is "
        "to leave the activations."),
    Misconception("the weight is divided, too", right.but(weight=lambda weight, scales: weight / scales),
        "Input and weight are both divided, so the outputs are not what they were. What one side loses the other must "
        "gain."),
    Misconception("the input is multiplied, too", right.but(divisors=lambda scales: 1 / scales),
        "Input and weight are both multiplied, so the outputs are not what they were. What one side gains the other "
        "must lose."),
    Misconception("the division stands behind the layer", lambda linear, scales: division_behind(linear, scales),
        "The scales belong to the inputs, and behind the layer there are outputs. Divide first, then apply the layer."),
    Misconception("the input is not divided", right.but(result=lambda smoothed: smoothed[1]),
        "The weight has the scales in it, but nothing takes them out of the input. Put the division before the layer."),
    Misconception("the weight is left as it was", right.but(weight=lambda weight, scales: weight.clone()),
        "The input is divided, but the weight does not make up for it: multiply its columns."),
    Misconception("rows of the weight instead of columns",
        right.but(weight=lambda weight, scales: weight * scales[:, None]),
        "weight is (out_features, in_features): an input channel is a column. Along the last axis the scales line up "
        "by themselves."),
    Misconception("the bias is scaled, too", right.but(bias=scale_bias),
        "The bias is added after the product, and the product did not change. Leave it as it is."),
    *copied_wrongly(right),
    Misconception("two values instead of a module", right.but(result=tuple),
        "What divides and what multiplies are to be one module, that can stand where the layer stood: nn.Sequential "
        "runs one after the other."),
)  # fmt: skip

EXERCISE = Exercise(
    name="smooth_linear",
    lab=LESSON,
    place=20,
    points=3,
    reference=smooth_linear,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_module,
)
