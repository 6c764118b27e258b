"""Execute a solution for the site: explorers become HTML, and their states a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from tqdm import tqdm

from tools.build_course import ROOT, VARIES, executed, read, require_models
from tools.site.questions import is_prediction
from tools.site.recording import PROGRESS, SECONDS
from tools.site.script import BYTES


def site_notebook(stem: str, folder: Path, seconds: float = SECONDS, budget: int = BYTES) -> NotebookNode:
    """Return the solution of a lesson, such as "01_fundamentals", executed, with explorers as HTML.

    Their states are written to `folder`, as 01_states.js: up to `budget` bytes, computed in up to `seconds`
    an explorer. SystemExit where a model is missing that the lesson needs.
    """
    path = ROOT / "lessons" / f"{stem}.py"
    lesson = read(path)
    require_models(lesson, path)
    with_explorers_kept = _untagged(lesson)
    first, last = (
        new_code_cell(beginning(stem[:2], folder, {"seconds": seconds, "budget": budget})),
        new_code_cell("_recording.write()"),
    )
    lesson.cells = [first, *lesson.cells, last]
    with tqdm(desc=stem) as bar:
        solution = executed(lesson, watched(stem, bar))
    solution.cells = solution.cells[1:-1]
    for cell in solution.cells:
        if cell.id in with_explorers_kept:
            cell.metadata.setdefault("tags", []).append(VARIES)
            cell.outputs = [output for output in cell.outputs if is_explorer(output) or is_prediction(output)]
    return solution


def explorers(solution: NotebookNode) -> list[str]:
    """HTML of each explorer in an executed solution; none in one whose explorers are stored as pictures."""
    outputs = [output for cell in solution.cells for output in cell.get("outputs", [])]
    return [output.data["text/html"] for output in outputs if is_explorer(output)]


def is_explorer(output: NotebookNode) -> bool:
    """Whether an output is an explorer, as HTML."""
    return 'class="explorer"' in output.get("data", {}).get("text/html", "")


def _untagged(lesson: NotebookNode) -> set[str]:
    """Take the tag from the cells whose outputs are not stored; return the cells' ids. Explorers and questions stay."""
    varying = [cell for cell in lesson.cells if VARIES in cell.metadata.get("tags", [])]
    for cell in varying:
        cell.metadata.tags.remove(VARIES)
    return {cell.id for cell in varying}


def watched(stem: str, bar: tqdm) -> type[NotebookClient]:
    """A client that shows how far the kernel is with the states of an explorer."""

    class Watched(NotebookClient):
        def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> NotebookNode | None:
            said = msg["content"].get("data", {}).get(PROGRESS)
            if said is None:
                return super().process_message(msg, cell, cell_index)
            if bar.total != said["total"] or bar.n > said["done"]:
                bar.reset(said["total"])
            bar.set_description(f"{stem}: {said['what']}", refresh=False)
            bar.update(said["done"] - bar.n)
            return None

    return Watched


def beginning(lab: str, folder: Path, options: dict[str, Any]) -> str:
    """Source of a cell that makes the kernel record explorers."""
    return (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from tools.site import recording\n"
        f"_recording = recording.start({lab!r}, {str(folder.resolve())!r}, **{options!r})"
    )
