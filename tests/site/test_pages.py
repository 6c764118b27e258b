"""What becomes of links, notebooks and formulas, without building a site."""

import pytest
from math_core import LatexError
from nbformat.v4 import new_code_cell, new_output

from tools.build_course import source_url
from tools.site.exercises import escape
from tools.site.labs import lab_page, name_pictures
from tools.site.mathematics import in_pieces, italic, mathml
from tools.site.pages import stored, with_links

PAGES = dict.fromkeys(["index.md", "docs/teaching.md", "notebooks/01_fundamentals.ipynb", "solutions/index.md"])


@pytest.mark.parametrize(
    ("path", "link", "leads"),
    [
        ("index.md", "docs/teaching.md#make-it-your-own", "docs/teaching.md#make-it-your-own"),
        ("docs/teaching.md", "../README.md", "../index.md"),
        ("index.md", "solutions", "solutions/index.md"),
        ("notebooks/01_fundamentals.ipynb", "../docs/teaching.md", "../docs/teaching.md"),
        (
            "notebooks/01_fundamentals.ipynb",
            "02_asymmetric.ipynb",
            f"{source_url()}/blob/main/notebooks/02_asymmetric.ipynb",
        ),
        ("index.md", "LICENSE", f"{source_url()}/blob/main/LICENSE"),
        ("index.md", "pictures/check.png", "pictures/check.png"),
        ("index.md", "https://example.org", "https://example.org"),
        ("index.md", "#start", "#start"),
    ],
)
def test_a_link_leads_to_a_page_or_to_the_repository(path, link, leads):
    assert with_links(f"See [this]({link}) or `f(x)`.", path, PAGES) == f"See [this]({leads}) or `f(x)`."


def test_what_only_looks_like_a_link_stays():
    assert with_links("[bits](num_bits) `w[0](x)`", "index.md", PAGES) == "[bits](num_bits) `w[0](x)`"


def test_a_lab_and_a_solution_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="notebooks/01_fundamentals.ipynb .* run `make build` first"):
        lab_page("01_fundamentals", stored("notebooks", "01_fundamentals"), stored("solutions", "02_asymmetric"))


def test_a_cell_of_two_pictures_is_refused():
    pictures = [new_output("display_data", {"image/png": ""}, metadata={"image/png": {"alt": alt}}) for alt in "ab"]
    with pytest.raises(ValueError, match="one picture a cell.*'a', 'b'"):
        name_pictures(new_code_cell(outputs=pictures))


def test_a_formula_of_the_text_can_be_broken_after_relations_and_between_terms():
    pieces = in_pieces(mathml("a = b - c < (-1)")).split("</math><math>")
    assert [piece.count("<mi>") for piece in pieces] == [1, 1, 1, 0]
    assert in_pieces(mathml(r"\frac{a}{b}")) == mathml(r"\frac{a}{b}")


def test_what_is_not_tex_is_refused():
    with pytest.raises(LatexError):
        mathml(r"\nosuchcommand{x}")


def test_the_font_has_the_italic_of_single_letters():
    assert italic({"x", "h", "Δ", "σ", "1", "→"}) == {"𝑥", "ℎ", "𝛥", "𝜎"}


def test_a_cell_of_a_table_shows_what_was_written():
    assert escape("max|x|, a_b and [0, 1]") == r"max\|x\|, a\_b and \[0, 1\]"
