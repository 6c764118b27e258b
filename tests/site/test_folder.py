"""Nothing is deleted but what the builder wrote."""

import sys

import pytest

from tools.site import __main__ as command
from tools.site.folder import BUILT, emptied


def test_what_others_wrote_is_refused_and_stays(tmp_path):
    theirs = tmp_path / "html" / "theirs.txt"
    theirs.parent.mkdir()
    theirs.touch()
    with pytest.raises(FileExistsError, match="was not made by tools.site"):
        emptied(tmp_path)
    with pytest.raises(FileExistsError):
        emptied(theirs)
    assert theirs.exists()


def test_a_folder_that_is_missing_empty_or_its_own_is_used(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "site", tmp_path / "empty"):
        for name in BUILT:
            (emptied(folder) / name).mkdir()
        assert not any((emptied(folder) / name).exists() for name in BUILT)


def test_the_command_says_why_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr(sys, "argv", ["site", "01", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        command.main()
    assert f"{tmp_path} was not made by tools.site" in capsys.readouterr().err
