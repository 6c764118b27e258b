"""All submissions of an assignment graded, as many at a time as there are workers, and marked one after another."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from nbgrader.converters import Autograde
from tqdm import tqdm

from labutils.course.grading.alone import SKELETON, grade_alone
from labutils.course.grading.command import GradingApp
from labutils.course.grading.gradebook import assignments, has_gradebook, record, write_skeleton
from labutils.course.grading.isolated import end_children
from labutils.course.grading.marks import Mark, mark_of
from labutils.course.grading.submissions import PLACE, Job, Outcome, is_due, students


class Client(Protocol):
    """What a dask.distributed.Client and a concurrent.futures.Executor have in common."""

    def submit(self, function: Callable, *arguments: Any) -> Any: ...


def grade_class(arguments: list[str], client: Client | None = None) -> list[Mark]:
    """Grade, in the course folder in which this process is, all whom nbgrader would grade; the marks of everyone.

    arguments  what follows `python -m labutils.grading`
    client     a dask.distributed.Client, or any concurrent.futures.Executor. Its processes must not be daemons. On
               several machines, the course folder must be on a disk that all of them see, under the same path

    It may be killed at any time: a student's folder in autograded/ is there as a whole, with its marks written, or not
    at all, and a second call does what is left. SystemExit, with the reason printed, where there is nothing to grade.
    """
    app = GradingApp()
    app.initialize(list(arguments))
    everyone = _handed_in(app)
    with _only_writer(app) as place, _workers(app, client) as workers:
        write_skeleton(app.coursedir.db_url, place / SKELETON)
        outcomes = {outcome.student: outcome for outcome in _graded(app, everyone, arguments, workers)}
    return [mark_of(app, student, outcomes.get(student)) for student in everyone]


def _handed_in(app: GradingApp) -> list[str]:
    course = app.coursedir
    if not has_gradebook(course):
        app.fail("There is no gradebook here: run it in the course folder, and not in %s", course.root)
    everyone = students(course)
    if not everyone:
        missing = course.format_path(course.submitted_directory, course.student_id, course.assignment_id)
        app.fail("Nothing was handed in: there is no %s. Is this the course folder?", missing)
    if course.assignment_id not in (known := assignments(app)):
        app.fail("The gradebook knows %s: run `nbgrader generate_assignment %s` first", known, course.assignment_id)
    return everyone


@contextmanager
def _only_writer(app: GradingApp) -> Iterator[Path]:
    """The place for what is not finished, emptied; SystemExit where another process grades in the same course."""
    place = Path(app.coursedir.root, PLACE)
    place.mkdir(exist_ok=True)
    with open(place / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back by the system, however the process ends
        except BlockingIOError:
            app.fail("Another process grades in %s", app.coursedir.root)
        for left in filter(Path.is_dir, place.iterdir()):
            shutil.rmtree(left, ignore_errors=True)
        yield place


@contextmanager
def _workers(app: GradingApp, client: Client | None) -> Iterator[Client]:
    if client is not None:
        yield client
    elif app.scheduler:
        with _dask(app) as dask:
            yield dask
    else:
        with ThreadPoolExecutor(app.workers) as threads:  # each waits for one process
            try:
                yield threads
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                end_children()
                raise


def _dask(app: GradingApp) -> Any:
    try:
        from distributed import Client as DaskClient
    except ModuleNotFoundError:
        app.fail("--scheduler needs dask: pip install distributed")
    return DaskClient(app.scheduler)


def _graded(app: GradingApp, everyone: list[str], arguments: list[str], client: Client) -> Iterator[Outcome]:
    """Grade who is due, with a progress bar of students."""
    force = Autograde(coursedir=app.coursedir, parent=app).force
    due = [student for student in everyone if is_due(app.coursedir, student, force)]
    jobs = [_job(app, student, arguments) for student in due]
    failed = 0
    with tqdm(total=len(everyone), initial=len(everyone) - len(due), unit="student", desc="graded") as bar:
        for job, outcome in _as_completed(jobs, client):
            outcome = record(app, job, outcome)
            failed += outcome.failed is not None
            bar.set_postfix(failed=failed, refresh=False)
            bar.update()
            yield outcome


def _job(app: GradingApp, student: str, arguments: list[str]) -> Job:
    course = app.coursedir
    shared = Path(course.root, PLACE)
    place = os.path.join(PLACE, Path(tempfile.mkdtemp(dir=shared)).name)
    log = shared / f"{course.assignment_id}-{student}.log"
    return Job(student, place, log, Path.cwd(), tuple(arguments), app.limits)


def _as_completed(jobs: list[Job], client: Client) -> Iterator[tuple[Job, Outcome]]:
    done = SimpleQueue()
    futures = {client.submit(grade_alone, job): job for job in jobs}
    try:
        for future in futures:
            future.add_done_callback(done.put)
        for _ in jobs:
            future = done.get()
            yield futures[future], _outcome(future, futures[future])
    finally:  # after an error the others need not begin
        for future in futures:
            future.cancel()


def _outcome(future: Any, job: Job) -> Outcome:
    try:
        return future.result()
    except Exception as lost:  # with the machine on which it ran, perhaps
        return Outcome(job.student, type(lost).__name__, str(lost))
