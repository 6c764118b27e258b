"""An explorer that is displayed is recorded once, and shown as HTML that says the first state without a script."""

import re

import pytest

from labutils import explore_digit
from tests.site.recorded_labs import loaded
from tools.site.recording import LIMITS, Recording, affordable
from tools.site.script import BYTES


@pytest.fixture
def recording(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.site.recording._tell", lambda what, done, total: None)
    return Recording("00", tmp_path / "states", seconds=0)


def test_a_page_without_scripts_has_the_first_picture_and_its_words(recording):
    explorer = explore_digit(7)
    data, _ = recording.display(explorer)
    assert 'data-explorer="00-1"' in data["text/html"]
    assert data["text/plain"] == repr(explorer)
    assert f'alt="{explorer!r}"' in data["text/html"]
    for name, value in explorer.describe(explorer.result):
        assert f"<small>{name}</small> <b>{value}</b>" in data["text/html"]


def test_an_explorer_shown_twice_is_recorded_once(recording):
    explorer = explore_digit(7)
    names = [re.search('data-explorer="(.*?)"', recording.display(each)[0]["text/html"])[1] for each in
             (explorer, explorer, explore_digit(7))]  # fmt: skip
    assert names == ["00-1", "00-1", "00-2"]
    recording.write()
    text = (recording.folder / "00_states.js").read_text()
    assert text.startswith('explorerStates("00", {')
    assert list(loaded(text)["explorers"]) == ["00-1", "00-2"]


def test_a_lab_without_explorers_has_no_file(recording):
    recording.write()
    assert not recording.folder.exists()


def test_displaying_leaves_the_explorer_where_it_was(recording):
    explorer = explore_digit(7)
    explorer.controls["num_bits"].value = 3
    before = explorer.picture.value, explorer.result
    recording.display(explorer)
    assert (explorer.picture.value, explorer.result) == before


def test_what_is_slow_gets_fewer_states():
    assert [affordable(cost, 40) for cost in (0.01, 0.3, 1.2, 30)] == [LIMITS[-1], 128, 32, LIMITS[0]]
    assert BYTES <= 3 * 2**20
