"""A lab's file holds, of every state, the pixels and the words that the kernel shows, and is not too large."""

import numpy as np
import pytest

from labutils.course.exercise import Wrong
from labutils.course.shown import Shown
from tests.site.recorded_labs import EXPLORERS, data_of, lab, loaded, picture
from tools.site.pictures import pixels_of
from tools.site.script import NUMBERS, fitted, script
from tools.site.states import states


@pytest.mark.parametrize("number", EXPLORERS)
def test_a_state_is_pixel_for_pixel_and_word_for_word_what_the_kernel_shows(number):
    explorers, recorded = lab(number)
    data = data_of(number)
    for name, explorer in explorers.items():
        for index, state in enumerate(states(recorded[name].axes)):
            for control, value in state.items():
                explorer.controls[control].value = value
            np.testing.assert_array_equal(picture(data, name, index), pixels_of(explorer.picture.value), err_msg=name)
            shown = shown_of(data, name, index)
            assert shown.html() == explorer.readout.value
            assert shown.text(explorer.title) == repr(explorer)


def shown_of(data, name, index):
    """What a page says of a state."""
    _, _, kind, note, *cells = data["explorers"][name]["states"][index]
    texts = [data["strings"][place] for place in cells]
    note = data["strings"][note]
    if kind == NUMBERS:
        return Shown(b"", tuple(zip(texts[::2], texts[1::2])), note)
    return Shown(b"", wrong=Wrong(note))


def test_a_function_that_fails_is_shown_as_the_kernel_shows_it():
    kinds = [state[2] for state in data_of("01")["explorers"]["01-4"]["states"]]
    assert 0 < kinds.count(NUMBERS) < len(kinds)


def test_explorers_that_show_the_same_share_it():
    explorers = data_of("01")["explorers"]
    assert explorers["01-1"]["states"] == explorers["01-2"]["states"]
    assert explorers["01-1"]["states"] != explorers["01-3"]["states"]


def test_a_file_that_is_too_large_has_fewer_states_and_all_ends():
    _, recorded = lab("00")
    whole = script("00", recorded, 400)
    small = fitted("00", recorded, budget=len(whole) * 9 // 10)
    assert len(small) <= len(whole) * 9 // 10
    before, after = (loaded(text)["explorers"]["00-2"]["controls"][0]["texts"] for text in (whole, small))
    assert (before[0], before[-1]) == (after[0], after[-1])
    assert 2 < len(after) < len(before)


def test_a_budget_that_fits_nothing_leaves_what_must_stay():
    _, recorded = lab("00")
    assert loaded(fitted("00", recorded, budget=1))["explorers"]["00-2"]["states"]
