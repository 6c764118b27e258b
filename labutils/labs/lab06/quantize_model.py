"""quantize_model: a copy of a model whose linear layers are replaced, however deep they lie."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from labutils import models
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import describe
from labutils.labs.lab06 import LESSON
from labutils.labs.lab06._coarse import coarse, coarse_class
from labutils.labs.lab06._models import build, difference, inputs, outputs, with_article
from labutils.labs.recipes import Recipe

if TYPE_CHECKING:
    from torch import nn


def quantize_model(model: nn.Module, convert: Callable[[nn.Linear], nn.Module], skip: Iterable[str] = ()) -> nn.Module:
    """A copy of `model` in which `convert(layer)` stands in place of every linear layer, however deep.

    >>> from torch import nn
    >>> from labutils.models import QuantizedLinear
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> quantize_model(model, QuantizedLinear.from_float, skip=["2"])
    Sequential(
      (0): QuantizedLinear(64, 64, bias=True, int8 codes, 8 bits, PerAxis(axis=0))
      (1): ReLU()
      (2): Linear(in_features=64, out_features=10, bias=True)
    )

    `skip` names layers, as `model.named_modules()` does, that stay in float. A layer used in two places is converted
    once. The model itself is not changed, and the copy is in its mode, training or eval. Errors as in
    `labutils.models.quantize_model`, which does more.
    """
    return models.quantize_model(model, convert, skip=skip)


def cases() -> list[Case]:
    import torch  # noqa: F401 - takes seconds, and no time limit runs here

    return [
        Case("a perceptron of three layers", ("perceptron",)),
        Case("layers inside blocks inside a model", ("nested",)),
        Case("a residual block", ("residual",)),
        Case("embedding, convolution and norm stay", ("other layers",)),
        Case("one layer is skipped", ("perceptron", ("2",))),
        Case("a layer inside a block is skipped", ("nested", ("blocks.1.fc",))),
        Case("two are skipped, in a list", ("nested", ["stem", "head"])),
        Case("`head` is skipped; `heads.0`, `head2` and `block.head` are not", ("names", ("head",))),
        Case("one layer used twice, side by side", ("shared",)),
        Case("one layer used twice, in two blocks", ("shared deep",)),
        Case("a model in training mode", ("in training",)),
    ]


def on_model(submission: Callable, name: str, *skip: Iterable[str]) -> tuple:
    model = build(name)
    return name, model, submission(model, coarse(), *skip)


GONE, FLOAT, REPLACED, ANOTHERS, OTHER = range(5)  # what stands in a place of the result


def as_module(value: Any) -> nn.Module:
    """A returned model; Wrong for anything else."""
    from torch import nn

    if value is None:
        raise Wrong("it returned None: end with a `return` of the quantized copy")
    if not isinstance(value, nn.Module):
        raise Wrong(f"it should return a model, but it returned {describe(value)}")
    return value


def read(value: Any) -> dict:
    """What stands in each place of the returned model, as numbers."""
    name, model, result = value
    as_module(result)
    if difference(model, name):  # whatever else is wrong, this comes first
        replaced = any(type(module) is coarse_class() for module in result.modules())
        return {"changed": True, "given": result is model, "replaced": replaced}
    original, found = build(name), {}
    for place, module in result.named_modules(remove_duplicate=False):
        found.setdefault(place, module)  # `blocks.0.fc` is first what the block holds, not a module of that very name
    places = places_of(original)
    held = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    try:
        y = outputs(result, inputs(original)).numpy()
    except Exception:
        y = np.full(1, np.nan)
    return {
        "changed": False,
        "kinds": np.array([kind(original.get_submodule(place), found.get(place)) for place in places]),
        "shared": np.array(first_places([found.get(place) for place in places])),
        "training": np.array([int(place in found and found[place].training) for place in places]),
        "new": len(set(found) - set(places) - {""}),
        "aliases": sum(tensor.data_ptr() in held for tensor in [*result.parameters(), *result.buffers()]),
        "output": y,
    }


def places_of(model: Any) -> list[str]:
    """The names of all modules in a model; a shared one has several."""
    return [place for place, _ in model.named_modules(remove_duplicate=False) if place]


def first_places(modules: list) -> list[int]:
    """For each module the index at which it stands first."""
    first: dict[int, int] = {}
    return [first.setdefault(id(module), i) for i, module in enumerate(modules)]


def kind(was: Any, now: Any) -> int:
    import torch

    if now is None:
        return GONE
    if type(now) is coarse_class():
        is_its_own = isinstance(was, torch.nn.Linear) and torch.equal(now.weight, coarse()(was).weight)
        return REPLACED if is_its_own else ANOTHERS
    return FLOAT if type(now).__name__ == type(was).__name__ else OTHER


def judge(answer: dict, case: Case) -> None:
    name, skip, *_ = *case.args, ()
    if answer["changed"]:
        raise Wrong("the model that you were given is no longer what it was: replace layers in a copy of it")
    original = build(name)
    judge_kinds(answer["kinds"], original, skip)
    if answer["new"]:
        raise Wrong(f"the result has {answer['new']} modules under names that the model does not have")
    judge_sharing_and_mode(answer, original)
    if answer["aliases"]:
        raise Wrong(f"{answer['aliases']} tensors of the result are those of the model: who trains one changes both")
    y = outputs(quantize_model(original, coarse(), skip), inputs(original)).numpy()
    if answer["output"].shape != y.shape or not np.allclose(answer["output"], y, atol=1e-5):
        raise Wrong("all layers are in place, but the result does not compute what the model does: is `forward` lost?")


def judge_kinds(kinds: np.ndarray, original: Any, skip: Iterable[str]) -> None:
    linear = models.linear_layers(original)
    for place, found in zip(places_of(original), kinds, strict=True):
        was = with_article(original.get_submodule(place))
        if found == (REPLACED if place in linear and place not in skip else FLOAT):
            continue
        if place in skip:
            raise Wrong(f"`{place}` is to be skipped, but it was replaced")
        if found == ANOTHERS:
            raise Wrong(f"`{place}` was replaced by what `convert` made of another layer")
        now = {GONE: "gone", FLOAT: f"still {was}", REPLACED: "replaced", OTHER: "something else"}[found]
        if place in linear:
            raise Wrong(f"`{place}` should be what `convert` made of it, but it is {now}")
        raise Wrong(f"`{place}` is {was} and should have stayed, but it is {now}")


def judge_sharing_and_mode(answer: dict, original: Any) -> None:
    places = places_of(original)
    modules = [original.get_submodule(place) for place in places]
    for i, first in enumerate(first_places(modules)):
        if answer["shared"][i] != first:
            raise Wrong(f"`{places[first]}` and `{places[i]}` are one layer in the model, but two in the result")
        if answer["training"][i] != modules[i].training:
            wanted, came = ("eval", "train") if answer["training"][i] else ("train", "eval")
            raise Wrong(f"the model is in {wanted} mode, but `{places[i]}` is in {came} mode")


def parent_and_name(model: Any, name: str) -> tuple[Any, str]:
    path, _, last = name.rpartition(".")
    return model.get_submodule(path), last


@dataclass(frozen=True)
class ByName(Recipe):
    """Replaces the layers of a copy, found by their names."""

    start: Callable = copy.deepcopy
    named: Callable = lambda model: list(model.named_modules(remove_duplicate=False))
    skips: Callable = lambda name, skip: name in skip
    once: bool = True  # a layer in two places is converted once
    place: Callable = parent_and_name
    mode: Callable = lambda new, old: new.train(old.training)
    finish: Callable = lambda quantized: quantized

    def __call__(self, model, convert, skip=()):
        from torch import nn

        quantized, made = self.start(model), {}
        for name, module in self.named(quantized):
            if isinstance(module, nn.Linear) and not self.skips(name, skip):
                if module not in made or not self.once:
                    made[module] = self.mode(convert(module), module)
                setattr(*self.place(quantized, name), made[module])
        return self.finish(quantized)


right = ByName()


def recursively(name_of: Callable, children: Callable) -> Callable:
    """Replaces layers on a walk down a copy; `name_of(path, name)` is what is looked for in `skip`."""

    def quantize(model, convert, skip=()):
        from torch import nn

        made = {}

        def walk(module, path):
            for name, child in list(children(module)):
                if isinstance(child, nn.Linear) and name_of(path, name) not in skip:
                    if child not in made:
                        made[child] = convert(child).train(child.training)
                    setattr(module, name, made[child])
                else:
                    walk(child, f"{path}{name}.")
            return module

        return walk(copy.deepcopy(model), "")

    return quantize


def rebound(model, convert, skip=()):
    from torch import nn

    quantized = copy.deepcopy(model)
    for name, module in quantized.named_modules():
        if isinstance(module, nn.Linear) and name not in skip:
            module = convert(module)
    return quantized


def original_and_copy(model, convert, skip=()):
    quantized = copy.deepcopy(model)
    right.but(start=lambda model: model)(model, convert, skip)
    return quantized


def chained(model, convert, skip=()):
    from torch import nn

    named = copy.deepcopy(model).named_modules()
    leaves = [(name, module) for name, module in named if not list(module.children())]
    return nn.Sequential(*[
        convert(module).train(module.training) if isinstance(module, nn.Linear) and name not in skip else module
        for name, module in leaves
    ]).train(model.training)  # fmt: skip


TWO_PLACES = (
    "`named_children` and `named_modules` report a module once, at the first place where they meet it. Here the same "
    "layer stands in two places, and the second still holds the float one."
)

MISCONCEPTIONS = (
    Misconception("quantizes the model in place", right.but(start=lambda model: model),
        "The caller's model has lost its float layers, so nothing is left to compare with. Take a deep copy first, "
        "and replace layers in that."),
    Misconception("replaces the layers of the original, and returns the copy", original_and_copy,
        "A copy was made, but the loop runs over the model itself. Walk through the copy."),
    Misconception("a copy that is not deep", right.but(start=copy.copy),
        "`copy.copy` makes a new outer object around the same inner ones, so replacing a layer replaces it in both. "
        "A model needs `copy.deepcopy`."),
    Misconception("misses nested modules",
        right.but(named=lambda model: [(n, m) for n, m in model._modules.items() if m is not None]),
        "Only layers directly in the model were replaced. Blocks hold layers too, and other blocks: walk all the way "
        "down."),
    Misconception("a shared layer is replaced in one place only",
        right.but(named=lambda model: list(model.named_modules())), TWO_PLACES),
    Misconception("a shared layer is replaced in one place only",
        recursively(lambda path, name: path + name, lambda module: module.named_children()), TWO_PLACES),
    Misconception("a shared layer becomes two", right.but(once=False),
        "One float layer in two places became two quantized ones, and takes its memory twice. Remember what you have "
        "converted already, and put it in both places."),
    Misconception("skip is ignored", right.but(skips=lambda name, skip: False),
        "Layers whose names are in `skip` stay what they are."),
    Misconception("skip upside down", right.but(skips=lambda name, skip: name not in skip),
        "`skip` names the layers that stay in float; all the others are to be replaced."),
    Misconception("skip by the beginning of a name", right.but(skips=lambda name, skip: name.startswith(tuple(skip))),
        "`heads.0` and `head2` begin as `head` does, and are other layers. A name is in `skip` or it is not."),
    Misconception("skip by a part of a name", right.but(skips=lambda name, skip: any(part in name for part in skip)),
        "`head` occurs in the names of other layers too. A name is in `skip` or it is not: compare whole names."),
    Misconception("skip by the last part of a name",
        recursively(lambda path, name: name, lambda module: module._modules.items()),
        "Inside a block, `named_children` says `fc` where `named_modules` of the whole model says `blocks.1.fc`. "
        "Carry the path along as you walk down, and compare that."),
    Misconception("a name with dots is set on the model itself", right.but(place=lambda model, name: (model, name)),
        "`setattr(model, 'blocks.0.fc', ...)` makes a new entry of that name, and the layer inside the block stays. "
        "Find the block first, then set its `fc`."),
    Misconception("a variable is assigned, and not the model", rebound,
        "`module = convert(module)` gives a new value to a variable. The model still holds the old layer: set it as "
        "an attribute of the module that contains it."),
    Misconception("new layers are in training mode", right.but(mode=lambda new, old: new),
        "A new module starts in training mode whatever the model is in. Give it the mode of the layer it replaces."),
    Misconception("the copy is put into eval mode",
        right.but(mode=lambda new, old: new, finish=lambda quantized: quantized.eval()),
        "The copy should be in the mode of the model, which may be training. Leave the mode to the caller."),
    Misconception("a chain is built of the layers", chained,
        "A model is more than a list of its layers: its `forward` adds, reshapes and branches. Copy the model, and "
        "replace layers in the copy."),
    Misconception("returns None", right.but(finish=lambda quantized: None), "Give the copy back to the caller."),
)  # fmt: skip

EXERCISE = Exercise(
    name="quantize_model",
    lab=LESSON,
    place=10,
    points=3,
    reference=quantize_model,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    shown=lambda answer: {},  # what is read are observations of the model
    run=on_model,
)
