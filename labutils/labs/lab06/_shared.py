"""What several exercises of this lab have in common."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    pass


Array = Any  # a numpy.ndarray or a torch.Tensor


# Cases name models, which are built when a check runs: the exercises can be listed where torch is not installed.
WIDTH, CLASSES, TOKENS = 12, 4, 40


def _perceptron(nn):
    return nn.Sequential(
        nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES, bias=False)
    )


def _block(nn):
    return nn.Sequential(OrderedDict(norm=nn.LayerNorm(WIDTH), fc=nn.Linear(WIDTH, WIDTH), act=nn.ReLU()))


def _nested(nn):
    blocks = nn.Sequential(_block(nn), _block(nn))
    return nn.Sequential(OrderedDict(stem=nn.Linear(WIDTH, WIDTH), blocks=blocks, head=nn.Linear(WIDTH, CLASSES)))


def _residual(nn):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

        def forward(self, x):
            return x + self.second(self.first(x).relu())

    return nn.Sequential(OrderedDict(body=Residual(), head=nn.Linear(WIDTH, CLASSES)))


def _with_other_layers(nn):
    """Layers that have weights and are no linear ones: an embedding, a convolution, a norm."""
    reads = OrderedDict(embedding=nn.Embedding(TOKENS, 8), conv=nn.Conv1d(6, 3, 1), norm=nn.BatchNorm1d(3))
    return nn.Sequential(reads | OrderedDict(flat=nn.Flatten(), head=nn.Linear(24, CLASSES)))


def _alike_names(nn):
    parts = OrderedDict(heads=nn.Sequential(nn.Linear(WIDTH, WIDTH)), block=_block(nn))
    parts["block"].add_module("head", nn.Linear(WIDTH, WIDTH))
    parts["head2"] = nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(parts | OrderedDict(head=nn.Linear(WIDTH, CLASSES)))


def _shared(nn):
    layer = nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(WIDTH, CLASSES))


def _shared_deep(nn):
    layer = nn.Linear(WIDTH, WIDTH)
    first, second = nn.Sequential(layer, nn.ReLU()), nn.Sequential(nn.LayerNorm(WIDTH), layer)
    return nn.Sequential(OrderedDict(first=first, second=second, head=nn.Linear(WIDTH, CLASSES)))


def _tied(nn):
    model = nn.Sequential(OrderedDict(
        embedding=nn.Embedding(TOKENS, 8), body=nn.Linear(8, 8), head=nn.Linear(8, TOKENS, bias=False),
    ))  # fmt: skip
    model.head.weight = model.embedding.weight
    return model


def _half(nn):
    return nn.Sequential(_perceptron(nn).half(), nn.Linear(CLASSES, 3).bfloat16(), nn.Linear(3, 2).double())


def _frozen(nn):
    model = _perceptron(nn)
    model[0].requires_grad_(False)
    return model


def _codes(nn):
    """As a quantized layer holds its weight: codes and scales in buffers."""
    import torch

    layer = nn.Module()
    layer.register_buffer("codes", torch.ones(30, 20, dtype=torch.int8))
    layer.register_buffer("scale", torch.ones(30))
    return nn.Sequential(layer, nn.Linear(30, 5))


def _positions(nn):
    """A buffer that files leave out, as transformers have."""
    import torch

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    model[0].register_buffer("position_ids", torch.arange(50), persistent=False)
    return model


MODELS: dict[str, Callable] = {
    "perceptron": _perceptron,
    "nested": _nested,
    "residual": _residual,
    "other layers": _with_other_layers,
    "names": _alike_names,
    "shared": _shared,
    "shared deep": _shared_deep,
    "tied": _tied,
    "half": _half,
    "frozen": _frozen,
    "codes": _codes,
    "positions": _positions,
    "one layer": lambda nn: nn.Sequential(nn.Linear(WIDTH, CLASSES)),
    "embedding": lambda nn: nn.Sequential(nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, CLASSES)),
    "norm": lambda nn: nn.Sequential(nn.Linear(WIDTH, 10), nn.BatchNorm1d(10)),
    "in training": lambda nn: nn.Sequential(_nested(nn), nn.Dropout(0.5)).train(),
    "nothing": lambda nn: nn.Sequential(nn.ReLU(), nn.Flatten()),
}


def build(name: str) -> Any:
    """A model of the table, the same each time; the learner's seed does not move."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        return MODELS[name](torch.nn).train(name == "in training")


def _inputs(model: Any, count: int = 5) -> Any:
    """What a model of the table takes."""
    import torch

    rng = np.random.default_rng(6)
    if any(isinstance(module, torch.nn.Embedding) for module in model.modules()):
        return torch.tensor(rng.integers(0, TOKENS, (count, 6)))
    return torch.tensor(rng.normal(size=(count, WIDTH)).astype(np.float32))


def _outputs(model: Any, x: Any) -> Any:
    """In eval mode, and the model stays as it was."""
    import torch

    with torch.no_grad():
        return copy.deepcopy(model).eval()(x)


@cache
def _coarse_class() -> type:
    from torch import nn
    from torch.nn import functional

    class Coarse(nn.Module):
        """What stands in for a quantized layer: weights in whole steps."""

        def __init__(self, linear, step):
            if not isinstance(linear, nn.Linear):
                raise TypeError(f"convert takes an nn.Linear, and was given {type(linear).__name__}")
            super().__init__()
            self.register_buffer("weight", (linear.weight.detach() / step).round() * step)
            self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

        def forward(self, x):
            return functional.linear(x, self.weight, self.bias)

    return Coarse


def coarse(step: float = 0.125) -> Callable:
    """A `convert`: an nn.Linear -> a layer whose weights are multiples of `step`."""
    return lambda linear: _coarse_class()(linear, step)


def _linear(model: Any) -> dict[str, Any]:
    from torch import nn

    named = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in named if isinstance(module, nn.Linear)}


def _changed(model: Any, name: str) -> str:
    """How a model differs from what `build` makes, in a few words, or nothing."""
    import torch

    fresh = build(name)
    wanted, found = dict(fresh.named_modules()), dict(model.named_modules())
    for place, module in wanted.items():
        if place not in found or type(found[place]).__name__ != type(module).__name__:
            now = type(found[place]).__name__ if place in found else "gone"
            return f"`{place}` was {_a(module)} and is now {now}"
        if found[place].training != module.training:
            return f"`{place}` was put into {'train' if found[place].training else 'eval'} mode"
    if len(found) > len(wanted):
        return f"it has a new module, `{next(place for place in found if place not in wanted)}`"
    now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for place, tensor in {**dict(fresh.named_parameters()), **dict(fresh.named_buffers())}.items():
        if place not in now or not torch.equal(now[place], tensor):
            return f"`{place}` has other values now"
    return ""


def _a(module: Any) -> str:
    kind = type(module).__name__
    return f"a{'n' if kind[0] in 'AEIOU' else ''} {kind}"
