"""Run all benchmarks and print their tables.

They run in one thread, so that they compare code and not scheduling; `linear` also runs in two, `grading` in two
processes, and `browser` in as many threads as there are cores.
"""

import os

from benchmarks import THREADS

os.environ |= dict.fromkeys(THREADS, "1")  # before NumPy and torch are imported

import sys

import torch
from tqdm import tqdm

from benchmarks import (
    browser,
    encoding,
    explorer,
    grading,
    grids,
    imports,
    linear,
    memory,
    packing,
    quantize,
    shards,
    training,
)
from benchmarks.tables import machine, markdown


def progress(rounds, title):
    return tqdm(rounds, title, file=sys.stderr)


def main():
    torch.set_num_threads(1)
    sections = [
        ("What it costs to import", imports.table(progress=progress)),
        ("One explorer update in the kernel, a million values", explorer.table(progress=progress)),
        *browser.tables(progress=progress),
        *quantize.tables(progress=progress),
        ("Grids that are not integers, 4096 x 4096 float32, milliseconds", grids.table(progress=progress)),
        ("Packing and groups, 4096 x 4096 at 4 bits, milliseconds", packing.table(progress=progress)),
        *linear.tables(progress=progress),
        ("MiniLM, 256 sentences", encoding.table(progress=progress)),
        ("Peak memory beyond the input, choose + quantize + dequantize", memory.table(progress=progress)),
        ("A checkpoint quantized file by file, 4 bits in groups of 128", shards.table(progress=progress)),
        ("Digits read right in few bits, activations in 8", training.table(progress=progress)),
        ("A class graded, lab 01", grading.table(progress=progress)),
    ]
    print(machine())
    for title, rows in sections:
        print(f"\n## {title}\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()
