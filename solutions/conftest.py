"""For nbval: numbers that come from MiniLM's weights are compared only where these weights are.

Cells tagged `minilm` are run everywhere. Where MiniLM is missing, the digits network stands in, and what they print is
not what is stored. What the solutions pass is nobody's progress.
"""

import os
import tempfile
from pathlib import Path

from labutils.course import progress
from labutils.data import minilm


def pytest_configure(config):
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ[progress.VARIABLE] = str(Path(folder.name) / "progress")


def pytest_collection_modifyitems(items):
    tagged = [item for item in items if "minilm" in _tags(item)]
    if tagged and not _is_here():
        print(f"\nMiniLM is missing: {len(tagged)} cells are run, and not compared")
        for item in tagged:
            item.options["check"] = False


def _tags(item):
    return item.cell.metadata.get("tags", []) if hasattr(item, "cell") else []


def _is_here():
    try:
        minilm.find()
    except minilm.MiniLMMissing:
        return False
    return True
