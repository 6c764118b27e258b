"""Every submission gets a report: a clear sentence about what is wrong, and the name of the mistake if it is known."""

import sys
import threading
import time

import numpy as np
import pytest

from labutils import CheckFailed, board, check, examine, or_reference
from labutils.course import engine, progress
from labutils.course.report import panel, summary, text
from labutils.labs.catalogue import EXERCISES
from labutils.labs.check import find

EXERCISE = EXERCISES["quantize_symmetric"]


def named(function, name="quantize_symmetric"):
    function.__name__ = name
    return function


def right(x, num_bits=8):
    return EXERCISE.reference(x, num_bits)


def undone(x, num_bits=8):
    raise NotImplementedError()


def floor(x, num_bits=8):
    q_max = 2 ** (num_bits - 1) - 1
    scale = np.abs(x).max() / q_max or 1.0
    return np.floor(x / scale).astype(np.int8 if num_bits <= 8 else np.int16), scale


def divides_by_zero(x, num_bits=8):
    return 1 // 0


BY_ZERO = "division by zero" if sys.version_info >= (3, 14) else "integer division or modulo by zero"


def two_arguments_too_many(x, num_bits, axis, group_size):
    return x, 1


def endless(x, num_bits=8):
    while True:
        pass


released = threading.Event()


def endless_and_stubborn(x, num_bits=8):
    while not released.is_set():
        try:  # noqa: SIM105
            time.sleep(0.001)
        except:  # noqa: E722
            pass


def exits(x, num_bits=8):
    sys.exit(1)


def writes_into_x(x, num_bits=8):
    result = right(x, num_bits)
    x[...] = 0
    return result


def recursive(x, num_bits=8):
    return recursive(x, num_bits)


SENTENCES = [
    (lambda x, num_bits=8: None, "returned None: end with `return q, scale`"),
    (lambda x, num_bits=8: x, "expected 2 values: `return q, scale`"),
    (lambda x, num_bits=8: (x, 1, 0), "it returned 3 values; expected 2"),
    (lambda x, num_bits=8: ("codes", 1.0), "q should be an array, but it is the str 'codes'"),
    (lambda x, num_bits=8: (None, 1.0), "q should be an array, but it is None"),
    (lambda x, num_bits=8: (right(x, num_bits)[0], None), "scale should be a number, but it is None"),
    (lambda x, num_bits=8: (right(x, num_bits)[0], np.ones(3)), "scale should be one number, but it is an array"),
    (lambda x, num_bits=8: (right(x, num_bits)[0], float("nan")), "scale should be a positive number, but it is nan"),
    (lambda x, num_bits=8: (right(x, num_bits)[0], -1.0), "scale should be a positive number, but it is -1"),
    (lambda x, num_bits=8: (right(x, num_bits)[0][:1], 1.0), "q should have the shape of x"),
    (lambda x, num_bits=8: (x.astype(complex), 1.0), "its dtype is complex"),
    (lambda x, num_bits=8: (x.astype(object), 1.0), "its dtype is object"),
    (lambda x, num_bits=8: [[1, 2], [3]], "q should be an array"),
    (divides_by_zero, f"it raised ZeroDivisionError: {BY_ZERO} (line 2 of your function)"),
    (two_arguments_too_many, "it raised TypeError"),
    (exits, "it raised SystemExit"),
    (writes_into_x, "it changed what it was given"),
    (recursive, "it raised RecursionError"),
]  # fmt: skip


@pytest.mark.parametrize(("submission", "sentence"), SENTENCES, ids=[sentence for _, sentence in SENTENCES])
def test_nonsense_gets_a_sentence(submission, sentence):
    found = examine(named(submission))
    assert not found.passed
    assert sentence in found.first_failure.detail
    assert sentence.split("`")[0] in text(found)


@pytest.fixture
def stubborn():
    """Set `released` after the test, so that a call that cannot be stopped does not disturb the tests after it."""
    released.clear()
    yield
    released.set()


