"""A checkpoint quantized file by file: the codes of a packed layer, files that others load, and nothing half done."""

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from labutils import PerGroup, Scheme, quantize_shards
from labutils.formats import shards
from labutils.models.layers import PackedLinear

GROUPS = Scheme(4, granularity=PerGroup(32))


@pytest.fixture
def source(tmp_path):
    """Two files and an index, of float32 and bfloat16, with a bias, an embedding, and a name with a slash."""
    random = torch.Generator().manual_seed(0)
    files = {
        "model-00001-of-00002.safetensors": {
            "embed_tokens.weight": torch.randn(10, 64, generator=random),
            "layers.0/a.weight": torch.randn(48, 64, generator=random),
            "layers.0/a.bias": torch.randn(48, generator=random),
        },
        "model-00002-of-00002.safetensors": {
            "layers.1.b.c.weight": torch.randn(6, 96, generator=random).bfloat16(),
            "steps": torch.tensor(7),
            "none": torch.empty(0, 4),
        },
    }
    return written(tmp_path / "source", files)


def written(folder, files):
    folder.mkdir()
    for file, tensors in files.items():
        save_file(tensors, folder / file, metadata={"format": "pt"})
    places = {name: file for file, tensors in files.items() for name in tensors}
    size = sum(tensor.nbytes for tensors in files.values() for tensor in tensors.values())
    (folder / shards.INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}))
    (folder / "config.json").write_text('{"model_type": "none"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def tensors_in(folder):
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def weight_of(tensors, name, num_bits=4):
    """An oracle in plain arithmetic: bit i*b of a row's stream holds q + 2^(b-1)."""
    packed, scale, (rows, columns) = (tensors[f"{name}_{part}"] for part in ("packed", "scale", "shape"))
    words = packed.numpy().view("uint32").astype(object)
    streams = [sum(int(word) << (32 * place) for place, word in enumerate(row)) for row in words]
    codes = [
        [(stream >> (i * num_bits)) % 2**num_bits - 2 ** (num_bits - 1) for i in range(columns)] for stream in streams
    ]
    steps = torch.tensor(codes, dtype=torch.float32).reshape(rows, scale.shape[1], -1)
    return (steps * scale.float()[:, :, None]).reshape(rows, columns)


def test_the_codes_are_those_of_a_packed_layer(source, tmp_path):
    before = tensors_in(source)
    after = tensors_in(quantize_shards(source, tmp_path / "target", GROUPS, progress=False))
    for name in ("layers.0/a.weight", "layers.1.b.c.weight"):
        linear = torch.nn.Linear(*reversed(before[name].shape), bias=False)
        linear.weight.data = before[name].float()
        assert torch.equal(weight_of(after, name), PackedLinear(linear, GROUPS).weight)
    kept = {"embed_tokens.weight", "layers.0/a.bias", "steps", "none"}
    assert kept == {name for name in before if name in after}
    assert all(torch.equal(before[name], after[name]) for name in kept)
