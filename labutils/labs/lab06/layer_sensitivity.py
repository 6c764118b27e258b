"""layer sensitivity."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number, describe
from labutils.labs import answers
from labutils.labs.lab06 import LESSON
from labutils.labs.lab06._shared import _changed, _inputs, _linear, _outputs, build, coarse

if TYPE_CHECKING:
    from torch import nn


Array = Any  # a numpy.ndarray or a torch.Tensor


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
    from labutils import models

    return models.layer_sensitivity(model, score, convert)


def _score(kind: str, name: str, step: float) -> Callable:
    """Three ways to say how good a model is, of which one is fond of coarse weights."""
    model = build(name)
    x = _inputs(model, 100)
    y = _outputs(model, x)
    if kind == "accuracy":
        labels = y.argmax(dim=1)
        labels[::9] = (labels[::9] + 1) % y.shape[1]
        return lambda model: (_outputs(model, x).argmax(dim=1) == labels).double().mean().item()
    if kind == "closeness":
        return lambda model: 1 / (1 + (_outputs(model, x) - y).square().mean().item())
    others = list(_linear(model))[1:]
    target = _outputs(answers.quantize_model(model, coarse(step), others), x) if others else y
    return lambda model: -(_outputs(model, x) - target).square().mean().item()


def _sensitivity_cases() -> list[Case]:
    import torch  # noqa: F401 - takes seconds, and here no clock runs yet

    return [
        Case("how near the outputs stay, three layers", ("perceptron", "closeness", 0.25)),
        Case("how near the outputs stay, layers in blocks", ("nested", "closeness", 0.5)),
        Case("accuracy, three layers, very coarse weights", ("perceptron", "accuracy", 1.0)),
        Case("accuracy, a residual block", ("residual", "accuracy", 1.0)),
        Case("a score that rises when one layer is quantized", ("nested", "error", 0.5)),
        Case("one layer", ("one layer", "closeness", 0.5)),
    ]


def _run_sensitivity(submission: Callable, name: str, kind: str, step: float) -> tuple:
    model = build(name)
    return name, model, submission(model, _score(kind, name, step), coarse(step))


def _read_sensitivity(value: Any) -> dict:
    name, model, result = value
    if not isinstance(result, dict):
        raise Wrong(f"it should return a dict, name -> fall of the score, but it returned {describe(result)}")
    named = {str(key): as_number(fall, f"the fall at {key}") for key, fall in result.items()}
    return {"changed": bool(_changed(model, name)), **named}


@cache
def _falls(name: str, kind: str, step: float) -> dict[str, float]:
    return layer_sensitivity(build(name), _score(kind, name, step), coarse(step))


def _judge_sensitivity(answer: dict, case: Case) -> None:
    if answer["changed"]:
        raise Wrong("the model that you were given is no longer what it was: quantize copies of it")
    expected = _falls(*case.args)
    missing = [name for name in expected if name not in answer]
    extra = [name for name in answer if name not in expected and name != "changed"]
    if missing:
        came = f", only for {', '.join(f'`{name}`' for name in extra)}" if extra else ""
        raise Wrong(f"there is no entry for `{missing[0]}`{came}")
    if extra:
        raise Wrong(f"`{extra[0]}` is not the name of a linear layer of this model")
    for name, fall in expected.items():
        if not math.isclose(answer[name], fall, rel_tol=1e-3, abs_tol=1e-6):
            raise Wrong(f"with `{name}` alone quantized the score falls by {fall:.4g}, but you say {answer[name]:.4g}")


def _only(model: Any, convert: Callable, name: str) -> Any:
    return answers.quantize_model(model, convert, [other for other in _linear(model) if other != name])


def _measuring(
    fall: Callable = lambda best, now: best - now,
    version: Callable = _only,
    names: Callable = _linear,
    key: Callable = lambda name: name,
) -> Callable:
    """Measures sensitivities, in which one step can be replaced by a wrong one."""

    def sensitivity(model, score, convert):
        best = score(model)
        return {key(name): fall(best, score(version(model, convert, name))) for name in names(model)}

    return sensitivity


def _cumulative(model, score, convert):
    best, done, falls = score(model), [], {}
    for name in _linear(model):
        done.append(name)
        falls[name] = best - score(_all_but(model, convert, [n for n in _linear(model) if n not in done]))
    return falls


def _step_by_step(model, score, convert):
    falls = _cumulative(model, score, convert)
    before = [0, *list(falls.values())[:-1]]
    return {name: fall - last for (name, fall), last in zip(falls.items(), before, strict=True)}


def _all_but(model: Any, convert: Callable, left: list[str]) -> Any:
    layers = _linear(model)
    return model if set(left) == set(layers) else answers.quantize_model(model, convert, left)


def _of_the_model_itself(model, score, convert):
    best, falls = score(model), {}
    for name, layer in _linear(model).items():
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, convert(layer))
        falls[name] = best - score(model)
    return falls


def _gain_of_float(model, score, convert):
    everything = score(answers.quantize_model(model, convert))
    return {name: score(_all_but(model, convert, [name])) - everything for name in _linear(model)}


def _from_everything(model, score, convert):
    everything = score(answers.quantize_model(model, convert))
    return {name: score(_only(model, convert, name)) - everything for name in _linear(model)}


LAYER_SENSITIVITY = (
    Misconception(
        "layers are left quantized",
        _cumulative,
        "Each layer was quantized on top of those before it, so the last one is blamed for all. Start from the float "
        "model for every layer.",
    ),
    Misconception(
        "layers are left quantized, and each is charged the difference",
        _step_by_step,
        "The differences depend on the order, since errors meet errors. Start from the float model for every layer.",
    ),
    Misconception(
        "quantizes the model itself",
        _of_the_model_itself,
        "The caller's model lost its float layers, and each layer was judged with those before it quantized as well. "
        "Make a new copy for each layer.",
    ),
    Misconception(
        "all other layers are quantized instead",
        _measuring(version=lambda model, convert, name: _all_but(model, convert, [name])),
        "`skip` names what stays in float. To quantize one layer alone, skip all the others.",
    ),
    Misconception(
        "what leaving a layer in float gains",
        _gain_of_float,
        "That starts from the model with everything quantized and takes one layer back. It is a fair question too, but "
        "the contract starts from float and quantizes one layer.",
    ),
    Misconception(
        "compared with the model that has everything quantized",
        _from_everything,
        "The fall is measured from the score of the float model.",
    ),
    Misconception(
        "all layers are quantized each time",
        _measuring(version=lambda model, convert, name: answers.quantize_model(model, convert)),
        "Every layer got the same number: the whole model was quantized for each. Quantize one layer, skip the others.",
    ),
    Misconception(
        "the sign is upside down",
        _measuring(fall=lambda best, now: now - best),
        "A sensitive layer should get a large number. The score is larger for a better model, so its fall is the float "
        "model's score minus the other.",
    ),
    Misconception(
        "the score instead of its fall",
        _measuring(fall=lambda best, now: now),
        "That is how good the model still is. How much it has lost is the float model's score minus that.",
    ),
    Misconception(
        "a fall without a sign",
        _measuring(fall=lambda best, now: abs(best - now)),
        "Some layers do no harm, and then the score may rise a little. That is a fall below 0, not a loss.",
    ),
    Misconception(
        "a rise is counted as nothing",
        _measuring(fall=lambda best, now: max(0.0, best - now)),
        "A score may rise a little. Report that as a fall below 0: it says how large the noise is.",
    ),
    Misconception(
        "the fall relative to the score",
        _measuring(fall=lambda best, now: (best - now) / best if best else best - now),
        "The contract asks for the difference of two scores, not for a ratio.",
    ),
    Misconception(
        "misses nested modules",
        _measuring(names=lambda model: [name for name in _linear(model) if "." not in name]),
        "Layers inside blocks are missing. Walk all the way down.",
    ),
    Misconception(
        "the last part of a name for the whole",
        _measuring(key=lambda name: name.rpartition(".")[2]),
        "Two blocks have an `fc` each, and in the dict the second overwrites the first. Use the whole name, as "
        "`named_modules` gives it.",
    ),
)


EXERCISE = Exercise(
    name="layer_sensitivity",
    lab=LESSON,
    place=40,
    points=2,
    reference=layer_sensitivity,
    cases=_sensitivity_cases,
    read=_read_sensitivity,
    judge=_judge_sensitivity,
    misconceptions=LAYER_SENSITIVITY,
    run=_run_sensitivity,
)
