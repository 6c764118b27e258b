"""model bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from labutils.course.exercise import Case, Exercise, Misconception, Wrong
from labutils.course.reading import as_number
from labutils.labs.lab06 import LESSON
from labutils.labs.lab06._shared import TOKENS, WIDTH, _linear, build

if TYPE_CHECKING:
    from torch import nn


Array = Any  # a numpy.ndarray or a torch.Tensor


def model_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers of a model; what is used in two places counts once.

    >>> from torch import nn
    >>> model_bytes(nn.Sequential(nn.Linear(100, 50), nn.BatchNorm1d(50)))
    21008

    4 * (5000 + 50) for the linear layer, 4 * 4 * 50 for the norm, and 8 for the int64 in which it counts batches.
    """
    from labutils import models

    return models.model_bytes(model)


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


EXERCISE = Exercise(
    name="model_bytes",
    lab=LESSON,
    place=20,
    points=2,
    reference=model_bytes,
    cases=_bytes_cases,
    read=_read_bytes,
    judge=_judge_bytes,
    misconceptions=MODEL_BYTES,
    run=_run_on_model,
)
