"""What a folder of safetensors files holds, read from their headers and compared with its index."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

Tensor = torch.Tensor

INDEX = "model.safetensors.index.json"
ALONE = "model.safetensors"  # the name of a checkpoint's only file
CONFIG = "config.json"
DTYPES = {  # safetensors' name -> torch's dtype; the library writes them in this order, wide ones first
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "U32": torch.uint32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Stored:
    """What a file says of a tensor; `dtype` by safetensors' name, such as "BF16"."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of a slice along the first axis."""
        return math.prod(self.shape[1:]) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint, each with its tensors: {"model.safetensors": {"0.weight": Stored("F32", (4, 4))}}."""

    folder: Path
    shards: Mapping[str, Mapping[str, Stored]]

    @classmethod
    def of(cls, folder: Path | str) -> Checkpoint:
        """Read the headers of a folder with one model.safetensors, or with several files and an index.

        FileNotFoundError where the folder or a file is missing; ValueError for a file that is cut off or is no
        safetensors file, and for an index that says something else than the files do.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder")
        if (folder / INDEX).exists() and (folder / ALONE).exists():
            raise ValueError(
                f"{folder} holds {ALONE} and {INDEX}: which of the two is the checkpoint? Remove the other"
            )
        if (folder / INDEX).exists():
            return cls(folder, _as_indexed(folder))
        if not (folder / ALONE).exists():
            raise FileNotFoundError(f"{folder} holds neither {ALONE} nor {INDEX}: it is no safetensors checkpoint")
        return cls(folder, {ALONE: tensors_of(folder / ALONE)})

    @property
    def tensors(self) -> dict[str, Stored]:
        return {name: stored for tensors in self.shards.values() for name, stored in tensors.items()}

    @property
    def nbytes(self) -> int:
        return sum(stored.nbytes for stored in self.tensors.values())


def tensors_of(path: Path) -> dict[str, Stored]:
    """Name -> dtype and shape of the tensors of one file, without reading them."""
    with opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        tensors = {name: Stored(piece.get_dtype(), tuple(piece.get_shape())) for name, piece in slices.items()}
    for name, stored in tensors.items():
        if stored.dtype not in DTYPES:
            raise ValueError(f"{path}: {name} has dtype {stored.dtype}, and only {', '.join(DTYPES)} are known here")
    return tensors


def opened(path: Path) -> Any:
    """`safetensors.safe_open`, whose errors name the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is cut off or damaged: {error}") from error


def rows(path: Path, name: str, stored: Stored, at_once: int) -> Iterator[tuple[int, Tensor]]:
    """(first row, those rows) of a tensor, at most `at_once` bytes and at least a row at a time.

    The file is opened for each piece anew: what a process has read of a mapped file counts as its memory until then.
    """
    if not stored.shape or not stored.nbytes:
        with opened(path) as file:
            yield 0, file.get_tensor(name)
        return
    step = max(1, at_once // stored.row_bytes)
    for first in range(0, stored.shape[0], step):
        with opened(path) as file:
            yield first, file.get_slice(name)[first : first + step]


def _as_indexed(folder: Path) -> dict[str, dict[str, Stored]]:
    index = read_json(folder / INDEX)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise ValueError(f"{folder / INDEX} has no weight_map that names a file for each tensor")
    shards = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard:
            raise ValueError(f"{folder / INDEX} places tensors in {shard!r}, which is not the name of a file beside it")
        shards[shard] = tensors_of(folder / shard)
        expected = {name for name, place in places.items() if place == shard}
        if absent := sorted(expected - shards[shard].keys()):
            raise ValueError(f"{folder / INDEX} says that {absent[0]} is in {shard}, and it is not there")
        if unknown := sorted(shards[shard].keys() - expected):
            raise ValueError(
                f"{folder / shard} holds {unknown[0]}, which {INDEX} places {_elsewhere(places, unknown[0])}"
            )
    found = sum(stored.nbytes for tensors in shards.values() for stored in tensors.values())
    metadata = index.get("metadata")
    stated = metadata.get("total_size", found) if isinstance(metadata, dict) else found
    if stated != found:
        raise ValueError(f"{folder / INDEX} says total_size {stated}, and its files hold tensors of {found} bytes")
    return shards


def _elsewhere(places: Mapping[str, str], name: str) -> str:
    return f"in {places[name]}" if name in places else "nowhere"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; ValueError, with the file's name, for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object, got {type(content).__name__}")
    return content
