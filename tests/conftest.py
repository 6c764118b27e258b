"""Shared by all tests: repeatable examples, a temporary progress folder, a browser, MiniLM, a broken slider."""

import os

import pytest
from hypothesis import settings

import labutils
from labutils.data import sentence_encoder
from labutils.data.minilm import MiniLMMissing

# No deadline, because machines differ in speed; derandomized, so that a rerun draws the same examples.
settings.register_profile("course", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("course")


QUICK = ("tests/test_", *(f"tests/{room}/" for room in labutils.ROOMS))


def pytest_collection_modifyitems(items):
    """Run notebooks, browsers and classrooms first, so that no worker is left with a slow test at the end."""
    items.sort(key=lambda item: item.nodeid.startswith(QUICK))


@pytest.fixture(autouse=True)
def own_progress(monkeypatch, tmp_path):
    """Keep progress in a temporary folder, not in the user's."""
    monkeypatch.setenv("LABUTILS_PROGRESS", str(tmp_path / "progress"))


@pytest.fixture(scope="session")
def chromium():
    """Skip the test where there is no browser, except on CI."""
    from tools.browser import find_browser  # most tests do without playwright

    if find_browser() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium or Chrome on this machine")


@pytest.fixture(scope="session")
def trained():
    """MiniLM with its trained weights, not to be changed. Where it is missing, the test is skipped, but fails on CI."""
    try:
        return sentence_encoder()
    except (MiniLMMissing, ImportError) as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture
def encoder(trained):
    """MiniLM with a model that the test may change."""
    return sentence_encoder()


@pytest.fixture
def outlives(monkeypatch):
    """outlives(explore, working, broken, sentence): asserts that an explorer survives a function that breaks.

    While the function is `broken`, the readout holds `sentence` and the picture is another one; when it is `working`
    again, the picture is as before. The slider `control` is moved by `step`; a function that is slow when it works
    needs a longer `time_limit`, in seconds.
    """

    def outlives(explore, working, broken, sentence, control="num_bits", step=1, time_limit=0.2):
        monkeypatch.setattr("labutils.course.explorer.TIME_LIMIT", time_limit)
        works = [True]

        def function(*args):
            return (working if works[0] else broken)(*args)

        explorer = explore(quantize=function)
        slider = explorer.controls[control]
        start, good = slider.value, explorer.picture.value
        works[0] = False
        slider.value = start + step
        assert sentence in explorer.readout.value
        assert explorer.picture.value != good
        works[0] = True
        slider.value = start
        assert explorer.picture.value == good

    return outlives
