"""The frame of a GGUF file: header, metadata, the list of tensors, and their data. The counterpart of `data.gguf`."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from labutils.data.gguf import ALIGNMENT, ARRAY, MAGIC, NUMBERS, STRING, TYPES
from labutils.formats.whole_files import whole_files

VERSION, LONGEST_NAME, MOST_AXES = 3, 63, 4
TYPE_NUMBERS = {kind.name: number for number, kind in TYPES.items()}
KINDS = {np.dtype(dtype): kind for kind, dtype in NUMBERS.items()}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it is to be written.

    kind    "F32", "F16", "Q8_0", "Q4_0" or "Q4_1"
    shape   as NumPy has it
    blocks  makes its bytes, when it is the tensor's turn: one at a time is in memory
    """

    kind: str
    shape: tuple[int, ...]
    blocks: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        stored = TYPES[TYPE_NUMBERS[self.kind]]
        return math.prod(self.shape) // stored.values * stored.block.itemsize


def write_gguf(path: str | os.PathLike[str], metadata: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> None:
    """Write a GGUF file, which appears under its name when it is whole.

    metadata  key -> bool, int, float (as float32), str, NumPy scalar, or a list of one of these
    """
    head = _head(metadata, tensors)
    with whole_files(path) as [temporary], open(temporary, "wb") as file:
        file.write(head)
        for name, tensor in tensors.items():
            _pad(file)
            try:
                data = tensor.blocks()
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error
            file.write(data.tobytes())
        _pad(file)


def _head(metadata: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        try:
            parts += [_string(key), _value(value)]
        except (TypeError, ValueError) as error:
            raise type(error)(f"{key}: {error}") from error
    offset = 0
    for name, tensor in tensors.items():
        _require_placeable(name, tensor.shape)
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape[::-1])
        parts += [_string(name), shape, struct.pack("<IQ", TYPE_NUMBERS[tensor.kind], offset)]
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    return b"".join(parts)


def _require_placeable(name: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(name, str) or not 0 < len(name.encode()) <= LONGEST_NAME:
        raise ValueError(f"a tensor's name is a string of 1 to {LONGEST_NAME} bytes, got {name!r}")
    if not 1 <= len(shape) <= MOST_AXES:
        raise ValueError(f"{name}: a tensor in GGUF has 1 to {MOST_AXES} axes, got shape {shape}")


def _value(value: Any) -> bytes:
    """A value's type and bytes."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, list):
        return struct.pack("<I", ARRAY) + _array(value)
    number = _number(value)
    return struct.pack("<I", _kind(number)) + number.tobytes()


def _array(items: list) -> bytes:
    if all(isinstance(item, str) for item in items):
        return struct.pack("<IQ", STRING, len(items)) + b"".join(map(_string, items))
    numbers = np.array([_number(item) for item in items])
    return struct.pack("<IQ", _kind(numbers), len(items)) + numbers.tobytes()


def _number(value: Any) -> np.ndarray:
    """A number in the type that GGUF files have it in: int32 where it is negative, uint32, float32."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, bool):
        return np.asarray(value)
    if isinstance(value, int):
        return np.asarray(value, np.min_scalar_type(value) if abs(value) >= 2**31 else "<u4" if value >= 0 else "<i4")
    if isinstance(value, float):
        return np.asarray(value, "<f4")
    raise TypeError(f"metadata are numbers, strings and lists of one of these, got {value!r}")


def _kind(numbers: np.ndarray) -> int:
    if numbers.dtype not in KINDS:
        raise TypeError(f"metadata have no numbers of dtype {numbers.dtype}")
    return KINDS[numbers.dtype]


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))
