"""A course run by nbgrader's own commands: a course folder, an exchange, and a folder for each student."""

import html
import io
import logging
import os
import re
import shutil
from pathlib import Path

import nbformat
from jupyter_core.application import NoStart
from nbgrader.api import Gradebook
from nbgrader.apps.nbgraderapp import NbGraderApp

ROOT = Path(__file__).resolve().parents[2]
COURSE = "quantization"
SETTINGS = ROOT / "docs" / "nbgrader_config.py"
ENDLESS = "while True:\n    pass"  # a cell that nobody waits for longer than the check does for a function


def nbgrader(folder, *arguments):
    """`nbgrader *arguments`, given in `folder`. In this process: each start of its own takes two seconds."""
    app, log, code = NbGraderApp.instance(), io.StringIO(), 0
    before = os.getcwd()
    os.chdir(folder)
    try:
        app.initialize(list(arguments))
        app.init_logging(logging.StreamHandler, [log], color=False, subapps=True)
        app.start()
    except (NoStart, SystemExit) as end:
        code = getattr(end, "code", 0)
    finally:
        os.chdir(before)
        app.reset()
    assert not code, f"nbgrader {' '.join(arguments)} ended with {code}:\n{log.getvalue()[-3000:]}"


class Course:
    """What an instructor and students do with it, each in their own folder under `place`."""

    def __init__(self, place, cell_timeout):
        self.place, self.folder = place, place / COURSE
        # What an administrator writes into /etc/jupyter/nbgrader_config.py for all users.
        (place / "nbgrader_config.py").write_text(
            f"c = get_config()\nc.Exchange.root = {str(place / 'exchange')!r}\n", encoding="utf-8"
        )
        nbgrader(place, "quickstart", COURSE)
        with open(self.folder / "nbgrader_config.py", "a", encoding="utf-8") as config:
            config.write(f"{SETTINGS.read_text(encoding='utf-8')}\nc.Execute.timeout = {cell_timeout}\n")
            config.write(f"c.Execute.timeout_func = lambda cell: 5 if cell.source == {ENDLESS!r} else {cell_timeout}\n")

    def release(self, assignment, *labs):
        """Release `labs` as one assignment."""
        (self.folder / "source" / assignment).mkdir()
        for lab in labs:
            shutil.copy(ROOT / "solutions" / f"{lab}.ipynb", self.folder / "source" / assignment)
        nbgrader(self.folder, "generate_assignment", assignment)
        nbgrader(self.folder, "release_assignment", assignment)

    def hand_in(self, student, lab, rewrite, copies=False):
        """The student fetches the lab, `rewrite` gives each code cell another source, or None to delete it, `copies`
        puts a copy behind each cell that nbgrader knows, and it is handed in."""
        home = self.place / student
        home.mkdir(exist_ok=True)
        own = (f"--course={COURSE}", f"--student={student}", f"--Exchange.cache={home / 'cache'}")
        nbgrader(home, "fetch_assignment", lab, *own)
        file = home / lab / f"{lab}.ipynb"
        notebook = nbformat.read(file, as_version=4)
        for cell in code(notebook):
            cell.source = rewrite(cell)
        notebook.cells = [cell for cell in notebook.cells if cell.source is not None]
        if copies:
            notebook.cells = copied(notebook)
        nbformat.write(notebook, file)
        nbgrader(home, "submit", lab, *own)

    def grade(self, lab):
        nbgrader(self.folder, "collect", lab)
        nbgrader(self.folder, "autograde", lab)
        nbgrader(self.folder, "generate_feedback", lab)
        nbgrader(self.folder, "release_feedback", lab)

    def released(self, assignment, lab):
        return nbformat.read(self.folder / "release" / assignment / f"{lab}.ipynb", as_version=4)

    def graded(self, student, lab):
        """The notebook that was handed in, as nbgrader ran it."""
        return nbformat.read(self.folder / "autograded" / student / lab / f"{lab}.ipynb", as_version=4)

    def points(self, student, lab):
        """What each exercise earned."""
        with self.gradebook() as book:
            grades = book.find_submission_notebook(lab, lab, student).grades
            return {grade.name.removeprefix("check_"): grade.score for grade in grades}

    def feedback(self, student, lab):
        """The words of the page that the student gets back."""
        return " ".join(html.unescape(re.sub(r"<[^>]+>", "", self.feedback_page(student, lab))).split())

    def feedback_page(self, student, lab):
        home = self.place / student
        own = (f"--course={COURSE}", f"--student={student}", f"--Exchange.cache={home / 'cache'}")
        nbgrader(home, "fetch_feedback", lab, *own)
        (page,) = home.glob(f"{lab}/feedback/*/{lab}.html")
        return page.read_text(encoding="utf-8")

    def gradebook(self):
        return Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}", COURSE)


def copied(notebook):
    """The cells of a notebook, each of nbgrader's twice, as copying and pasting it in JupyterLab leaves them."""
    copies = [cell | {"id": f"{cell.id}-2"} for cell in notebook.cells if "nbgrader" in cell.metadata]
    behind = {cell["id"].removesuffix("-2"): nbformat.from_dict(cell) for cell in copies}
    return [each for cell in notebook.cells for each in (cell, behind.get(cell.id)) if each]


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
