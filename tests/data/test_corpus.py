"""The questions can be told apart, each has an answer of its own, and what ranges are set on is kept apart."""

import numpy as np
import pytest

from labutils import retrieval_at_1
from labutils.data import calibration_sentences, questions

ASKED, ANSWERS = zip(*questions())
OTHERS = calibration_sentences()


def test_there_are_enough_of_them():
    assert len(ASKED) == 193 >= 150
    assert len(OTHERS) == 268 >= 256


def test_nothing_occurs_twice():
    everything = [" ".join(text.lower().split()) for text in (*ASKED, *ANSWERS, *OTHERS)]
    assert len(set(everything)) == len(everything)


def test_questions_ask_and_answers_state():
    assert all(question.endswith("?") for question in ASKED)
    assert all(text.endswith(".") for text in ANSWERS)
    assert all(text == " ".join(text.split()) for text in (*ASKED, *ANSWERS, *OTHERS))


def test_the_other_sentences_are_short_and_long():
    words = [len(text.split()) for text in OTHERS]
    assert min(words) <= 4 and max(words) >= 50
    assert np.percentile(words, 90) / np.percentile(words, 10) >= 2


def test_the_lists_are_the_readers_own():
    questions().clear()
    calibration_sentences().clear()
    assert questions() and calibration_sentences()


def test_the_trained_encoder_finds_most_answers_and_not_all(embedded):
    assert 0.75 < retrieval_at_1(embedded["asked"], embedded["answers"]) < 0.95


def test_answers_in_another_order_are_not_found(embedded):
    assert retrieval_at_1(embedded["asked"], np.roll(embedded["answers"], 1, axis=0)) < 0.05


def test_no_question_is_decided_by_float_rounding(embedded):
    similarity = np.sort(embedded["asked"] @ embedded["answers"].T, axis=1)
    assert (similarity[:, -1] - similarity[:, -2]).min() > 1e-4


def test_the_other_sentences_repeat_no_question_and_no_answer_in_other_words(embedded):
    for kind in ("asked", "answers"):
        assert (embedded["others"] @ embedded[kind].T).max() < 0.8


@pytest.mark.parametrize("kind", ["asked", "answers", "others"])
def test_no_two_say_the_same(embedded, kind):
    similarity = embedded[kind] @ embedded[kind].T
    np.fill_diagonal(similarity, 0)
    assert similarity.max() < 0.97
