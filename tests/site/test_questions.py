"""A page asks before it shows the answer."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from labutils import predict
from tools.site.questions import CODE, LOOK, UNASKED, defines, with_questions

ASKS = '# @title Guess first: this cell holds the answer\npredict("How many codes?", 16)'


def said(text):
    return new_output("display_data", {"text/plain": text})


def titles(cells):
    """How each cell is folded, or what it is."""
    return [cell.metadata.get("mystnb", {}).get("code_prompt_show") or cell.source.partition("\n")[0] for cell in cells]


@pytest.fixture
def asks():
    return new_code_cell(ASKS, outputs=[said(repr(predict("How many codes, < 20?", 16, "codes")))])


def test_a_question_is_a_box_without_code(asks):
    (box,) = with_questions([asks])
    assert box.metadata.tags == ["remove-input"]
    assert "How many codes, &lt; 20?</p><details>" in box.outputs[0].data["text/html"]
    assert 'data-answer="16 codes"' in box.outputs[0].data["text/html"]


def test_code_that_is_needed_below_comes_after_the_question(asks):
    asks.source = ASKS.replace("predict(", "codes = 16\npredict(")
    box, code = with_questions([asks])
    assert box.outputs and code.source.startswith(f"# @title {CODE}\ncodes = 16")
    assert code.outputs == []


def test_a_question_whose_answer_is_not_stored_is_folded_code_that_says_so(asks):
    asks.outputs = []
    (code,) = with_questions([asks])
    assert code.source.startswith(f"# @title {UNASKED}\n")


def test_what_is_shown_next_is_folded_once(asks):
    code = [
        new_code_cell(source, outputs=outputs)
        for source, outputs in (("a", []), ("b", [said("16")]), ("c", [said("1")]))
    ]
    page = with_questions([asks, asks, new_markdown_cell("Drag"), *code])
    assert titles(page) == ["# @title Guess first: this cell holds the answer"] * 2 + ["Drag", "a", "b", LOOK, "c"]
    assert page[4].outputs == [] and page[5].outputs == [said("16")]
    assert {"remove-input", "hide-output"} == set(page[5].metadata.tags)


def test_what_does_more_than_ask():
    assert not defines(ASKS)
    assert defines(f"from labutils import predict\n{ASKS}")
