"""Who has handed in, and who is still to be graded: those whom nbgrader itself would grade."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from glob import glob
from pathlib import Path

from nbgrader.coursedir import CourseDirectory

from labutils.course.grading.isolated import Limits

PLACE = ".grading"  # in the course folder: what is not finished, and the logs of what failed


@dataclass(frozen=True)
class Job:
    """One student's submission, as it is given to another process, perhaps on another machine."""

    student: str
    place: str  # a folder for this job alone, seen from the course folder
    log: Path
    started_in: Path  # the folder in which the command was given
    arguments: tuple[str, ...]  # of the command
    limits: Limits


@dataclass(frozen=True)
class Outcome:
    """What came of a job. `failed` is the name of an exception, perhaps one of `failures.FAILURES`."""

    student: str
    failed: str | None = None
    detail: str = ""
    seconds: float = 0.0  # of processors
    gigabytes: float = 0.0  # of memory, in its largest process


class NoTime(ValueError):
    """A timestamp.txt that says no time."""


def students(course: CourseDirectory) -> list[str]:
    """All who have handed the assignment in and are not excluded, in order."""
    step, assignment = course.submitted_directory, course.assignment_id
    pattern = course.format_path(step, "(?P<student>.*)", re.escape(assignment), escape=True)
    found = (re.fullmatch(pattern, path) for path in glob(course.format_path(step, course.student_id, assignment)))
    return sorted({match["student"] for match in found if match} - set(course.student_id_exclude.split(",")))


def is_due(course: CourseDirectory, student: str, force: bool) -> bool:
    """Whether it is not graded yet, or was handed in anew since. What holds no time is due, and will then fail."""
    if force or not folder(course, student, course.autograded_directory).exists():
        return True
    try:
        times = [timestamp(course, student, step) for step in (course.autograded_directory, course.submitted_directory)]
    except NoTime:
        return True
    return None not in times and times[0] < times[1]


def timestamp(course: CourseDirectory, student: str, step: str) -> datetime | None:
    """When it was handed in, if nbgrader's exchange has noted it; NoTime where the note cannot be read."""
    there = folder(course, student, step)
    try:
        return course.get_existing_timestamp(str(there))
    except (AttributeError, ValueError):  # the first from nbgrader 0.9, which has no other way to say it
        raise NoTime(f"{there / 'timestamp.txt'} holds no time") from None


def folder(course: CourseDirectory, student: str, step: str) -> Path:
    """A student's folder in "submitted", "autograded" or any other folder of the course."""
    return Path(course.format_path(step, student, course.assignment_id))
