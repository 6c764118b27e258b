"""What cannot be quantized is refused by name: the source stays as it is, and nothing is half written."""

import errno
import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from labutils import NVFP4, PerAxis, PerGroup, Scheme
from labutils.formats import tensor_file as tensor_files
from labutils.formats.checkpoint import INDEX
from tests.formats.checkpoints import FIRST, MATRIX, SECOND, contents, quantized


def without(path):
    path.unlink()


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-8])


def with_tensors(**changed):
    def change(path):
        found = load_file(path) | {name: tensor for name, tensor in changed.items() if tensor is not None}
        save_file({name: tensor for name, tensor in found.items() if changed.get(name, 0) is not None}, path)

    return change


def reindexed(**changed):
    def change(path):
        index = json.loads((path.parent / INDEX).read_text())
        (path.parent / INDEX).write_text(json.dumps(index | changed))

    return change


def moved(name, place):
    def change(path):
        index = json.loads((path.parent / INDEX).read_text())
        index["weight_map"][name] = place
        (path.parent / INDEX).write_text(json.dumps(index))

    return change


BROKEN = {
    "a missing file": (without, FileNotFoundError, f"{SECOND} is missing"),
    "a file that is cut off": (cut_off, ValueError, f"{SECOND} is cut off or damaged"),
    "no safetensors file": (lambda path: path.write_text("{}"), ValueError, f"{SECOND} is cut off or damaged"),
    "a tensor that is not where the index says": (
        moved("layers.0/a.bias", SECOND), ValueError, f"{FIRST} holds layers.0/a.bias, which .* places in {SECOND}",
    ),
    "a tensor that is nowhere": (moved("b.weight", SECOND), ValueError, f"b.weight is in {SECOND}, and it is not"),
    "a tensor that the index does not know": (
        with_tensors(**{"b.weight": torch.ones(1)}), ValueError, "holds b.weight, which .* places nowhere",
    ),
    "a wrong size": (reindexed(metadata={"total_size": 1}), ValueError, "says total_size 1, and its files hold"),
    "an index without places": (reindexed(weight_map=[]), ValueError, "no weight_map"),
    "an index that is no JSON": (
        lambda path: (path.parent / INDEX).write_text("{"), ValueError, f"{INDEX} is no JSON file",
    ),
    "a path out of the folder": (moved(MATRIX, "../" + SECOND), ValueError, "not the name of a file beside it"),
    "integers": (
        with_tensors(**{MATRIX: torch.ones(6, 96, dtype=torch.int16)}), ValueError, f"{MATRIX}: it holds I16.*ignore=",
    ),
    "groups that are not whole": (
        with_tensors(**{MATRIX: torch.ones(6, 96 // 2 - 8).bfloat16()}), ValueError, "32 does not divide 40.*ignore=",
    ),
    "an empty matrix": (with_tensors(**{MATRIX: torch.ones(0, 96)}), ValueError, f"{MATRIX}: it is empty"),
    "NaN": (with_tensors(**{MATRIX: torch.full((6, 96), torch.nan)}), ValueError, f"{SECOND}: {MATRIX}: .*NaN"),
    "a quantized checkpoint": (
        lambda path: (path.parent / "config.json").write_text('{"quantization_config": {}}'),
        ValueError, "quantized already",
    ),
    "no checkpoint": (
        lambda path: [file.unlink() for file in path.parent.iterdir()], FileNotFoundError, "holds neither",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_refused_by_name(source, tmp_path, name):
    change, error, message = BROKEN[name]
    change(source / SECOND)
    if not name.startswith(("a wrong size", "an index", "a tensor", "a path")) and (source / INDEX).exists():
        reindexed(metadata={})(source / SECOND)
    before = contents(source)
    with pytest.raises(error, match=message):
        quantized(source, tmp_path / "target")
    assert contents(source) == before
    assert not (tmp_path / "target" / SECOND).exists()
    assert not list((tmp_path / "target").glob(".partial*"))


def test_a_name_that_is_taken_is_refused(source, tmp_path):
    with_tensors(**{f"{MATRIX}_scale": torch.ones(1)})(source / SECOND)
    moved(f"{MATRIX}_scale", SECOND)(source / SECOND)
    reindexed(metadata=None)(source / SECOND)
    with pytest.raises(
        ValueError, match=r"layers.1.b.c.weight: it would become layers.1.b.c.weight_scale, which is there"
    ):
        quantized(source, tmp_path / "target")


@pytest.mark.parametrize(
    "scheme",
    [Scheme(4), Scheme(4, symmetric=False, granularity=PerGroup(32)), NVFP4, Scheme(4, granularity=PerAxis(1))],
)
def test_a_scheme_that_is_not_by_rows_is_refused(source, tmp_path, scheme):
    with pytest.raises(ValueError, match="a few rows at a time"):
        quantized(source, tmp_path / "target", scheme)
    assert not (tmp_path / "target").exists()


def test_what_is_no_scheme_is_refused(source, tmp_path):
    with pytest.raises(TypeError, match="scheme must be a Scheme, .* got 4"):
        quantized(source, tmp_path / "target", 4)


def test_where_all_is_ignored_nothing_is_to_be_done(source, tmp_path):
    with pytest.raises(ValueError, match="no matrix named x.weight that is not ignored"):
        quantized(source, tmp_path / "target", ignore="*")


def test_a_target_of_other_settings_is_refused_and_stays(source, tmp_path):
    before = contents(quantized(source, tmp_path / "target"))
    with pytest.raises(
        ValueError, match=r"model-00001.* was made with .*num_bits=4.*num_bits=8.* is asked for: name an empty"
    ):
        quantized(source, tmp_path / "target", Scheme(8, granularity=PerGroup(32)))
    with_tensors(**{MATRIX: torch.ones(6, 96).bfloat16()})(source / SECOND)
    with pytest.raises(ValueError, match="model-00002.* was made with"):
        quantized(source, tmp_path / "target")
    assert contents(tmp_path / "target") == before


def test_a_target_with_other_files_is_refused(source, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds thesis.tex, which is not of this checkpoint"):
        quantized(source, tmp_path / "target")
    with pytest.raises(ValueError, match="was made with settings that it does not say"):
        quantized(source, source)


class FullDisk:
    """A file on a disk with room for its first two writes."""

    def __init__(self, *arguments, **options):
        self.file, self.room = open(*arguments, **options), 2  # noqa: SIM115

    def write(self, content):
        self.room -= 1
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()


def test_a_full_disk_leaves_nothing_half_written(source, tmp_path, monkeypatch):
    before = contents(source)
    monkeypatch.setattr(tensor_files, "open", FullDisk, raising=False)
    with pytest.raises(OSError, match=r"model-00001-of-00002.safetensors is not written: No space left") as caught:
        quantized(source, tmp_path / "target")
    assert caught.value.errno == errno.ENOSPC
    assert contents(tmp_path / "target") == {} and contents(source) == before
    monkeypatch.undo()
    quantized(source, tmp_path / "target")


def test_one_file_beside_an_index_is_refused(source, tmp_path):
    """Readers differ in which of the two they take."""
    (source / "model.safetensors").write_bytes((source / FIRST).read_bytes())
    with pytest.raises(ValueError, match="which of the two is the checkpoint"):
        quantized(source, tmp_path / "target")
