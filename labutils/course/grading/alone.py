"""One submission graded in a process of its own: all of nbgrader's steps before those that write marks."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any

from nbgrader.converters import Autograde, NbGraderException

from labutils.course.grading.command import GradingApp
from labutils.course.grading.isolated import GB, Ended, isolated
from labutils.course.grading.submissions import PLACE, Job, Outcome, timestamp

GRADED = "graded"  # in the job's place: notebooks that have run, without marks
SKELETON = "gradebook.db"  # in PLACE: the assignments, and no student
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as many submissions as processors: threads would wait for each other


def grade_alone(job: Job) -> Outcome:
    """Let a process of its own grade a submission, and say what came of it."""
    with tempfile.TemporaryDirectory(prefix="grading-") as sockets:  # a short path, as they need
        try:
            return isolated(partial(_grade, sockets), job, job.limits)
        except Ended as ended:
            return Outcome(job.student, type(ended).__name__, str(ended))


def _grade(sockets: str, job: Job) -> Outcome:
    with _logged(job):
        os.chdir(job.started_in)
        os.environ |= ONE_THREAD
        try:
            problem = _converted(job, sockets)
        except Exception as error:
            traceback.print_exc()
            problem = error
    failed = {} if problem is None else {"failed": type(problem).__name__, "detail": str(problem)}
    return Outcome(job.student, **failed, **_used())


def _converted(job: Job, sockets: str) -> Exception | None:
    """Write what nbgrader makes of the submission into the job's place; return what it stumbled over, if anything."""
    app = GradingApp(log_level="INFO")
    app.initialize(list(job.arguments))
    timestamp(app.coursedir, job.student, app.coursedir.submitted_directory)
    # Kernels that start at the same moment may choose the same ports, but not the same files.
    app.config.KernelManager.update({"transport": "ipc", "ip": os.path.join(sockets, "kernel")})
    place = os.path.join(app.coursedir.root, job.place)
    shutil.copyfile(os.path.join(app.coursedir.root, PLACE, SKELETON), os.path.join(place, SKELETON))
    course = app.course_of(
        job.student,
        db_url=f"sqlite:///{os.path.join(place, SKELETON)}",
        autograded_directory=os.path.join(job.place, GRADED),
    )
    converter = BeforeMarks(coursedir=course, parent=app)
    converter.autograde_preprocessors, _ = divided(converter.autograde_preprocessors)
    converter.post_convert_hook = None  # called when the marks are written
    try:
        converter.start()
    except NbGraderException as error:
        return converter.problem or error
    return None


class BeforeMarks(Autograde):
    """Keeps the exception that nbgrader only logs."""

    problem: Exception | None = None

    def init_assignment(self, *arguments: Any) -> None:
        with self._kept():
            super().init_assignment(*arguments)

    def convert_single_notebook(self, filename: str) -> None:
        with self._kept():
            super().convert_single_notebook(filename)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.problem = error
            raise


def divided(preprocessors: list[Any]) -> tuple[list[Any], list[Any]]:
    """nbgrader's list of steps: those before marks are written, and the rest."""
    names = [getattr(each, "__name__", str(each)).rpartition(".")[2] for each in preprocessors]
    first = names.index("SaveAutoGrades") if "SaveAutoGrades" in names else len(names)
    return preprocessors[:first], preprocessors[first:]


@contextlib.contextmanager
def _logged(job: Job) -> Iterator[None]:
    """Let everything that this process prints, and its kernels, go to the job's log."""
    with open(job.log, "w", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        yield


def _used() -> dict[str, float]:
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = sum(used.ru_utime + used.ru_stime for used in (own, others))
    return {"seconds": seconds, "gigabytes": max(own.ru_maxrss, others.ru_maxrss) * 1024 / GB}
