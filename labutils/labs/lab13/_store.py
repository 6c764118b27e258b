"""A checkpoint in memory: shards that are read and written by name, and what was done in which order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labutils.course.exercise import Wrong
from labutils.course.reading import as_array

Shard = Mapping[str, np.ndarray]  # tensor name -> tensor


@dataclass
class Store:
    """What a submission is given to read from and to write to.

    done      ("read" or "write", file) in order
    written   file -> its tensors, as they were when they were written
    """

    shards: Mapping[str, Shard]
    done: list = field(default_factory=list)
    written: dict = field(default_factory=dict)

    def read(self, file: str) -> dict[str, np.ndarray]:
        if file not in self.shards:
            raise FileNotFoundError(f"there is no shard named {file!r}")
        self.done.append(("read", file))
        return copy.deepcopy(dict(self.shards[file]))

    def write(self, file: str, tensors: Shard) -> None:
        if not isinstance(tensors, dict):
            raise TypeError(f"write takes a file and a dict of tensors, got {type(tensors).__name__}")
        self.done.append(("write", file))
        self.written[file] = {name: np.array(as_array(tensor, name)) for name, tensor in tensors.items()}


@dataclass
class Quantized:
    """What became of a checkpoint: the store, and the index that was returned."""

    store: Store
    index: Any


def on_store(submission: Callable, shards: Mapping[str, Shard], **options: Any) -> Quantized:
    store = Store(shards)
    return Quantized(store, submission(list(shards), store.read, store.write, **options))


def read_checkpoint(value: Quantized) -> dict:
    """The files in order of work, each tensor under "file: name", and the index as numbers and texts."""
    index = value.index
    if not isinstance(index, dict) or not all(isinstance(index.get(key), dict) for key in ("metadata", "weight_map")):
        raise Wrong('it should return the index, a dict with the dicts "metadata" and "weight_map"')
    total = index["metadata"].get("total_size")
    if total is None or isinstance(total, (str, bool)):
        raise Wrong(f'metadata should say "total_size", a number of bytes, but it is {index["metadata"]!s:.60}')
    tensors = {
        f"{file}: {name}": array for file, written in value.store.written.items() for name, array in written.items()
    }
    places = sorted(f"{name} in {file}" for name, file in index["weight_map"].items())
    work = ", ".join(f"{verb} {file}" for verb, file in value.store.done)
    return {"work": work, "total_size": float(as_array(total, "total_size")), "weight_map": "; ".join(places)} | tensors
