"""A class graded in parallel: the marks of serial nbgrader, damaged submissions, a kill, more than one machine."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbgrader import api

from labutils.course.grading.failures import FAILURES
from labutils.course.grading.marks import BY_HAND
from labutils.course.grading.run import grade_class
from labutils.labs.catalogue import EXERCISES
from tests.classroom.course import ROOT, SETTINGS, nbgrader
from tests.classroom.submissions import (
    DEAF,
    FAILED,
    GRADED,
    LAB,
    RIGHT,
    TIMES,
    UNCHECKED,
    beginning,
    gradebook,
    hand_in,
    start,
)

pytestmark = pytest.mark.classroom
COMMAND = [sys.executable, "-m", "labutils.grading", LAB, "--workers=2", "--memory=0.8"]
NO_TIME = "submitted/ada/small/timestamp.txt holds no time"
SERIAL = sorted([*GRADED, "cut"])  # graded by nbgrader itself beside it


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A course in which nobody has handed in."""
    folder = tmp_path_factory.mktemp("grading") / "course"
    start(folder)
    return folder


@pytest.fixture
def course(released, tmp_path, monkeypatch):
    """A copy of it, in which this process then is."""
    monkeypatch.chdir(shutil.copytree(released, tmp_path / "course"))
    return tmp_path / "course"


@pytest.fixture(scope="module")
def serial(released):
    """The same class, graded by nbgrader itself."""
    folder = shutil.copytree(released, released.parent / "serial" / "course")
    everyone_hands_in(folder)
    others = ",".join(FAILED.keys() - set(SERIAL))
    with pytest.raises(AssertionError, match="ended with 1"):
        nbgrader(folder, "autograde", LAB, f"--CourseDirectory.student_id_exclude={others}")
    for left in running_in(folder):  # the daemon: nbgrader itself lets it be
        os.kill(left, signal.SIGKILL)
    return folder


@pytest.fixture(scope="module")
def parallel(released):
    """(the course folder, what the command printed)"""
    folder = shutil.copytree(released, released.parent / "parallel" / "course")
    everyone_hands_in(folder)
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return folder, done.stdout


def everyone_hands_in(folder):
    for student, (text, _) in GRADED.items():
        hand_in(folder, student, text, time=TIMES.get(student))
    for student, (text, name, _) in FAILED.items():
        hand_in(folder, student, text, name, TIMES.get(student))


COLUMNS = {  # of each table of the gradebook, without the ids that nbgrader draws by chance
    api.Course: lambda row: (row.id,),
    api.Assignment: lambda row: (row.id, row.name, row.duedate),
    api.Notebook: lambda row: (row.id, row.name, row.max_score),
    api.BaseCell: lambda row: (row.id, row.name, row.type),
    api.SourceCell: lambda row: (row.id, row.name, row.source, row.checksum),
    api.Student: lambda row: (row.id, row.first_name, row.last_name, row.email),
    api.SubmittedAssignment: lambda row: (row.student_id, row.timestamp, row.extension, row.score, row.max_score),
    api.SubmittedNotebook: lambda row: (
        row.student.id, row.name, row.flagged, row.late_submission_penalty, row.score, row.needs_manual_grade
    ),
    api.Grade: lambda row: (
        row.student.id, row.name, row.auto_score, row.manual_score, row.extra_credit, row.needs_manual_grade
    ),
    api.Comment: lambda row: (row.student.id, row.name, row.auto_comment, row.manual_comment),
}  # fmt: skip


def rows(folder, table, students):
    """A table's rows, but for those of other students."""
    with gradebook(folder) as book:
        found = map(COLUMNS[table], book.db.query(table))
        others = FAILED.keys() - set(students)
        return sorted(map(str, (row for row in found if row[0] not in others)))


@pytest.mark.parametrize("table", COLUMNS, ids=lambda table: table.__name__)
def test_the_gradebook_is_that_of_serial_nbgrader(serial, parallel, table):
    ours = rows(parallel[0], table, SERIAL)
    assert ours == rows(serial, table, SERIAL)
    assert ours


