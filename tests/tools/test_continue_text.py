"""The stored continuations are those of lab 12's explorer."""

import pytest

pytest.importorskip("transformers")

from labutils.data import continuations
from tools.continue_text import BITS, measured


def test_what_is_stored_is_what_the_model_says_today(language):
    stored, bits = continuations(), (8, 3)
    now = measured(language, bits)
    if stored["model"] != now["model"]:
        pytest.skip(f"stored of {stored['model']}, and here is {now['model']}")
    rows = {row["bits"]: row for row in stored["continuations"]}
    for name in ("prompt", "new_tokens", "perplexity_of_tokens", "group_size"):
        assert stored[name] == now[name]
    for old, new in ((stored["float"], now["float"]), *zip((rows[b] for b in bits), now["continuations"])):
        assert new["text"] == old["text"]
        assert new["perplexity"] == pytest.approx(old["perplexity"], rel=0.01)  # of three digits


def test_the_text_gets_worse_with_every_bit_that_is_lost():
    stored = continuations()
    perplexities = [stored["float"]["perplexity"], *(row["perplexity"] for row in stored["continuations"])]
    assert perplexities == sorted(perplexities)
    assert [row["bits"] for row in stored["continuations"]] == list(BITS)
