"""A student's notebook runs from top to bottom with nothing done, on a machine where MiniLM cannot be had.

The browser tests run all labs undone, with MiniLM: here are those that would use it.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [
    path
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    if any("minilm" in cell.metadata.get("tags", []) for cell in nbformat.read(path, as_version=4).cells)
]
NO_MINILM = "from labutils.data import minilm\nminilm.PLACES = ()"


def run(notebook, folder):
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def shown(notebook):
    pieces = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            pieces.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
            assert output.get("name") != "stderr", output.text
    return "\n".join(pieces)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_undone_it_runs_to_its_end_and_says_so(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(NO_MINILM))
    text = shown(run(notebook, tmp_path))
    checks = sum(cell.source.startswith("check(") for cell in notebook.cells)
    assert checks and text.count(": not done yet.") == checks
    assert "uses the reference" in text
