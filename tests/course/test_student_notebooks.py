"""A student's notebook runs from top to bottom with nothing done, with everything done, and where torch is missing."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NO_TORCH = """
import sys
class _NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is not installed here")
sys.meta_path.insert(0, _NoTorch())
"""


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
    text = shown(run(notebook, tmp_path))
    checks = sum(cell.source.startswith("check(") for cell in notebook.cells)
    assert checks and text.count(": not done yet.") == checks
    assert "uses the reference" in text


@pytest.mark.parametrize("path", NOTEBOOKS[:5], ids=lambda path: path.stem)
def test_labs_00_to_04_run_where_torch_is_not_installed(path, tmp_path):
    solution = nbformat.read(ROOT / "solutions" / path.name, as_version=4)
    solution.cells.insert(0, nbformat.v4.new_code_cell(NO_TORCH))
    text = shown(run(solution, tmp_path))
    assert re.search(r"all \d+ cases pass", text)
    assert "not done yet" not in text
