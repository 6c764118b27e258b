"""Every mistake in the tables fails its check, and is told apart from all the others."""

import inspect

import pytest

from labutils.course.attempt import changed
from labutils.course.exercise import Exercise
from labutils.labs.catalogue import EXERCISES
from tests.labs.unguarded import examine

MISTAKES = [(exercise, mistake) for exercise in EXERCISES.values() for mistake in exercise.misconceptions]


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES, ids=[f"{e.name}-{m.name}" for e, m in MISTAKES])
def test_a_mistake_fails_and_is_named(exercise, mistake):
    report = examine(mistake.wrong, exercise)
    assert not report.passed
    assert report.diagnosis == mistake.name
    assert report.hint == mistake.hint or report.diagnosis == "codes wider than they need to be"
    assert report.first_failure.detail


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_reference_passes_and_is_named_like_its_exercise(exercise):
    report = examine(exercise.reference, exercise)
    assert report.passed, report.first_failure
    assert report.diagnosis is None
    assert exercise.reference.__name__ == exercise.name


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_cases_are_the_same_each_time(exercise):
    first, second = exercise.cases(), exercise.cases()
    assert [case.name for case in first] == [case.name for case in second]
    assert len({case.name for case in first}) == len(first), "each case needs a name of its own"
    for a, b in zip(first, second, strict=True):
        assert not changed((a.args, a.kwargs), (b.args, b.kwargs))


CALLED = {name: exercise for name, exercise in EXERCISES.items() if exercise.run is Exercise.run}


@pytest.mark.parametrize("exercise", CALLED.values(), ids=CALLED)
def test_misconceptions_and_reference_take_the_same_arguments(exercise):
    wanted = len(exercise.cases()[0].args) + len(exercise.cases()[0].kwargs)
    for mistake in exercise.misconceptions:
        assert len(inspect.signature(mistake.wrong).parameters) >= wanted
