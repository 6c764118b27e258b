"""The gradebook, and the one process that writes it."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from nbgrader import api
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import Autograde, NbGraderException
from nbgrader.coursedir import CourseDirectory
from sqlalchemy import create_engine, insert, make_url, select

from labutils.course.grading.alone import GRADED, divided
from labutils.course.grading.command import GradingApp
from labutils.course.grading.submissions import Job, NoTime, Outcome, folder, timestamp

RECORDED = "recorded"  # in the job's place: as GRADED, with the marks written
# What nbgrader looks up while it runs a submission. No student's marks leave the gradebook.
ASSIGNMENTS = (
    api.Course, api.Assignment, api.Notebook,
    api.BaseCell, api.GradeCell, api.SolutionCell, api.TaskCell, api.SourceCell,
)  # fmt: skip


def write_skeleton(db_url: str, path: Path) -> None:
    """Copy a gradebook's assignments, without students, to an SQLite file."""
    path.unlink(missing_ok=True)
    here, there = create_engine(f"sqlite:///{path}"), create_engine(db_url)
    api.Base.metadata.create_all(here)
    with there.connect() as reading, here.begin() as writing:
        for table in (model.__table__ for model in ASSIGNMENTS):
            if rows := [dict(row) for row in reading.execute(select(table)).mappings()]:
                writing.execute(insert(table), rows)
    here.dispose()
    there.dispose()


def record(app: GradingApp, job: Job, outcome: Outcome) -> Outcome:
    """Write the marks of a submission that has run, and last of all give its folder the name that says it is graded.

    A submission that failed changes no marks: a student who has none yet is entered without any.
    """
    if outcome.failed is None:
        try:
            _write_marks(app, job)
        except NbGraderException as error:
            outcome = replace(outcome, failed="NotRecorded", detail=str(error))
    if outcome.failed is None:
        _take_place(app, job)
        job.log.unlink(missing_ok=True)
    else:
        _enter(app, job.student)
    # A student's code may have made a folder that cannot be emptied: the next run tries again.
    shutil.rmtree(Path(app.coursedir.root, job.place), ignore_errors=True)
    return outcome


def _write_marks(app: GradingApp, job: Job) -> None:
    """The rest of nbgrader's steps, on the notebooks that have run as if they were handed in like that."""
    steps = {"submitted_directory": GRADED, "autograded_directory": RECORDED}
    course = app.course_of(job.student, **{step: os.path.join(job.place, name) for step, name in steps.items()})
    converter = Autograde(coursedir=course, parent=app)
    converter.sanitize_preprocessors = []
    _, converter.autograde_preprocessors = divided(converter.autograde_preprocessors)
    converter.pre_convert_hook = None  # was called before it ran
    converter.start()


def _take_place(app: GradingApp, job: Job) -> None:
    course = app.coursedir
    graded = folder(course, job.student, course.autograded_directory)
    graded.parent.mkdir(parents=True, exist_ok=True)
    if graded.exists():
        graded.rename(Path(course.root, job.place, "before"))
    folder(course, job.student, os.path.join(job.place, RECORDED)).rename(graded)


def _enter(app: GradingApp, student: str) -> None:
    course = app.coursedir
    with Gradebook(course.db_url, course.course_id) as book:
        book.update_or_create_student(student)
        try:
            book.find_submission(course.assignment_id, student)
        except MissingEntry:
            handed_in = None
            with contextlib.suppress(NoTime):
                handed_in = timestamp(course, student, course.submitted_directory)
            book.add_submission(course.assignment_id, student, timestamp=handed_in)


def has_gradebook(course: CourseDirectory) -> bool:
    """Whether there is one. A file is looked for, which nbgrader would make; a server has one or says that it has none.

    >>> has_gradebook(CourseDirectory(root="/nowhere"))
    False
    """
    address = make_url(course.db_url)
    return address.get_backend_name() != "sqlite" or Path(address.database).exists()


def assignments(app: GradingApp) -> list[str]:
    with Gradebook(app.coursedir.db_url, app.coursedir.course_id) as book:
        return [assignment.name for assignment in book.assignments]
