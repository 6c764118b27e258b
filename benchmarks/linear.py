"""A linear layer at several batch sizes: integer and float layers of labutils, torchao and torch.

python -m benchmarks.linear THREADS SIDE REPEATS BATCH...    prints what `measure` returns, as JSON
"""

import copy
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from benchmarks.tables import ratio

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1, 8, 32, 256, 1024)
FLOAT, W8A8, W4A16 = "float32", "labutils W8A8", "labutils int4"
ROWS = {
    "8 bits": (W8A8, "torchao W8A8", "torch dynamic", "dequantize, then float"),
    "4 bits, weights only": (W4A16, "labutils int4, bfloat16 in", "torchao int4, bfloat16 in", "bfloat16"),
}


def tables(side=2048, repeats=15, batches=BATCHES, threads=(1, 2), progress=lambda rounds, title: rounds):
    """(title, rows): milliseconds of a float32 layer, and the speed-up of each of the others."""
    found = []
    for count in progress(threads, "linear"):
        seconds = measured_apart(count, side, repeats, batches)
        for bits, names in ROWS.items():
            rows = [
                {"batch": batch, "float32, ms": 1e3 * medians[FLOAT]}
                | {name: ratio(medians[FLOAT], medians[name]) for name in names}
                for batch, medians in zip(batches, seconds)
            ]
            found.append((f"{bits}: {side} x {side}, {count} thread{'s'[: count - 1]}, times as fast as float32", rows))
    return found


def measured_apart(threads, side, repeats, batches):
    """Run `measure` in a new process, because OpenMP keeps the number of threads with which it started."""
    command = [sys.executable, "-m", "benchmarks.linear", *map(str, (threads, side, repeats, *batches))]
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure(threads, side, repeats, batches):
    """For each batch size: name -> median seconds."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers = candidates(torch.nn.Linear(side, side))
    with torch.inference_mode():
        return [
            interleaved(layers, torch.randn(batch, side), repeats if batch < 256 else -(-repeats // 3))
            for batch in batches
        ]


def interleaved(layers, x, repeats):
    """name -> median seconds. The layers are interleaved, A B C A B C ..., so that other load affects all of them.

    The first call of a turn loads the layer's weight into the cache, as far as it fits; the second is timed.
    """
    times = {name: [] for name in layers}
    inputs = {name: x.bfloat16() if "bfloat16" in name else x for name in layers}
    for turn in range(repeats + 1):
        for name, layer in layers.items():
            layer(inputs[name])
            start = perf_counter()
            layer(inputs[name])
            if turn:  # the first turn may also compile kernels
                times[name].append(perf_counter() - start)
    return {name: median(seconds) for name, seconds in times.items()}


def candidates(linear):
    """name -> layer, all made from the same float layer."""
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    from labutils.arrays.scheme import PerGroup, Scheme
    from labutils.models.layers import Int8Linear, PackedLinear, QuantizedLinear

    packed = PackedLinear(linear, Scheme(4, granularity=PerGroup(128)))
    return {
        FLOAT: linear,
        W8A8: Int8Linear(linear),
        "torchao W8A8": by_torchao(linear, Int8DynamicActivationInt8WeightConfig()),
        "torch dynamic": by_torch(linear),
        "dequantize, then float": QuantizedLinear(linear),
        W4A16: packed,
        "labutils int4, bfloat16 in": packed,
        "torchao int4, bfloat16 in": by_torchao(
            copy.deepcopy(linear).bfloat16(), PrototypeInt4WeightOnlyConfig(group_size=128)
        ),
        "bfloat16": copy.deepcopy(linear).bfloat16(),
    }


def by_torchao(linear, config):
    from torchao.quantization import quantize_

    model = torch.nn.Sequential(copy.deepcopy(linear))
    quantize_(model, config)
    return model


def by_torch(linear):
    """torch's dynamic quantization (fbgemm): one scale and zero point for all rows of the activations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization is deprecated
        return torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(copy.deepcopy(linear)), {torch.nn.Linear})


def disagreement(layers, x):
    """name -> relative distance of a layer's output from the float layer's, small if all compute the same layer."""
    expected = layers[FLOAT](x)
    outputs = {name: layer(x.bfloat16() if "bfloat16" in name else x).float() for name, layer in layers.items()}
    return {name: float((y - expected).norm() / expected.norm()) for name, y in outputs.items()}


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:4]), [int(batch) for batch in sys.argv[4:]])))
