"""What all tests share: repeatable examples, and a progress file of their own."""

import pytest
from hypothesis import settings

# A slow machine is no failure, and a rerun draws the same examples.
settings.register_profile("course", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("course")


@pytest.fixture(autouse=True)
def own_progress(monkeypatch, tmp_path):
    """No test touches what the user has passed."""
    monkeypatch.setenv("LABUTILS_PROGRESS", str(tmp_path / "progress.json"))
