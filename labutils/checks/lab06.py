"""Lab 06: a quantized copy of a model, its bytes, its answers, the sensitivity of its layers, and their bits."""

from __future__ import annotations

import copy
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from labutils import answers
from labutils.checks.engine import Case, Exercise, Misconception, Wrong, as_number, describe

LAB = "06_full_model"

# Cases name models, which are built when a check runs: the exercises can be listed where torch is not installed.

# --- the models -------------------------------------------------------------------------------------------------------

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


# --- quantize_model ---------------------------------------------------------------------------------------------------

GONE, FLOAT, REPLACED, ANOTHERS, OTHER = range(5)  # what stands in a place of the result


def _quantizer_cases() -> list[Case]:
    import torch  # noqa: F401 - takes seconds, and here no clock runs yet

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


def _run_quantizer(submission: Callable, name: str, *skip: Iterable[str]) -> tuple:
    model = build(name)
    return name, model, submission(model, coarse(), *skip)


def _read_model(value: Any) -> dict:
    """What stands in each place of the returned model, as numbers."""
    from torch import nn

    name, model, result = value
    if result is None:
        raise Wrong("it returned None: end with a `return` of the quantized copy")
    if not isinstance(result, nn.Module):
        raise Wrong(f"it should return a model, but it returned {describe(result)}")
    if _changed(model, name):  # whatever else is wrong, this comes first
        replaced = any(type(module) is _coarse_class() for module in result.modules())
        return {"changed": True, "given": result is model, "replaced": replaced}
    original = build(name)
    places = [place for place, _ in original.named_modules(remove_duplicate=False) if place]
    found = dict(result.named_modules(remove_duplicate=False))
    first: dict[int, int] = {}
    held = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    try:
        y = _outputs(result, _inputs(original)).numpy()
    except Exception:
        y = np.full(1, np.nan)
    return {
        "changed": False,
        "kinds": np.array([_kind(original.get_submodule(place), found.get(place)) for place in places]),
        "shared": np.array([first.setdefault(id(found.get(place)), i) for i, place in enumerate(places)]),
        "training": np.array([int(place in found and found[place].training) for place in places]),
        "new": len(set(found) - set(places) - {""}),
        "aliases": sum(tensor.data_ptr() in held for tensor in [*result.parameters(), *result.buffers()]),
        "output": y,
    }


def _kind(was: Any, now: Any) -> int:
    import torch

    if now is None:
        return GONE
    if type(now) is _coarse_class():
        is_its_own = isinstance(was, torch.nn.Linear) and torch.equal(now.weight, coarse()(was).weight)
        return REPLACED if is_its_own else ANOTHERS
    return FLOAT if type(now).__name__ == type(was).__name__ else OTHER


def _judge_model(answer: dict, case: Case) -> None:
    name, skip = case.args[0], case.args[1] if len(case.args) > 1 else ()
    if answer["changed"]:
        raise Wrong("the model that you were given is no longer what it was: replace layers in a copy of it")
    original = build(name)
    linear = _linear(original)
    places = [place for place, _ in original.named_modules(remove_duplicate=False) if place]
    for place, kind in zip(places, answer["kinds"], strict=True):
        was = original.get_submodule(place)
        wanted = REPLACED if place in linear and place not in skip else FLOAT
        if kind == wanted:
            continue
        if place in skip:
            raise Wrong(f"`{place}` is to be skipped, but it was replaced")
        if kind == ANOTHERS:
            raise Wrong(f"`{place}` was replaced by what `convert` made of another layer")
        if place in linear:
            raise Wrong(f"`{place}` should be what `convert` made of it, but it is {_now(kind, was)}")
        raise Wrong(f"`{place}` is {_a(was)} and should have stayed, but it is {_now(kind, was)}")
    if answer["new"]:
        raise Wrong(f"the result has {answer['new']} modules under names that the model does not have")
    first: dict[int, int] = {}
    for i, place in enumerate(places):
        j = first.setdefault(id(original.get_submodule(place)), i)
        if answer["shared"][i] != j:
            raise Wrong(f"`{places[j]}` and `{place}` are one layer in the model, but two in the result")
        if answer["training"][i] != original.get_submodule(place).training:
            wanted, came = ("eval", "train") if answer["training"][i] else ("train", "eval")
            raise Wrong(f"the model is in {wanted} mode, but `{place}` is in {came} mode")
    if answer["aliases"]:
        raise Wrong(f"{answer['aliases']} tensors of the result are those of the model: who trains one changes both")
    y = _outputs(answers.quantize_model(original, coarse(), skip), _inputs(original)).numpy()
    if answer["output"].shape != y.shape or not np.allclose(answer["output"], y, atol=1e-5):
        raise Wrong("all layers are in place, but the result does not compute what the model does: is `forward` lost?")


