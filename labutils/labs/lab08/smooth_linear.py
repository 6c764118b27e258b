"""smooth linear."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import describe
from labutils.labs.contract import trained_weights
from labutils.labs.lab08 import LESSON
from labutils.labs.lab08._shared import WEIGHT, _Changed, _floats, _judge_close, _require_unchanged

if TYPE_CHECKING:
    from torch import nn


Array = Any  # a numpy.ndarray or a torch.Tensor


def smooth_linear(linear: nn.Linear, scales: Array) -> nn.Module:
    """The same function as `linear`, computed with its input divided by `scales` and its weight multiplied by them.

    >>> import torch
    >>> linear = torch.nn.Linear(3, 2)
    >>> smoothed = smooth_linear(linear, torch.tensor([8.0, 2.0, 1.0]))
    >>> smoothed
    Sequential(
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


class _Bundle(NamedTuple):
    """A module that came out, and what it makes of an input."""

    module: Any
    y: Any = None


def _input_of(channels: int) -> np.ndarray:
    """(9, channels), of all sizes."""
    rng = np.random.default_rng(channels)
    return (rng.normal(size=(9, channels)) * np.geomspace(0.2, 5, 9)[:, None]).astype(np.float32)


def _module(spec: tuple) -> Any:
    """("Linear" or a norm, weight, bias or None) as a module of torch."""
    import torch

    kind, weight, bias = spec
    if kind == "Linear":
        made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    elif kind == "RMSNorm":
        made = torch.nn.RMSNorm(len(weight), eps=0.05)
    else:
        made = torch.nn.LayerNorm(len(weight), eps=0.05, bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight))
        if bias is not None:
            made.bias.copy_(torch.tensor(bias))
    return made


