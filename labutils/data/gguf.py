"""Read GGUF, the file format of llama.cpp: metadata and tensors, dequantized to float32.

Format: github.com/ggml-org/ggml, docs/gguf.md. A file is a header, key-value pairs, the names, shapes and types of the
tensors, and then their data. A quantized row is stored in blocks of 32 values, each with a float16 scale.
"""

from __future__ import annotations

import difflib
import math
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # version 1 has counts of 32 bits, and no file of interest
ALIGNMENT = 32  # bytes; where the metadata do not name another
STRING, ARRAY = 8, 9
NUMBERS = dict(enumerate(("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?"))) | {10: "<u8", 11: "<i8", 12: "<f8"}


class GGUF:
    """An open GGUF file.

    metadata  key -> number, bool, string, or a list of these
    tensors   name -> Tensor: shape, type, and where its data begin

    >>> file = GGUF("SmolLM2-135M-Instruct.Q4_1.gguf")  # doctest: +SKIP
    >>> file.metadata["llama.block_count"], file.tensors["blk.0.ffn_up.weight"].shape  # doctest: +SKIP
    (30, (1536, 576))

    The file is memory-mapped: a tensor is read when it is asked for. ValueError for a file that is not GGUF, is cut
    off, or has an unknown version or tensor type.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._bytes = np.memmap(self.path, mode="r") if self.path.stat().st_size else np.empty(0, np.uint8)
        reader = _Reader(self._bytes, self.path.name)
        if (magic := bytes(reader.take(4, "its first four bytes"))) != MAGIC:
            raise ValueError(f"{self.path.name} is not a GGUF file: it begins with {magic!r}, not {MAGIC!r}")
        if (version := reader.number("<u4")) not in VERSIONS:
            raise ValueError(f"{self.path.name} has GGUF version {version}, and only versions 2 and 3 can be read")
        num_tensors, num_pairs = reader.number("<u8"), reader.number("<u8")
        self.metadata = {reader.string(): reader.value(reader.number("<u4")) for _ in range(num_pairs)}
        tensors = [reader.tensor() for _ in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"{self.path.name}: general.alignment must be a positive whole number, got {alignment!r}")
        start = -(-reader.position // alignment) * alignment
        self.tensors = {tensor.name: tensor.moved(start) for tensor in tensors}
        for tensor in self.tensors.values():
            reader.require(tensor.offset, tensor.nbytes, f"tensor {tensor.name!r}")

    def read(self, name: str) -> np.ndarray:
        """A tensor's values as float32, of the tensor's shape; ValueError for a name that is not in the file."""
        if name not in self.tensors:
            near = difflib.get_close_matches(str(name), self.tensors, n=3) or list(self.tensors)[:3]
            raise ValueError(f"{self.path.name} has no tensor named {name!r}; near to it are {', '.join(near)}")
        tensor = self.tensors[name]
        data = self._bytes[tensor.offset : tensor.offset + tensor.nbytes]
        return tensor.type.dequantize(data.view(tensor.type.block)).reshape(tensor.shape)


# --- types of tensors -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorType:
    """How a tensor's values are stored.

    values      how many values a block holds
    block       the dtype of a block
    dequantize  blocks -> float32 values
    """

    name: str
    values: int
    block: np.dtype
    dequantize: Callable[[np.ndarray], np.ndarray]


def _float32(blocks: np.ndarray) -> np.ndarray:
    return blocks.astype(np.float32)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    return _float32(blocks["scale"])[:, None] * _float32(blocks["codes"])


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    return _float32(blocks["scale"])[:, None] * (_nibbles(blocks["codes"]) - np.float32(8))


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    return _float32(blocks["scale"])[:, None] * _nibbles(blocks["codes"]) + _float32(blocks["minimum"])[:, None]


def _nibbles(codes: np.ndarray) -> np.ndarray:
    """(n, 16) bytes -> (n, 32) codes 0 to 15: the low nibbles are a block's first half, the high ones its second."""
    return np.concatenate([codes & 15, codes >> 4], axis=1, dtype=np.float32)


_SCALE, _MINIMUM, _NIBBLES = ("scale", "<f2"), ("minimum", "<f2"), ("codes", "u1", 16)
TYPES = {
    0: TensorType("F32", 1, np.dtype("<f4"), _float32),
    1: TensorType("F16", 1, np.dtype("<f2"), _float32),
    2: TensorType("Q4_0", 32, np.dtype([_SCALE, _NIBBLES]), _q4_0),
    3: TensorType("Q4_1", 32, np.dtype([_SCALE, _MINIMUM, _NIBBLES]), _q4_1),
    8: TensorType("Q8_0", 32, np.dtype([_SCALE, ("codes", "i1", 32)]), _q8_0),
}


@dataclass(frozen=True)
class Tensor:
    """What a file says of a tensor: `shape` as NumPy has it, `offset` in bytes from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) // self.type.values * self.type.block.itemsize

    def moved(self, start: int) -> Tensor:
        """The same tensor with `start` added to its offset."""
        return Tensor(self.name, self.shape, self.type, start + self.offset)


# --- reading ----------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one item after another, and raises ValueError where the file ends within one."""

    def __init__(self, data: np.ndarray, file: str):
        self.data, self.file, self.position = memoryview(data), file, 0

    def require(self, start: int, count: int, part: str) -> None:
        if start + count > len(self.data):
            raise ValueError(
                f"{self.file} is cut off: it has {len(self.data)} bytes, and {part} ends after {start + count}"
            )

    def take(self, count: int, part: str) -> memoryview:
        self.require(self.position, count, part)
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, dtype: str) -> Any:
        return self.numbers(dtype, 1)[0]

    def numbers(self, dtype: str, count: int) -> list:
        data = self.take(np.dtype(dtype).itemsize * count, "its metadata")
        return np.frombuffer(data, dtype).tolist()

    def string(self) -> str:
        (length,) = struct.unpack("<Q", self.take(8, "its metadata"))  # much faster than number(), and there are many
        return str(self.take(length, "its metadata"), "utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array(self.number("<u4"), self.number("<u8"))
        if kind not in NUMBERS:
            raise ValueError(f"{self.file}: unknown type {kind} of a value in the metadata")
        return self.number(NUMBERS[kind])

    def array(self, kind: int, count: int) -> list:
        if kind in NUMBERS:
            return self.numbers(NUMBERS[kind], count)
        return [self.value(kind) for _ in range(count)]

    def tensor(self) -> Tensor:
        """A tensor's name, shape, type and offset, this from the beginning of the data."""
        name = self.string()
        shape = tuple(self.numbers("<u8", self.number("<u4")))[::-1]  # GGUF names the row's length first
        kind, offset = self.number("<u4"), self.number("<u8")
        if kind not in TYPES:
            known = ", ".join(f"{number} ({known.name})" for number, known in TYPES.items())
            raise ValueError(f"{self.file}: tensor {name!r} has type {kind}, and only {known} can be read")
        if shape and shape[-1] % TYPES[kind].values:
            raise ValueError(f"{self.file}: tensor {name!r} has rows of {shape[-1]}, not a multiple of 32")
        return Tensor(name, shape, TYPES[kind], offset)
