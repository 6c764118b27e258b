"""A checkpoint quantized file by file: the codes of a packed layer, files that others load, and nothing half done."""

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.shards import measured
from labutils import FP8, MXFP4, MXFP8, PerAxis, PerGroup, Scheme, quantize, quantize_shards
from labutils.data.stand_in import untrained_encoder
from labutils.formats import one_shard, shards
from labutils.formats.checkpoint import INDEX, Checkpoint, Stored
from labutils.formats.compressed_layer import stored_weight
from labutils.formats.compressed_tensors import save_compressed_tensors
from labutils.formats.tensor_file import tensor_file
from labutils.models import quantize_model
from labutils.models.layers import PackedLinear, layer_kind
from labutils.models.linear import linear_layers
from tests.formats.checkpoints import FIRST, GROUPS, MATRIX, SECOND, contents, quantized, tensors_in, written


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


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_bits", [3, 4, 8])
def test_codes_and_scales_are_those_of_a_quantized_layer(source, tmp_path, num_bits):
    before, scheme = tensors_in(source), Scheme(num_bits, granularity=PerGroup(32))
    after = tensors_in(quantized(source, tmp_path / "target", scheme))
    for name in ("layers.0/a.weight", "layers.1.b.c.weight"):
        linear = nn.Linear(*reversed(before[name].shape), bias=False)
        linear.weight.data = before[name].float()
        assert torch.equal(weight_of(after, name, num_bits), layer_kind(scheme)(linear, scheme).weight)


