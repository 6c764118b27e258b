"""Small models that the cases name, and what a model looks like beside the one that was built.

Cases hold names, and models are built when a check runs: the exercises can be listed where torch is not installed.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

WIDTH, CLASSES, TOKENS = 12, 4, 40


def perceptron(nn):
    return nn.Sequential(
        nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES, bias=False)
    )


def block(nn):
    return nn.Sequential(OrderedDict(norm=nn.LayerNorm(WIDTH), fc=nn.Linear(WIDTH, WIDTH), act=nn.ReLU()))


def nested(nn):
    blocks = nn.Sequential(block(nn), block(nn))
    return nn.Sequential(OrderedDict(stem=nn.Linear(WIDTH, WIDTH), blocks=blocks, head=nn.Linear(WIDTH, CLASSES)))


def residual(nn):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

        def forward(self, x):
            return x + self.second(self.first(x).relu())

    return nn.Sequential(OrderedDict(body=Residual(), head=nn.Linear(WIDTH, CLASSES)))


def with_other_layers(nn):
    """Layers with weights that are not linear: an embedding, a convolution, a norm."""
    reads = OrderedDict(embedding=nn.Embedding(TOKENS, 8), conv=nn.Conv1d(6, 3, 1), norm=nn.BatchNorm1d(3))
    return nn.Sequential(reads | OrderedDict(flat=nn.Flatten(), head=nn.Linear(24, CLASSES)))


def similar_names(nn):
    parts = OrderedDict(heads=nn.Sequential(nn.Linear(WIDTH, WIDTH)), block=block(nn))
    parts["block"].add_module("head", nn.Linear(WIDTH, WIDTH))
    parts["head2"] = nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(parts | OrderedDict(head=nn.Linear(WIDTH, CLASSES)))


def shared(nn):
    layer = nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(WIDTH, CLASSES))


def shared_deep(nn):
    layer = nn.Linear(WIDTH, WIDTH)
    first, second = nn.Sequential(layer, nn.ReLU()), nn.Sequential(nn.LayerNorm(WIDTH), layer)
    return nn.Sequential(OrderedDict(first=first, second=second, head=nn.Linear(WIDTH, CLASSES)))


def tied(nn):
    model = nn.Sequential(OrderedDict(
        embedding=nn.Embedding(TOKENS, 8), body=nn.Linear(8, 8), head=nn.Linear(8, TOKENS, bias=False),
    ))  # fmt: skip
    model.head.weight = model.embedding.weight
    return model


def half(nn):
    return nn.Sequential(perceptron(nn).half(), nn.Linear(CLASSES, 3).bfloat16(), nn.Linear(3, 2).double())


def frozen(nn):
    model = perceptron(nn)
    model[0].requires_grad_(False)
    return model


def codes(nn):
    """Codes and scales in buffers, as a quantized layer holds its weight."""
    import torch

    layer = nn.Module()
    layer.register_buffer("codes", torch.ones(30, 20, dtype=torch.int8))
    layer.register_buffer("scale", torch.ones(30))
    return nn.Sequential(layer, nn.Linear(30, 5))


def shared_norm(nn):
    norm = nn.BatchNorm1d(WIDTH)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), norm, nn.ReLU(), norm)


def positions(nn):
    """A buffer that state_dict leaves out, as transformers have."""
    import torch

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    model[0].register_buffer("position_ids", torch.arange(50), persistent=False)
    return model


MODELS: dict[str, Callable] = {
    "perceptron": perceptron,
    "nested": nested,
    "residual": residual,
    "other layers": with_other_layers,
    "names": similar_names,
    "shared": shared,
    "shared deep": shared_deep,
    "tied": tied,
    "half": half,
    "frozen": frozen,
    "codes": codes,
    "shared norm": shared_norm,
    "positions": positions,
    "one layer": lambda nn: nn.Sequential(nn.Linear(WIDTH, CLASSES)),
    "embedding": lambda nn: nn.Sequential(nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, CLASSES)),
    "norm": lambda nn: nn.Sequential(nn.Linear(WIDTH, 10), nn.BatchNorm1d(10)),
    "in training": lambda nn: nn.Sequential(nested(nn), nn.Dropout(0.5)).train(),
    "nothing": lambda nn: nn.Sequential(nn.ReLU(), nn.Flatten()),
}


def build(name: str) -> Any:
    """A model of the table, the same each time; the learner's random numbers are left alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        return MODELS[name](torch.nn).train(name == "in training")


def inputs(model: Any, count: int = 5) -> Any:
    """A batch that a model of the table takes."""
    import torch

    rng = np.random.default_rng(6)
    if any(isinstance(module, torch.nn.Embedding) for module in model.modules()):
        return torch.tensor(rng.integers(0, TOKENS, (count, 6)))
    return torch.tensor(rng.normal(size=(count, WIDTH)).astype(np.float32))


def outputs(model: Any, x: Any) -> Any:
    """The model's answers in eval mode; the model itself keeps its mode."""
    import torch

    with torch.no_grad():
        return copy.deepcopy(model).eval()(x)


def difference(model: Any, name: str) -> str:
    """How a model differs from what `build(name)` makes, in a few words; "" where it does not."""
    fresh = build(name)
    return _module_difference(fresh, model) or _tensor_difference(fresh, model)


def _module_difference(fresh: Any, model: Any) -> str:
    wanted, found = dict(fresh.named_modules()), dict(model.named_modules())
    for place, module in wanted.items():
        if place not in found or type(found[place]).__name__ != type(module).__name__:
            now = type(found[place]).__name__ if place in found else "gone"
            return f"`{place}` was {with_article(module)} and is now {now}"
        if found[place].training != module.training:
            return f"`{place}` was put into {'train' if found[place].training else 'eval'} mode"
    if len(found) > len(wanted):
        return f"it has a new module, `{next(place for place in found if place not in wanted)}`"
    return ""


def _tensor_difference(fresh: Any, model: Any) -> str:
    import torch

    wanted, found = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (fresh, model))
    for place, tensor in wanted.items():
        if place not in found or not torch.equal(found[place], tensor):
            return f"`{place}` has other values now"
    return ""


def with_article(module: Any) -> str:
    """'a Linear', 'an Embedding'."""
    kind = type(module).__name__
    return f"a{'n' if kind[0] in 'AEIOU' else ''} {kind}"
