"""Every mistake in the tables fails its check, and is told apart from all the others."""

import inspect

import numpy as np
import pytest

from labutils.course import engine
from labutils.course.attempt import changed
from labutils.course.exercise import Exercise
from labutils.labs.catalogue import EXERCISES

MISTAKES = [(exercise, mistake) for exercise in EXERCISES.values() for mistake in exercise.misconceptions]


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES, ids=[f"{e.name}-{m.name}" for e, m in MISTAKES])
def test_a_mistake_fails_and_is_named(exercise, mistake):
    report = engine.examine(mistake.wrong, exercise)
    assert not report.passed
    assert report.diagnosis == mistake.name
    assert report.hint == mistake.hint or report.diagnosis == "codes wider than they need to be"
    assert report.first_failure.detail


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_the_reference_passes_and_is_named_like_its_exercise(exercise):
    report = engine.examine(exercise.reference, exercise)
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


# Mistakes as people write them: not copies of the tables, often two at a time, in other words.


def _int8_cast_first(x, num_bits=8):
    scale = np.max(np.abs(x)) / 127
    return np.clip((x / scale).astype(np.int8), -128, 127), scale


def _no_guard_no_round(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    s = np.abs(x).max() / q_max
    return (x // s).astype("int8"), s


def _max_only(x, num_bits=8):
    s = x.max() / (2 ** (num_bits - 1) - 1)
    q = np.clip(np.rint(x / s), -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)
    return q.astype("i1" if num_bits < 9 else "i2"), s


def _floats(x, num_bits=8):
    largest = max(abs(x.min()), abs(x.max())) or 1
    s = largest / (2 ** (num_bits - 1) - 1)
    return np.round(x / s), s


def _eps(x, num_bits=8):
    s = np.abs(x).max() / (2 ** (num_bits - 1) - 1) + 1e-8
    return np.round(x / s).astype(np.int16 if num_bits > 8 else np.int8), s


@pytest.mark.parametrize(
    ("submission", "diagnosis"),
    [
        (_int8_cast_first, "truncation instead of round"),
        (_no_guard_no_round, "floor instead of round"),
        (_max_only, "max(x) instead of max|x|"),
        (_floats, "codes left as floats"),
        (_eps, "an epsilon added to the scale"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_mistakes_in_other_words_are_recognised(submission, diagnosis):
    report = engine.examine(submission, EXERCISES["quantize_symmetric"])
    assert not report.passed
    assert report.diagnosis == diagnosis
