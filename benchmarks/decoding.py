"""SmolLM2 writes a text, a token at a time: tokens a second beside torchao, torch's dynamic quantization and llama.cpp.

    python -m benchmarks.decoding                                both tables
    python -m benchmarks.decoding THREADS ROUNDS TOKENS FILE     writes what `measure` returns to FILE, as JSON

All contestants take turns in every round, so that other load affects all of them alike, and a ratio is the median of
the rounds' ratios. On one thread, seconds are processor time: what others compute meanwhile does not count. On two they
are the clock's.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import torch

from benchmarks import llama_cpp
from benchmarks.linear import ROOT, by_torch
from benchmarks.tables import ratio
from labutils.arrays.scheme import PerAxis, PerGroup, Scheme
from labutils.models.conversion import quantize_model
from labutils.models.footprint import model_bytes
from labutils.models.layers import Int8Linear, repack

FLOAT, NOT_INSTALLED = "float32", "not installed"
FIRST = 6403  # "Once", the token with which every text begins
HEAD = "lm_head"


def packed(num_bits, granularity, symmetric=True):
    return Scheme(num_bits, symmetric, granularity)


OURS = {  # name: (how linear layers are replaced, the head likewise or None for float, whether the rest is repacked)
    "W8A8": (Int8Linear, None, False),
    "W8A8, repacked": (Int8Linear, None, True),
    "W8A8, repacked, head too": (Int8Linear, Int8Linear, True),
    "int8 weights, dequantized": (Scheme(8, granularity=PerAxis(0)), None, False),
    "4 bits, g32": (packed(4, PerGroup(32)), None, False),
    "4 bits, g128": (packed(4, PerGroup(128)), None, False),
    "4 bits, a group each row": (packed(4, PerAxis(0)), None, False),
    "4 bits, g32, head too": (packed(4, PerGroup(32)), packed(4, PerGroup(32)), False),
    "4 bits, g16, repacked": (packed(4, PerGroup(16)), None, True),
    "4 bits, g32, asymmetric, repacked": (packed(4, PerGroup(32), symmetric=False), None, True),
    "3 bits, g32, repacked": (packed(3, PerGroup(32)), None, True),
    "3 bits, g32": (packed(3, PerGroup(32)), None, False),
    "2 bits, g32, asymmetric, repacked": (packed(2, PerGroup(32), symmetric=False), None, True),
}


def tables(rounds=7, tokens=8, threads=(1, 2), progress=lambda rounds, title: rounds):
    """(title, rows) for each number of threads: tokens a second, times as fast as float32, MB of weights."""
    for count in progress(threads, "decoding"):
        found = measured_apart(count, rounds, tokens)
        rows = [
            {"SmolLM2": name, "tokens a second": 1 / median(seconds), "times as fast": speed_up(found, name)}
            | {"MB": found["MB"][name]}
            for name, seconds in found["seconds"].items()
        ]
        missing = {"tokens a second": float("nan"), "times as fast": float("nan"), "MB": float("nan")}
        rows += [{"SmolLM2": f"{name}: {NOT_INSTALLED}"} | missing for name in found["missing"]]
        yield f"Decoding, batch 1, {count} thread{'s'[: count - 1]}", rows


def speed_up(found, name):
    return median(ratio(floats, own) for floats, own in zip(found["seconds"][FLOAT], found["seconds"][name]))


def measured_apart(threads, rounds, tokens):
    """Run `measure` in a new process, because OpenMP keeps the number of threads with which it started."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.decoding", *map(str, (threads, rounds, tokens)), file.name]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        return json.loads(Path(file.name).read_text())


def measure(threads, rounds, tokens):
    """{"seconds": name -> seconds a token in each round, "MB": name -> size, "missing": names}."""
    from labutils import save_gguf
    from labutils.data import language_model

    torch.set_num_threads(threads)
    language = language_model()
    models = candidates(language.model)
    writers = {name: greedy(each) for name, each in models.items()}
    sizes = {name: model_bytes(each) / 1e6 for name, each in models.items()}
    others = [f"llama.cpp, {kind}" for kind in llama_cpp.KINDS]
    if llama_cpp.is_installed():
        with tempfile.TemporaryDirectory() as folder:
            for name, kind in zip(others, llama_cpp.KINDS):
                file = Path(folder) / f"{kind}.gguf"
                save_gguf(language, file, kind=kind)
                writers[name], sizes[name] = llama_cpp.LlamaCpp(file, threads).write, file.stat().st_size / 1e6
            return {"seconds": interleaved(writers, threads, rounds, tokens), "MB": sizes, "missing": []}
    return {"seconds": interleaved(writers, threads, rounds, tokens), "MB": sizes, "missing": others}


def interleaved(writers, threads, rounds, tokens):
    """name -> seconds a token in each round; the round before the first warms up."""
    clock = process_time if threads == 1 else perf_counter
    seconds = {name: [] for name in writers}
    for turn in range(rounds + 1):
        for name, write in writers.items():
            start = clock()
            write(tokens)
            if turn:
                seconds[name].append((clock() - start) / tokens)
    return seconds


def greedy(model, first=FIRST):
    """A function that lets a model write so many tokens after the first, each the most likely one."""

    def write(tokens):
        ids, cache = torch.tensor([[first]]), None
        with torch.inference_mode():
            for _ in range(tokens):
                output = model(input_ids=ids, past_key_values=cache, use_cache=True)
                ids, cache = output.logits[:, -1].argmax(-1)[:, None], output.past_key_values

    return write


def candidates(model):
    """name -> model, all made from the same float model."""
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return {
        FLOAT: model,
        **{f"labutils {name}": ours(model, *way) for name, way in OURS.items()},
        "torchao W8A8": by_torchao(copy.deepcopy(model), Int8DynamicActivationInt8WeightConfig()),
        "torchao int4, g32, bfloat16": by_torchao(
            copy.deepcopy(model).bfloat16(), PrototypeInt4WeightOnlyConfig(group_size=32)
        ),
        "torch dynamic": by_torch_dynamic(model),
        "bfloat16": copy.deepcopy(model).bfloat16(),
    }


def ours(model, convert, head, is_repacked):
    quantized = quantize_model(model, convert, rules={HEAD: head})
    return repack(quantized) if is_repacked else quantized


def by_torchao(model, config):
    """torchao in place, the head in float."""
    from torchao.quantization import quantize_

    quantize_(model, config, filter_fn=lambda layer, name: isinstance(layer, torch.nn.Linear) and name != HEAD)
    return model


def by_torch_dynamic(model):
    return quantize_model(model, lambda linear: by_torch(linear)[0], rules={HEAD: None})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        *numbers, file = sys.argv[1:]
        Path(file).write_text(json.dumps(measure(*map(int, numbers))))
    else:
        from tqdm import tqdm

        from benchmarks.tables import machine, markdown

        print(machine())
        for title, rows in tables(progress=lambda rounds, title: tqdm(rounds, title)):
            print(f"\n## {title}\n\n{markdown(rows)}", flush=True)
