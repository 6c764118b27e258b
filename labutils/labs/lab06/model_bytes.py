"""model_bytes: the memory that a model's parameters and buffers take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labutils import models
from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number
from labutils.labs.lab06 import LESSON
from labutils.labs.lab06._models import build
from labutils.labs.recipes import Recipe

if TYPE_CHECKING:
    from torch import nn


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers of a model; what is used in two places counts once.

    >>> from torch import nn
    >>> model_bytes(nn.Sequential(nn.Linear(100, 50), nn.BatchNorm1d(50)))
    21008

    4 * (5000 + 50) for the linear layer, 4 * 4 * 50 for the norm, and 8 for the int64 in which it counts batches.
    """
    return models.model_bytes(model)


def cases() -> list[Case]:
    import torch  # noqa: F401 - takes seconds, and no time limit runs here

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
        Case("one batch norm used twice", ("shared norm",)),
        Case("a buffer that files leave out", ("positions",)),
        Case("nothing to count", ("nothing",)),
    ]


def on_model(submission: Callable, name: str) -> Any:
    return submission(build(name))


def read(value: Any) -> dict:
    return {"bytes": as_number(value, "the result")}


def judge(answer: dict, case: Case) -> None:
    model = build(case.args[0])
    held = {name: tensor.nbytes for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    expected, came = sum(held.values()), answer["bytes"]
    if came == expected:
        return
    clue = [f"`{name}` takes {size:,}" for name, size in held.items() if size == abs(came - expected)]
    raise Wrong(f"this model holds {expected:,} bytes, but you counted {came:,.6g}" + (f"; {clue[0]}" if clue else ""))


def all_tensors(model):
    return [*model.parameters(), *model.buffers()]


def own_tensors(module):
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


@dataclass(frozen=True)
class Count(Recipe):
    """total(each(tensor) for tensor in tensors(model))."""

    tensors: Callable = all_tensors
    each: Callable = lambda tensor: tensor.nbytes
    total: Callable = sum

    def __call__(self, model):
        return self.total(self.each(tensor) for tensor in self.tensors(model))


right = Count()


def layer_by_layer(model):
    return [tensor for module in model.modules() for tensor in all_tensors(module)]


def of_linear_layers(model):
    return [tensor for layer in set(models.linear_layers(model).values()) for tensor in layer.parameters()]


def without_embeddings(model):
    from torch import nn

    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    return [*(p for p in model.parameters() if p not in embeddings), *model.buffers()]


def without_biases(model):
    return [*(p for name, p in model.named_parameters() if not name.endswith("bias")), *model.buffers()]


BYTES = "The contract asks for bytes: dividing is for whoever prints them."

MISCONCEPTIONS = (
    Misconception("buffers forgotten", right.but(tensors=lambda model: model.parameters()),
        "A quantized layer holds its codes and scales as buffers, which `parameters()` does not report. Count both."),
    Misconception("only what files hold, what is shared counted twice",
        right.but(tensors=lambda model: model.state_dict().values()),
        "A `state_dict` lists a shared weight under each of its names, and leaves out buffers registered with "
        "`persistent=False`. Ask the model for its parameters and buffers instead."),
    Misconception("what is shared is counted twice",
        right.but(tensors=lambda model: [*dict(model.named_parameters(remove_duplicate=False)).values(),
                                         *dict(model.named_buffers(remove_duplicate=False)).values()]),
        "Two names may belong to one tensor: an embedding and a head that share a weight, a layer used twice. It is "
        "in memory once."),
    Misconception("what is tied is counted twice",
        right.but(tensors=lambda model: [tensor for m in model.modules() for tensor in own_tensors(m)]),
        "Layer by layer, a weight that two layers share is met twice. It is in memory once: let the model itself "
        "list its parameters."),
    Misconception("blocks are counted again for each level", right.but(tensors=layer_by_layer),
        "`parameters()` of a block already includes those of all layers in it. Summed over `modules()`, a layer "
        "counts once for itself and once for everything that contains it."),
    Misconception("only linear layers", right.but(tensors=of_linear_layers),
        "Embeddings, norms and convolutions take memory too. In a language model the embedding is often the largest "
        "matrix, and the one that nobody quantized."),
    Misconception("embeddings forgotten", right.but(tensors=without_embeddings),
        "The embedding is missing. In a language model it is often the largest matrix, and nobody quantized it."),
    Misconception("biases forgotten", right.but(tensors=without_biases),
        "A bias is a parameter as well. Ask for all of them, not for those called `weight`."),
    Misconception("only what is trained",
        right.but(tensors=lambda model: [*(p for p in model.parameters() if p.requires_grad), *model.buffers()]),
        "A frozen weight takes as much memory as one that is trained."),
    Misconception("only the model's own tensors", right.but(tensors=own_tensors),
        "With `recurse=False` a model of layers has hardly anything of its own. Count on, all the way down."),
    Misconception("elements counted for bytes", right.but(each=lambda tensor: tensor.numel()),
        "That is how many numbers there are. A float32 takes 4 bytes, an int8 one: multiply by the size of an "
        "element."),
    Misconception("bits for bytes", right.but(each=lambda tensor: 8 * tensor.nbytes), "Eight bits are a byte."),
    Misconception("four bytes for every number", right.but(each=lambda tensor: 4 * tensor.numel()),
        "Only float32 and int32 take 4 bytes. If int8 codes counted so, quantizing would save nothing. A tensor "
        "knows the size of its elements."),
    Misconception("one byte for every number",
        right.but(each=lambda tensor: tensor.numel() * (1 if tensor.dtype.is_floating_point else tensor.itemsize)),
        "Floats take more than a byte each until they are quantized. Each tensor knows the size of its elements."),
    Misconception("kilobytes or megabytes", right.but(total=lambda sizes: sum(sizes) / 1e6), BYTES),
    Misconception("kilobytes or megabytes", right.but(total=lambda sizes: sum(sizes) / 2**20), BYTES),
    Misconception("kilobytes or megabytes", right.but(total=lambda sizes: sum(sizes) / 1e3), BYTES),
)  # fmt: skip

EXERCISE = Exercise(
    name="model_bytes",
    lab=LESSON,
    place=20,
    points=2,
    reference=model_bytes,
    cases=cases,
    read=read,
    judge=judge,
    misconceptions=MISCONCEPTIONS,
    run=on_model,
)
