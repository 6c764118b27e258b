"""A misconception that a learner could not read, or that gives the code away, cannot be made."""

import pytest

from labutils.course.exercise import Misconception

NAME, HINT = "floor instead of round", "`np.floor` always goes down. Go to the nearest integer."


def test_a_name_and_sentences_are_accepted():
    assert Misconception(NAME, len, HINT).hint == HINT


def test_a_hint_about_the_order_of_returned_values_states_the_contract():
    hint = "The contract is `return q, scale`: codes first."
    assert Misconception("returns scale and codes in the wrong order", len, hint).hint == hint


@pytest.mark.parametrize(
    ("name", "hint", "complaint"),
    [
        ("", HINT, "a few words"),
        ("floor instead of round.", HINT, "a few words without a full stop"),
        ("floor:", HINT, "a few words"),
        (NAME, "", "must be sentences"),
        (NAME, "Go to the nearest integer", "must be sentences"),
        (NAME, "Go to the\nnearest integer.", "on one line"),
        (NAME, "Write `return np.round(x / scale)`.", "must not give the code"),
    ],
)
def test_what_a_learner_could_not_use_is_refused(name, hint, complaint):
    with pytest.raises(ValueError, match=complaint):
        Misconception(name, len, hint)
