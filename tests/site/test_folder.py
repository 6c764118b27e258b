"""The command: nothing is deleted but what it wrote itself, and what makes no sense is refused."""

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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["99"], "no lesson begins with 99"),
        (["99", "00"], "no lesson begins with 99"),
        *(
            (["00", f"--seconds={number}"], "--seconds: must be a number above 0")
            for number in ("-1", "0", "nan", "inf")
        ),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["site", *arguments, "--out", str(tmp_path / "new")])
    with pytest.raises(SystemExit):
        command.main()
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_command_says_why_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr(sys, "argv", ["site", "01", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        command.main()
    assert f"{tmp_path} was not made by tools.site" in capsys.readouterr().err
