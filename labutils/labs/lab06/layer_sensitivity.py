"""layer_sensitivity: how much a score falls when one layer alone is quantized."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils import models
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe, distinct
from labutils.labs.lab06 import LESSON
from labutils.labs.lab06._coarse import coarse
from labutils.labs.lab06._models import build, difference, inputs, outputs
from labutils.labs.recipes import Recipe

if TYPE_CHECKING:
    from torch import nn


def layer_sensitivity(
    model: nn.Module, score: Callable[[nn.Module], float], convert: Callable[[nn.Linear], nn.Module]
) -> dict[str, float]:
    """Name -> how much `score(model)` falls when `convert` replaces that linear layer and no other.

    >>> import torch
    >>> from labutils import Scheme
    >>> from labutils.models import QuantizedLinear
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, 0.6]])), model[1].weight.data.fill_(1.0)
    >>> score = lambda model: model(torch.tensor([[0.0, 1.0]])).item()
    >>> falls = layer_sensitivity(model, score, lambda layer: QuantizedLinear(layer, Scheme(2)))
    >>> {name: round(fall, 4) for name, fall in falls.items()}
    {'1': 0.0, '0': -0.4}

    At 2 bits and scale 1 the weights 1.0 and 0.6 both become 1. A fall below 0 says that the score rose. Errors as in
    `labutils.models.layer_sensitivity`.
    """
    return models.layer_sensitivity(model, score, convert)


def score_function(kind: str, name: str, step: float) -> Callable:
    """Three scores of a model; "error" is the best where the first layer alone is quantized."""
    model = build(name)
    x = inputs(model, 100)
    y = outputs(model, x)
    if kind == "accuracy":
        labels = y.argmax(dim=1)
        labels[::9] = (labels[::9] + 1) % y.shape[1]
        return lambda model: (outputs(model, x).argmax(dim=1) == labels).double().mean().item()
    if kind == "closeness":
        return lambda model: 1 / (1 + (outputs(model, x) - y).square().mean().item())
    others = list(models.linear_layers(model))[1:]
    target = outputs(models.quantize_model(model, coarse(step), skip=others), x) if others else y
    return lambda model: -(outputs(model, x) - target).square().mean().item()


def cases() -> list[Case]:
    import torch  # noqa: F401 - takes seconds, and no time limit runs here

    return [
        Case("how near the outputs stay, three layers", ("perceptron", "closeness", 0.25)),
        Case("how near the outputs stay, layers in blocks", ("nested", "closeness", 0.5)),
        Case("accuracy, three layers, very coarse weights", ("perceptron", "accuracy", 1.0)),
        Case("accuracy, a residual block", ("residual", "accuracy", 1.0)),
        Case("a score that rises when one layer is quantized", ("nested", "error", 0.5)),
        Case("one layer", ("one layer", "closeness", 0.5)),
    ]


def on_model(submission: Callable, name: str, kind: str, step: float) -> tuple:
    model = build(name)
    return name, model, submission(model, score_function(kind, name, step), coarse(step))


def read(value: Any) -> dict:
    name, model, result = value
    if not isinstance(result, dict):
        raise Wrong(f"it should return a dict, name -> fall of the score, but it returned {describe(result)}")
    named = {str(key): as_number(fall, f"the fall at {key}") for key, fall in result.items()}
    return {"changed": bool(difference(model, name)), **named}


def falls(answer: dict) -> dict:
    return {"falls": np.array([answer[name] for name in sorted(answer) if name != "changed"])}


@cache
def expected_falls(name: str, kind: str, step: float) -> dict[str, float]:
    return layer_sensitivity(build(name), score_function(kind, name, step), coarse(step))


def judge(answer: dict, case: Case) -> None:
    if answer["changed"]:
        raise Wrong("the model that you were given is no longer what it was: quantize copies of it")
    expected = expected_falls(*case.args)
    missing = [name for name in expected if name not in answer]
    extra = [name for name in answer if name not in expected and name != "changed"]
    if missing:
        came = f", only for {', '.join(f'`{name}`' for name in extra)}" if extra else ""
        raise Wrong(f"there is no entry for `{missing[0]}`{came}")
    if extra:
        raise Wrong(f"`{extra[0]}` is not the name of a linear layer of this model")
    for name, fall in expected.items():
        if not math.isclose(answer[name], fall, rel_tol=1e-3, abs_tol=1e-6):
            wanted, found = distinct(fall, answer[name], 4)
            raise Wrong(f"with `{name}` alone quantized the score falls by {wanted}, but you say {found}")


def only(model, convert, name):
    """A copy in which this layer alone is quantized."""
    return models.quantize_model(model, convert, skip=[other for other in models.linear_layers(model) if other != name])


@dataclass(frozen=True)
class Measure(Recipe):
    """key(name) -> fall(score(model), score(version(model, convert, name))) for each of names(model)."""

    fall: Callable = lambda best, now: best - now
    version: Callable = only
    names: Callable = lambda model: models.linear_layers(model)
    key: Callable = lambda name: name

    def __call__(self, model, score, convert):
        best = score(model)
        return {
            self.key(name): self.fall(best, score(self.version(model, convert, name))) for name in self.names(model)
        }


right = Measure()


def all_but(model, convert, left):
    """A copy in which all layers are quantized but those in `left`."""
    if set(left) == set(models.linear_layers(model)):
        return model
    return models.quantize_model(model, convert, skip=left)


def cumulative(model, score, convert):
    best, names = score(model), list(models.linear_layers(model))
    return {name: best - score(all_but(model, convert, names[i:])) for i, name in enumerate(names, start=1)}


def step_by_step(model, score, convert):
    falls = cumulative(model, score, convert)
    return {name: fall - before for (name, fall), before in zip(falls.items(), [0, *falls.values()])}


def of_the_model_itself(model, score, convert):
    best, falls = score(model), {}
    for name, layer in models.linear_layers(model).items():
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, convert(layer))
        falls[name] = best - score(model)
    return falls


def gain_of_float(model, score, convert):
    everything = score(models.quantize_model(model, convert))
    return {name: score(all_but(model, convert, [name])) - everything for name in models.linear_layers(model)}


def from_everything(model, score, convert):
    everything = score(models.quantize_model(model, convert))
    return {name: score(only(model, convert, name)) - everything for name in models.linear_layers(model)}


MISCONCEPTIONS = (
    Misconception("layers are left quantized", cumulative,
        "Each layer was quantized on top of those before it, so the last one is blamed for all. Start from the float "
        "model for every layer."),
    Misconception("layers are left quantized, and each is charged the difference", step_by_step,
        "The differences depend on the order, since errors meet errors. Start from the float model for every layer."),
    Misconception("quantizes the model itself", of_the_model_itself,
        "The caller's model lost its float layers, and each layer was judged with those before it quantized as well. "
        "Make a new copy for each layer."),
    Misconception("all other layers are quantized instead",
        right.but(version=lambda model, convert, name: all_but(model, convert, [name])),
        "`skip` names what stays in float. To quantize one layer alone, skip all the others."),
    Misconception("what leaving a layer in float gains", gain_of_float,
        "That starts from the model with everything quantized and takes one layer back. It is a fair question too, "
        "but the contract starts from float and quantizes one layer."),
    Misconception("compared with the model that has everything quantized", from_everything,
        "The fall is measured from the score of the float model."),
    Misconception("all layers are quantized each time",
        right.but(version=lambda model, convert, name: models.quantize_model(model, convert)),
        "Every layer got the same number: the whole model was quantized for each. Quantize one layer, skip the "
        "others."),
    Misconception("the sign is upside down", right.but(fall=lambda best, now: now - best),
        "A sensitive layer should get a large number. The score is larger for a better model, so its fall is the "
        "float model's score minus the other."),
    Misconception("the score instead of its fall", right.but(fall=lambda best, now: now),
        "That is how good the model still is. How much it has lost is the float model's score minus that."),
    Misconception("a fall without a sign", right.but(fall=lambda best, now: abs(best - now)),
        "Some layers do no harm, and then the score may rise a little. That is a fall below 0, not a loss."),
    Misconception("a rise is counted as nothing", right.but(fall=lambda best, now: max(0.0, best - now)),
        "A score may rise a little. Report that as a fall below 0: it says how large the noise is."),
    Misconception("the fall relative to the score",
        right.but(fall=lambda best, now: (best - now) / best if best else best - now),
        "The contract asks for the difference of two scores, not for a ratio."),
    Misconception("misses nested modules",
        right.but(names=lambda model: [name for name in models.linear_layers(model) if "." not in name]),
        "Layers inside blocks are missing. Walk all the way down."),
    Misconception("the last part of a name for the whole", right.but(key=lambda name: name.rpartition(".")[2]),
        "Two blocks have an `fc` each, and in the dict the second overwrites the first. Use the whole name, as "
        "`named_modules` gives it."),
)  # fmt: skip

EXERCISE = Exercise(
    name="layer_sensitivity",
    lab=LESSON,
    place=40,
    points=2,
    reference=layer_sensitivity,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    shown=falls,
    run=on_model,
)