def test_late_penalties_and_points_by_hand_are_among_what_is_compared(parallel):
    with gradebook(parallel[0]) as book:
        late, unchecked = (book.find_submission(LAB, student) for student in ("cyd", "unchecked"))
        assert late.score == late.late_submission_penalty == 3
        assert unchecked.needs_manual_grade


@pytest.mark.parametrize("student", GRADED)
def test_each_check_earns_its_points(parallel, student):
    with gradebook(parallel[0]) as book:
        grades = {grade.name: grade.auto_score for grade in book.find_submission_notebook(LAB, LAB, student).grades}
    assert [grades["check_quantize_symmetric"], grades["check_dequantize_symmetric"]] == GRADED[student][1]


@pytest.mark.parametrize("student", GRADED)
def test_the_autograded_folder_is_that_of_serial_nbgrader(serial, parallel, student):
    ours, theirs = (folder / "autograded" / student / LAB for folder in (parallel[0], serial))
    assert sorted(file.name for file in ours.iterdir()) == sorted(file.name for file in theirs.iterdir())
    assert [kept(cell) for cell in cells(ours)] == [kept(cell) for cell in cells(theirs)]
    assert {file.stat().st_mode for file in ours.iterdir()} == {file.stat().st_mode for file in theirs.iterdir()}


def cells(folder):
    return nbformat.read(folder / f"{LAB}.ipynb", as_version=4).cells


def kept(cell):
    return cell.source, cell.metadata.get("nbgrader"), [output.output_type for output in cell.outputs]


@pytest.mark.parametrize("student", FAILED)
def test_a_damaged_submission_is_named_with_the_reason_and_what_to_do(parallel, student):
    folder, printed = parallel
    (line,) = (line for line in printed.splitlines() if line.startswith(f"{student} "))
    reason, remedy = FAILURES[FAILED[student][2]]
    assert reason.format(detail="0.8 GB") in line and remedy.format(student=student) in line
    assert (folder / ".grading" / f"{LAB}-{student}.log").exists()
    assert not (folder / "autograded" / student).exists()


def test_the_last_lines_count(parallel):
    assert re.search(r"^cyd +0 +4$", parallel[1], re.MULTILINE), "three points, and a penalty of as many"
    assert f"{len(GRADED)} of {len(GRADED | FAILED)} graded. {len(FAILED)} failed, see .grading" in parallel[1]


def test_nothing_is_left_running_or_lying_about(parallel):
    folder, _ = parallel
    assert running_in(folder) == []
    assert {path.name for path in (folder / ".grading").iterdir() if path.suffix != ".log"} == {"gradebook.db", "lock"}


def running_in(folder):
    """Processes whose working directory is in a folder."""
    return [p.pid for p in psutil.process_iter(["cwd"]) if (p.info["cwd"] or "").startswith(str(folder))]


def test_a_class_that_is_graded_is_left_alone_and_marks_are_renewed_on_demand(course):
    hand_in(course, "ada", GRADED["bob"][0], time="2026-11-20 12:00:00 UTC")
    hand_in(course, "eve", RIGHT)
    assert points(grade_class([LAB])) == {"ada": 1, "eve": 4}
    hand_in(course, "ada", RIGHT, time="2026-11-20 13:00:00 UTC")
    with gradebook(course) as book:
        book.find_grade("check_quantize_symmetric", LAB, LAB, "eve").manual_score = 2
        book.db.commit()
    again = grade_class([LAB])
    assert points(again) == {"ada": 4, "eve": 3}
    assert [mark.outcome is None for mark in again] == [False, True]
    hand_in(course, "ada", RIGHT[:-100], time="2026-11-20 14:00:00 UTC")
    damaged, forced = grade_class([LAB, "--force"])
    assert damaged.failed and damaged.points == 4, "what cannot be graded changes no marks"
    assert forced.by_hand and forced.points == 3, "nbgrader keeps what was given by hand, and asks to look again"


def points(marks):
    return {mark.student: mark.points for mark in marks}


@pytest.mark.parametrize("options", [{}, {"add_missing_cells": True}])
def test_a_check_that_a_student_deletes_is_put_back_if_nbgrader_is_told_to(course, options):
    hand_in(course, "dan", UNCHECKED)
    (mark,) = grade_class([LAB, *(f"--OverwriteCells.{name}={value}" for name, value in options.items())])
    assert (mark.points, mark.by_hand) == ((4, False) if options else (0, True))


