"""Links in README and notebooks lead to something that is there. Addresses elsewhere are only looked at, not opened."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from markdown_it import MarkdownIt

from tools import build_course

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = [*DOCUMENTS, *sorted(ROOT.glob("notebooks/*.ipynb")), *sorted(ROOT.glob("solutions/*.ipynb"))]
MARKDOWN = MarkdownIt("commonmark").enable("table")
IN_HTML = re.compile(r"""<\w+[^>]*?\s(?:href|src)\s*=\s*["']?([^"'\s>]+)""")


def markdown_of(page):
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    cells = nbformat.read(page, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def inline_of(text):
    """Every piece of running text, with links and emphasis, however deep it lies."""
    for token in MARKDOWN.parse(text):
        yield from token.children or []
        if token.type == "html_block":
            yield token


def targets(text):
    """Where links and pictures lead.

    >>> targets("[a](b.md) ![c](d.png 'e') <a href='f'>g</a> `[h](i)`")
    ['b.md', 'd.png', 'f']
    """
    found = []
    for token in inline_of(text):
        found += [token.attrs[name] for name in ("href", "src") if name in token.attrs]
        if token.type.startswith("html"):
            found += IN_HTML.findall(token.content)
    return found


def anchors(text):
    """The names that headings can be linked by: GitHub's are in lower case, JupyterLab's keep theirs."""
    parsed = MARKDOWN.parse(text)
    opened = [i for i, token in enumerate(parsed) if token.type == "heading_open"]
    titles = ["".join(token.content for token in parsed[i + 1].children) for i in opened]
    plain = [re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles]
    return {name.lower() for name in plain} | {title.replace(" ", "-") for title in titles}


def problem_with(target, page):
    """What is wrong with a link on a page, or nothing."""
    address = urlsplit(target)
    if address.scheme:
        return "" if address.scheme == "https" and "." in address.netloc else "neither a file nor an https address"
    linked = (page.parent / unquote(address.path)).resolve() if address.path else page
    if not linked.is_relative_to(ROOT) or not linked.exists():
        return "not there"
    if address.fragment and unquote(address.fragment) not in anchors(markdown_of(linked)):
        return "no heading of that name"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    found = targets(markdown_of(page))
    assert found or page in DOCUMENTS
    assert {target: problem for target in found if (problem := problem_with(target, page))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_colab_badges_open_notebooks_of_this_project(page):
    prefix = f"https://colab.research.google.com/github/{urlsplit(build_course.source_url()).path[1:]}/blob/main/"
    badges = [target for target in targets(markdown_of(page)) if "colab.research.google.com/github" in target]
    for badge in badges:
        assert badge.startswith(prefix)
        assert (ROOT / badge.removeprefix(prefix)).exists()
    assert len(badges) == (page.suffix == ".ipynb")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_say_what_they_are(page):
    """ "Here" and an empty text tell a screen reader nothing."""
    for token in inline_of(markdown_of(page)):
        if token.type == "image":
            assert len(token.content) > 10
    for text in re.findall(r"(?<!!)\[([^\]]*)\]\(", markdown_of(page)):
        assert text.strip().lower() not in {"", "here", "this", "link", "click here"}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("LICENSE", ""),
        ("docs/teaching.md#make-it-your-own", ""),
        ("#learn", ""),
        ("https://arxiv.org/abs/1902.08153", ""),
        ("notebooks/99_gone.ipynb", "not there"),
        ("../elsewhere.md", "not there"),
        ("#laern", "no heading of that name"),
        ("http://arxiv.org/abs/1902.08153", "neither a file nor an https address"),
        ("https://nowhere", "neither a file nor an https address"),
    ],
)
def test_what_leads_nowhere_is_found(target, problem):
    assert problem_with(target, ROOT / "README.md") == problem


def test_links_are_found_wherever_they_stand():
    markdown = ["# [a](1)", "- ![b](2)", "| [c](3) |\n|---|"]
    html = ["<details>\n<a href='4'>d</a>\n</details>", "<img src=5> `[e](6)`"]
    assert targets("\n\n".join(markdown + html)) == ["1", "2", "3", "4", "5"]
