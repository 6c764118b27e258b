"""A small checkpoint, and what is asked of folders: for the tests of this folder."""

import json

import torch
from safetensors.torch import load_file, save_file

from labutils import PerGroup, Scheme, quantize_shards
from labutils.formats.checkpoint import INDEX

GROUPS = Scheme(4, granularity=PerGroup(32))
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
MATRIX = "layers.1.b.c.weight"  # of the second file


def small_checkpoint(folder):
    """Two files and an index, of float32 and bfloat16, with a bias, an embedding, and a name with a slash."""
    random = torch.Generator().manual_seed(0)
    files = {
        FIRST: {
            "embed_tokens.weight": torch.randn(10, 64, generator=random),
            "layers.0/a.weight": torch.randn(48, 64, generator=random),
            "layers.0/a.bias": torch.randn(48, generator=random),
        },
        SECOND: {
            MATRIX: torch.randn(6, 96, generator=random).bfloat16(),
            "steps": torch.tensor(7),
            "none": torch.empty(0, 4),
        },
    }
    return written(folder, files)


def written(folder, files):
    folder.mkdir()
    for file, tensors in files.items():
        save_file(tensors, folder / file, metadata={"format": "pt"})
    places = {name: file for file, tensors in files.items() for name in tensors}
    size = sum(tensor.nbytes for tensors in files.values() for tensor in tensors.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}))
    (folder / "config.json").write_text('{"model_type": "none"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def tensors_in(folder):
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def quantized(source, target, scheme=GROUPS, **options):
    return quantize_shards(source, target, scheme, progress=False, **options)
