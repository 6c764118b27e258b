"""Embeddings that tests of the sentences and of the encoder share."""

import pytest

from labutils.data import calibration_sentences, questions


@pytest.fixture(scope="session")
def embedded(trained):
    """The trained encoder's embeddings of the questions, their answers, and the other sentences."""
    asked, answers = zip(*questions())
    texts = {"asked": asked, "answers": answers, "others": calibration_sentences()}
    return {kind: trained.encode(sentences) for kind, sentences in texts.items()}
