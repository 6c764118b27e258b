"""Which files become pages, and where links between them lead.

Sphinx's source has the layout of the repository, so that a link from file to file is a link from page to page. A link
to a file that is no page leads to the repository.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.build_course import ROOT, heading, site_url, source_url
from tools.site.execution import explorers
from tools.site.exercises import exercises_page
from tools.site.labs import lab_page, solution_page

DOCUMENTS = (
    "docs/installing.md", "docs/course.md", "docs/teaching.md", "docs/glossary.md", "docs/measured.md",
    "CONTRIBUTING.md", "CHANGELOG.md",
)  # fmt: skip
ELSEWHERE = {"README.md": "index.md", "solutions": "solutions/index.md"}  # pages whose place is not that of the file
PICTURED = {"pictures/sentence.png": ("00_start_here", 0)}  # the README's picture: the explorer, by lab and place
LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?=(#[^)\s]*)?\))")
ANCHOR = re.compile(r'^<a id="[\w-]+"></a>\n', re.MULTILINE)  # for JupyterLab, whose headings have other names
SOLUTIONS = """\
# Solutions

Every lab solved and executed. Read one once you have tried: what you have found yourself stays.
"""


def write(source: Path, solutions: dict[str, NotebookNode]) -> None:
    """Write Sphinx's source to a folder: the labs that `solutions` holds by their names, and all other pages."""
    pages = dict(all_pages(solutions))
    for path, page in pages.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(page, str):
            (source / path).write_text(with_links(page, path, pages), encoding="utf-8")
        else:
            for cell in page.cells:
                if cell.cell_type == "markdown":
                    cell.source = with_links(cell.source, path, pages)
            nbformat.write(page, source / path)
    shutil.copytree(ROOT / "pictures", source / "pictures")


def all_pages(solutions: dict[str, NotebookNode]) -> Iterator[tuple[str, str | NotebookNode]]:
    """(path, Markdown or notebook) of every page."""
    students = {stem: stored("notebooks", stem) for stem in solutions}
    for stem, solution in solutions.items():
        yield f"notebooks/{stem}.ipynb", lab_page(stem, students[stem], solution)
        yield f"solutions/{stem}.ipynb", solution_page(stem, solution)
    for document in DOCUMENTS:
        yield document, ANCHOR.sub("", text_of(document))
    yield "exercises.md", exercises_page(students)
    labs = [f"{title(stem)} </notebooks/{stem}>" for stem in solutions]
    solved = [f"Solution of {title(stem)} </solutions/{stem}>" for stem in solutions]
    course = ["exercises", *(document.removesuffix(".md") for document in DOCUMENTS), "solutions/index"]
    yield "solutions/index.md", SOLUTIONS + contents(solved)
    yield "index.md", front(solutions) + contents(labs, "Labs") + contents(course, "The course")


def front(solutions: dict[str, NotebookNode]) -> str:
    """The README without the paragraph that leads here; where a picture shows an explorer that moves, that one."""
    paragraphs = [each for each in text_of("README.md").split("\n\n") if f"]({site_url()})" not in each]
    for picture, (stem, place) in PICTURED.items():
        moving = explorers(solutions[stem]) if stem in solutions else []
        if moving:
            paragraphs = [moving[place] if each.endswith(f"]({picture})") else each for each in paragraphs]
    return "\n\n".join(paragraphs)


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def stored(folder: str, stem: str) -> NotebookNode:
    """A notebook of the repository."""
    return nbformat.read(ROOT / folder / f"{stem}.ipynb", as_version=4)


def title(stem: str) -> str:
    """A lab's title up to its colon, such as 02 · Asymmetric."""
    return heading(ROOT / "lessons" / f"{stem}.py").partition(":")[0]


def contents(entries: list[str], caption: str = "") -> str:
    """Markdown of a list of pages, by which Sphinx orders them. With a caption only the side bar shows it."""
    options = [":hidden:", f":caption: {caption}"] if caption else [":maxdepth: 1"]
    return "\n".join(["", "```{toctree}", *options, "", *entries, "```", ""])


def with_links(text: str, path: str, pages: dict) -> str:
    """Markdown of the page at `path` with its links to files led to pages, or else to the repository."""
    here = posixpath.dirname(path)

    def lead(link: re.Match) -> str:
        linked = posixpath.normpath(posixpath.join(here, link["path"]))
        page = ELSEWHERE.get(linked, linked)
        if page in pages:
            return posixpath.relpath(page, here)
        is_file = (ROOT / linked).exists() and not linked.startswith("pictures/")
        return f"{source_url()}/blob/main/{linked}" if is_file else link[0]

    return LINK.sub(lead, text)
