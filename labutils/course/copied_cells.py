"""For nbgrader: a copy of a check's or an exercise's cell in one submission does not stop the grading of a class.

A copied cell carries nbgrader's metadata along. `nbgrader autograde` empties that of all copies but the last, then
takes the emptied metadata for that of an old version, and ends: this student and all after are not graded. One line in
nbgrader_config.py, see docs/teaching.md, puts `CopiedCells` before nbgrader's own steps.
"""

from __future__ import annotations

from typing import Any

from nbformat import NotebookNode
from nbgrader.preprocessors import DeduplicateIds


class CopiedCells(DeduplicateIds):
    """Of cells with the same id the last one counts; the others become cells of the student's own."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """The notebook without nbgrader's metadata on copies."""
        nb, resources = super().preprocess(nb, resources)
        for cell in nb.cells:
            if cell.metadata.get("nbgrader") == {}:
                del cell.metadata["nbgrader"]
        return nb, resources
