"""A GGUF file is read bit for bit as llama.cpp's own package reads it, and a broken one is named as such."""

import struct

import numpy as np
import pytest

from labutils.data import smollm2
from labutils.data.gguf import GGUF, TYPES

gguf = pytest.importorskip("gguf")
quants = pytest.importorskip("gguf.quants")

METADATA = {
    "uint8": 200, "int8": -100, "uint16": 60_000, "int16": -30_000, "uint32": 4_000_000_000, "int32": -2_000_000_000,
    "uint64": 2**63, "int64": -(2**62), "float32": 0.5, "float64": 0.1, "bool": True, "string": "größer",
}  # fmt: skip


def write(path, tensors=(), metadata=(), arrays=(), alignment=None):
    """A file with tensors (name, float32 values, type) and metadata (key, value of the type that the key names)."""
    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    for kind, value in metadata:
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    for key, values in arrays:
        writer.add_array(key, values)
    for name, values, kind in tensors:
        kind = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def values(*shape):
    """Random rows of very different sizes, and one of zeros."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3, size=(*shape[:-1], 1))
    x[(0,) * (len(shape) - 1)] = 0
    return x.astype(np.float32)


@pytest.fixture
def content(tmp_path):
    """The bytes of a small file with every type of tensor."""
    tensors = [(f"t.{kind.name}", values(3, 32), kind.name) for kind in TYPES.values()]
    return write(tmp_path / "small.gguf", tensors, METADATA.items(), [("words", ["a", "b"])]).read_bytes()


def opened(path, content):
    path.write_bytes(content)
    return GGUF(path)


# --- what is read ---


@pytest.mark.parametrize("alignment", [None, 64])
@pytest.mark.parametrize("shape", [(32,), (7, 96), (2, 3, 64)], ids=str)
@pytest.mark.parametrize("kind", [kind.name for kind in TYPES.values()])
def test_a_tensor_is_dequantized_bit_for_bit_as_by_the_package_gguf(kind, shape, alignment, tmp_path):
    path = write(
        tmp_path / "f.gguf", [("other", values(5, 32), "F16"), ("w", values(*shape), kind)], alignment=alignment
    )
    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "w")
    expected = quants.dequantize(tensor.data, tensor.tensor_type)
    file = GGUF(path)
    w = file.read("w")
    assert w.dtype == np.float32 and w.shape == file.tensors["w"].shape == shape
    assert w.tobytes() == np.ascontiguousarray(expected).tobytes()
    assert file.tensors["w"].type.name == kind


def test_metadata_have_their_values_and_types(tmp_path):
    arrays = [("words", ["a", "", "Ġ量"]), ("numbers", [3, -1, 2]), ("floats", [0.5, -2.0])]
    metadata = GGUF(write(tmp_path / "f.gguf", metadata=METADATA.items(), arrays=arrays)).metadata
    assert metadata == {"general.architecture": "llama", **{f"a.{k}": v for k, v in METADATA.items()}, **dict(arrays)}
    assert metadata["a.bool"] is True


def test_what_is_read_does_not_change_the_file(content, tmp_path):
    path = tmp_path / "f.gguf"
    file = opened(path, content)
    for name in file.tensors:
        file.read(name)[...] = 7
    assert path.read_bytes() == content


def test_the_real_file_is_read_bit_for_bit():
    try:
        files, _ = smollm2.find()
    except smollm2.LanguageModelMissing as missing:
        pytest.skip(str(missing))
    if smollm2.GGUF not in files:
        pytest.skip("the original is installed, not the GGUF file")
    file, tensors = GGUF(files[smollm2.GGUF]), gguf.GGUFReader(files[smollm2.GGUF]).tensors
    assert list(file.tensors) == [tensor.name for tensor in tensors] and len(tensors) == 272
    for tensor in [*tensors[:10], tensors[-1]]:
        expected = quants.dequantize(tensor.data, tensor.tensor_type)
        assert file.read(tensor.name).tobytes() == expected.tobytes()


# --- what is not ---


def test_a_file_that_is_cut_off_anywhere_is_an_error(content, tmp_path):
    last = max(tensor.offset + tensor.nbytes for tensor in opened(tmp_path / "whole.gguf", content).tensors.values())
    for size in [*range(0, last, 7), last - 1]:
        with pytest.raises(ValueError, match=f"cut.gguf is cut off: it has {size} bytes, and .* ends after "):
            opened(tmp_path / "cut.gguf", content[:size])


def changed(content, at, value):
    return content[:at] + value + content[at + len(value) :]


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"PK\3\4", "is not a GGUF file: it begins with b'PK"),
        (4, struct.pack("<I", 1), "has GGUF version 1, and only versions 2 and 3 can be read"),
        (4, struct.pack(">I", 3), "has GGUF version 50331648"),
        (16, struct.pack("<Q", 2**60), "unknown type|is cut off"),
        (24, struct.pack("<Q", 2**63), "is cut off"),
    ],
)
def test_a_header_that_is_none_is_an_error(content, tmp_path, at, value, message):
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "f.gguf", changed(content, at, value))


def test_an_unknown_type_of_a_tensor_is_an_error_that_names_the_known_ones(content, tmp_path):
    at = content.index(b"t.Q4_1") + len(b"t.Q4_1") + 4 + 2 * 8
    with pytest.raises(ValueError, match=r"'t.Q4_1' has type 14, and only 0 \(F32\), .*8 \(Q8_0\) can be read"):
        opened(tmp_path / "f.gguf", changed(content, at, struct.pack("<I", 14)))


def test_rows_that_are_no_blocks_are_an_error(content, tmp_path):
    at = content.index(b"t.Q4_1") + len(b"t.Q4_1") + 4
    with pytest.raises(ValueError, match="'t.Q4_1' has rows of 33, not a multiple of 32"):
        opened(tmp_path / "f.gguf", changed(content, at, struct.pack("<Q", 33)))


def test_an_unknown_type_of_a_value_is_an_error(content, tmp_path):
    at = content.index(b"a.uint8") + len(b"a.uint8")
    with pytest.raises(ValueError, match="unknown type 77 of a value in the metadata"):
        opened(tmp_path / "f.gguf", changed(content, at, struct.pack("<I", 77)))


@pytest.mark.parametrize("name", ["t.Q4", "", None, 3])
def test_a_name_that_is_not_in_the_file_is_an_error(content, tmp_path, name):
    with pytest.raises(ValueError, match="f.gguf has no tensor named .*; near to it are t"):
        opened(tmp_path / "f.gguf", content).read(name)


def test_a_path_without_a_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        GGUF(tmp_path / "nothing.gguf")
