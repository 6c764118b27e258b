"""Predictions on a page: a question asks before the page shows what answers it.

The answer is folded, the code that computes it comes after, if it is needed below, and the output that follows is
folded too: it is mostly an explorer, whose numbers give the answer away.
"""

from __future__ import annotations

import ast
import html
import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from tools.build_course import PREDICT

PREDICTION = re.compile(r"Predict: (?P<question>.*) \(answer: (?P<answer>.*)\)", re.DOTALL)
TITLE = re.compile(r"^# @title (.*)\n", re.MULTILINE)
CODE = "Code of this question"
UNASKED = "A question that is asked where the notebook runs: this code holds the answer"
LOOK = "Guessed? Then look here"


def with_questions(cells: list[NotebookNode]) -> list[NotebookNode]:
    """A page's cells with each prediction as a question, and what is shown next folded."""
    page, guessing = [], False
    for cell in cells:
        if cell.cell_type == "code" and PREDICT.search(cell.source):
            page += question(cell)
            guessing = True
        elif guessing and cell.get("outputs"):
            page += [without_outputs(cell), shown(cell, cell.outputs, fold=LOOK)]
            guessing = False
        else:
            page.append(cell)
    return page


def question(cell: NotebookNode) -> list[NotebookNode]:
    """The question, and then the cell's code if it does more than ask. Only the code where no answer is stored."""
    asked = [ask(output) for output in cell.outputs if is_prediction(output)]
    code = titled(without_outputs(cell), CODE if asked else UNASKED)
    return [shown(cell, asked)] * bool(asked) + [code] * (defines(cell.source) or not asked)


def is_prediction(output: NotebookNode) -> bool:
    """Whether an output is a prediction, of which its text is stored."""
    return bool(PREDICTION.fullmatch(output.get("data", {}).get("text/plain", "")))


def ask(output: NotebookNode) -> NotebookNode:
    """The question of a prediction, and its answer folded; static/guess.js adds a field to type into."""
    prediction = PREDICTION.fullmatch(output.data["text/plain"])
    words, answer = (html.escape(prediction[name]) for name in ("question", "answer"))
    asks = f"<p><strong>Predict.</strong> {words}</p><details><summary>The answer</summary>{answer}</details>"
    return new_output("display_data", {"text/html": f'<div class="prediction" data-answer="{answer}">{asks}</div>'})


def defines(source: str) -> bool:
    """Whether code does more than ask.

    >>> defines('predict("How many?", 16)'), defines('codes = 16\\npredict("How many?", codes)')
    (False, True)
    """
    return any(not ast.unparse(statement).startswith("predict(") for statement in ast.parse(source).body)


def titled(cell: NotebookNode, title: str) -> NotebookNode:
    cell.source = TITLE.sub(f"# @title {title}\n", cell.source, count=1)
    return cell


def without_outputs(cell: NotebookNode) -> NotebookNode:
    return NotebookNode({**cell, "outputs": []})


def shown(cell: NotebookNode, outputs: list[NotebookNode], fold: str = "") -> NotebookNode:
    """A cell of outputs alone, folded under words if there are any. It keeps its code: myst-nb drops a cell without."""
    tags = ["remove-input", *(["hide-output"] if fold else [])]
    return new_code_cell(cell.source, outputs=outputs, metadata={"tags": tags, "mystnb": prompts(fold) if fold else {}})


def prompts(words: str) -> dict[str, str]:
    """What myst-nb writes on a fold."""
    return {"code_prompt_show": words, "code_prompt_hide": words}
