"""fold_division: a division that costs nothing, put into the layer before."""

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
from labutils.labs.floats import as_float64, judge_close
from labutils.labs.lab08 import LESSON
from labutils.labs.layers import Returned, Spec, module_of, on_module, output_of, read_parameters
from labutils.labs.recipes import Recipe
from labutils.labs.tensors import Changed, require_unchanged

if TYPE_CHECKING:
    from torch import nn


def fold_division(before: nn.Module, scales: Array) -> nn.Module:
    """A copy of a norm or a linear layer whose outputs are those of `before`, divided by `scales`, at no cost.

    >>> import torch
    >>> norm, x, scales = torch.nn.LayerNorm(3), torch.randn(5, 3), torch.tensor([8.0, 2.0, 1.0])
    >>> torch.allclose(fold_division(norm, scales)(x), norm(x) / scales, atol=1e-6)
    True

    `before` is an nn.LayerNorm or nn.RMSNorm with a weight, or an nn.Linear; `scales` has one positive number for each
    of its outputs. Right only where nothing else reads these outputs. TypeError for other modules, ValueError for a
    norm without a weight and for other scales.
    """
    from labutils.models import outliers

    return outliers.fold_division(before, scales)


def cases() -> list[Case]:
    rng = np.random.default_rng(88)
    gain = rng.uniform(0.3, 2, 12).astype(np.float32)
    bias = rng.normal(size=12).astype(np.float32)
    scales = np.geomspace(0.25, 16, 12)[rng.permutation(12)].astype(np.float32)
    square = rng.normal(size=(12, 12)).astype(np.float32)
    return [
        Case("a LayerNorm", (("LayerNorm", gain, bias), scales)),
        Case("a linear layer, as many outputs as inputs", (("Linear", square, bias), scales)),
        Case("a linear layer, more outputs than inputs", (("Linear", square[:, :5].copy(), bias), scales)),
        Case("a linear layer without bias", (("Linear", square[:, :7].copy(), None), scales)),
        Case("an RMSNorm, which has no bias", (("RMSNorm", gain, None), scales)),
        Case("trained weights", (("Linear", trained_weights()[:12], bias), scales)),
        Case("scales of 1 change nothing", (("LayerNorm", gain, bias), np.ones(12, np.float32))),
    ]


def run(submission: Callable, spec: Spec, scales: np.ndarray) -> Returned | Changed:
    """As `on_module`; a module of another kind is not run, and returned in words beside the kind that was expected."""
    value = on_module(submission, spec, scales)
    if isinstance(value, Returned) and type(value.module) is not type(module_of(spec)):
        return Returned(describe(value.module), spec[0])
    return value


def read(value: Any) -> dict:
    require_unchanged(value)
    if isinstance(value.module, str):
        raise Wrong(f"it returned {value.module}; expected an nn.{value.y}, as it was given")
    return {"y": as_float64(value.y, "its output")} | read_parameters(value.module)


def judge(answer: dict, case: Case) -> None:
    spec, scales = case.args
    wanted = output_of(spec) / scales
    # Each channel in units of its own: a small one must not hide behind a large one.
    unit = np.abs(wanted).max(axis=0)
    if answer["y"].shape == wanted.shape:
        judge_close(answer["y"] / unit, wanted / unit, "output", "the output before, divided by the channel's scale,")
    judge_close(answer["y"], wanted, "output", "the output before, divided by the channel's scale,")
    weight = spec[1].astype(np.float64)
    divided = weight / (scales[:, None] if weight.ndim == 2 else scales)
    judge_close(answer["weight"], divided, "weight", "the weight divided by the channel's scale")


@dataclass(frozen=True)
class Folding(Recipe):
    """A module made by `layer`, whose weight and bias are then changed in place."""

    layer: Callable = copy.deepcopy  # of the module that was given
    weight: Callable = lambda weight, scales: weight.div_(scales[:, None] if weight.ndim == 2 else scales)
    bias: Callable = lambda bias, scales: bias.div_(scales)

    def __call__(self, before, scales):
        import torch

        made = self.layer(before)
        with torch.no_grad():
            self.weight(made.weight, scales)
            if getattr(made, "bias", None) is not None:
                self.bias(made.bias, scales)
        return made


right = Folding()


def multiply_weight(weight, scales):
    weight.mul_(scales[:, None] if weight.ndim == 2 else scales)


def left_alone(parameter, scales):
    pass


def with_default_eps(before):
    made = copy.deepcopy(before)
    if hasattr(made, "eps"):
        made.eps = 1e-5
    return made


def divide_behind(before, scales):
    import torch

    from labutils.models.outliers import Divide

    return torch.nn.Sequential(before, Divide(scales))


MISCONCEPTIONS = (
    Misconception("the bias is not divided", right.but(bias=left_alone),
        "The whole output is to be divided: (x w + b) / s. The bias is a part of it."),
    Misconception("multiplied instead of divided",
        right.but(weight=multiply_weight, bias=lambda bias, scales: bias.mul_(scales)),
        "The next layer's weight was multiplied, so what enters it must be divided."),
    Misconception("columns of the weight instead of rows",
        right.but(weight=lambda weight, scales: weight.div_(scales)),
        "These scales belong to the *outputs* of this layer, and an output is a row of its weight. A vector lines up "
        "with the last axis unless you give it another shape."),
    Misconception("only the bias is divided", right.but(weight=left_alone),
        "The whole output is to be divided: (x w + b) / s. The weight is the larger part of it."),
    Misconception("the norm's eps is lost", right.but(layer=with_default_eps),
        "A new norm has eps = 1e-5 unless it is told otherwise. Copy the module, with all that belongs to it."),
    Misconception("the module is changed", right.but(layer=lambda before: before),
        "The module that was given is part of a model that is still needed, to compare with. Work on a copy."),
    Misconception("a division behind the module", divide_behind,
        "That is right, but still an operation at each call. Put the scales into the weight and the bias: then the "
        "division is free."),
)  # fmt: skip

EXERCISE = Exercise(
    name="fold_division",
    lab=LESSON,
    place=40,
    points=2,
    reference=fold_division,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    stretch=True,
    run=run,
)
