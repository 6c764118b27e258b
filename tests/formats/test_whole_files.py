"""Files appear whole or not at all."""

import os

import pytest

from labutils.formats.whole_files import whole_files


def names_in(folder):
    return sorted(os.listdir(folder))


def test_files_take_their_names_when_the_block_ends(tmp_path):
    with whole_files(tmp_path / "new" / "a", tmp_path / "new" / "b") as [a, b]:
        a.write_text("first")
        b.write_text("second")
        assert not {"a", "b"} & set(names_in(tmp_path / "new"))
    assert names_in(tmp_path / "new") == ["a", "b"]
    assert (tmp_path / "new" / "b").read_text() == "second"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("no")])
def test_what_fails_in_the_middle_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)), whole_files(tmp_path / "deep" / "er" / "a") as [a]:
        a.write_bytes(b"half")
        raise error
    assert names_in(tmp_path) == []


def test_what_fails_in_the_middle_leaves_the_old_files(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError), whole_files(tmp_path / "a") as [a]:
        a.write_text("ne")
        raise OSError(28, "No space left on device")
    assert (tmp_path / "a").read_text() == "old"
    assert names_in(tmp_path) == ["a"]


def test_a_file_that_was_not_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole_files(tmp_path / "a", tmp_path / "b") as [a, _]:
        a.write_text("alone")
    assert names_in(tmp_path) == []


def test_an_interrupted_replacement_never_has_an_old_description_of_new_files(tmp_path, monkeypatch):
    for name in ("weights", "config"):
        (tmp_path / name).write_text("old")
    replace = os.replace

    def fails_at_the_second(source, target):
        if target.name == "config":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_second)
    with pytest.raises(OSError), whole_files(tmp_path / "weights", tmp_path / "config") as files:
        for file in files:
            file.write_text("new")
    assert names_in(tmp_path) == ["weights"]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="is a folder"), whole_files(tmp_path / "a"):
        pass
