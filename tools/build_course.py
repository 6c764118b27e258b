"""Build the course: lessons/*.py -> notebooks/*.ipynb (for students) and solutions/*.ipynb (executed, with outputs).

    python tools/build_course.py            build everything
    python tools/build_course.py 01         build the lessons whose names begin with 01
    python tools/build_course.py --text 01  the same without executing: only text has changed, and outputs stay
    python tools/build_course.py --check    build nothing; exit 1 and list what is stale

A lesson is a jupytext py:percent file. The rest is derived: links and the Colab cell from the lesson's name and
pyproject.toml, nbgrader's metadata from the solution markers and the table of exercises, cell ids from the cells' text.
Building twice gives the same bytes.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import re
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from tqdm import tqdm

from labutils.data import trained
from labutils.labs.catalogue import EXERCISES

if TYPE_CHECKING:
    from nbclient import NotebookClient

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
VARIES = "nbval-ignore-output"  # tag of a cell whose output depends on the machine
PREDICT = re.compile(r"^predict\(", re.MULTILINE)
CHECK = re.compile(r"check\((\w+)\)")
KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", help="beginnings of lesson names, such as 01; all by default")
    parser.add_argument("--text", action="store_true", help="no code has changed: keep the outputs that are stored")
    parser.add_argument("--check", action="store_true", help="exit 1 and list what is stale; write nothing")
    parser.add_argument("--out", type=Path, default=ROOT, help="where notebooks/ and solutions/ are written")
    options = parser.parse_args()
    if options.check:
        stale = find_stale(ROOT)
        print("\n".join(stale) or "notebooks/ and solutions/ are in step with lessons/")
        return 1 if stale else 0
    for path in tqdm(chosen(options.only, parser), desc="lessons"):
        lesson, name = read(path), f"{path.stem}.ipynb"
        if options.text:
            solution = with_outputs_of(nbformat.read(ROOT / "solutions" / name, as_version=4), lesson, path)
        else:
            require_models(lesson, path)
            solution = executed(lesson)
        write(student_version(lesson), options.out / "notebooks" / name)
        write(solution, options.out / "solutions" / name)
    return 0


def lessons() -> list[Path]:
    return sorted((ROOT / "lessons").glob("[0-9][0-9]_*.py"))


def chosen(beginnings: list[str], parser: argparse.ArgumentParser) -> list[Path]:
    """The lessons whose names begin like one of `beginnings`, all if there are none.

    SystemExit, with the reason printed, where no lesson begins like one of them.
    """
    if strange := [each for each in beginnings if not any(path.stem.startswith(each) for path in lessons())]:
        parser.error(f"no lesson begins with {' or '.join(strange)}")
    return [path for path in lessons() if path.stem.startswith(tuple(beginnings) or "")]


def read(path: Path) -> NotebookNode:
    """Return a lesson as a notebook with solutions, links, metadata and stable cell ids, not yet executed."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(KERNEL)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    title, *rest = notebook.cells
    notebook.cells = [title, new_markdown_cell(links(path)), new_code_cell(setup()), *rest]
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        grade(cell, path)
        fold(cell)
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return notebook


def source_url() -> str:
    """The project's address: [project.urls] Source in pyproject.toml."""
    return urls()["Source"]


def site_url() -> str:
    """The web site's address: [project.urls] Documentation in pyproject.toml."""
    return urls()["Documentation"]


def urls() -> dict[str, str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]


def colab_url(stem: str) -> str:
    """Where Colab opens a student's notebook."""
    repository = source_url().removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{stem}.ipynb"


def links(path: Path) -> str:
    """Markdown of the Colab badge and of links to the lesson's page on the site, the previous and the next lesson."""
    badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab_url(path.stem)})"
    every = lessons()
    place = every.index(path)
    around = [badge, f"[Read on the web]({site_url()}/notebooks/{path.stem}.html)"]
    if place > 0:
        around.append(f"← [{heading(every[place - 1])}]({every[place - 1].stem}.ipynb)")
    if place + 1 < len(every):
        around.append(f"[{heading(every[place + 1])}]({every[place + 1].stem}.ipynb) →")
    return " &nbsp; ".join(around)


def heading(path: Path) -> str:
    """The title of a lesson: its first line that begins with '# # '."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# # ") for line in lines if line.startswith("# # "))


def setup() -> str:
    """Source of the first code cell, which installs the course on Colab, where relative links lead nowhere."""
    return (
        "# On Colab this installs the course's package; where it is installed already, it does nothing.\n"
        "from importlib.util import find_spec\n\n"
        'if find_spec("labutils") is None:\n'
        f'    %pip install -q "quantization-labs @ git+{source_url()}"\n'
        '    if find_spec("labutils") is None:\n'
        '        raise RuntimeError("It is not installed: that needs a network and git. See above for more.")\n'
        '    print("On Colab links to other labs and the glossary lead nowhere. See Read on the web, above.")'
    )


def grade(cell: NotebookNode, path: Path) -> None:
    """Add nbgrader's metadata to solution cells, which have the markers, and to graded cells, `check(...)`."""
    if cell.cell_type != "code":
        return
    name = points = None
    if BEGIN in cell.source:
        name = re.search(r"^(?:def|class) (\w+)", cell.source, re.MULTILINE)
        if not name:
            raise SystemExit(f"{path.name}: a solution cell defines no function or class:\n{cell.source}")
        name = name.group(1)
    elif checked := CHECK.fullmatch(cell.source.strip()):
        if checked.group(1) not in EXERCISES:
            raise SystemExit(f"{path.name}: check({checked.group(1)}), but there is no such exercise")
        name, points = f"check_{checked.group(1)}", EXERCISES[checked.group(1)].points
    if name:
        graded = points is not None
        cell.metadata.nbgrader = {
            "grade": graded, "grade_id": name, "locked": graded, "schema_version": 3, "solution": not graded,
            "task": False,
        } | ({"points": points} if graded else {})  # fmt: skip


