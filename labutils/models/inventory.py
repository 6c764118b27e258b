"""What a model holds: how many values, in which form, in how many bytes, and why those in float are in float."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from labutils.arrays.grids import Integers
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme
from labutils.models.footprint import model_bytes
from labutils.models.layers import Int8Linear, PackedLinear
from labutils.models.layers.base import LinearBase
from labutils.models.left_in_float import LOOK_UP_OR_NORMALIZE, NOT_LINEAR, left_in_float, tied_elsewhere
from labutils.models.linear import linear_layers

Tensor = torch.Tensor

LOOKED_UP = "looked up, not multiplied"
VECTOR = "a number for each channel"
NO_WEIGHT = "positions and other constants"
UNKNOWN = "not said"
ON_PURPOSE = "left on purpose"


@dataclass(frozen=True)
class Part:
    """Values that a model holds in one form.

    kind    "linear layers", "embeddings", ...
    form    "int4, groups of 32, scales in bfloat16", "float32", ...
    values  how many: weights, not codes and scales
    nbytes  codes, scales and zero points together
    why     why it is in float; empty for what is quantized
    """

    kind: str
    form: str
    values: int
    nbytes: int
    why: str = ""

    @property
    def is_quantized(self) -> bool:
        return not self.why

    @property
    def bits(self) -> float:
        """Bits for each value."""
        return 8 * self.nbytes / self.values if self.values else float("nan")


def inventory(model: nn.Module) -> list[Part]:
    """The parts of a model, the quantized first, then by size; their bytes add up to `model_bytes(model)`.

    >>> from labutils.models import quantize_model
    >>> model = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 256, bias=False))
    >>> for part in inventory(quantize_model(model)):
    ...     print(part.kind, "|", part.form, "|", part.values, part.nbytes, part.why)
    linear layers | int8, a scale for each row, scales in float32 | 16384 17408
    embeddings | float32 | 6400 25600 looked up, not multiplied
    """
    in_all = model_bytes(model)
    parts = list(_parts(model))
    if rest := in_all - sum(part.nbytes for part in parts):  # tensors that are plain attributes
        parts.append(Part("other", "as they are", 0, rest, "no parameters or buffers"))
    return summed(parts)


def summed(parts: Iterable[Part]) -> list[Part]:
    """Parts of one kind and form added up, the quantized first, then by size."""
    sums: dict[tuple[str, str, str], Part] = {}
    for part in parts:
        key = (part.kind, part.form, part.why)
        before = sums.get(key, replace(part, values=0, nbytes=0))
        sums[key] = replace(part, values=before.values + part.values, nbytes=before.nbytes + part.nbytes)
    return sorted(sums.values(), key=lambda part: (not part.is_quantized, -part.nbytes))


def form_of(scheme: Scheme, columns: int, scale_dtype: str) -> str:
    """A scheme in a few words.

    >>> form_of(Scheme(4, granularity=PerGroup(32)), 64, "bfloat16")
    'int4, groups of 32, scales in bfloat16'
    """
    sign = "int" if scheme.symmetric else "uint"
    values = f"{sign}{scheme.num_bits}" if isinstance(scheme.grid, Integers) else repr(scheme.grid)
    scales = scale_dtype if scheme.scale_grid is None else repr(scheme.scale_grid)
    return f"{values}, {shared(scheme, columns)}, scales in {scales}"


def shared(scheme: Scheme, columns: int) -> str:
    """Which values share a scale."""
    granularity = scheme.granularity
    if isinstance(granularity, PerGroup) and granularity.group_size < columns:
        return f"groups of {granularity.group_size}"
    if isinstance(granularity, PerTensor):
        return "one scale"
    return f"a scale for each {'column' if granularity in (PerAxis(1), PerAxis(-1)) else 'row'}"


def _parts(model: nn.Module) -> Iterator[Part]:
    """A part for each storage. Several modules may share one: the first of them names it."""
    seen = set()
    for module, why in _reasons(model).items():
        for key, part in _quantized(module) if isinstance(module, LinearBase) else _floats(module, why):
            if key not in seen:
                seen.add(key)
                yield part


def _reasons(model: nn.Module) -> dict[nn.Module, str]:
    """Module -> why its matrices are in float."""
    tied = tied_elsewhere(model)
    sharing = {id(layer.weight): name for name, layer in linear_layers(model).items() if layer in tied}
    known = left_in_float(model, (), {}, ())
    reasons = {}
    for name, module in model.named_modules():
        if module in tied:
            why = f"its weight is also that of {tied[module]}"
        elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            also = sharing.get(id(module.weight))
            why = LOOKED_UP if also is None else f"{LOOKED_UP}; it is also the weight of {also}"
        elif isinstance(module, NOT_LINEAR):
            why = f"{type(module).__name__} is not replaced"
        else:
            why = known.get(name or type(module).__name__, ON_PURPOSE)
        reasons[module] = why
    return reasons


def _quantized(layer: LinearBase) -> Iterator[tuple[int, Part]]:
    bias = 0 if layer.bias is None else layer.bias.nbytes
    held = getattr(layer, "_weights", None)
    held = layer.codes if held is None else held
    form = form_of(layer.scheme, layer.in_features, "bfloat16" if isinstance(layer, PackedLinear) else "float32")
    form += ", activations in int8" if isinstance(layer, Int8Linear) else ""
    yield id(held), Part("linear layers", form, layer.in_features * layer.out_features, layer.memory_bytes() - bias)
    if layer.bias is not None:
        yield _key(layer.bias), _float("biases", layer.bias, VECTOR)


def _floats(module: nn.Module, why: str) -> Iterator[tuple[int, Part]]:
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            kind = _kind(module, name, tensor)
            reason = NO_WEIGHT if kind == "buffers" else why if tensor.ndim > 1 else VECTOR
            yield _key(tensor), _float(kind, tensor, reason)


def _kind(module: nn.Module, name: str, tensor: Tensor) -> str:
    if name in module._buffers:
        return "buffers"
    if name == "bias":
        return "biases"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embeddings"
    if isinstance(module, LOOK_UP_OR_NORMALIZE) or tensor.ndim < 2:
        return "norms"
    return "linear layers" if isinstance(module, nn.Linear) else type(module).__name__


def _float(kind: str, tensor: Tensor, why: str) -> Part:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Part(kind, dtype, tensor.numel(), tensor.untyped_storage().nbytes(), why)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() or id(tensor)
