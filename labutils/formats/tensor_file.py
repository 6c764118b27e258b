"""A safetensors file that is written piece by piece, so that it need never be in memory as a whole.

`safetensors.torch.save_file` wants all tensors at once. The header that it writes depends on names, dtypes and shapes
alone (huggingface.co/docs/safetensors, "Format"), and so can be written first. The bytes are the same as those of
`save_file`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from labutils.formats.checkpoint import DTYPES, Stored
from labutils.formats.whole_files import whole_files

Tensor = torch.Tensor
Write = Callable[[str, int, Tensor], None]  # name, the first of these rows, the rows

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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
    with named_where_full(path), whole_files(path) as [unfinished], open(unfinished, "wb") as file:

        def write(name: str, first: int, rows: Tensor) -> None:
            file.seek(len(header) + offsets[name] + first * tensors[name].row_bytes)
            file.write(rows.contiguous().reshape(-1).view(torch.uint8).numpy().data)

        file.write(header)
        yield write
        file.truncate(len(header) + sum(stored.nbytes for stored in tensors.values()))  # the rest is zeros


@contextmanager
def named_where_full(path: Path) -> Iterator[None]:
    """Let an OSError for want of room say what was being written: the system does not."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(error.errno, f"{path} is not written: {os.strerror(error.errno)}") from error


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