def _now(kind: int, was: Any) -> str:
    return {GONE: "gone", FLOAT: f"still {_a(was)}", REPLACED: "replaced", OTHER: "something else"}.get(
        kind, "replaced"
    )


def _by_path(
    start: Callable = copy.deepcopy,
    found: Callable = lambda model: list(model.named_modules(remove_duplicate=False)),
    left: Callable = lambda name, skip: name in skip,
    once: bool = True,
    place: Callable = lambda model, name: (model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]),
    mode: Callable = lambda new, old: new.train(old.training),
    finish: Callable = lambda model, quantized: quantized,
) -> Callable:
    """Replaces layers by their names, in which one step can be replaced by a wrong one."""

    def quantize(model, convert, skip=()):
        from torch import nn

        quantized, made = start(model), {}
        for name, module in found(quantized):
            if isinstance(module, nn.Linear) and not left(name, skip):
                if module not in made or not once:
                    made[module] = mode(convert(module), module)
                setattr(*place(quantized, name), made[module])
        return finish(model, quantized)

    return quantize


def _recursively(start: Callable, name_of: Callable, children: Callable) -> Callable:
    """Replaces layers as it walks down, in which one step can be replaced by a wrong one."""

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

        return walk(start(model), "")

    return quantize


def _rebound(model, convert, skip=()):
    from torch import nn

    quantized = copy.deepcopy(model)
    for name, module in quantized.named_modules():
        if isinstance(module, nn.Linear) and name not in skip:
            module = convert(module)
    return quantized


def _copy_and_original(model, convert, skip=()):
    quantized = copy.deepcopy(model)
    _by_path(start=lambda model: model)(model, convert, skip)
    return quantized


def _flattened(model, convert, skip=()):
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

QUANTIZE_MODEL = (
    Misconception(
        "quantizes the model in place",
        _by_path(start=lambda model: model),
        "The caller's model has lost its float layers, so nothing is left to compare with. Take a deep copy first, "
        "and replace layers in that.",
    ),
    Misconception(
        "replaces the layers of the original, and returns the copy",
        _copy_and_original,
        "A copy was made, but the loop runs over the model itself. Walk through the copy.",
    ),
    Misconception(
        "a copy that is not deep",
        _by_path(start=copy.copy),
        "`copy.copy` makes a new outer object around the same inner ones, so replacing a layer replaces it in both. "
        "A model needs `copy.deepcopy`.",
    ),
    Misconception(
        "misses nested modules",
        _by_path(found=lambda model: [(n, m) for n, m in model._modules.items() if m is not None]),
        "Only layers directly in the model were replaced. Blocks hold layers too, and other blocks: walk all the way "
        "down.",
    ),
    Misconception(
        "a shared layer is replaced in one place only",
        _by_path(found=lambda model: list(model.named_modules())),
        TWO_PLACES,
    ),
    Misconception(
        "a shared layer is replaced in one place only",
        _recursively(copy.deepcopy, lambda path, name: path + name, lambda module: module.named_children()),
        TWO_PLACES,
    ),
    Misconception(
        "a shared layer becomes two",
        _by_path(once=False),
        "One float layer in two places became two quantized ones, and takes its memory twice. Remember what you have "
        "converted already, and put it in both places.",
    ),
    Misconception(
        "skip is ignored",
        _by_path(left=lambda name, skip: False),
        "Layers whose names are in `skip` stay what they are.",
    ),
    Misconception(
        "skip upside down",
        _by_path(left=lambda name, skip: name not in skip),
        "`skip` names the layers that stay in float; all the others are to be replaced.",
    ),
    Misconception(
        "skip by the beginning of a name",
        _by_path(left=lambda name, skip: name.startswith(tuple(skip))),
        "`heads.0` and `head2` begin as `head` does, and are other layers. A name is in `skip` or it is not.",
    ),
    Misconception(
        "skip by a part of a name",
        _by_path(left=lambda name, skip: any(part in name for part in skip)),
        "`head` occurs in the names of other layers too. A name is in `skip` or it is not: compare whole names.",
    ),
    Misconception(
        "skip by the last part of a name",
        _recursively(copy.deepcopy, lambda path, name: name, lambda module: module._modules.items()),
        "Inside a block, `named_children` says `fc` where `named_modules` of the whole model says `blocks.1.fc`. Carry "
        "the path along as you walk down, and compare that.",
    ),
    Misconception(
        "a name with dots is set on the model itself",
        _by_path(place=lambda model, name: (model, name)),
        "`setattr(model, 'blocks.0.fc', ...)` makes a new entry of that name, and the layer inside the block stays. "
        "Find the block first, then set its `fc`.",
    ),
    Misconception(
        "a variable is assigned, and not the model",
        _rebound,
        "`module = convert(module)` gives a new value to a variable. The model still holds the old layer: set it as an "
        "attribute of the module that contains it.",
    ),
    Misconception(
        "new layers are in training mode",
        _by_path(mode=lambda new, old: new),
        "A new module starts in training mode whatever the model is in. Give it the mode of the layer it replaces.",
    ),
    Misconception(
        "the copy is put into eval mode",
        _by_path(mode=lambda new, old: new, finish=lambda model, quantized: quantized.eval()),
        "The copy should be in the mode of the model, which may be training. Leave the mode to the caller.",
    ),
    Misconception(
        "a chain is built of the layers",
        _flattened,
        "A model is more than a list of its layers: its `forward` adds, reshapes and branches. Copy the model, and "
        "replace layers in the copy.",
    ),
    Misconception(
        "returns None",
        _by_path(finish=lambda model, quantized: None),
        "Give the copy back to the caller.",
    ),
)

