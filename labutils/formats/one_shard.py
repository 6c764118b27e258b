"""One file of a checkpoint quantized, a piece at a time, into compressed-tensors' form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from labutils.arrays import affine
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.formats.checkpoint import DTYPES, Stored, rows
from labutils.formats.compressed_layer import format_of, stored_weight
from labutils.formats.tensor_file import tensor_file
from labutils.models.layers import PackedLinear, layer_kind

Tensor = torch.Tensor

PIECE = 2**22  # bytes of a tensor that are read at a time
FLOATS = ("F64", "F32", "F16", "BF16")
SHAPE = "weight_shape"
SCALES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Job:
    """A file to be quantized. It says all that is needed: another process may do it, or another machine."""

    source: Path
    target: Path
    tensors: Mapping[str, Stored]  # of the source
    quantized: frozenset[str]  # which of them
    scheme: Scheme
    metadata: Mapping[str, str]  # of the target

    @property
    def nbytes(self) -> int:
        return sum(stored.nbytes for stored in self.tensors.values())

    def after(self) -> dict[str, Stored]:
        """The tensors of the target."""
        found = {}
        for name, stored in self.tensors.items():
            found |= quantized_form(name, stored, self.scheme) if name in self.quantized else {name: stored}
        return found


def quantize_file(job: Job, advance: Callable[[int], Any] = lambda count: None) -> None:
    """Read one file of a checkpoint and write its quantized form; `advance` is told of the bytes that are done."""
    after = job.after()
    with tensor_file(job.target, after, job.metadata) as write:
        for name, stored in job.tensors.items():
            quantize = name in job.quantized
            with said_of(job.source, name):
                for first, piece in rows(job.source, name, stored, PIECE):
                    parts = quantized_rows(piece, job.scheme) if quantize else {"": piece}
                    for part, tensor in parts.items():
                        write(_renamed(name, part), first, tensor)
                    advance(piece.nbytes)
            if quantize and (shape := _renamed(name, SHAPE)) in after:
                write(shape, 0, torch.tensor(stored.shape))


def quantized_rows(weight: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """Rows of a weight, quantized as `quantize_model` does it and stored as compressed-tensors has it.

    >>> parts = quantized_rows(torch.ones(2, 64), Scheme(4, granularity=PerGroup(32)))
    >>> {part: tuple(tensor.shape) for part, tensor in parts.items()}
    {'weight_packed': (2, 8), 'weight_scale': (2, 2)}
    """
    weight, kind = weight.to(torch.float32), layer_kind(scheme)
    scale, zero_point = affine.choose_qparams(weight, scheme)
    stored = stored_weight(affine.quantize(weight, scheme, (kind.held_scale(scale), zero_point)))
    stored.pop(SHAPE, None)  # of these rows
    if stored["weight_scale"].dtype in SCALES:  # which 16 bits may hold by chance
        stored["weight_scale"] = stored["weight_scale"].to(torch.bfloat16 if kind is PackedLinear else torch.float32)
    return stored


def quantized_form(name: str, stored: Stored, scheme: Scheme) -> dict[str, Stored]:
    """What becomes of a matrix: the dtypes and shapes of its parts.

    >>> list(quantized_form("head.weight", Stored("F32", (10, 64)), Scheme(4, granularity=PerGroup(32))).values())
    [Stored(dtype='I32', shape=(10, 8)), Stored(dtype='BF16', shape=(10, 2)), Stored(dtype='I64', shape=(2,))]
    """
    length, columns = stored.shape
    row = {_renamed(name, part): of_row for part, of_row in _row_form(columns, scheme).items()}
    form = {part: replace(of_row, shape=(length, *of_row.shape[1:])) for part, of_row in row.items()}
    has_words = any(of_row.dtype == "I32" for of_row in form.values())  # which do not say where a row ends
    return form | ({_renamed(name, SHAPE): Stored("I64", (2,))} if has_words else {})


@lru_cache
def _row_form(columns: int, scheme: Scheme) -> dict[str, Stored]:
    """What a row becomes: some row is quantized to see it."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    parts = quantized_rows(torch.zeros(1, columns), scheme)
    return {part: Stored(names[row.dtype], tuple(row.shape)) for part, row in parts.items()}


def _renamed(name: str, part: str) -> str:
    """head.weight and weight_packed -> head.weight_packed."""
    return name.removesuffix("weight") + part if part else name


@contextmanager
def said_of(path: Path, name: str, advice: str = "") -> Iterator[None]:
    """Let a ValueError say of which tensor it speaks, and what to do."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {name}: {error}{advice}") from error


# --- what cannot be quantized in pieces -------------------------------------------------------------------------------


def require_rows(scheme: Scheme) -> None:
    """TypeError or ValueError for a scheme by which rows cannot be quantized one without another."""
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, such as Scheme(4, granularity=PerGroup(128)), got {scheme!r}")
    format_of(scheme)
    in_rows = isinstance(scheme.granularity, PerGroup) or scheme.granularity in (PerAxis(0), PerAxis(-2))
    if not in_rows or not scheme.symmetric or scheme.tensor_scale:
        raise ValueError(
            "a tensor is quantized a few rows at a time: scheme must be symmetric, PerGroup(...) or PerAxis(0), "
            f"and without a tensor_scale, got {scheme!r}"
        )


def require_quantizable(name: str, stored: Stored, scheme: Scheme, others: Mapping[str, Stored]) -> None:
    """ValueError for a matrix that cannot be quantized, or whose parts would have names that `others` have."""
    if stored.dtype not in FLOATS:
        raise ValueError(f"it holds {stored.dtype}, and only {', '.join(FLOATS)} can be quantized")
    if not stored.nbytes:
        raise ValueError(f"it is empty, of shape {stored.shape}")
    if taken := [part for part in quantized_form(name, stored, scheme) if part != name and part in others]:
        raise ValueError(f"it would become {taken[0]}, which is there already")
