"""A safetensors file written piece by piece is the one that safetensors writes."""

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file

from labutils.formats.checkpoint import DTYPES, Stored
from labutils.formats.tensor_file import tensor_file


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_files_are_those_of_save_file(tmp_path, metadata):
    dtypes = (dtype for dtype in DTYPES.values() if dtype.itemsize)
    tensors = {f'{i}/"ü".x': torch.arange(i % 3 * 2).to(dtype).reshape(2, -1) for i, dtype in enumerate(dtypes)}
    names = {dtype: name for name, dtype in DTYPES.items()}
    stored = {name: Stored(names[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}
    with tensor_file(tmp_path / "ours", stored, metadata) as write:
        for name, tensor in reversed(tensors.items()):
            if tensor.numel():
                write(name, 1, tensor[1:])
                write(name, 0, tensor[:1])
    save_file(tensors, tmp_path / "theirs", metadata or None)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
