"""What all tests share: repeatable examples, a progress folder of their own, and MiniLM."""

import os

import pytest
from hypothesis import settings

import labutils
from labutils.data import sentence_encoder
from labutils.data.minilm import MiniLMMissing

# A slow machine is no failure, and a rerun draws the same examples.
settings.register_profile("course", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("course")


QUICK = ("tests/test_", *(f"tests/{room}/" for room in labutils.ROOMS))


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


@pytest.fixture
def outlives(monkeypatch):
    """outlives(explore, working, broken, sentence): a function that breaks while a slider moves is reported with
    `sentence`, shows no picture of what it did not compute, and works again as soon as it works again.

    `control` is the slider, moved by `step`; what takes long when it works needs a longer `time_limit`, in seconds.
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
