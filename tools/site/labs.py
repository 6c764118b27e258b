"""A notebook as a page of the site: the lab, which holds no answer, and the solution.

Both are made from the solution, whose outputs are stored, and which has the cells of the student's notebook in the same
order, with the same ids. What differs is the exercises' cells.
"""

from __future__ import annotations

import copy
import re

from nbformat import NotebookNode

from tools.build_course import BEGIN, END, colab_url
from tools.site.questions import TITLE, prompts, with_questions

EXERCISE = re.compile(r"^(?=### Exercise.*`(\w+)`)", re.MULTILINE)
TITLE_CELL, LINKS_CELL, SETUP_CELL = range(3)  # what tools/build_course.py begins a notebook with


def lab_page(stem: str, student: NotebookNode, solution: NotebookNode) -> NotebookNode:
    """The student's notebook with the outputs of the solution, but for those of exercises and their checks.

    An exercise's heading gets a label, the name of its function. ValueError where the two have other cells.
    """
    if [cell.id for cell in student.cells] != [cell.id for cell in solution.cells]:
        raise ValueError(f"notebooks/{stem}.ipynb and the solution have other cells: run `make build` first")
    outputs = {cell.id: cell.get("outputs", []) for cell in solution.cells if not is_exercise(cell)}
    page = copy.deepcopy(student)
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = copy.deepcopy(outputs.get(cell.id, []))
        else:
            cell.source = EXERCISE.sub(r"(\1)=\n", cell.source)
    return dressed(page, links(stem, ("Open in Colab", "Download the notebook", "The solution"), "solutions"))


def solution_page(stem: str, solution: NotebookNode) -> NotebookNode:
    """The solution, named as one."""
    page = copy.deepcopy(solution)
    title = page.cells[TITLE_CELL]
    title.source = title.source.replace("# ", "# Solution of ", 1)
    for cell in page.cells:
        cell.source = re.sub(rf"^ *({BEGIN}|{END})\n?", "", cell.source, flags=re.MULTILINE)
    return dressed(page, links(stem, ("Open the lab in Colab", "Download the lab", "The lab"), "notebooks"))


def links(stem: str, texts: tuple[str, str, str], folder: str) -> str:
    """HTML of what can be done with a lab, and of the link to its other page, which is in `folder`."""
    targets = colab_url(stem), f"../notebooks/{stem}.ipynb", f"../{folder}/{stem}.html"
    items = "".join(f'<li><a href="{target}">{text}</a></li>' for text, target in zip(texts, targets))
    return f'<ul class="with-the-lab">{items}</ul>'


def is_exercise(cell: NotebookNode) -> bool:
    """Whether a learner writes this cell, or it is graded."""
    return "nbgrader" in cell.metadata


def dressed(page: NotebookNode, around: str) -> NotebookNode:
    """Give a page its links `around`, and its code cells what the site needs; no cell installs anything."""
    page.cells[LINKS_CELL].source = around
    del page.cells[SETUP_CELL]
    page.cells = with_questions(page.cells)
    for cell in page.cells:
        if cell.cell_type == "code":
            name_fold(cell)
            name_pictures(cell)
    return page


def name_fold(cell: NotebookNode) -> None:
    """Let a fold, which tools/build_course.py has made for a cell with a title, show the title's words."""
    title = TITLE.match(cell.source)
    if title and "hide-input" in cell.metadata.get("tags", []):
        cell.source = cell.source[title.end() :]
        cell.metadata["mystnb"] = prompts(title[1])


def name_pictures(cell: NotebookNode) -> None:
    """Give the picture of a cell the alternative text that was stored with it; ValueError where there are several."""
    texts = [output.metadata["image/png"]["alt"] for output in cell.outputs if "image/png" in output.get("data", {})]
    if len(texts) > 1:
        raise ValueError(f"draw one picture a cell, as myst-nb describes all with the same words, got {texts}")
    for text in texts:
        cell.metadata.setdefault("mystnb", {})["image"] = {"alt": text}