def fold(cell: NotebookNode) -> None:
    """Fold the source of a code cell that has a title, and of a prediction, which contains the answer.

    It is folded in JupyterLab and Notebook ("jupyter"), in Colab ("cellView") and on the site ("hide-input").
    """
    title = cell.metadata.pop("title", None)
    if cell.cell_type != "code":
        return
    if PREDICT.search(cell.source):
        title = "Guess first: this cell holds the answer"
    if title:
        cell.source = f"# @title {title}\n{cell.source}"
        tags = [*cell.metadata.get("tags", []), "hide-input"]
        cell.metadata.update({"jupyter": {"source_hidden": True}, "cellView": "form", "tags": tags})


def student_version(lesson: NotebookNode) -> NotebookNode:
    """Return the lesson with nbgrader's stub in place of every solution, not executed."""
    from nbgrader.preprocessors import ClearSolutions

    notebook, _ = ClearSolutions().preprocess(copy.deepcopy(lesson), {})
    residue = [cell.source for cell in notebook.cells if "SOLUTION" in cell.source]
    if residue:
        raise SystemExit(f"a marker is left in the student's version:\n{residue[0]}")
    return notebook


def require_models(lesson: NotebookNode, path: Path) -> None:
    """SystemExit if a cell has a model's tag and the model is missing, as the solution needs its numbers."""
    for tag in trained.MODULES:
        tagged = any(tag in cell.metadata.get("tags", []) for cell in lesson.cells)
        if tagged and (missing := trained.why_missing(tag)):
            raise SystemExit(f"{path.name} has cells that need the trained {tag}: {missing}")


def executed(lesson: NotebookNode, client: type[NotebookClient] | None = None) -> NotebookNode:
    """Return the lesson with outputs. Of an explorer the picture is kept, and not the widget, which needs a kernel.

    client  what executes it, where more is to be done with the kernel's messages than to store them
    """
    from nbclient import NotebookClient

    notebook = copy.deepcopy(lesson)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LABUTILS_PROGRESS"] = str(Path(scratch) / "progress")
        (client or NotebookClient)(
            notebook,
            timeout=600,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": scratch}},
        ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise SystemExit(f"a solution cell writes to stderr:\n{cell.source}\n\n{output.text}")
            output.get("data", {}).pop(WIDGET_VIEW, None)
        if cell.cell_type == "code":
            cell.outputs = [] if VARIES in cell.metadata.get("tags", []) else joined(cell.outputs)
    notebook.metadata = nbformat.from_dict(KERNEL)
    return notebook


def with_outputs_of(solution: NotebookNode, lesson: NotebookNode, path: Path) -> NotebookNode:
    """Return the lesson with the outputs of a solution whose code is the same; SystemExit where it is another."""
    notebook = copy.deepcopy(lesson)
    now, before = ([cell for cell in n.cells if cell.cell_type == "code"] for n in (notebook, solution))
    for cell, stored in zip_longest(now, before):
        if cell is None or stored is None or cell.source != stored.source:
            raise SystemExit(f"{path.name}: code has changed, build it without --text:\n{(cell or stored).source}")
        cell.outputs, cell.execution_count = stored.outputs, stored.execution_count
    return notebook


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join consecutive pieces of printed text, which a kernel splits at random."""
    result: list[NotebookNode] = []
    for output in outputs:
        if result and output.output_type == "stream" and result[-1].get("name") == output.name:
            result[-1].text += output.text
        else:
            result.append(output)
    return result


def write(notebook: NotebookNode, path: Path) -> None:
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(notebook), encoding="utf-8")


def text_of(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook, indent=1, sort_keys=True).rstrip("\n") + "\n"


def find_stale(root: Path) -> list[str]:
    """List the built files that differ from their lesson, are missing, or have no lesson.

    Of solutions only the cells are compared; nbval tests their outputs.
    """
    stale = []
    built = {kind: {p.stem for p in (root / kind).glob("*.ipynb")} for kind in ("notebooks", "solutions")}
    names = {path.stem for path in lessons()}
    for kind, stems in built.items():
        stale += [f"{kind}/{stem}.ipynb: no lesson of this name" for stem in sorted(stems - names)]
        stale += [f"{kind}/{stem}.ipynb: not built" for stem in sorted(names - stems)]
    for path in lessons():
        lesson = read(path)
        if path.stem in built["notebooks"]:
            file = root / "notebooks" / f"{path.stem}.ipynb"
            if file.read_text(encoding="utf-8") != text_of(student_version(lesson)):
                stale.append(f"notebooks/{path.stem}.ipynb: differs from its lesson; run make build")
        if path.stem in built["solutions"]:
            solution = nbformat.read(root / "solutions" / f"{path.stem}.ipynb", as_version=4)
            if text_of(without_outputs(solution)) != text_of(lesson):
                stale.append(f"solutions/{path.stem}.ipynb: differs from its lesson; run make build")
    return stale


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


if __name__ == "__main__":
    sys.exit(main())
