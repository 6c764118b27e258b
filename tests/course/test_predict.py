"""A prediction reveals its answer after a guess, and only then."""

import pytest

from labutils import predict


def test_nothing_is_revealed_before_a_guess():
    prediction = predict("How many codes has a 4-bit grid?", 16)
    assert prediction.reply.value == ""


@pytest.mark.parametrize(
    ("guess", "reply"),
    [
        ("16", "You guessed 16. The answer is 16 codes: right."),
        ("15.5", "right"),
        ("12", "you were 4 codes below"),
        ("20", "you were 4 codes above"),
        ("16 codes", "right"),
        ("12,5", "You guessed 12.5"),
        (" 1e1 ", "You guessed 10"),
    ],
)
def test_a_guess_gets_the_answer_and_how_far_off_it_was(guess, reply):
    shown = predict("How many codes has a 4-bit grid?", 16, unit="codes").guess(guess)
    assert reply.replace("You guessed 16.", "You guessed 16 codes.") in shown


@pytest.mark.parametrize("typed", ["", "  ", "many", "nan", "inf", "1/0", "<b>", "16 16"])
def test_what_is_no_number_reveals_nothing(typed):
    prediction = predict("How many codes has a 4-bit grid?", 16)
    assert "16:" not in prediction.guess(typed)
    assert "The answer" not in prediction.reply.value
    assert "<b>" not in prediction.reply.value


def test_enter_and_button_guess_alike():
    by_enter, by_button = (predict("How many?", 16) for _ in range(2))
    by_enter.entry.value = "10"
    assert "you were 6 below" in by_enter.reply.value
    with by_button.entry.hold_trait_notifications():
        by_button.entry.value = "10"
    by_button.button.click()
    assert by_button.reply.value == by_enter.reply.value


@pytest.mark.parametrize(
    "arguments", [("", 1), (None, 1), ("q", "1"), ("q", float("nan")), ("q", None), ("q", True), ("q", 1, "", -1.0)]
)
def test_a_question_that_cannot_be_answered_is_refused(arguments):
    with pytest.raises((TypeError, ValueError)):
        predict(*arguments)


def test_an_answer_of_zero_has_room_only_if_it_is_given():
    assert "below" in predict("?!", 0).guess("-0.1")
    assert "right" in predict("?!", 0, tolerance=0.2).guess("-0.1")
