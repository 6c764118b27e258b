"""The page that lists every exercise."""

from __future__ import annotations

import ast
import re

from nbformat import NotebookNode

from labutils.labs.catalogue import EXERCISES

HEADING = re.compile(
    r"^### Exercise[^`]*`(?P<name>\w+)` \((?P<minutes>\d+) minutes, (?P<difficulty>[●○]+)\)", re.MULTILINE
)
DIFFICULTY = {"●○○": "easy", "●●○": "medium", "●●●": "hard"}
INTRODUCTION = """\
# All exercises

A check runs what you write on many inputs. Where it fails, it looks for the mistake that explains your answers, among
those it knows. Stretch exercises are marked with +.
"""
HEAD = "| exercise | difficulty | minutes | points | known mistakes |\n|---|---|---:|---:|---:|"


def exercises_page(labs: dict[str, NotebookNode]) -> str:
    """Markdown of a table for each lab. `labs` are students' notebooks by their names, such as 01_fundamentals."""
    return "\n".join([INTRODUCTION, *(section(stem, lab) for stem, lab in labs.items())])


def section(stem: str, lab: NotebookNode) -> str:
    title = lab.cells[0].source.partition("\n")[0].removeprefix("# ")
    text = "\n".join(cell.source for cell in lab.cells)
    written = descriptions(lab)
    rows = [row(stem, heading, written[heading["name"]]) for heading in HEADING.finditer(text)]
    return "\n".join([f"## [{title}](notebooks/{stem}.ipynb)\n", HEAD, *rows, ""])


def row(stem: str, heading: re.Match, written: str) -> str:
    exercise = EXERCISES[heading["name"]]
    cells = (
        f"[`{exercise.name}`](#{exercise.name.lower()}){' +' * exercise.stretch}<br>{escape(written)}",
        DIFFICULTY[heading["difficulty"]],
        heading["minutes"],
        str(exercise.points),
        str(len(exercise.misconceptions)),
    )
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Text for a cell of a table, of which no sign is taken for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|$])", r"\\\1", text)


def descriptions(lab: NotebookNode) -> dict[str, str]:
    """First lines of the docstrings of what the exercises' cells define, by name."""
    found = {}
    for cell in lab.cells:
        if "nbgrader" in cell.metadata and cell.metadata.nbgrader.solution:
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    found[node.name] = ast.get_docstring(node).partition("\n")[0]
    return found
