"""quantize_shards: the library's files hold the same, and right answers however they are written."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from labutils.labs.answers import dequantize_group, pack_int32, quantize_group, quantize_shards
from labutils.labs.lab13.quantize_shards import right
from tests.arrays.bad_inputs import refuses
from tests.labs.right_answers import passes


def matrix(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


SHARDS = {
    "model-00001-of-00002.safetensors": {
        "embed.weight": matrix(10, 64), "up.weight": matrix(8, 64, 1), "up.bias": matrix(1, 8)[0],
    },
    "model-00002-of-00002.safetensors": {"down.weight": matrix(64, 32, 2), "norm.weight": matrix(1, 64)[0]},
}  # fmt: skip


def quantized(shards=SHARDS, **options):
    written = {}
    index = quantize_shards(list(shards), shards.__getitem__, written.__setitem__, **options)
    return written, index


def test_what_is_written_stands_for_the_weights_to_half_a_step():
    from labutils.arrays import packing

    written, _ = quantized(ignore=["embed"])
    for file, tensors in SHARDS.items():
        for name in ("up.weight", "down.weight"):
            if name in tensors:
                words, scale, shape = (written[file][f"{name}_{part}"] for part in ("packed", "scale", "shape"))
                codes = packing.unpack(words.view(np.uint8), 4, shape[1], signed=False).astype(np.int8) - 8
                error = np.abs(dequantize_group(codes, scale, 32) - tensors[name])
                assert (error <= 0.5001 * scale.repeat(32, axis=1)).all()


def test_the_librarys_files_hold_the_same_codes(tmp_path):
    shards = pytest.importorskip("labutils.formats.shards")
    from safetensors.numpy import save_file
    from safetensors.torch import load_file

    from labutils import PerGroup, Scheme

    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for file, tensors in SHARDS.items():
        save_file(tensors, source / file, metadata={"format": "pt"})
    places = {name: file for file, tensors in SHARDS.items() for name in tensors}
    size = sum(tensor.nbytes for tensors in SHARDS.values() for tensor in tensors.values())
    index = json.dumps({"metadata": {"total_size": size}, "weight_map": places})
    (source / "model.safetensors.index.json").write_text(index)
    shards.quantize_shards(source, target, Scheme(4, granularity=PerGroup(32)), ignore=["embed"], progress=False)
    written, index = quantized(ignore=["embed"])
    theirs = json.loads((target / "model.safetensors.index.json").read_text())
    assert theirs["weight_map"] == index["weight_map"]
    for file, tensors in written.items():
        stored = load_file(target / file)
        assert stored.keys() == tensors.keys()
        for name, tensor in tensors.items():
            if name.endswith("_scale"):  # bfloat16 there, rounded up
                assert np.allclose(stored[name].float().numpy(), tensor, rtol=2**-7)
            elif name.endswith("_packed"):  # where a scale moved, a value near the middle may go to the other code
                nibbles = [np.ascontiguousarray(w).view(np.uint8) for w in (stored[name].numpy(), tensor)]
                assert (nibbles[0] != nibbles[1]).mean() < 0.1
            else:
                assert np.array_equal(stored[name].numpy(), tensor)


def test_a_file_that_cannot_be_read_stops_it_with_what_was_written_before():
    written = {}
    with pytest.raises(KeyError):
        quantize_shards([*SHARDS, "missing"], SHARDS.__getitem__, written.__setitem__)
    assert list(written) == list(SHARDS)


def test_a_weight_with_nan_is_refused():
    shards = {"one": {"up.weight": np.full((2, 32), np.nan, np.float32)}}
    refuses(ValueError, ("NaN",), quantize_shards, ["one"], shards.get, {}.__setitem__)


NAMES = ("weight_packed", "weight_scale", "weight_shape")


def one_loop(files, read, write, group_size=32, ignore=(), tied=()):
    weight_map, total = {}, 0
    for file in files:
        made = {}
        for name, tensor in read(file).items():
            layer, _, kind = name.rpartition(".")
            if name in tied:
                continue
            if kind == "weight" and tensor.ndim == 2 and layer not in ignore:
                q, scales = quantize_group(tensor, 4, group_size)
                packed, shape = pack_int32(q)
                made |= dict(zip((f"{layer}.{part}" for part in NAMES), (packed, scales, shape.astype(np.int64))))
            else:
                made[name] = tensor
        write(file, made)
        weight_map |= dict.fromkeys(made, file)
        total += sum(tensor.nbytes for tensor in made.values())
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def in_place(files, read, write, group_size=32, ignore=(), tied=()):
    """Changes the dict that it has read."""
    index = {"weight_map": {}, "metadata": {"total_size": 0, "format": "pt"}}
    for file in files:
        tensors = read(file)
        for name in [name for name in tensors if name in tied]:
            del tensors[name]
        for name in list(tensors):
            if not name.endswith(".weight") or len(tensors[name].shape) != 2 or name[: -len(".weight")] in ignore:
                continue
            weight = tensors.pop(name)
            q, scale = quantize_group(weight, 4, group_size)
            tensors[f"{name}_packed"] = pack_int32(q)[0]
            tensors[f"{name}_scale"] = scale
            tensors[f"{name}_shape"] = np.array(weight.shape, dtype=np.int64)
        write(file, tensors)
        for name, tensor in tensors.items():
            index["weight_map"][name] = file
            index["metadata"]["total_size"] += tensor.size * tensor.itemsize
    return index


def scales_in_float16(files, read, write, group_size=32, ignore=(), tied=()):
    def narrowed(file, tensors):
        tensors = {n: t.astype(np.float16) if n.endswith("_scale") else t for n, t in tensors.items()}
        sizes.append(sum(t.nbytes for t in tensors.values()))
        write(file, tensors)

    sizes = []
    index = one_loop(files, read, narrowed, group_size, ignore, tied)
    return index | {"metadata": {"total_size": np.int64(sum(sizes))}}


def a_generator_of_tensors(files, read, write, group_size=32, ignore=(), tied=()):
    def tensors_of(file):
        for name, tensor in read(file).items():
            layer = name.removesuffix(".weight")
            is_weight = layer != name and tensor.ndim == 2 and layer not in ignore
            if is_weight and name not in tied:
                q, scales = quantize_group(tensor, 4, group_size)
                yield f"{name}_packed", pack_int32(q, 4)[0]
                yield f"{name}_scale", np.asarray(scales, np.float32)
                yield f"{name}_shape", np.asarray(tensor.shape, np.int64)
            elif name not in tied:
                yield name, tensor

    where, size = {}, 0
    for file in files:
        made = dict(tensors_of(file))
        where.update(dict.fromkeys(made, file))
        size += sum(len(tensor.tobytes()) for tensor in made.values())
        write(file, made)
    return {"metadata": {"total_size": float(size)}, "weight_map": where}


def torch_tensors(files, read, write, group_size=32, ignore=(), tied=()):
    import torch

    def in_torch(file, tensors):
        write(file, {name: torch.tensor(tensor) for name, tensor in tensors.items()})

    return in_place(files, read, in_torch, group_size, ignore, tied)


RIGHT = [one_loop, in_place, scales_in_float16, a_generator_of_tensors, torch_tensors, right]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: getattr(answer, "__name__", "the recipe"))
def test_a_right_answer_passes(answer):
    passes("quantize_shards", answer)
