"""What all tests share: repeatable examples, a progress folder of their own, and MiniLM."""

import os

import pytest
from hypothesis import settings

from labutils.data import sentence_encoder
from labutils.data.minilm import MiniLMMissing

# A slow machine is no failure, and a rerun draws the same examples.
settings.register_profile("course", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("course")


QUICK = ("tests/test_", "tests/checks/", "tests/data/", "tests/explore/")


def pytest_collection_modifyitems(items):
    """Notebooks, browsers and classrooms go first: then no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.nodeid.startswith(QUICK))


@pytest.fixture(autouse=True)
def own_progress(monkeypatch, tmp_path):
    """No test touches what the user has passed."""
    monkeypatch.setenv("LABUTILS_PROGRESS", str(tmp_path / "progress"))


@pytest.fixture(scope="session")
def chromium():
    """A browser. Where there is none, its tests are skipped; CI must not lack it."""
    from tools.browser import find_browser  # most tests do without playwright

    if find_browser() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium or Chrome on this machine")


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
