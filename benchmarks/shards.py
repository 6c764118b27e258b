"""Memory that `quantize_shards` needs for checkpoints of several sizes, each in a new process.

python -m benchmarks.shards [GIGABYTES ...]            prints a table
python -m benchmarks.shards --measure SOURCE TARGET    prints bytes of growth, and processor seconds
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.memory import MIB, ROOT, peak
from benchmarks.tables import machine, markdown
from labutils.formats.checkpoint import INDEX, Checkpoint
from labutils.formats.shards import quantize_shards, write_json

SHARD, COLUMNS = 10**9, 4096  # bytes of a file; of a matrix's rows


def table(gigabytes=(1,), shard=SHARD, progress=lambda rounds, title: rounds):
    """A row for each size: what it becomes, by how much a process grows on the way, and how long it computes."""
    rows = []
    for size in progress(gigabytes, "shards"):
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "source", Path(folder) / "target"
            write_random(source, int(size * 1e9), shard)
            growth, seconds = measured(source, target)
            before, after = Checkpoint.of(source).nbytes, Checkpoint.of(target).nbytes
        rows.append(
            {"GB": before / 1e9, "becomes": after / 1e9, "growth, MiB": growth / MIB, "s for a GB": seconds / size}
        )
    return rows


def write_random(folder, nbytes, shard=SHARD):
    """A checkpoint of normally distributed float32 matrices, in files of `shard` bytes, four matrices each."""
    folder.mkdir()
    random, places = torch.Generator().manual_seed(0), {}
    count = -(-nbytes // shard)
    rows = nbytes // count // 4 // (4 * COLUMNS)
    for i in range(count):
        names = [f"layers.{i}.{part}.weight" for part in "abcd"]
        tensors = {name: torch.randn(rows, COLUMNS, generator=random) for name in names}
        places |= dict.fromkeys(names, file := f"model-{i + 1:05}-of-{count:05}.safetensors")
        save_file(tensors, folder / file)
    write_json(folder / INDEX, {"weight_map": places})


def measured(source, target):
    """(bytes, processor seconds) in a new process."""
    command = [sys.executable, "-m", "benchmarks.shards", "--measure", source, target]
    growth, seconds = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return int(growth), float(seconds)


def measure(source, target):
    """A small checkpoint first, with which everything is loaded that is loaded on first use."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_random(Path(folder) / "source", 2**16)
        quantize_shards(Path(folder) / "source", Path(folder) / "target", progress=False)
    before, start = peak(), time.process_time()
    quantize_shards(source, target, progress=False)
    return peak() - before, time.process_time() - start


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(*measure(*sys.argv[2:]))
    else:
        print(machine(), markdown(table([float(size) for size in sys.argv[1:]])), sep="\n\n")
