"""An instructor releases a lab with nbgrader, students hand it in, nbgrader grades it: as these tools come."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from labutils.checks import EXERCISES

pytestmark = pytest.mark.classroom
ROOT = Path(__file__).resolve().parents[2]
LAB = "01_fundamentals"
POINTS = {name: exercise.points for name, exercise in EXERCISES.items() if exercise.lab == LAB}
FLOOR = """def quantize_symmetric(x, num_bits=8):
    scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1) or 1.0
    return np.floor(x / scale).astype(np.int8 if num_bits <= 8 else np.int16), scale
"""


def nbgrader(course, *arguments):
    command = [sys.executable, "-m", "nbgrader", *arguments, f"--course-dir={course}"]
    # nbgrader calls alembic by its bare name: the environment's programs must be on the PATH, as when it is activated.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def hand_in(course, student, change):
    """The released notebook with `change` applied to each code cell's source, in the folder where it is collected."""
    notebook = nbformat.read(course / "release" / LAB / f"{LAB}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = change(cell)
    folder = course / "submitted" / student / LAB
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{LAB}.ipynb")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    course = tmp_path_factory.mktemp("course")
    (course / "source" / LAB).mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / f"{LAB}.ipynb", course / "source" / LAB)
    nbgrader(course, "generate_assignment", LAB)
    solved = {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in nbformat.read(ROOT / "solutions" / f"{LAB}.ipynb", as_version=4).cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }

    def solving(cell):
        graded = cell.metadata.get("nbgrader", {})
        return solved[graded["grade_id"]] if graded.get("solution") else cell.source

    def one_wrong(cell):
        return FLOOR if cell.metadata.get("nbgrader", {}).get("grade_id") == "quantize_symmetric" else solving(cell)

    def cheating(cell):  # a locked cell: nbgrader puts the original back
        return "pass" if cell.source.startswith("check(") else cell.source

    hand_in(course, "ada", solving)
    hand_in(course, "ben", one_wrong)
    hand_in(course, "cy", lambda cell: cell.source)
    hand_in(course, "dot", cheating)
    nbgrader(course, "autograde", LAB)
    nbgrader(course, "generate_feedback", LAB)
    return course


def score(course, student):
    with sqlite3.connect(course / "gradebook.db") as database:
        rows = database.execute(
            """select base_cell.name, grade.auto_score from grade
               join submitted_notebook on grade.notebook_id = submitted_notebook.id
               join submitted_assignment on submitted_notebook.assignment_id = submitted_assignment.id
               join base_cell on grade.cell_id = base_cell.id
               where submitted_assignment.student_id = ?""",
            (student,),
        )
        return {name.removeprefix("check_"): points for name, points in rows if name.startswith("check_")}


def test_the_release_is_the_students_notebook(course):
    released = nbformat.read(course / "release" / LAB / f"{LAB}.ipynb", as_version=4)
    ours = nbformat.read(ROOT / "notebooks" / f"{LAB}.ipynb", as_version=4)
    assert [cell.source for cell in released.cells] == [cell.source for cell in ours.cells]


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        ("ada", POINTS),
        ("ben", POINTS | {"quantize_symmetric": 0, "best_clip": 2}),
        ("cy", dict.fromkeys(POINTS, 0)),
        ("dot", dict.fromkeys(POINTS, 0)),
    ],
    ids=["everything right", "one mistake", "nothing done", "checks removed"],
)
def test_points_are_what_was_earned(course, student, expected):
    assert score(course, student) == expected


def test_feedback_names_the_mistake(course):
    page = (course / "feedback" / "ben" / LAB / f"{LAB}.html").read_text(encoding="utf-8")
    assert "floor instead of round" in re.sub(r"<[^>]+>", "", page)
