"""The command's options: what is misspelt or makes no sense is refused."""

import pytest

from labutils.course.grading.command import GradingApp


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--wrokers", "8"], "there is no option --wrokers"),
        (["--wrokers=8"], "there is no option --wrokers"),
        (["--timeout=-1"], "timeout"),
        (["--memory=0"], "memory"),
        (["--workers=0"], "workers"),
        (["--workers=many"], "workers"),
        (["--timeout=nan"], "timeout must be a finite number, got nan"),
        (["--memory=inf"], "memory must be a finite number, got inf"),
        (["--GradingApp.wrokers=8"], "GradingApp has no option wrokers"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        GradingApp().initialize(["01_fundamentals", *arguments])
    assert end.value.code == 1
    assert said in capsys.readouterr().err


def test_options_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = GradingApp()
    app.initialize(["01_fundamentals", "--workers", "8", "--memory=2", "--student", "ada", "--force"])
    assert (app.workers, app.memory, app.coursedir.student_id) == (8, 2, "ada")


def test_examples_stand_in_line(capsys):
    GradingApp().print_examples()
    lines = [line for line in capsys.readouterr().out.splitlines() if "python -m" in line]
    assert len(lines) == 4
    assert {len(line) - len(line.lstrip()) for line in lines} == {4}
