"""What each student got, as a table in a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from nbgrader.api import Gradebook

from labutils.course.grading.command import GradingApp
from labutils.course.grading.failures import explained
from labutils.course.grading.submissions import Outcome

BY_HAND = "some points are to be given by hand: a check is missing, or there is none"


@dataclass(frozen=True)
class Mark:
    """A row of the table: points after a penalty for lateness. `outcome` is None for who had been graded before."""

    student: str
    points: float
    possible: float
    by_hand: bool
    outcome: Outcome | None

    @property
    def failed(self) -> bool:
        return self.outcome is not None and self.outcome.failed is not None

    @property
    def note(self) -> str:
        if self.failed:
            return explained(self.outcome)
        return BY_HAND if self.by_hand else ""


def mark_of(app: GradingApp, student: str, outcome: Outcome | None) -> Mark:
    """What the gradebook holds for a student."""
    with Gradebook(app.coursedir.db_url, app.coursedir.course_id) as book:
        found = book.find_submission(app.coursedir.assignment_id, student)
        points = found.score - (found.late_submission_penalty or 0)
        return Mark(student, points, found.max_score, found.needs_manual_grade, outcome)


def table(marks: list[Mark]) -> str:
    """A line for each student, and one that sums up.

    >>> print(table([Mark("ada", 8.0, 9.0, False, None), Mark("bob", 0.0, 9.0, False, Outcome("bob", "NotJSONError"))]))
    student  points  of
    ada           8   9
    bob           0   9  a file is damaged: it is no notebook – ask for it again
    <BLANKLINE>
    1 of 2 graded. 1 failed, see .grading/*-STUDENT.log
    """
    width = max(len("student"), *(len(mark.student) for mark in marks))
    lines = [f"{'student':{width}}  points  of"]
    lines += [f"{m.student:{width}}  {m.points:6g}  {m.possible:2g}  {m.note}".rstrip() for m in marks]
    return "\n".join([*lines, "", *_sums(marks)])


def _sums(marks: list[Mark]) -> list[str]:
    failed = sum(mark.failed for mark in marks)
    told = f" {failed} failed, see .grading/*-STUDENT.log" if failed else ""
    new = [mark.outcome for mark in marks if mark.outcome and mark.outcome.seconds]
    if not new:
        return [f"{len(marks) - failed} of {len(marks)} graded.{told}"]
    seconds = [outcome.seconds for outcome in new]
    used = f"{sum(seconds) / len(new):.1f} processor seconds each, {max(seconds):.1f} at most"
    memory = f"{max(outcome.gigabytes for outcome in new):.1f} GB in one process at most"
    return [f"{len(marks) - failed} of {len(marks)} graded.{told}", f"{used}; {memory}"]
