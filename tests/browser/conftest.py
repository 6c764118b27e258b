"""A lab open in JupyterLab, in a real browser. In CI a missing browser is a failure, not a skip."""

import os
from pathlib import Path

import pytest

from tools.browser import find_browser, notebook_in_browser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lab(request):
    """The student's notebook that the test module names as NOTEBOOK, run from top to bottom."""
    if find_browser() is None and not os.environ.get("CI"):
        pytest.skip("no Chromium or Chrome on this machine")
    with notebook_in_browser(ROOT / "notebooks" / request.module.NOTEBOOK) as notebook:
        notebook.run_all()
        yield notebook
