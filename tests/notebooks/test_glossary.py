"""A term is explained where it is first used: by its lab, or by a link to the glossary."""

import re
from pathlib import Path

import jupytext
import pytest

from tools import build_course

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^## (.+)\n\n((?:(?![#\[]).+\n)+)\[Lab (\d\d)\]\(\.\./notebooks/\3_\w+\.ipynb\)$", re.M)
ENTRIES = {term: (text, lab) for term, text, lab in ENTRY.findall(GLOSSARY)}
LINK = re.compile(r"\]\(\.\./docs/glossary\.md#([^)]*)\)")
NO_PROSE = re.compile(r"```.*?```|\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`|\]\([^)]*\)|<[^>]*>", re.S)


def slug(term):
    return term.lower().replace(" ", "-")


def markdown(path):
    cells = jupytext.read(path, fmt="py:percent").cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


TEXTS = {path.stem[:2]: markdown(path) for path in build_course.lessons()}
LINKS = {lab: LINK.findall(text) for lab, text in TEXTS.items()}


def uses(text, term):
    """Whether a text uses a term outside of code and formulas.

    >>> uses("Zero\\npoints, and `scale`.", "zero point"), uses("Zero\\npoints, and `scale`.", "scale")
    (True, False)
    """
    words = re.escape(term).replace(r"\ ", r"[\s-]").replace(r"\-", r"[\s-]")
    return bool(re.search(rf"(?<![\w-]){words}s?(?![\w-])", NO_PROSE.sub(" ", text), re.IGNORECASE))


def test_entries_are_in_order_and_each_has_two_sentences_and_a_lab():
    assert re.findall(r"^## (.+)$", GLOSSARY, re.M) == list(ENTRIES) == sorted(ENTRIES, key=str.lower)
    assert [term for term, (text, _) in ENTRIES.items() if len(re.findall(r"[.:]\s", text)) < 2] == []
    assert {lab for _, lab in ENTRIES.values()} <= TEXTS.keys()


def test_a_heading_with_capitals_has_an_anchor_without():
    """GitHub and the site make lower case of a heading's name, JupyterLab does not: links are in lower case."""
    anchors = [slug(term) for term in ENTRIES if term != term.lower()]
    assert re.findall(r'^<a id="(.*)"></a>\n\n## ', GLOSSARY, re.M) == anchors


@pytest.mark.parametrize("lab", TEXTS)
def test_a_link_leads_to_an_entry_and_is_made_once(lab):
    assert set(LINKS[lab]) <= {slug(term) for term in ENTRIES}
    assert len(set(LINKS[lab])) == len(LINKS[lab])


@pytest.mark.parametrize("term", ENTRIES)
def test_the_lab_that_introduces_a_term_links_it_and_so_does_one_that_uses_it_before(term):
    lab = ENTRIES[term][1]
    before = [earlier for earlier in TEXTS if earlier < lab and uses(TEXTS[earlier], term)]
    linked = {lab for lab, links in LINKS.items() if slug(term) in links}
    assert {lab, *before} - linked == set()
