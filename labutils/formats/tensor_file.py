"""A safetensors file that is written piece by piece, so that it need never be in memory as a whole.

`safetensors.torch.save_file` wants all tensors at once. The header that it writes depends on names, dtypes and shapes
alone (huggingface.co/docs/safetensors, "Format"), and so can be written first. The bytes are the same as those of
`save_file`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from labutils.formats.checkpoint import DTYPES, Stored
from labutils.formats.whole_files import whole_files

Tensor = torch.Tensor
Write = Callable[[str, int, Tensor], None]  # name, the first of these rows, the rows

ALIGNMENT = 8  # bytes; spaces fill the header up


@contextmanager
def tensor_file(path: Path, tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> Iterator[Write]:
    """A function that writes rows of the named tensors, in any order; `path` is there when all are.

    >>> import tempfile
    >>> from safetensors.torch import load_file
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> with tensor_file(path, {"x": Stored("F32", (2, 2))}, {}) as write:
    ...     write("x", 1, torch.tensor([[3.0, 4.0]]))
    ...     write("x", 0, torch.tensor([[1.0, 2.0]]))
    >>> load_file(path)["x"].tolist()
    [[1.0, 2.0], [3.0, 4.0]]

    OSError names `path` where the disk is full; what `path` named before stays as it was.
    """
    offsets = _offsets(tensors)
    header = _header(tensors, offsets, metadata)
    with whole_files(path) as [unfinished], open(unfinished, "wb") as file:
        write_at(file, path, 0, header)
        file.truncate(len(header) + sum(stored.nbytes for stored in tensors.values()))

        def write(name: str, first: int, rows: Tensor) -> None:
            place = len(header) + offsets[name] + first * tensors[name].row_bytes
            write_at(file, path, place, rows.contiguous().reshape(-1).view(torch.uint8).numpy().data)

        yield write


def write_at(file: BinaryIO, path: Path, place: int, content: bytes | memoryview) -> None:
    """Write and flush, so that a full disk is noticed here, where the file's final name is known."""
    try:
        file.seek(place)
        file.write(content)
        file.flush()
    except OSError as error:
        raise OSError(error.errno, f"{path} could not be written and is not there: {error.strerror}") from error


def _offsets(tensors: Mapping[str, Stored]) -> dict[str, int]:
    """Where each tensor begins behind the header."""
    offsets, end, order = {}, 0, list(DTYPES)
    for name in sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name)):
        offsets[name] = end
        end += tensors[name].nbytes
    return offsets


def _header(tensors: Mapping[str, Stored], offsets: Mapping[str, int], metadata: Mapping[str, str]) -> bytes:
    entries = {"__metadata__": dict(metadata)} if metadata else {}
    for name, start in offsets.items():
        stored = tensors[name]
        place = [start, start + stored.nbytes]
        entries[name] = {"dtype": stored.dtype, "shape": list(stored.shape), "data_offsets": place}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
