"""Notebooks open in Jupyter, in a real browser.

A class of tests names its notebooks as LABS and the application as APPLICATION. One server and one browser serve all of
them, and each notebook is opened once and run once. No kernel finds a trained model, so that notebooks are quick, and
run as where none can be had: nbval runs the solutions with them.
"""

import pytest

from tools.browser import jupyter_in_browser

NO_MODELS = "from labutils.data import minilm, smollm2\nminilm.PLACES = smollm2.PLACES = ()"
# What Jupyter itself complains of, whatever notebook is open.
NOT_OURS = {
    "Cannot read properties of undefined (reading 'schema')",  # Notebook 7, while it loads its settings
}


def pytest_generate_tests(metafunc):
    if hasattr(metafunc.cls, "LABS"):
        metafunc.parametrize("opened", metafunc.cls.LABS, indirect=True, scope="class", ids=lambda path: path.stem)


@pytest.fixture(scope="class")
def jupyter(request, chromium):
    with jupyter_in_browser(request.cls.APPLICATION, startup=NO_MODELS, scale=1) as jupyter:
        yield jupyter


@pytest.fixture(scope="class")
def opened(request, jupyter):
    """A notebook that nobody has run yet."""
    with jupyter.open(request.param) as notebook:
        yield notebook


@pytest.fixture(scope="class")
def ran(opened):
    opened.run_all()
    return opened


@pytest.fixture
def lab(ran):
    """A notebook that has been run from top to bottom. After each test the browser must have nothing to complain of."""
    yield ran
    complaints = [text for text in ran.complaints if text not in NOT_OURS]
    ran.complaints.clear()
    assert not complaints
