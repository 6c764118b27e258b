"""model_bytes is what the parts hold, and what the process holds."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.models.footprint import model_bytes
from labutils.models.layers import Int8Linear, PackedLinear, QuantizedLinear
from tests.models.examples import layer


def test_bytes_are_those_of_the_parts():
    linear = layer(256, 128)
    assert model_bytes(linear) == 4 * (256 * 128 + 128)
    assert QuantizedLinear(linear).memory_bytes() == 256 * 128 + 4 * 128 + 4 * 128
    assert Int8Linear(linear).memory_bytes() == 256 * 128 + 4 * 128 + 4 * 128 + 4 * 128
    three = PackedLinear(linear, Scheme(3, granularity=PerGroup(64)))
    assert three.memory_bytes() == 256 * 128 * 3 // 8 + 2 * 128 * 4 + 4 * 128
    for made in (QuantizedLinear(linear), Int8Linear(linear), three):
        assert model_bytes(made) == made.memory_bytes()


def test_a_view_holds_all_of_its_storage():
    module = nn.Module()
    module.register_buffer("part", torch.zeros(1000)[:10])
    assert model_bytes(module) == 4000


def test_the_wrapped_weights_of_torchao_count_as_what_they_hold():
    torchao = pytest.importorskip("torchao.quantization")
    wrapped = nn.Sequential(layer(256, 128, bias=False))
    torchao.quantize_(wrapped, torchao.Int8WeightOnlyConfig())
    assert sum(p.numel() * p.element_size() for p in wrapped.parameters()) == 4 * 256 * 128  # what it looks like
    assert 256 * 128 + 4 * 128 <= model_bytes(wrapped) <= 256 * 128 + 16 * 128  # codes, and scales of some dtype


RESIDENT = """
import ctypes, gc, json
import torch
from pathlib import Path
from torch import nn
from labutils.models import Int8Linear, model_bytes, quantize_model
from labutils.arrays.scheme import PerGroup, Scheme

def resident():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if "RssAnon" in line)

def measured(convert):
    small = quantize_model(nn.Sequential(nn.Linear(64, 64)), convert)  # what is loaded at first use
    small(torch.zeros(1, 64))
    before = resident()
    model = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(6)))
    full = resident() - before
    model = quantize_model(model, convert)
    return full, resident() - before, model_bytes(model)

torch.set_num_threads(1)
groups = PerGroup(128)
four, three = (Scheme(num_bits, granularity=groups) for num_bits in (4, 3))
converts = {"W8A8": Int8Linear, "int8": Scheme(8), "int4": four, "int3": three}
print(json.dumps({name: measured(convert) for name, convert in converts.items()}))
"""


@pytest.fixture(scope="module")
def resident():
    """Name -> bytes that the process holds for the float model, for its quantized copy, and what model_bytes says."""
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    printed = subprocess.run(
        [sys.executable, "-c", RESIDENT], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(printed.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("convert", ["W8A8", "int8", "int4", "int3"])
def test_the_process_holds_what_model_bytes_says(convert, resident):
    """Within 5%, after the float model is gone."""
    full, held, said = resident[convert]
    assert held == pytest.approx(said, rel=0.05), f"{held:,} bytes are held, model_bytes says {said:,}"
    assert held < full / 3.5