def test_what_a_tokenizer_and_a_text_need_is_copied_and_the_config_written_anew(source, tmp_path):
    for name in ("tokenizer_config.json", "generation_config.json"):
        (source / name).write_text(json.dumps({"eos_token": "</s>"}))
    (source / "README.md").symlink_to(tmp_path / "nowhere")
    target = quantized(source, tmp_path / "target")
    for name in ("tokenizer_config.json", "generation_config.json", "tokenizer.json"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    assert "quantization_config" in json.loads((target / "config.json").read_text())
    assert not (target / "README.md").exists()


def test_a_layer_that_is_named_and_in_no_file_is_in_the_configs_ignore_list(source, tmp_path):
    """As a head that shares the embedding's weight."""
    target = quantized(source, tmp_path / "target", ignore=["*embed*", "cls.decoder"])
    assert "cls.decoder" in json.loads((target / "config.json").read_text())["quantization_config"]["ignore"]


@pytest.mark.parametrize("pattern", ["*attention*", "embed_tokens.weight"])
def test_a_pattern_that_fits_nothing_is_refused(source, tmp_path, pattern):
    with pytest.raises(ValueError, match=re.escape(repr(pattern))):
        quantized(source, tmp_path / "target", ignore=[pattern])
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", ["shared", "model.layers.0.mlp.gate", "block.0.relative_attention_bias"])
def test_matrices_of_other_layers_than_linear_ones_are_left(tmp_path, name):
    matrices = {f"{name}.weight": torch.randn(4, 64), "up.weight": torch.randn(4, 64)}
    target = quantized(written(tmp_path / "source", {FIRST: matrices}), tmp_path / "target")
    assert {f"{name}.weight", "up.weight_packed"} <= set(tensors_in(target))


def test_all_else_is_copied_and_the_source_stays(source, tmp_path):
    before, bytes_before = tensors_in(source), contents(source)
    target = quantized(source, tmp_path / "target")
    after = tensors_in(target)
    kept = {"embed_tokens.weight", "layers.0/a.bias", "steps", "none"}
    assert kept == before.keys() & after.keys()
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert contents(source) == bytes_before
    assert (target / "tokenizer.json").read_text() == "{}"


def test_rows_do_not_depend_on_the_pieces_in_which_they_are_read(source, tmp_path, monkeypatch):
    whole = contents(quantized(source, tmp_path / "whole"))
    monkeypatch.setattr(one_shard, "PIECE", 1000)  # three rows of 64 float32
    assert contents(quantized(source, tmp_path / "pieces")) == whole


@pytest.mark.parametrize("scheme", [Scheme(8, granularity=PerAxis(0)), MXFP4, MXFP8, FP8])
def test_other_schemes_give_what_compressed_layer_stores(source, tmp_path, scheme):
    before, after = tensors_in(source), tensors_in(quantized(source, tmp_path / "target", scheme))
    name = "layers.0/a."
    expected = stored_weight(quantize(before[f"{name}weight"], scheme))
    assert expected.keys() == {part.removeprefix(name) for part in after if part.startswith(f"{name}weight")}
    for part, tensor in expected.items():
        assert torch.equal(after[name + part].view(torch.uint8), tensor.to(after[name + part].dtype).view(torch.uint8))


def test_the_index_and_the_config_describe_the_files(source, tmp_path):
    target = quantized(source, tmp_path / "target")
    index, config = (json.loads((target / name).read_text()) for name in (INDEX, "config.json"))
    assert set(index["weight_map"]) == set(Checkpoint.of(target).tensors)
    assert index["metadata"]["total_size"] == Checkpoint.of(target).nbytes
    assert config["model_type"] == "none"
    assert config["quantization_config"]["ignore"] == ["embed_tokens", "lm_head"]


def test_one_file_stays_one_file(tmp_path):
    (tmp_path / "source").mkdir()
    save_file({"a.weight": torch.ones(2, 32)}, tmp_path / "source" / "model.safetensors")
    assert set(contents(quantized(tmp_path / "source", tmp_path / "target"))) == {"model.safetensors", "config.json"}


@pytest.mark.parametrize("scheme", [GROUPS, Scheme(8, granularity=PerAxis(0)), MXFP4])
def test_a_checkpoint_and_a_model_in_memory_come_out_the_same(tmp_path, scheme):
    pytest.importorskip("transformers")
    model = untrained_encoder().model
    model.save_pretrained(tmp_path / "source", max_shard_size="1MB")
    by_shards = tensors_in(quantized(tmp_path / "source", tmp_path / "target", scheme))
    save_compressed_tensors(quantize_model(model, scheme), tmp_path / "whole")
    whole = tensors_in(tmp_path / "whole")
    assert by_shards.keys() == whole.keys()
    assert all(torch.equal(by_shards[name].float(), whole[name].float()) for name in whole)
    ours, theirs = (
        json.loads((tmp_path / folder / "config.json").read_text())["quantization_config"]["config_groups"]
        for folder in ("target", "whole")
    )
    assert ours == theirs


def test_transformers_loads_what_comes_out(tmp_path):
    pytest.importorskip("compressed_tensors")
    transformers = pytest.importorskip("transformers")
    model = untrained_encoder().model
    model.save_pretrained(tmp_path / "source", max_shard_size="1MB")
    target = quantized(tmp_path / "source", tmp_path / "target")
    assert len(list(target.glob("*.safetensors"))) > 1
    loaded = transformers.AutoModel.from_pretrained(target, add_pooling_layer=False).eval()
    ids = torch.arange(3, 40)[None]
    loaded(ids)  # it unpacks its weights at the first call, or before
    for name, linear in linear_layers(model).items():
        assert torch.equal(loaded.get_submodule(name).weight, PackedLinear(linear, GROUPS).weight), name


# --- interrupted, and elsewhere ---------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from labutils import PerGroup, Scheme, quantize_shards
from labutils.formats import one_shard
quantized_rows = one_shard.quantized_rows
def until_the_second_file(weight, scheme):
    if len(weight) == 6:  # the only matrix there
        os.kill(os.getpid(), signal.SIGKILL)
    return quantized_rows(weight, scheme)
one_shard.quantized_rows = until_the_second_file
quantize_shards(sys.argv[1], sys.argv[2], Scheme(4, granularity=PerGroup(32)), progress=False)
"""


def test_after_a_kill_what_is_done_is_not_done_again(source, tmp_path, monkeypatch):
    target, (first, second) = tmp_path / "target", sorted(file.name for file in source.glob("*.safetensors"))
    killed = subprocess.run([sys.executable, "-c", KILLED, source, target])
    assert killed.returncode == -signal.SIGKILL
    left = set(contents(target))
    assert first in left and second not in left and "config.json" not in left
    assert any(name.startswith(".partial-") for name in left), "it was killed in the middle of a file"
    done = []
    quantize_file = shards.quantize_file
    monkeypatch.setattr(
        shards, "quantize_file", lambda job, *rest: (done.append(job.target.name), quantize_file(job, *rest))
    )
    quantized(source, target)
    assert done == [second]
    monkeypatch.undo()
    assert contents(target) == contents(quantized(source, tmp_path / "fresh"))


def test_a_second_call_changes_nothing(source, tmp_path):
    before = contents(quantized(source, tmp_path / "target"))
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "target").glob("*.safetensors")}
    assert contents(quantized(source, tmp_path / "target")) == before
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "target").glob("*.safetensors")} == times


def test_processes_of_dask_give_the_same_bytes(source, tmp_path):
    distributed = pytest.importorskip("distributed")
    alone = contents(quantized(source, tmp_path / "alone"))
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert contents(quantized(source, tmp_path / "together", client=client)) == alone
        with_nan(source / SECOND)
        with pytest.raises(ValueError, match=rf"{SECOND}: {MATRIX}: .*NaN"):
            quantized(source, tmp_path / "broken", client=client)


def with_nan(path):
    save_file(load_file(path) | {MATRIX: torch.full((6, 96), torch.nan)}, path)
    index = json.loads((path.parent / INDEX).read_text())
    (path.parent / INDEX).write_text(json.dumps(index | {"metadata": None}))


def test_any_executor_will_do_and_its_errors_come_back(source, tmp_path):
    alone = contents(quantized(source, tmp_path / "alone"))
    with ThreadPoolExecutor(2) as pool:
        assert contents(quantized(source, tmp_path / "together", client=pool)) == alone
        with_nan(source / SECOND)
        with pytest.raises(ValueError, match=rf"{SECOND}: {MATRIX}: .*NaN"):
            quantized(source, tmp_path / "broken", client=pool)
    assert set(contents(tmp_path / "broken")) <= {FIRST}


def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    """400 MB of zeros, which take no room on the disk, within 60 MB: as 4 GB within 600."""
    tensors = {f"layers.{i}.weight": Stored("F32", (2**13, 2**11)) for i in range(6)}
    (tmp_path / "source").mkdir()
    with tensor_file(tmp_path / "source" / "model.safetensors", tensors, {}):
        pass
    assert Checkpoint.of(tmp_path / "source").nbytes > 400e6
    growth, _ = measured(tmp_path / "source", tmp_path / "target")
    assert growth < 60e6
    assert Checkpoint.of(tmp_path / "target").nbytes > 50e6


def test_the_bar_counts_the_bytes_of_the_source(source, tmp_path, capsys):
    quantize_shards(source, tmp_path / "target", GROUPS)
    nbytes = Checkpoint.of(source).nbytes
    assert re.search(rf"100%.*{nbytes / 1e3:.1f}k/{nbytes / 1e3:.1f}k.*B/s", capsys.readouterr().err)
