"""A checkpoint of any size quantized file by file and tensor by tensor, into compressed-tensors' form.

Memory does not grow with the checkpoint. A process reads at most PIECE bytes of a tensor at a time, or one row where a
row is longer, and writes what becomes of them before it reads on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.formats.checkpoint import ALONE, CONFIG, INDEX, Checkpoint, Stored, opened, read_json
from labutils.formats.compressed_tensors import quantization_config
from labutils.formats.one_shard import Job, quantize_file, require_quantizable, require_rows, said_of
from labutils.formats.tensor_file import named_where_full
from labutils.formats.whole_files import whole_files

HEAD = "lm_head"
# Matrices of other layers than linear ones (embeddings, positions, routers), and the head, which is often one of them.
NOT_LINEAR = ("*embed*", "*wte", "*wpe", "*shared", "*relative_attention_bias", "*.gate", "*router", HEAD)
BESIDE = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".md"}  # a tokenizer's files and the like, which are copied
WRITTEN_ANEW = (CONFIG, "*.index.json")
PARTIAL = ".partial-*"  # what `whole_files` leaves after a kill
SAMPLES, SAMPLE = 256, 4096  # how many pieces of a file are looked at to know it again, and their bytes


class Client(Protocol):
    """What a dask.distributed.Client and a concurrent.futures.Executor have in common."""

    def submit(self, function: Callable, *arguments: Any) -> Any: ...


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

    scheme    symmetric, PerGroup(group_size) or PerAxis(0): integers of 2 to 8 bits; MXFP4, MXFP8 or FP8 by rows, too
    ignore    names to leave as they are, without ".weight"; "*embed*" is all names with that in them. A checkpoint does
              not say which of its matrices belong to an nn.Linear, so name what does not (all of GPT-2, for instance,
              whose Conv1D has columns for rows), and a head under another name than lm_head that shares its weight with
              the embedding. A pattern that fits nothing is refused
    progress  show bytes read of all
    client    a dask.distributed.Client, or any concurrent.futures.Executor. Its processes do the files, which do not
              depend on each other, and come out the same, byte for byte. On several machines:

                  from dask.distributed import Client
                  quantize_shards(source, target, scheme, client=Client("tcp://scheduler:8786"))

              Both folders must be on a disk that all of them see, under the same path

    It may be killed at any time: a file has its name only when it is whole and on the disk, and a second call with the
    same arguments does what is left. One call at a time for a target. `source` is only read.

    A process grows by 40 MB at most, whatever the checkpoint's size; where a row is longer than 4 MB, by four rows.

    ValueError where the files are not what the index says, for tensors that cannot be quantized (integers, NaN, rows
    that are no whole groups), and where `target` holds anything else; FileNotFoundError for a file that is missing;
    OSError where the disk is full. All of them name the file, and the tensor.
    """
    require_rows(scheme)
    checkpoint, target = Checkpoint.of(Path(source).absolute()), Path(target).absolute()
    config = _config(checkpoint.folder)
    ignored = [ignore] if isinstance(ignore, str) else list(ignore)
    jobs = _jobs(checkpoint, target, scheme, ignored)
    target.mkdir(parents=True, exist_ok=True)
    done = _done(jobs, target, checkpoint.folder)
    with tqdm(total=checkpoint.nbytes, unit="B", unit_scale=True, disable=not progress, desc=target.name) as bar:
        bar.update(sum(job.nbytes for job in done))
        _run([job for job in jobs if job not in done], bar.update, client)
    _finish(checkpoint.folder, target, jobs, config | _described(jobs, ignored))
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


# --- before the first file: what is to be done, and what speaks against it --------------------------------------------


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    if "quantization_config" in config:
        raise ValueError(f"{folder / CONFIG} has a quantization_config: the checkpoint is quantized already")
    return config