# --- model_bytes ------------------------------------------------------------------------------------------------------


def _bytes_cases() -> list[Case]:
    import torch  # noqa: F401 - takes seconds, and here no clock runs yet

    return [
        Case("one layer", ("one layer",)),
        Case("a perceptron, one layer without bias", ("perceptron",)),
        Case("blocks in a model", ("nested",)),
        Case("an embedding", ("embedding",)),
        Case("a batch norm: two parameters, three buffers", ("norm",)),
        Case("int8 codes and float32 scales", ("codes",)),
        Case("float16, bfloat16 and float64", ("half",)),
        Case("frozen weights", ("frozen",)),
        Case("an embedding and a head that share a weight", ("tied",)),
        Case("one layer used twice", ("shared",)),
        Case("a buffer that files leave out", ("positions",)),
        Case("nothing to count", ("nothing",)),
    ]


def _run_on_model(submission: Callable, name: str) -> Any:
    return submission(build(name))


def _read_bytes(value: Any) -> dict:
    return {"bytes": as_number(value, "the result")}


def _judge_bytes(answer: dict, case: Case) -> None:
    model = build(case.args[0])
    held = {name: tensor.nbytes for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    expected, came = sum(held.values()), answer["bytes"]
    if came == expected:
        return
    clue = [f"`{name}` takes {size:,}" for name, size in held.items() if size == abs(came - expected)]
    raise Wrong(f"this model holds {expected:,} bytes, but you counted {came:,.6g}" + (f"; {clue[0]}" if clue else ""))


def _counting(
    tensors: Callable = lambda model: [*model.parameters(), *model.buffers()],
    each: Callable = lambda tensor: tensor.nbytes,
    total: Callable = sum,
) -> Callable:
    """Counts tensors' bytes, in which one step can be replaced by a wrong one."""

    def count(model):
        return total(each(tensor) for tensor in tensors(model))

    return count


def _layer_by_layer(model):
    return [tensor for m in model.modules() for tensor in [*m.parameters(), *m.buffers()]]


def _of_linear_layers(model):
    return [tensor for layer in set(_linear(model).values()) for tensor in layer.parameters()]


MODEL_BYTES = (
    Misconception(
        "buffers forgotten",
        _counting(lambda model: model.parameters()),
        "A quantized layer holds its codes and scales as buffers, which `parameters()` does not report. Count both.",
    ),
    Misconception(
        "only what files hold, what is shared counted twice",
        _counting(lambda model: model.state_dict().values()),
        "A `state_dict` lists a shared weight under each of its names, and leaves out buffers registered with "
        "`persistent=False`. Ask the model for its parameters and buffers instead.",
    ),
    Misconception(
        "what is shared is counted twice",
        _counting(
            lambda model: [
                tensor
                for _, tensor in (
                    *model.named_parameters(remove_duplicate=False),
                    *model.named_buffers(remove_duplicate=False),
                )
            ]
        ),
        "Two names may belong to one tensor: an embedding and a head that share a weight, a layer used twice. It is "
        "in memory once.",
    ),
    Misconception(
        "what is tied is counted twice",
        _counting(
            lambda model: [
                tensor for m in model.modules() for tensor in [*m.parameters(recurse=False), *m.buffers(recurse=False)]
            ]
        ),
        "Layer by layer, a weight that two layers share is met twice. It is in memory once: let the model itself list "
        "its parameters.",
    ),
    Misconception(
        "blocks are counted again for each level",
        _counting(_layer_by_layer),
        "`parameters()` of a block already includes those of all layers in it. Summed over `modules()`, a layer counts "
        "once for itself and once for everything that contains it.",
    ),
    Misconception(
        "only linear layers",
        _counting(_of_linear_layers),
        "Embeddings, norms and convolutions take memory too. In a language model the embedding is often the largest "
        "matrix, and the one that nobody quantized.",
    ),
    Misconception(
        "embeddings forgotten",
        _counting(
            lambda model: [
                *(
                    p
                    for name, p in model.named_parameters()
                    if "embedding" not in name and not (name == "0.weight" and p.shape == (TOKENS, WIDTH))
                ),
                *model.buffers(),
            ]
        ),
        "The embedding is missing. In a language model it is often the largest matrix, and nobody quantized it.",
    ),
    Misconception(
        "biases forgotten",
        _counting(
            lambda model: [
                *(p for name, p in model.named_parameters() if not name.endswith("bias")),
                *model.buffers(),
            ]
        ),
        "A bias is a parameter as well. Ask for all of them, not for those called `weight`.",
    ),
    Misconception(
        "only what is trained",
        _counting(lambda model: [*(p for p in model.parameters() if p.requires_grad), *model.buffers()]),
        "A frozen weight takes as much memory as one that is trained.",
    ),
    Misconception(
        "only the model's own tensors",
        _counting(lambda model: [*model.parameters(recurse=False), *model.buffers(recurse=False)]),
        "With `recurse=False` a model of layers has hardly anything of its own. Count on, all the way down.",
    ),
    Misconception(
        "elements counted for bytes",
        _counting(each=lambda tensor: tensor.numel()),
        "That is how many numbers there are. A float32 takes 4 bytes, an int8 one: multiply by the size of an element.",
    ),
    Misconception(
        "bits for bytes",
        _counting(each=lambda tensor: 8 * tensor.nbytes),
        "Eight bits are a byte.",
    ),
    Misconception(
        "four bytes for every number",
        _counting(each=lambda tensor: 4 * tensor.numel()),
        "Only float32 and int32 take 4 bytes. If int8 codes counted so, quantizing would save nothing. A tensor knows "
        "the size of its elements.",
    ),
    Misconception(
        "one byte for every number",
        _counting(each=lambda tensor: tensor.numel() * (1 if tensor.dtype.is_floating_point else tensor.itemsize)),
        "Floats take more than a byte each until they are quantized. Each tensor knows the size of its elements.",
    ),
    Misconception(
        "kilobytes or megabytes",
        _counting(total=lambda sizes: sum(sizes) / 1e6),
        "The contract asks for bytes: dividing is for whoever prints them.",
    ),
    Misconception(
        "kilobytes or megabytes",
        _counting(total=lambda sizes: sum(sizes) / 2**20),
        "The contract asks for bytes: dividing is for whoever prints them.",
    ),
    Misconception(
        "kilobytes or megabytes",
        _counting(total=lambda sizes: sum(sizes) / 1e3),
        "The contract asks for bytes: dividing is for whoever prints them.",
    ),
)

# --- compare_predictions ----------------------------------------------------------------------------------------------

KEYS = ("accuracy", "quantized_accuracy", "agreement")
HAND = (  # the lesson's: three answers of five are right before and after, and three of five stay
    np.array([[2, 1, 0], [0, 3, 1], [1, 0, 4], [5, 1, 0], [0, 2, 1]], dtype=np.float32),
    np.array([[2, 1, 0], [0, 3, 1], [1, 3, 2], [5, 1, 0], [0, 1, 2]], dtype=np.float32),
    np.array([0, 1, 2, 1, 2]),
)


def _prediction_cases() -> list[Case]:
    import torch  # noqa: F401 - takes seconds, and here no clock runs yet

    rng = np.random.default_rng(6)

    def case(name: str, n: int, classes: int, noise: float, wrong: float = 0.2) -> Case:
        logits = rng.normal(size=(n, classes)).astype(np.float32)
        quantized = logits + noise * rng.normal(size=logits.shape).astype(np.float32)
        labels = np.where(rng.random(n) < wrong, rng.integers(0, classes, n), logits.argmax(axis=1))
        return Case(name, (logits, quantized, labels))

    image, other = rng.normal(size=(2, 40, 10)).astype(np.float32)
    return [
        Case("the worked example", HAND),
        case("200 images of ten classes", 200, 10, 0.3),
        case("ten images of ten classes", 10, 10, 0.8),
        case("two classes", 50, 2, 1.0),
        case("many answers change", 60, 10, 3.0, wrong=0.5),
        Case("the quantized model is better", (image, other, np.where(np.arange(40) < 30, other.argmax(1), 0))),
        Case("other logits, the same answers", (image, 2 * image + np.float32(0.5), image.argmax(axis=1) % 7)),
        Case("both models say the same, and are wrong", (image, image * np.float32(1.1), (image.argmax(1) + 1) % 10)),
        case("one image", 1, 10, 0.1),
    ]


def _run_comparison(submission: Callable, *arrays: np.ndarray) -> Any:
    import torch

    return submission(*(torch.tensor(array) for array in arrays))


def _read_comparison(value: Any) -> dict:
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict with {', '.join(KEYS)}, but it returned {describe(value)}")
    missing = [key for key in KEYS if key not in value]
    if missing:
        raise Wrong(f"{', '.join(missing)} missing: the dict has {', '.join(map(str, value)) or 'nothing'}")
    return {key: as_number(value[key], key) for key in KEYS}


def _judge_comparison(answer: dict, case: Case) -> None:
    expected = answers.compare_predictions(*case.args)
    for key in KEYS:
        if not math.isclose(answer[key], expected[key], abs_tol=1e-6):
            n = len(case.args[2])
            raise Wrong(
                f"{key} should be {round(expected[key] * n)} of {n} = {expected[key]:.4g}, not {answer[key]:.4g}"
            )


def _comparing(
    answer_of: Callable = lambda logits: logits.argmax(dim=1),
    share: Callable = lambda hits: hits.double().mean(),
    agreement: Callable | None = None,
    finish: Callable = lambda result: result,
) -> Callable:
    """Compares predictions, in which one step can be replaced by a wrong one."""

    def compare(logits, quantized_logits, labels):
        before, after = answer_of(logits), answer_of(quantized_logits)
        agree = share(before == after) if agreement is None else agreement(logits, quantized_logits, labels)
        return finish({
            "accuracy": share(before == labels), "quantized_accuracy": share(after == labels), "agreement": agree,
        })  # fmt: skip

    return compare


def _right(logits, labels):
    return logits.argmax(dim=1) == labels


COMPARE_PREDICTIONS = (
    Misconception(
        "agreement with the labels",
        _comparing(agreement=lambda a, b, labels: _right(b, labels).double().mean()),
        "That is the quantized model's accuracy once more. Agreement asks whether the two models say the same, be it "
        "right or wrong: no label takes part.",
    ),
    Misconception(
        "agreement where both are right",
        _comparing(agreement=lambda a, b, labels: (_right(a, labels) & _right(b, labels)).double().mean()),
        "Two models agree as well where both give the same wrong answer. Compare their answers, without the labels.",
    ),
    Misconception(
        "agreement where both are right or both are wrong",
        _comparing(agreement=lambda a, b, labels: (_right(a, labels) == _right(b, labels)).double().mean()),
        "Both wrong is not the same answer: one may say 3 and the other 8. Compare the answers themselves.",
    ),
    Misconception(
        "agreement among the answers that were right",
        _comparing(
            agreement=lambda a, b, labels: (
                ((a.argmax(1) == b.argmax(1)) & _right(a, labels)).sum() / max(1, int(_right(a, labels).sum()))
            )
        ),
        "Agreement counts all inputs, also those that the float model gets wrong. No label takes part.",
    ),
    Misconception(
        "agreement from the two accuracies",
        _comparing(
            agreement=lambda a, b, labels: (
                1 - (_right(a, labels).double().mean() - _right(b, labels).double().mean()).abs()
            )
        ),
        "Two models of equal accuracy may be wrong about different images. Compare them image by image.",
    ),
    Misconception(
        "agreement of the logits",
        _comparing(agreement=lambda a, b, labels: (a == b).double().mean()),
        "Logits hardly ever stay exactly equal, and need not: the answer is the class of the largest. Compare answers.",
    ),
    Misconception(
        "agreement of the logits",
        _comparing(agreement=lambda a, b, labels: (a - b).abs().lt(0.1).double().mean()),
        "Logits move, and need not stay: the answer is the class of the largest. Compare answers.",
    ),
    Misconception(
        "the largest along the wrong axis",
        _comparing(answer_of=lambda logits: logits.argmax(dim=0)),
        "Each row is an input, each column a class. The answer is the column of the largest number in a row.",
    ),
    Misconception(
        "the largest of all",
        _comparing(answer_of=lambda logits: logits.argmax()),
        "Without an axis, argmax looks at the whole table. Ask for one answer a row.",
    ),
    Misconception(
        "the smallest logit",
        _comparing(answer_of=lambda logits: logits.argmin(dim=1)),
        "A model answers with the class of the largest logit.",
    ),
    Misconception(
        "counts instead of fractions",
        _comparing(share=lambda hits: hits.sum()),
        "Divide by the number of inputs.",
    ),
    Misconception(
        "percent instead of fractions",
        _comparing(share=lambda hits: 100 * hits.double().mean()),
        "The contract asks for fractions, from 0 to 1.",
    ),
    Misconception(
        "errors instead of hits",
        _comparing(share=lambda hits: 1 - hits.double().mean()),
        "That is how often they differ. Accuracy and agreement say how often they do not.",
    ),
    Misconception(
        "float and quantized swapped",
        _comparing(finish=lambda r: {**r, "accuracy": r["quantized_accuracy"], "quantized_accuracy": r["accuracy"]}),
        "`accuracy` belongs to the float model, whose logits come first.",
    ),
)

# --- layer_sensitivity ------------------------------------------------------------------------------------------------


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
    return answers.layer_sensitivity(build(name), _score(kind, name, step), coarse(step))


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

# --- allocate_bits ----------------------------------------------------------------------------------------------------

LESSON = {2: {"first": 30, "second": 8, "head": 1}, 4: {"first": 5, "second": 1, "head": 0}}, 3


def _allocation_cases() -> list[Case]:
    rng = np.random.default_rng(6)

    def random(widths: tuple, layers: int, sizes: tuple = (100, 5000)) -> tuple:
        names = [f"layer{i}" for i in range(layers)]
        worth = dict(zip(names, 10 ** rng.uniform(-2, 1, layers)))
        losses = {b: {n: float(worth[n] * 4.0 ** (2 - b) * rng.uniform(0.7, 1.4)) for n in names} for b in widths}
        return losses, {name: int(rng.integers(*sizes)) for name in names}

    def case(name: str, budget: float, widths: tuple = (4, 8), layers: int = 6, **sizes: Any) -> Case:
        losses, weights = random(widths, layers, **sizes)
        return Case(name, (losses, budget, weights))

    trap = {4: {"a": 60, "b": 50, "c": 50}, 8: {"a": 0, "b": 0, "c": 0}}
    noise = {4: {"a": 0.5, "b": -0.1, "c": 0.2}, 8: {"a": 0.1, "b": 0.3, "c": 0.0}}
    worst = {4: {"a": 5.0, "b": 4.0, "c": 4.0}, 8: {"a": 0.0, "b": 0.0, "c": 0.0}}
    return [
        Case("the worked example", (LESSON[0], LESSON[1], {"first": 100, "second": 200, "head": 300})),
        Case("the budget met exactly", (LESSON[0], 2.5, {"first": 100, "second": 100, "head": 200})),
        case("six layers at 4 or 8 bits", 5.5),
        case("six layers at 4 or 8 bits, a tight budget", 4.6),
        case("four layers at 2 to 8 bits", 3.7, widths=(2, 3, 4, 5, 6, 7, 8), layers=4),
        case("a large layer and small ones", 5.0, widths=(2, 4, 8), layers=5, sizes=(10, 100_000)),
        Case("two small layers are worth more than a large one", (trap, 6.5, {"a": 150, "b": 125, "c": 125})),
        Case("more bits are not better everywhere", (noise, 8, {"a": 10, "b": 20, "c": 30})),
        Case("the sum counts, not the worst layer", (worst, 5.9, {"a": 300, "b": 150, "c": 150})),
        case("a budget for the most bits everywhere", 8.0, widths=(2, 4, 8), layers=3),
        case("one layer", 4.5, widths=(2, 3, 4, 5), layers=1),
        case("a budget that cannot be met", 3.9, layers=3),
    ]


def _run_allocation(submission: Callable, *args: Any) -> Any:
    try:
        return submission(*args)
    except ValueError as error:
        return error


def _read_allocation(value: Any) -> dict:
    if isinstance(value, ValueError):
        return {"refused": True}
    if not isinstance(value, dict):
        raise Wrong(f"it should return a dict, name -> bits, but it returned {describe(value)}")
    return {"refused": False, **{str(name): as_number(bits, f"the bits of {name}") for name, bits in value.items()}}


def _judge_allocation(answer: dict, case: Case) -> None:
    losses, budget, num_weights = case.args
    total = sum(num_weights.values())
    if min(losses) > budget:
        if not answer["refused"]:
            raise Wrong(f"{budget:g} bits cannot be met with {min(losses)} and more: raise a ValueError")
        return
    if answer["refused"]:
        raise Wrong(f"it raised ValueError, but {budget:g} bits can be met")
    bits = {name: value for name, value in answer.items() if name != "refused"}
    if bits.keys() != num_weights.keys():
        raise Wrong(f"the layers are {', '.join(num_weights)}, but the dict has {', '.join(bits) or 'nothing'}")
    for name, value in bits.items():
        if value not in losses:
            raise Wrong(f"`{name}` got {value:g} bits, but the choice is {', '.join(map(str, losses))}")
    spent = sum(num_weights[name] * value for name, value in bits.items()) / total
    if spent > budget * (1 + 1e-9):
        raise Wrong(f"{_told(bits)} is {spent:.4g} bits on average over all weights, but the budget is {budget:.4g}")
    best = answers.allocate_bits(losses, budget * (1 + 1e-9), num_weights)
    loss, least = (sum(losses[int(choice[name])][name] for name in num_weights) for choice in (bits, best))
    if loss > least + 1e-9 * max(1.0, abs(least)):
        raise Wrong(f"{_told(bits)} loses {loss:.4g} in all; {_told(best)} fits the budget too and loses {least:.4g}")


def _told(bits: dict) -> str:
    return ", ".join(f"{name}: {int(value)}" for name, value in bits.items())


def _searching(
    spent: Callable = lambda bits, weights: sum(b * w for b, w in zip(bits, weights)) / sum(weights),
    fits: Callable = lambda spent, budget: spent <= budget * (1 + 1e-9),
    loss: Callable = lambda losses, bits, weights: sum(losses),
    choices: Callable = lambda widths, count: itertools.product(widths, repeat=count),
    empty: Callable | None = None,
) -> Callable:
    """Tries all choices, in which one step can be replaced by a wrong one."""

    def allocate(sensitivity, budget, num_weights):
        names, weights = list(num_weights), list(num_weights.values())
        possible = [bits for bits in choices(sorted(sensitivity), len(names)) if fits(spent(bits, weights), budget)]
        if not possible:
            if empty is None:
                raise ValueError("the budget cannot be met")
            return dict(zip(names, empty(sorted(sensitivity), len(names))))
        best = min(
            possible,
            key=lambda bits: loss([sensitivity[b][n] for b, n in zip(bits, names)], bits, weights),
        )
        return dict(zip(names, best))

    return allocate


def _greedy(worth: Callable, stops: bool = False) -> Callable:
    """Starts with the fewest bits, and gives each layer in turn, the most worthy first, as many as still fit."""

    def allocate(sensitivity, budget, num_weights):
        widths = sorted(sensitivity)
        if widths[0] > budget:
            raise ValueError("the budget cannot be met")
        bits, left = (
            dict.fromkeys(num_weights, widths[0]),
            (budget * (1 + 1e-9) - widths[0]) * sum(num_weights.values()),
        )
        for name in sorted(num_weights, key=lambda name: -worth(sensitivity, name, num_weights)):
            fitting = [b for b in widths if (b - bits[name]) * num_weights[name] <= left]
            if stops and fitting[-1] != widths[-1]:
                break
            left -= (fitting[-1] - bits[name]) * num_weights[name]
            bits[name] = fitting[-1]
        return bits

    return allocate


def _gain(sensitivity: dict, name: str, num_weights: dict) -> float:
    return sensitivity[min(sensitivity)][name] - sensitivity[max(sensitivity)][name]


NOT_OPTIMAL = (
    "Serving layers one after the other is not always best: one large layer may take the room in which two others "
    "would have gained more. With so few layers, try every choice."
)

ALLOCATE_BITS = (
    Misconception(
        "the average over layers",
        _searching(spent=lambda bits, weights: sum(bits) / len(bits)),
        "A large layer takes more of the budget than a small one. The average is over weights: bits times number of "
        "weights, summed, over all weights.",
    ),
    Misconception(
        "the most sensitive layers first",
        _greedy(lambda losses, name, weights: losses[min(losses)][name]),
        NOT_OPTIMAL,
    ),
    Misconception(
        "the most sensitive layers first, until one does not fit",
        _greedy(lambda losses, name, weights: losses[min(losses)][name], stops=True),
        NOT_OPTIMAL,
    ),
    Misconception(
        "the largest gain for each bit first",
        _greedy(lambda losses, name, weights: _gain(losses, name, weights) / weights[name]),
        NOT_OPTIMAL,
    ),
    Misconception(
        "the least sensitive layers get the bits",
        _searching(loss=lambda losses, bits, weights: -sum(losses)),
        "The sum of losses should be as small as it can be, not as large.",
    ),
    Misconception(
        "the worst layer instead of the sum",
        _searching(loss=lambda losses, bits, weights: max(losses)),
        "You kept the largest single loss small. The contract asks for the least sum over all layers.",
    ),
    Misconception(
        "losses weighted by size",
        _searching(loss=lambda losses, bits, weights: sum(a * w for a, w in zip(losses, weights))),
        "A layer's loss is already that of the whole layer, small or large. Its number of weights counts in the budget "
        "only.",
    ),
    Misconception(
        "one bit width for all layers",
        _searching(choices=lambda widths, count: [(b,) * count for b in widths]),
        "That is the best uniform choice. Each layer may have bits of its own.",
    ),
    Misconception(
        "the fewest bits everywhere",
        _searching(loss=lambda losses, bits, weights: sum(bits)),
        "That fits any budget, and loses the most. Spend the budget where it helps.",
    ),
    Misconception(
        "the whole budget is spent",
        _searching(loss=lambda losses, bits, weights: (-sum(b * w for b, w in zip(bits, weights)), sum(losses))),
        "A choice that uses more of the budget is not better for that. What counts is the sum of losses.",
    ),
    Misconception(
        "the budget must not be met exactly",
        _searching(fits=lambda spent, budget: spent < budget * (1 - 1e-9)),
        "A choice that takes exactly the budget is within it.",
    ),
    Misconception(
        "the budget is rounded",
        _searching(fits=lambda spent, budget: round(spent) <= math.ceil(budget)),
        "5.4 bits are more than 5.2. Compare the average with the budget as they are.",
    ),
    Misconception(
        "the budget is ignored",
        _searching(fits=lambda spent, budget: True),
        "Without a budget, more bits everywhere are nearly always best. Leave out the choices that cost more.",
    ),
    Misconception(
        "a budget that cannot be met is passed over",
        _searching(empty=lambda widths, count: (widths[0],) * count),
        "If not even the fewest bits everywhere fit, the caller should know: raise a ValueError.",
    ),
)

EXERCISES = (
    Exercise(
        name="quantize_model", lab=LAB, points=3, reference=answers.quantize_model,
        cases=_quantizer_cases, run=_run_quantizer, read=_read_model, judge=_judge_model,
        misconceptions=QUANTIZE_MODEL,
    ),
    Exercise(
        name="model_bytes", lab=LAB, points=2, reference=answers.model_bytes,
        cases=_bytes_cases, run=_run_on_model, read=_read_bytes, judge=_judge_bytes,
        misconceptions=MODEL_BYTES,
    ),
    Exercise(
        name="compare_predictions", lab=LAB, points=1, reference=answers.compare_predictions,
        cases=_prediction_cases, run=_run_comparison, read=_read_comparison, judge=_judge_comparison,
        misconceptions=COMPARE_PREDICTIONS,
    ),
    Exercise(
        name="layer_sensitivity", lab=LAB, points=2, reference=answers.layer_sensitivity,
        cases=_sensitivity_cases, run=_run_sensitivity, read=_read_sensitivity, judge=_judge_sensitivity,
        misconceptions=LAYER_SENSITIVITY,
    ),
    Exercise(
        name="allocate_bits", lab=LAB, points=3, reference=answers.allocate_bits,
        cases=_allocation_cases, run=_run_allocation, read=_read_allocation, judge=_judge_allocation,
        misconceptions=ALLOCATE_BITS, stretch=True,
    ),
)  # fmt: skip