@pytest.mark.parametrize("student", ["copies", "old"])
def test_the_remedies_work(course, student):
    hand_in(course, student, FAILED[student][0])
    if student == "old":
        nbgrader(course, "update", f"submitted/{student}")
    else:
        with open(course / "nbgrader_config.py", "a", encoding="utf-8") as config:
            config.write(SETTINGS.read_text(encoding="utf-8"))
    (mark,) = grade_class([LAB])
    assert (mark.points, mark.note) == (4, "")


def test_nothing_to_grade_is_said(course, capsys):
    for arguments, said in (([LAB], "Nothing was handed in"), ([], "Name one assignment"), (["a", "b"], "Name one")):
        with pytest.raises(SystemExit):
            grade_class(arguments)
        assert said in capsys.readouterr().err
    hand_in(course, "ada", RIGHT)
    shutil.move(course / "submitted" / "ada" / LAB, course / "submitted" / "ada" / "other")
    with pytest.raises(SystemExit):
        grade_class(["other"])
    assert "run `nbgrader generate_assignment other` first" in capsys.readouterr().err


def test_elsewhere_no_gradebook_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        grade_class([LAB])
    assert f"There is no gradebook here: run it in the course folder, and not in {tmp_path}" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_one_process_at_a_time_grades_in_a_course(course, capsys):
    hand_in(course, "ada", RIGHT)
    (course / ".grading").mkdir()
    with open(course / ".grading" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit):
            grade_class([LAB])
    assert "Another process grades" in capsys.readouterr().err


def test_a_time_that_is_none_is_named(course):
    hand_in(course, "ada", RIGHT, time="yesterday or so")
    (mark,) = grade_class([LAB])
    assert mark.note.endswith(f"{NO_TIME} – write the time into it, or delete it")


def test_a_process_of_dask_gives_the_same_marks(course):
    """One, since each imports dask and nbgrader, which takes seconds."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    for student in ("ada", "bob", "cut"):
        hand_in(course, student, (GRADED | FAILED)[student][0])
    with (
        dask.config.set({"distributed.worker.daemon": False}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster,
    ):
        marks = grade_class([LAB, f"--scheduler={cluster.scheduler_address}"])
    assert points(marks) == {"ada": 4, "bob": 1, "cut": 0}
    assert [mark.failed for mark in marks] == [False, False, True]


def test_a_kill_leaves_nothing_half_written_and_the_next_run_goes_on(course):
    hand_in(course, "ada", RIGHT)
    hand_in(course, "eve", beginning(f"{DEAF}  # and is given a minute"))
    with subprocess.Popen(COMMAND, cwd=course, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: (course / "autograded" / "ada" / LAB).exists())
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: running_in(course / ".grading") == [])
    assert not (course / "autograded" / "eve").exists()
    before = (course / "autograded" / "ada" / LAB).stat().st_mtime_ns
    hand_in(course, "eve", RIGHT)
    assert points(grade_class([LAB])) == {"ada": 4, "eve": 4}
    assert (course / "autograded" / "ada" / LAB).stat().st_mtime_ns == before


def wait_until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


TEACHING = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")


def section(title):
    return TEACHING.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_teachers_page_quotes_what_the_command_says():
    quoted = re.findall(
        r'"(.+?)"', TEACHING.partition("## When a notebook comes back damaged")[2].partition("\n## ")[0]
    )
    said = [reason.format(detail="4 GB") for reason, _ in FAILURES.values()] + [BY_HAND, NO_TIME]
    assert len(quoted) > 5
    assert [each for each in quoted if not any(each in sentence for sentence in said)] == []


def test_the_mistakes_on_the_teachers_page_are_those_that_checks_name():
    rows = re.findall(r"^\| (\d\d) \| (.+?) \|", section("What students get stuck on"), re.MULTILINE)
    known = {(each.lab[:2], mistake.name) for each in EXERCISES.values() for mistake in each.misconceptions}
    assert rows and set(rows) <= known
