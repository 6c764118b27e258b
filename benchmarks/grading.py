"""Solutions graded by nbgrader one after another, and by `python -m labutils.grading` two at a time.

python -m benchmarks.grading            prints the table of both
python -m benchmarks.grading LAB ...    prints what a submission of these labs costs, and a class of 400 in hours
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from benchmarks import THREADS
from benchmarks.tables import machine, markdown, ratio
from labutils.course.grading.run import grade_class

ROOT = Path(__file__).resolve().parents[1]
LAB = "01_fundamentals"
CLASS = 400
PROCESSORS = (2, 8, 32)
BY = {
    "nbgrader autograde": ["nbgrader", "autograde"],
    "labutils.grading, 1 worker": [sys.executable, "-m", "labutils.grading", "--workers=1"],
    "labutils.grading, 2 workers": [sys.executable, "-m", "labutils.grading", "--workers=2"],
}


def table(students=12, progress=lambda rounds, title: rounds):
    """A row for each way to grade a class of `students` that hands in the solution of a lab."""
    with course(LAB) as folder:
        hand_in(folder, LAB, students)
        seconds = {by: graded(folder, command) for by, command in progress(BY.items(), "grading")}
    serial = seconds["nbgrader autograde"]
    return [
        {"by": by, "s for a submission": taken / students, "times as fast": ratio(serial, taken)}
        for by, taken in seconds.items()
    ]


def graded(folder, command):
    """Seconds from the start of a command to its end, in a copy of the course."""
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(folder, Path(place) / "course")
        start = time.perf_counter()
        run(copy, *command, LAB)
        return time.perf_counter() - start


def costs(labs, progress=lambda rounds, title: rounds):
    """A row for each lab: what grading its solution costs, and the hours for a class of 400 on several processors."""
    rows = []
    with course(*labs) as folder:
        for lab in progress(labs, "labs"):
            hand_in(folder, lab, 1)
            (mark,) = grade_class([lab, f"--course-dir={folder}", "--workers=1"])
            assert mark.points == mark.possible, mark.note
            used = mark.outcome
            hours = {f"hours on {n}": CLASS * used.seconds / n / 3600 for n in PROCESSORS}
            rows.append({"lab": lab, "processor seconds": used.seconds, "GB": used.gigabytes} | hours)
    return rows


@contextmanager
def course(*labs):
    """A course folder with some labs as assignments."""
    with tempfile.TemporaryDirectory() as place, mock.patch.dict(os.environ, {"JUPYTER_CONFIG_DIR": place}):
        folder = Path(place) / "course"
        run(place, "nbgrader", "quickstart", folder.name)
        with open(folder / "nbgrader_config.py", "a", encoding="utf-8") as config:
            config.write("\nc.Execute.timeout = 300\n")
        for lab in labs:
            (folder / "source" / lab).mkdir()
            shutil.copy(ROOT / "solutions" / f"{lab}.ipynb", folder / "source" / lab)
            run(folder, "nbgrader", "generate_assignment", lab)
        yield folder


def hand_in(folder, lab, students):
    for number in range(students):
        there = folder / "submitted" / f"student{number}" / lab
        there.mkdir(parents=True)
        shutil.copy(ROOT / "solutions" / f"{lab}.ipynb", there)


def run(folder, *command):
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = os.environ | {"PATH": programs} | dict.fromkeys(THREADS, "1")
    subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=True)


if __name__ == "__main__":
    print(machine(), markdown(costs(sys.argv[1:]) if sys.argv[1:] else table()), sep="\n\n")
