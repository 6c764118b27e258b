"""A checkpoint of any size quantized file by file and tensor by tensor, into compressed-tensors' packed form.

Memory does not grow with the checkpoint. A process reads at most PIECE bytes of a tensor at a time, or one row where a
row is longer, and writes what becomes of them before it reads on: six times PIECE is what that takes, 200 MB in all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from labutils.arrays import affine, packing
from labutils.arrays.grids import Integers
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.formats.checkpoint import ALONE, INDEX, Checkpoint, Stored, opened, read_json, rows
from labutils.formats.tensor_file import tensor_file
from labutils.formats.whole_files import whole_files

Tensor = torch.Tensor

PIECE = 2**25  # bytes of a tensor that are read at a time
NOT_LINEAR = (
    "*embed*",
    "*wte",
    "*wpe",
    "lm_head",
)  # matrices of other layers, and the head, which is often one of them
CONFIG = "config.json"
BESIDE = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".md"}  # a tokenizer's files and the like, which are copied
FLOATS = ("F64", "F32", "F16", "BF16")
WIDTHS = (4, 8)
PARTS = ("_packed", "_scale", "_shape")  # what x.weight becomes
SCALE_DTYPES = dict.fromkeys((torch.float64, torch.float32, torch.bfloat16), torch.bfloat16) | {
    torch.float16: torch.float16
}
SAMPLES, SAMPLE = 256, 4096  # of a file's bytes


class Client(Protocol):
    """What a dask.distributed.Client and a concurrent.futures.Executor have in common."""

    def submit(self, function: Callable, *arguments: Any) -> Any: ...


@dataclass(frozen=True)
class Job:
    """One file to be quantized, in full: it may be done by another process, on another machine."""

    source: Path
    target: Path
    tensors: Mapping[str, Stored]
    quantized: frozenset[str]
    scheme: Scheme
    metadata: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        return sum(stored.nbytes for stored in self.tensors.values())


def quantize_shards(
    source: Path | str,
    target: Path | str,
    scheme: Scheme = Scheme(4, granularity=PerGroup(128)),
    *,
    ignore: Iterable[str] = NOT_LINEAR,
    progress: bool = True,
    client: Client | None = None,
) -> Path:
    """Quantize a folder of safetensors files that may be larger than memory; return the folder it was written to.

    >>> quantize_shards("Llama-70B", "Llama-70B-W4A16", Scheme(4, granularity=PerGroup(128)))  # doctest: +SKIP

    transformers and vLLM load the result (compressed-tensors' "pack-quantized"; it needs that package). Each file gives
    a file of the same name, in which every matrix x.weight of floats has become x.weight_packed (int32),
    x.weight_scale and x.weight_shape; all else is copied, and so are the tokenizer's files.

    scheme    4 or 8 bits, symmetric, PerGroup(group_size) or PerAxis(0)
    ignore    names to leave as they are, without ".weight"; "*embed*" is all names with that in them. A checkpoint does
              not say which of its matrices belong to linear layers, so name what does not
    progress  show bytes read of all
    client    a dask.distributed.Client, or any concurrent.futures.Executor: its processes do the files, which do not
              depend on each other, and come out the same, byte for byte

    It may be killed at any time: a file has its name only when it is whole and on the disk, and a second call with the
    same arguments does what is left. A process holds 200 MB at most beyond what torch takes, whatever the checkpoint's
    size. `source` is only read.

    ValueError where the files are not what the index says, for tensors that cannot be quantized (integers, NaN, rows
    that are no whole groups), and where `target` holds anything else; OSError for a full disk. The file is named.
    """
    checkpoint, target = Checkpoint.of(source), Path(target)
    config = _config(checkpoint.folder)
    ignore = [ignore] if isinstance(ignore, str) else list(ignore)
    jobs = _jobs(checkpoint, target, _supported(scheme), ignore)
    target.mkdir(parents=True, exist_ok=True)
    done = _done(jobs, target, checkpoint.folder)
    with tqdm(total=checkpoint.nbytes, unit="B", unit_scale=True, disable=not progress, desc=target.name) as bar:
        bar.update(sum(job.nbytes for job in done))
        _run([job for job in jobs if job not in done], bar.update, client)
    _finish(checkpoint, target, jobs, scheme, config)
    return target


def _run(jobs: list[Job], advance: Callable[[int], Any], client: Client | None) -> None:
    if client is None:
        for job in jobs:
            quantize_file(job, advance)
        return
    futures = [client.submit(quantize_file, job) for job in jobs]
    try:
        for job, future in zip(jobs, futures):
            future.result()
            advance(job.nbytes)
    finally:  # after an error the others need not begin
        for future in futures:
            future.cancel()


def quantize_file(job: Job, advance: Callable[[int], Any] = lambda count: None) -> None:
    """Read one file of a checkpoint and write its quantized form."""
    with tensor_file(job.target, _stored_after(job), job.metadata) as write:
        for name, stored in job.tensors.items():
            step = _quantize if name in job.quantized else _copy
            with _named(job.source, name):
                for first, piece in rows(job.source, name, stored, PIECE):
                    step(write, name, first, piece, job.scheme)
                    advance(piece.nbytes)
                if step is _quantize:
                    write(f"{name}_shape", 0, torch.tensor(stored.shape))


def _copy(write: Callable, name: str, first: int, piece: Tensor, scheme: Scheme) -> None:
    write(name, first, piece)


def _quantize(write: Callable, name: str, first: int, piece: Tensor, scheme: Scheme) -> None:
    if not piece.isfinite().all():
        raise ValueError(f"holds NaN or Inf in rows {first} to {first + len(piece) - 1}")
    piece, dtype = piece.to(torch.float32), SCALE_DTYPES[piece.dtype]
    scale = rounded_up(affine.choose_qparams(piece, scheme)[0], dtype)
    codes = affine.quantize(piece, scheme, (scale.to(torch.float32), 0)).codes
    write(f"{name}_packed", first, pack_int32(codes, scheme.num_bits))
    write(f"{name}_scale", first, scale.reshape(len(piece), -1))


def rounded_up(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The next number of a smaller dtype that is not below: no weight is clipped for it.

    >>> rounded_up(torch.tensor([0.5, 0.1]), torch.bfloat16).tolist()
    [0.5, 0.10009765625]
    """
    rounded = scale.to(dtype)
    up = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    return torch.where(rounded.to(scale.dtype) < scale, up, rounded)


def pack_int32(codes: Tensor, num_bits: int) -> Tensor:
    """Signed codes as compressed-tensors packs them: offset by 2^(b-1), the first in the lowest bits of an int32.

    >>> [f"{word:#x}" for word in pack_int32(torch.arange(-8, 0)[None], 4)[0].tolist()]
    ['0x76543210']
    """
    unsigned = (codes.to(torch.int16) + 2 ** (num_bits - 1)).to(torch.uint8)
    packed = packing.pack(unsigned, num_bits)
    return nn.functional.pad(packed, (0, -packed.shape[1] % 4)).view(torch.int32)


@contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    """Let a ValueError say of which tensor it speaks."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {name} {error}") from error


# --- before the first file: what is to be done, and what speaks against it --------------------------------------------


def _supported(scheme: Scheme) -> Scheme:
    if not isinstance(scheme, Scheme):
        raise TypeError(f"scheme must be a Scheme, such as Scheme(4, granularity=PerGroup(128)), got {scheme!r}")
    is_plain = isinstance(scheme.grid, Integers) and scheme.symmetric and scheme.scale_grid is None
    in_rows = isinstance(scheme.granularity, PerGroup) or scheme.granularity in (PerAxis(0), PerAxis(-2))
    if not (is_plain and in_rows and scheme.num_bits in WIDTHS):
        raise ValueError(
            f"a shard takes symmetric integers of 4 or 8 bits, PerGroup(...) or PerAxis(0), got {scheme!r}"
        )
    return scheme


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    if "quantization_config" in config:
        raise ValueError(f"{folder / CONFIG} has a quantization_config: the checkpoint is quantized already")
    return config


def _jobs(checkpoint: Checkpoint, target: Path, scheme: Scheme, ignore: list[str]) -> list[Job]:
    jobs = []
    for file, tensors in checkpoint.shards.items():
        source = checkpoint.folder / file
        quantized = frozenset(name for name, stored in tensors.items() if _is_quantized(name, stored, ignore))
        for name in quantized:
            _require_quantizable(source, name, tensors[name], scheme, checkpoint.tensors)
        settings = {"scheme": repr(scheme), "quantized": sorted(quantized), "source": fingerprint(source)}
        metadata = {"format": "pt", "quantize_shards": json.dumps(settings)}
        jobs.append(Job(source, target / file, tensors, quantized, scheme, metadata))
    if not any(job.quantized for job in jobs):
        raise ValueError(f"{checkpoint.folder} holds no matrix x.weight that is not ignored ({', '.join(ignore)})")
    return jobs


def _is_quantized(name: str, stored: Stored, ignore: list[str]) -> bool:
    module, _, kind = name.rpartition(".")
    return kind == "weight" and len(stored.shape) == 2 and not any(fnmatchcase(module, pattern) for pattern in ignore)


def _require_quantizable(
    source: Path, name: str, stored: Stored, scheme: Scheme, tensors: Mapping[str, Stored]
) -> None:
    columns = stored.shape[1]
    advice = f"ignore={name.removesuffix('.weight')!r} leaves it as it is"
    if stored.dtype not in FLOATS:
        raise ValueError(f"{source}: {name} holds {stored.dtype}, and only {', '.join(FLOATS)} are quantized; {advice}")
    if not stored.nbytes:
        raise ValueError(f"{source}: {name} is empty, of shape {stored.shape}; {advice}")
    if isinstance(scheme.granularity, PerGroup) and columns % scheme.granularity.group_size:
        raise ValueError(f"{source}: {name} has rows of {columns}, no multiple of {scheme.granularity}; {advice}")
    if taken := [name + part for part in PARTS if name + part in tensors]:
        raise ValueError(f"{source}: {taken[0]} is there already, and {name} would become one of that name; {advice}")


def _stored_after(job: Job) -> dict[str, Stored]:
    """What the file will hold."""
    after = {}
    for name, stored in job.tensors.items():
        if name not in job.quantized:
            after[name] = stored
            continue
        length, columns = stored.shape
        size = job.scheme.granularity.group_size if isinstance(job.scheme.granularity, PerGroup) else columns
        after[f"{name}_packed"] = Stored("I32", (length, -(-columns * job.scheme.num_bits // 32)))
        after[f"{name}_scale"] = Stored("F16" if stored.dtype == "F16" else "BF16", (length, columns // size))
        after[f"{name}_shape"] = Stored("I64", (2,))
    return after


def fingerprint(path: Path) -> str:
    """A hash of a file's size and of SAMPLES pieces spread over it: it tells a checkpoint from another in no time."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for sample in range(SAMPLES):
            file.seek(max(0, size - SAMPLE) * sample // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _done(jobs: list[Job], target: Path, source: Path) -> list[Job]:
    """The jobs whose files are there, made with the same settings; ValueError for anything that is not of this run."""
    for left in target.glob(".partial-*"):  # by a process that was killed
        left.unlink()
    names = {job.target.name for job in jobs} | {INDEX, CONFIG} | {file.name for file in _copied(source)}
    if strange := sorted(file.name for file in target.iterdir() if file.name not in names):
        raise ValueError(f"{target} holds {strange[0]}, which is not of this checkpoint: take an empty folder")
    done = [job for job in jobs if job.target.exists()]
    for job in done:
        with opened(job.target) as file:
            metadata = file.metadata()
        if metadata != job.metadata:
            raise ValueError(
                f"{job.target} was made of another file or with other settings "
                f"({metadata.get('quantize_shards', 'unknown') if metadata else 'unknown'}): take an empty folder"
            )
    return done


def _copied(source: Path) -> list[Path]:
    return [file for file in source.iterdir() if file.suffix in BESIDE and file.name not in (INDEX, CONFIG)]


# --- after the last file ----------------------------------------------------------------------------------------------


def _finish(checkpoint: Checkpoint, target: Path, jobs: list[Job], scheme: Scheme, config: dict[str, Any]) -> None:
    """Copy what stands beside the tensors; the config comes last, without which nobody loads the folder."""
    for file in _copied(checkpoint.folder):
        with whole_files(target / file.name) as [unfinished]:
            shutil.copyfile(file, unfinished)
    after = {job.target.name: _stored_after(job) for job in jobs}
    if list(after) != [ALONE]:
        size = sum(stored.nbytes for tensors in after.values() for stored in tensors.values())
        places = {name: file for file, tensors in after.items() for name in sorted(tensors)}
        _write_json(target / INDEX, {"metadata": {"total_size": size}, "weight_map": places})
    left = [
        name
        for job in jobs
        for name, stored in job.tensors.items()
        if name not in job.quantized and len(stored.shape) == 2
    ]
    left = sorted({name.removesuffix(".weight") for name in left} | {"lm_head"})
    _write_json(target / CONFIG, config | {"quantization_config": _quantization_config(scheme, left)})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with whole_files(path) as [unfinished]:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _quantization_config(scheme: Scheme, ignore: list[str]) -> dict[str, Any]:
    in_groups = isinstance(scheme.granularity, PerGroup)
    weights = {
        "num_bits": scheme.num_bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group" if in_groups else "channel",
        "group_size": scheme.granularity.group_size if in_groups else None,
        "dynamic": False,
    }
    groups = {
        "group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignore,
    }