def _jobs(checkpoint: Checkpoint, target: Path, scheme: Scheme, ignore: list[str]) -> list[Job]:
    everything = checkpoint.tensors
    jobs = []
    for file, tensors in checkpoint.shards.items():
        source = checkpoint.folder / file
        matrices = {name: stored for name, stored in tensors.items() if _is_weight(name, stored)}
        left = {name: pattern for name in matrices if (pattern := _fitting(name, ignore))}
        quantized = frozenset(matrices) - left.keys()
        for name in sorted(quantized):
            with said_of(source, name, f"; ignore={_module(name)!r} leaves it as it is"):
                require_quantizable(name, tensors[name], scheme, everything)
        settings = {"scheme": repr(scheme), "quantized": sorted(quantized), "source": fingerprint(source)}
        reasons = {_module(name): f"ignored as {pattern!r}" for name, pattern in left.items()}
        metadata = {"format": "pt", "left_in_float": json.dumps(reasons), "quantize_shards": json.dumps(settings)}
        jobs.append(Job(source, target / file, tensors, quantized, scheme, metadata))
    names = {_module(name) for name in everything}
    for pattern in ignore:
        fits = pattern in NOT_LINEAR or any(fnmatchcase(name, pattern) for name in names)
        if not fits and (pattern.endswith(".weight") or not _is_name(pattern)):
            raise ValueError(f"ignore has {pattern!r}, and {checkpoint.folder} has no tensor {pattern}.weight")
    if not any(job.quantized for job in jobs):
        raise ValueError(f"{checkpoint.folder} holds no matrix named x.weight that is not ignored: ignore is {ignore}")
    return jobs


def _is_weight(name: str, stored: Stored) -> bool:
    return name.endswith(".weight") and len(stored.shape) == 2


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _is_name(pattern: str) -> bool:
    """Whether it names one layer: a head that shares the embedding's weight is in no file, and may be named too."""
    return not set(pattern) & set("*?[")


def _fitting(name: str, patterns: list[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(_module(name), pattern)), None)


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
    for left in target.glob(PARTIAL):
        left.unlink()
    names = {job.target.name for job in jobs} | {INDEX, CONFIG} | {file.name for file in _beside(source)}
    if strangers := sorted(file.name for file in target.iterdir() if file.name not in names):
        raise ValueError(f"{target} holds {strangers[0]}, which is not of this checkpoint: name an empty folder")
    done = [job for job in jobs if job.target.exists()]
    for job in done:
        with opened(job.target) as file:
            metadata = file.metadata() or {}
        if metadata != job.metadata:
            made = metadata.get("quantize_shards", "settings that it does not say")
            raise ValueError(
                f"{job.target} was made with {made}, and {job.metadata['quantize_shards']} is asked for: "
                "name an empty folder"
            )
    return done


def _beside(source: Path) -> list[Path]:
    return [
        file
        for file in source.iterdir()
        if file.suffix in BESIDE and file.is_file() and not any(fnmatchcase(file.name, name) for name in WRITTEN_ANEW)
    ]


# --- after the last file ----------------------------------------------------------------------------------------------


def _finish(source: Path, target: Path, jobs: list[Job], config: dict[str, Any]) -> None:
    """Write what stands beside the tensors; the config comes last, without which nobody loads the folder."""
    for file in _beside(source):
        with named_where_full(target / file.name), whole_files(target / file.name) as [unfinished]:
            shutil.copyfile(file, unfinished)
    if [job.target.name for job in jobs] != [ALONE]:
        write_json(target / INDEX, _index(jobs))
    write_json(target / CONFIG, config)


def _described(jobs: list[Job], ignored: list[str]) -> dict[str, Any]:
    schemes = {_module(name): job.scheme for job in jobs for name in sorted(job.quantized)}
    left = [name for job in jobs for name in json.loads(job.metadata["left_in_float"])]
    in_float = dict.fromkeys([*left, HEAD, *filter(_is_name, ignored)])
    return {"quantization_config": quantization_config(in_float | schemes)}


def _index(jobs: list[Job]) -> dict[str, Any]:
    after = {job.target.name: job.after() for job in jobs}
    size = sum(stored.nbytes for tensors in after.values() for stored in tensors.values())
    places = {name: file for file, tensors in after.items() for name in sorted(tensors)}
    return {"metadata": {"total_size": size}, "weight_map": places}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON file that is there as a whole or not at all."""
    with named_where_full(path), whole_files(path) as [unfinished]:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
