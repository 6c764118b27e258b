"""For nbgrader: a copy of a check's or an exercise's cell in one submission does not stop the grading of a class.

A copied cell carries nbgrader's metadata along. `nbgrader autograde` empties that of all copies but the last, then
takes the emptied metadata for that of an old version, and ends: this student and all after are not graded. A line of
docs/nbgrader_config.py puts `release_copies` before nbgrader's own steps.
"""

from __future__ import annotations

from typing import Any


def release_copies(notebook: Any, resources: Any) -> tuple[Any, Any]:
    """Of cells with the same id the last one counts; the others become cells of the student's own.

    A preprocessor as nbconvert calls them. Returns the notebook, changed in place, and `resources`.
    """
    seen = set()
    for cell in reversed(notebook.cells):
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        if grade_id in seen:
            del cell.metadata["nbgrader"]
        elif grade_id is not None:
            seen.add(grade_id)
    return notebook, resources
