"""explore_sentence shows what a language model wrote, and needs no model for it."""

import pytest

from labutils import data, explore_sentence

BITS = (8, 4, 3, 2)


def at(num_bits):
    explorer = explore_sentence()
    explorer.controls["num_bits"].value = num_bits
    return explorer


@pytest.mark.parametrize("num_bits", BITS)
def test_readout_and_result_hold_the_stored_text(num_bits):
    explorer = at(num_bits)
    row = next(row for row in data.continuations()["continuations"] if row["bits"] == num_bits)
    assert explorer.result.text == row["text"]
    assert " ".join(row["text"].split()) in explorer.readout.value
    assert f"{row['megabytes']} MB" in explorer.readout.value


def test_each_bit_width_has_a_picture_of_its_own():
    assert len({at(num_bits).picture.value for num_bits in BITS}) == len(BITS)


def test_the_weights_take_what_their_bits_and_scales_take():
    """Each weight has num_bits bits and a 32nd of a 16-bit scale: half a bit more."""
    of_one_bit = at(8).result.megabytes / 8.5
    for num_bits in BITS:
        assert at(num_bits).result.megabytes == pytest.approx((num_bits + 0.5) * of_one_bit, abs=1)


def test_neither_torch_nor_a_model_is_needed(monkeypatch):
    monkeypatch.setattr("labutils.data.smollm2.PLACES", ())
    assert explore_sentence().result.num_bits == 8