def _on_module(submission: Callable, spec: tuple, scales: np.ndarray) -> Any:
    """Hand a module to a submission, and run what comes out on an input; an answer only where it left them as they are.

    Random numbers are the same each time, so that a layer that was left at its random start can be recognised.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given, divisors = _module(spec), torch.tensor(scales)
        before = copy.deepcopy(given.state_dict())
        torch.manual_seed(0)
        module = submission(given, divisors)
        after = given.state_dict()
        if after.keys() != before.keys() or any(not torch.equal(after[name], before[name]) for name in before):
            return _Changed("layer")
        if not np.array_equal(divisors.numpy(), scales):
            return _Changed("scales")
        if not isinstance(module, torch.nn.Module):
            return _Bundle(module)
        with torch.no_grad():
            return _Bundle(module, module(torch.tensor(_input_of(_features(spec)))))


def _features(spec: tuple) -> int:
    return spec[1].shape[-1]


def _expected_output(spec: tuple) -> np.ndarray:
    """What the module makes of the input, in float64."""
    kind, weight, bias = spec
    x, weight = _input_of(_features(spec)).astype(np.float64), weight.astype(np.float64)
    if kind == "LayerNorm":
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 0.05)
    elif kind == "RMSNorm":
        x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 0.05)
    y = x @ weight.T if kind == "Linear" else x * weight
    return y if bias is None else y + bias


def _parameters(module: Any) -> dict:
    none = np.zeros(0)
    weight, bias = module.weight, getattr(module, "bias", None)
    return {
        "weight": none if weight is None else _floats(weight, "weight"),
        "bias": none if bias is None else _floats(bias, "bias"),
    }


def _layer_cases() -> list[Case]:
    rng = np.random.default_rng(80)
    w = trained_weights()
    bias = rng.normal(size=128).astype(np.float32)
    square = rng.normal(size=(10, 10)).astype(np.float32)
    scales = (np.geomspace(0.25, 16, 64)[rng.permutation(64)]).astype(np.float32)
    some = np.geomspace(0.5, 8, 10)[rng.permutation(10)].astype(np.float32)
    return [
        Case("the worked example", (("Linear", WEIGHT, np.array([1.0, 2.0], np.float32)), _hand_scales())),
        Case("as many outputs as inputs", (("Linear", square, bias[:10]), some)),
        Case("trained weights", (("Linear", w, bias), scales)),
        Case("a layer without bias", (("Linear", w[:20], None), scales)),
        Case("scales of 1 change nothing", (("Linear", square, bias[:10]), np.ones(10, np.float32))),
        Case("powers of two", (("Linear", square[:3], bias[:3]), 2.0 ** np.arange(-4, 6, dtype=np.float32))),
        Case("one input channel", (("Linear", square[:, :1].copy(), bias[:10]), np.array([4.0], np.float32))),
    ]


def _hand_scales() -> np.ndarray:
    return np.array([4.0, 1.0, 4.0], dtype=np.float32)  # of the worked example


def _read_smoothed(value: Any) -> dict:
    import torch

    _require_unchanged(value)
    if not isinstance(value.module, torch.nn.Module):
        came = "several values" if isinstance(value.module, (tuple, list)) else describe(value.module)
        raise Wrong(f"it returned {came}; expected one nn.Module, such as an nn.Sequential")
    if isinstance(value.module, torch.nn.Linear):
        raise Wrong("it returned an nn.Linear; expected a module that divides the input first and holds such a layer")
    layers = [module for module in value.module.modules() if type(module) is torch.nn.Linear]
    if len(layers) != 1:
        raise Wrong(f"the module should hold one nn.Linear, to be quantized later, but it holds {len(layers)}")
    return {"y": _floats(value.y, "its output")} | _parameters(layers[0])


def _judge_smoothed(answer: dict, case: Case) -> None:
    spec, scales = case.args
    _, weight, bias = spec
    _judge_close(answer["weight"], weight.astype(np.float64) * scales, "weight", "weight times the column's scale")
    wanted = np.zeros(0) if bias is None else bias.astype(np.float64)
    if answer["bias"].shape != wanted.shape:
        raise Wrong("the layer had no bias, but now has one" if bias is None else "the layer's bias is gone")
    if bias is not None:
        _judge_close(answer["bias"], wanted, "bias", "the bias as it was")
    _judge_close(answer["y"], _expected_output(spec), "output", "what the layer gave before")


def _smoothing(
    weight: Callable = lambda weight, scales: weight * scales,
    divide: Callable = lambda scales: scales,
    bias: Callable = lambda layer, scales: None,
    layer: Callable = copy.deepcopy,
) -> Callable:
    """A smoothing of a layer in which one step can be replaced by a wrong one."""

    def smooth_linear(linear, scales):
        import torch

        from labutils.models.outliers import Divide

        made = layer(linear)
        made.weight = torch.nn.Parameter(weight(linear.weight.detach(), scales))
        with torch.no_grad():
            bias(made, scales)
        return torch.nn.Sequential(Divide(divide(scales)), made)

    return smooth_linear


def _new_layer(linear: Any) -> Any:
    import torch

    return torch.nn.Linear(linear.in_features, linear.out_features, bias=linear.bias is not None)


def _layer_without_bias(linear: Any) -> Any:
    import torch

    return torch.nn.Linear(linear.in_features, linear.out_features, bias=False)


def _scale_bias(layer: Any, scales: Any) -> None:
    if layer.bias is not None:
        layer.bias.mul_(scales)


def _undivided(linear, scales):
    return _smoothing()(linear, scales)[1]


def _as_a_tuple(linear, scales):
    return tuple(_smoothing()(linear, scales))


SMOOTH_LINEAR = (
    Misconception(
        "multiplied on the wrong side",
        _smoothing(weight=lambda weight, scales: weight / scales, divide=lambda scales: 1 / scales),
        "The outputs are right, but the outliers grew: this multiplies the input and divides the weight. The size is "
        "to leave the activations.",
    ),
    Misconception(
        "the weight is divided, too",
        _smoothing(weight=lambda weight, scales: weight / scales),
        "Input and weight are both divided, so the outputs are not what they were. What one side loses the other must "
        "gain.",
    ),
    Misconception(
        "the input is multiplied, too",
        _smoothing(divide=lambda scales: 1 / scales),
        "Input and weight are both multiplied, so the outputs are not what they were. What one side gains the other "
        "must lose.",
    ),
    Misconception(
        "the input is not divided",
        _undivided,
        "The weight has the scales in it, but nothing takes them out of the input. Put the division before the layer.",
    ),
    Misconception(
        "the weight is left as it was",
        _smoothing(weight=lambda weight, scales: weight.clone()),
        "The input is divided, but the weight does not make up for it: multiply its columns.",
    ),
    Misconception(
        "rows of the weight instead of columns",
        _smoothing(weight=lambda weight, scales: weight * scales[:, None]),
        "weight is (out_features, in_features): an input channel is a column. Along the last axis the scales line up "
        "by themselves.",
    ),
    Misconception(
        "the bias is scaled, too",
        _smoothing(bias=_scale_bias),
        "The bias is added after the product, and the product did not change. Leave it as it is.",
    ),
    Misconception(
        "the bias is left at random",
        _smoothing(layer=_new_layer),
        "A new nn.Linear starts with random numbers in its weight *and* in its bias. Copy both.",
    ),
    Misconception(
        "the bias is lost",
        _smoothing(layer=_layer_without_bias),
        "The new layer has no bias, the old one has. Copy it as it is.",
    ),
    Misconception(
        "the float layer is changed",
        _smoothing(layer=lambda linear: linear),
        "The layer that was given is part of a model that is still needed, to compare with. Make a copy, or a new "
        "layer.",
    ),
    Misconception(
        "two values instead of a module",
        _as_a_tuple,
        "What divides and what multiplies are to be one module, that can stand where the layer stood: nn.Sequential "
        "runs one after the other.",
    ),
)


EXERCISE = Exercise(
    name="smooth_linear",
    lab=LESSON,
    place=20,
    points=3,
    reference=smooth_linear,
    cases=_layer_cases,
    read=_read_smoothed,
    judge=_judge_smoothed,
    misconceptions=SMOOTH_LINEAR,
    run=_on_module,
)