@pytest.mark.usefixtures("stubborn")
@pytest.mark.parametrize("submission", [endless, endless_and_stubborn])
def test_a_hanging_submission_costs_one_time_limit(submission):
    found = engine.examine(submission, EXERCISE, time_limit=0.3)
    assert "no answer within 0.3 seconds" in found.first_failure.detail
    assert found.cases[1].detail == "not tried, after the case above"
    assert engine.examine(right, EXERCISE).passed


def test_an_undone_submission_is_not_a_crash(capsys):
    found = examine(named(undone))
    assert (found.undone, found.passed, found.diagnosis) == (True, False, None)
    check(named(undone))
    assert "not done yet" in capsys.readouterr().out
    assert progress.passed() == set()


def test_an_undone_submission_earns_no_points_under_nbgrader(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(CheckFailed, match="not done yet"):
        check(named(undone))


def test_a_passed_check_is_remembered_and_a_failed_one_is_not(capsys):
    with pytest.raises(CheckFailed, match="floor instead of round"):
        check(named(floor))
    assert progress.passed() == set()
    check(named(right))
    assert progress.passed() == {"quantize_symmetric"}
    assert "1 of 6" in board().text
    assert "dequantize_symmetric, " in board().html and "best_clip (stretch)" in board().html


def test_a_failure_shows_as_one_line_without_traceback():
    with pytest.raises(CheckFailed) as caught:
        check(named(floor))
    (line,) = caught.value._render_traceback_()
    assert "cases pass. It looks like this: floor instead of round." in line
    assert "Go to the nearest integer." in str(caught.value)


def test_two_mistakes_are_named_one_after_the_other():
    def both(x, num_bits=8):  # floors, and divides by zero
        scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1)
        return np.floor(x / scale).astype(np.int8 if num_bits <= 8 else np.int16), scale

    def one_left(x, num_bits=8):
        scale = np.abs(x).max() / (2 ** (num_bits - 1) - 1)
        return np.round(x / scale).astype(np.int8 if num_bits <= 8 else np.int16), scale

    assert examine(named(both)).diagnosis == "floor instead of round"
    assert examine(named(one_left)).diagnosis == "an all-zero tensor divides by zero"


def test_a_mistake_of_ones_own_gets_no_false_diagnosis():
    def shifted(x, num_bits=8):
        q, scale = right(x, num_bits)
        return np.clip(q + 3, -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1).astype(q.dtype), scale

    found = examine(named(shifted))
    assert not found.passed
    assert found.diagnosis is None


def test_what_a_function_prints_is_shown_with_the_first_failure(capsys):
    def chatty(x, num_bits=8):
        print("shape is", x.shape)
        return None

    found = examine(named(chatty))
    assert found.printed == "shape is (4,)\n"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("wrong", [None, 3, "quantize_symmetric", np.zeros(3), (np.zeros(3), 1.0)])
def test_check_wants_the_function_itself(wrong):
    with pytest.raises(TypeError, match=r"check takes the function itself, as in check\(quantize_symmetric\)"):
        check(wrong)


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(LookupError, match="did you mean quantize_symmetric?"):
        find(named(lambda x: x, "quantise_symetric"))


def test_or_reference_gives_ones_own_function_only_once_it_passes(capsys):
    passing, failing = named(right), named(floor)
    assert or_reference(passing) is passing
    assert capsys.readouterr().out == ""
    assert or_reference(failing) is EXERCISE.reference
    assert "uses the reference" in capsys.readouterr().out


def test_a_report_says_the_same_in_html_and_text_and_escapes_what_learners_write():
    def rude(x, num_bits=8):
        raise ValueError("<script>alert(1)</script>")

    shown = panel(examine(named(rude)))
    assert "<script>" not in shown.html
    assert "&lt;script&gt;" in shown.html
    assert "<script>alert(1)</script>" in shown.text


def test_summary_counts_the_cases():
    assert summary(examine(named(right))) == f"quantize_symmetric: all {len(EXERCISE.cases())} cases pass."


def test_an_input_that_is_not_contiguous_reaches_the_submission_so():
    seen = []

    def look(x, num_bits=8):
        seen.append(x.flags.c_contiguous)
        return right(x, num_bits)

    assert examine(named(look)).passed
    assert False in seen
