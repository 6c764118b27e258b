"""What a check says about wrong answers as learners write them: it refuses all, misnames none, and explains most.

The table is in tests/labs/natural, a file for each lab.
"""

import re

import pytest

from labutils.course.engine import Report
from labutils.labs.catalogue import EXERCISES

pytest.importorskip("torch")

from tests.labs.natural import load
from tests.labs.unguarded import examine

MISTAKES = load()
LEAST = 0.95  # share of the mistakes that are named, or whose relation to the right answer is found
REPORTS: dict[str, Report] = {}


def report_on(mistake):
    key = str(mistake)
    if key not in REPORTS:
        REPORTS[key] = examine(mistake.wrong, EXERCISES[mistake.exercise])
    return REPORTS[key]


def is_explained(report):
    """A name, a relation, or the learner's own line and why it raised."""
    return bool(report.diagnosis or report.relation or re.search(r"\(line \d+ of your", report.first_failure.detail))


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_natural_mistake_is_refused_and_not_misnamed(mistake):
    report = report_on(mistake)
    assert not report.passed
    if report.diagnosis:
        assert re.search(mistake.names, report.diagnosis, re.IGNORECASE), report.diagnosis


def test_nearly_all_are_named_or_related_to_the_right_answer(record_property):
    unexplained = [str(mistake) for mistake in MISTAKES if not is_explained(report_on(mistake))]
    named = sum(bool(report_on(mistake).diagnosis) for mistake in MISTAKES)
    share = 1 - len(unexplained) / len(MISTAKES)
    figures = f"{len(MISTAKES)} mistakes: {named} named, {share:.1%} explained; not: {', '.join(unexplained) or 'none'}"
    record_property("figures", figures)
    print(figures)
    assert share >= LEAST, figures


def test_every_exercise_has_natural_mistakes():
    assert {mistake.exercise for mistake in MISTAKES} == set(EXERCISES.names)
