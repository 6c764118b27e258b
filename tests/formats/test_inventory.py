"""The inventory of files: every byte of their tensors, in the forms in which they were written."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
from safetensors.torch import save_file

from labutils import FP8, MXFP4, NVFP4, PerAxis, PerGroup, Scheme
from labutils.data.stand_in import untrained_encoder
from labutils.formats.checkpoint import Checkpoint
from labutils.formats.compressed_tensors import save_compressed_tensors
from labutils.formats.inventory import file_inventory
from labutils.models import Int8Linear, quantize_model
from labutils.models.inventory import inventory
from tests.formats.checkpoints import contents, quantized

FORMS = {
    "int4, groups of 32, scales in bfloat16": Scheme(4, granularity=PerGroup(32)),
    "uint4, groups of 32, scales in float32": Scheme(4, symmetric=False, granularity=PerGroup(32)),
    "int3, groups of 64, scales in bfloat16": Scheme(3, granularity=PerGroup(64)),
    "int8, a scale for each row, scales in float32": Scheme(8, granularity=PerAxis(0)),
    "E4M3, a scale for each row, scales in float32": FP8,
    "E2M1, groups of 32, scales in E8M0": MXFP4,
    "E2M1, groups of 16, scales in E4M3": NVFP4,
    "int8, a scale for each row, scales in float32 ": Int8Linear,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_says_in_which_form_it_was_written(form, tmp_path):
    model = quantize_model(untrained_encoder().model, FORMS[form])
    save_compressed_tensors(model, tmp_path / "folder")
    parts = file_inventory(tmp_path / "folder")
    assert parts[0].form == form.strip()
    assert parts[0].values == inventory(model)[0].values
    assert [part.why for part in parts if part.is_quantized] == [""]
    assert sum(part.nbytes for part in parts) == Checkpoint.of(tmp_path / "folder").nbytes


def test_bits_in_a_file_are_those_of_the_formula(source, tmp_path):
    linear, *_ = file_inventory(quantized(source, tmp_path / "target"))
    count = 48 * 64 + 6 * 96
    assert (linear.values, linear.nbytes) == (count, count * (4 + 16 / 32) / 8 + 2 * 16)  # and two shapes


def test_reasons_are_those_that_were_given(source, tmp_path):
    parts = file_inventory(quantized(source, tmp_path / "target", ignore=["*embed*", "*a"]))
    assert {part.why for part in parts if part.kind == "matrices"} == {"ignored as '*a'", "not said"}


def test_files_of_others_are_read_as_far_as_they_are_known(tmp_path):
    tensors = {
        "a.qweight": torch.ones(4, 4, dtype=torch.int32),
        "a.weight_scale": torch.ones(4),  # of nothing
        "b.weight": torch.ones(4),
        "b.weight_scale": torch.ones(()),
    }
    save_file(tensors, tmp_path / "model.safetensors", {"left_in_float": "[1"})
    parts = file_inventory(tmp_path)
    assert sum(part.nbytes for part in parts) == Checkpoint.of(tmp_path).nbytes
    assert [(part.form, part.why) for part in parts if part.kind == "matrices"] == [
        ("int32", "codes of a format that is not known here")
    ]


def test_a_gguf_file(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    q8 = gguf.quants.quantize(np.ones((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.ffn_up.weight", q8, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    matrix, norm = file_inventory(tmp_path / "m.gguf")
    assert (matrix.form, matrix.bits, matrix.why) == ("Q8_0, blocks of 32", 8.5, "")
    assert (norm.form, norm.bits) == ("float32", 32)


def test_no_tensor_is_changed_by_looking(source):
    before = contents(source)
    assert not any(part.is_quantized for part in file_inventory(source))
    assert contents(source) == before
