"""What the files of a quantized model hold, in the form of `models.inventory`: read from their headers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from labutils.data.gguf import GGUF, Tensor
from labutils.formats.checkpoint import DTYPES, Checkpoint, Stored, opened
from labutils.formats.one_shard import FLOATS
from labutils.models.inventory import LOOKED_UP, UNKNOWN, VECTOR, Part, summed

WEIGHT, PACKED, SCALE, SHAPE = "weight", "weight_packed", "weight_scale", "weight_shape"
PARTS = (WEIGHT, PACKED, SCALE, SHAPE, "weight_zero_point", "weight_global_scale")
NAMES = {dtype: str(known).removeprefix("torch.") for dtype, known in DTYPES.items()}
NAMES |= {"F8_E4M3": "E4M3", "F8_E5M2": "E5M2", "F8_E8M0": "E8M0"}
IN_BYTES = NAMES | {"U8": "E8M0"}  # exponents, which are stored as whole numbers
GGUF_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def file_inventory(path: Path | str) -> list[Part]:
    """The parts of a folder that compressed-tensors reads, of any safetensors checkpoint, or of a .gguf file.

    >>> for part in file_inventory("all-MiniLM-L6-v2-W4A16"):  # doctest: +SKIP
    ...     print(part.kind, "|", part.form, "|", part.nbytes)
    linear layers | int4, groups of 32, scales in bfloat16 | 5972832
    embeddings | float32 | 47674368

    No tensor is read. Errors as those of `Checkpoint.of` and `GGUF`.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        return summed(_gguf_part(name, tensor) for name, tensor in GGUF(path).tensors.items())
    checkpoint, reasons, shapes = Checkpoint.of(path), {}, {}
    for name, tensors in checkpoint.shards.items():
        with opened(path / name) as file:
            reasons |= _left_in_float(file.metadata() or {})
            shapes |= {name: file.get_tensor(name).tolist() for name in tensors if name.endswith(f".{SHAPE}")}
    return summed(_parts(checkpoint.tensors, shapes, reasons))


def _left_in_float(metadata: Mapping[str, str]) -> dict[str, str]:
    """What `save_compressed_tensors` and `quantize_shards` have noted; files of others may say anything."""
    try:
        noted = json.loads(metadata.get("left_in_float", "{}"))
    except ValueError:
        return {}
    return {name: str(why) for name, why in noted.items()} if isinstance(noted, dict) else {}


def _parts(
    tensors: Mapping[str, Stored], shapes: Mapping[str, list[int]], reasons: Mapping[str, str]
) -> Iterator[Part]:
    named = {name.rpartition(".")[0] for name in tensors if name.endswith(f".{SCALE}")}
    modules = {module for module in named if _is_matrix(tensors, module)}
    for module in sorted(modules):
        parts = {part: tensors[f"{module}.{part}"] for part in PARTS if f"{module}.{part}" in tensors}
        yield _quantized(parts, shapes.get(f"{module}.{SHAPE}"))
    for name, stored in tensors.items():
        module, _, part = name.rpartition(".")
        if module not in modules or part not in PARTS:
            yield _float(name, stored, reasons.get(module))


def _is_matrix(tensors: Mapping[str, Stored], module: str) -> bool:
    return any(len(tensors[name].shape) == 2 for part in (WEIGHT, PACKED) if (name := f"{module}.{part}") in tensors)


def _quantized(parts: Mapping[str, Stored], shape: list[int] | None) -> Part:
    """The weight of a layer. How many bits a code has follows from how many there are to a word."""
    stored, scale = parts.get(WEIGHT) or parts[PACKED], parts[SCALE]
    rows, columns = shape or (stored.shape[0], stored.shape[1] * (2 if PACKED in parts else 1))
    if stored.dtype == "I32":
        sign = "uint" if "weight_zero_point" in parts else "int"
        codes = f"{sign}{32 * stored.shape[1] // columns}"
    else:
        codes = "E2M1" if PACKED in parts else NAMES[stored.dtype]
    groups = math.prod(scale.shape) // rows
    each = "one scale" if not groups else "a scale for each row" if groups == 1 else f"groups of {columns // groups}"
    nbytes = sum(part.nbytes for part in parts.values())
    return Part("linear layers", f"{codes}, {each}, scales in {IN_BYTES[scale.dtype]}", rows * columns, nbytes)


def _float(name: str, stored: Stored, reason: str | None) -> Part:
    values = math.prod(stored.shape)
    if len(stored.shape) < 2:
        return Part("biases" if name.endswith("bias") else "norms", NAMES[stored.dtype], values, stored.nbytes, VECTOR)
    if "embed" in name:
        return Part("embeddings", NAMES[stored.dtype], values, stored.nbytes, LOOKED_UP)
    why = (reason or UNKNOWN) if stored.dtype in FLOATS else "codes of a format that is not known here"
    return Part("matrices", NAMES[stored.dtype], values, stored.nbytes, why)


def _gguf_part(name: str, tensor: Tensor) -> Part:
    kind = "embeddings" if "embd" in name else "linear layers" if len(tensor.shape) > 1 else "norms"
    values, is_float = math.prod(tensor.shape), tensor.type.name in GGUF_FLOATS
    form = GGUF_FLOATS.get(tensor.type.name, f"{tensor.type.name}, blocks of {tensor.type.values}")
    why = VECTOR if kind == "norms" else UNKNOWN
    return Part(kind, form, values, tensor.nbytes, why if is_float else "")
