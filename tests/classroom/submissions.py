"""A small assignment, two exercises of lab 01, and what students hand in for it, whole and damaged."""

from datetime import datetime

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbgrader.api import Gradebook

from tests.classroom.course import ROOT, copied, nbgrader

LAB = "small"
NAME = f"{LAB}.ipynb"
EXERCISES = ("quantize_symmetric", "dequantize_symmetric")
DUE = datetime(2026, 11, 21)
NOTHING = "def {name}(*args, **kwargs):\n    return None"
DEAF = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    time.sleep(1)"
BOMB = "grown = []\nwhile True:\n    grown.append(bytearray(b'x') * 50_000_000)"
DAEMON = "import subprocess\nsubprocess.Popen(['sleep', '987654'], start_new_session=True)"


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def solution():
    """The two exercises, as the lesson's solution has them."""
    notebook = nbformat.read(ROOT / "solutions" / "01_fundamentals.ipynb", as_version=4)
    wanted = {*EXERCISES, *(f"check_{name}" for name in EXERCISES)}
    cells = [cell for cell in notebook.cells if grade_id(cell) in wanted]
    imports = new_code_cell("import numpy as np\nfrom labutils import check")
    return new_notebook(metadata=notebook.metadata, cells=[imports, *cells])


def edited(edit):
    """The text of a notebook whose cells are those that `edit` makes of the solution's."""
    notebook = solution()
    notebook.cells = edit(notebook)
    return nbformat.writes(notebook)


def beginning(source):
    """A solution that begins with another cell."""
    return edited(lambda notebook: [new_code_cell(source), *notebook.cells])


def half_done(notebook):
    """The last function returns None."""
    for cell in notebook.cells:
        if grade_id(cell) == EXERCISES[1]:
            cell.source = NOTHING.format(name=EXERCISES[1])
    return notebook.cells


def with_an_edited_check(notebook):
    """The first function returns None; its check is edited, and what that is worth."""
    for cell in notebook.cells:
        if grade_id(cell) == EXERCISES[0]:
            cell.source = NOTHING.format(name=EXERCISES[0])
        if grade_id(cell) == f"check_{EXERCISES[0]}":
            cell.source = "pass"
            cell.metadata.nbgrader.points = 100
    return notebook.cells


def printed(notebook):
    for cell in notebook.cells:
        cell.outputs = [new_output("stream", text="ha" * 10**6)]
    return notebook.cells


def of_an_older_nbgrader(notebook):
    for cell in notebook.cells:
        cell.metadata.get("nbgrader", {}).pop("schema_version", None)
    return notebook.cells


RIGHT = edited(lambda notebook: notebook.cells)
UNCHECKED = edited(lambda notebook: [cell for cell in notebook.cells if "check" not in grade_id(cell)])
GRADED = {  # student: what they hand in, and the points that each check then earns; None: to be given by hand
    "ada": (RIGHT, [3, 1]),
    "bob": (edited(with_an_edited_check), [0, 1]),
    "cyd": (edited(half_done), [3, 0]),
    "emptied": (edited(lambda notebook: []), [None, None]),
    "huge": (edited(printed), [3, 1]),
    "unchecked": (UNCHECKED, [None, None]),
    "with a daemon": (beginning(DAEMON), [3, 1]),
}
FAILED = {  # student: what they hand in, under which name, and why it cannot be graded
    "copies": (edited(copied), NAME, "SchemaTooOldError"),
    "cut": (RIGHT[:-100], NAME, "NotJSONError"),
    "deaf": (beginning(DEAF), NAME, "CellTimeoutError"),
    "ends Python": (beginning("import os\nos._exit(1)"), NAME, "DeadKernelError"),
    "fills memory": (beginning(BOMB), NAME, "OutOfMemory"),
    "nothing": ("A note.", "note.txt", "NbGraderException"),
    "old": (edited(of_an_older_nbgrader), NAME, "SchemaTooOldError"),
    "renamed": (RIGHT, f"{LAB}(1).ipynb", "NbGraderException"),
    "zero bytes": ("", NAME, "NotJSONError"),
}
TIMES = {"ada": "2026-11-20 12:00:00 UTC", "cyd": "2026-11-22 12:00:00 UTC", "cut": "2026-11-20 13:00:00 UTC"}
CONFIGURATION = f"""
c = get_config()
c.Execute.timeout_func = lambda cell: 3 if cell.source == {DEAF!r} else 60
c.LateSubmissionPlugin.penalty_method = "zero"
"""


def start(folder):
    """A course folder with the assignment in it. (`nbgrader quickstart` takes a dozen seconds for its examples.)"""
    (folder / "source" / LAB).mkdir(parents=True)
    name = f"c.CourseDirectory.course_id = {folder.name!r}\n"
    (folder / "nbgrader_config.py").write_text(CONFIGURATION + name, encoding="utf-8")
    nbformat.write(solution(), folder / "source" / LAB / NAME)
    nbgrader(folder, "generate_assignment", LAB)
    with gradebook(folder) as book:
        book.update_or_create_assignment(LAB, duedate=DUE)


def gradebook(folder):
    return Gradebook(f"sqlite:///{folder / 'gradebook.db'}", folder.name)


def hand_in(folder, student, text, name=NAME, time=None):
    there = folder / "submitted" / student / LAB
    there.mkdir(parents=True, exist_ok=True)
    (there / name).write_text(text, encoding="utf-8")
    if time:
        (there / "timestamp.txt").write_text(time, encoding="utf-8")
