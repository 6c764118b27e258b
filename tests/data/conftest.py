"""MiniLM as a whole, for the tests that need it."""

import os

import pytest

from labutils.data import sentence_encoder
from labutils.data.minilm import MiniLMMissing


@pytest.fixture(scope="session")
def trained():
    """MiniLM with its trained weights: read only. Where it is missing, its tests are skipped; CI must not lack it."""
    try:
        return sentence_encoder()
    except (MiniLMMissing, ImportError) as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture
def encoder(trained):
    """One whose model may be changed."""
    return sentence_encoder()
