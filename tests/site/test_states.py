"""States are enumerated as the controls have them, and thinned out evenly, never without ends, starts and buttons."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils import explore_bits, explore_digit
from labutils.course.controls import Choice, Notches, Slider
from tools.site.states import axes_of, states, thinned


@st.composite
def sliders(draw):
    low, steps = draw(st.integers(-5, 5)), draw(st.integers(1, 120))
    step = draw(st.sampled_from([1, 2, 0.05, 0.1, 0.5]))
    start = low + draw(st.integers(0, steps)) * step
    rounded = start if isinstance(step, int) else round(start, 10)
    return Slider("slider", low, low + steps * step, rounded, step)


@st.composite
def rows(draw, kind):
    options = tuple(draw(st.lists(st.text("abcdef", min_size=1), min_size=2, max_size=6, unique=True)))
    return kind(kind.__name__, options, draw(st.sampled_from(options)))


controls = st.one_of(sliders(), rows(Notches), rows(Choice))
several = st.dictionaries(st.sampled_from(["a", "b", "c"]), controls, min_size=1)


@given(several, st.integers(1, 500))
def test_ends_starts_and_buttons_stay(several, limit):
    every = axes_of(several)
    for name, axis in thinned(every, limit).items():
        full = every[name].values
        assert {full[0], full[-1], several[name].start} <= set(axis.values)
        assert axis.values[axis.start] == several[name].start
        assert list(axis.values) == [value for value in full if value in axis.values], "in order"
        if isinstance(several[name], Choice):
            assert axis.values == full


@given(several, st.integers(1, 500))
def test_there_are_no_more_states_than_the_limit_unless_fewer_are_impossible(several, limit):
    few = thinned(every := axes_of(several), limit)
    count = math.prod(len(axis.values) for axis in few.values())
    assert count == len(list(states(few)))
    assert count <= limit or all(len(axis.values) == every[name].fewest for name, axis in few.items())
    if math.prod(len(axis.values) for axis in every.values()) <= limit:
        assert few == every


@given(sliders(), st.integers(3, 100))
def test_gaps_differ_by_at_most_a_step_on_either_side_of_the_start(slider, count):
    full = axes_of({"a": slider})["a"]
    few = full.thinned(max(full.fewest, min(count, len(full.values))))
    assert len(few.values) == max(full.fewest, min(count, len(full.values)))
    places = [full.values.index(value) for value in few.values]
    for side in ([p for p in places if p <= full.start], [p for p in places if p >= full.start]):
        gaps = [after - before for before, after in pairwise(side)]
        assert not gaps or max(gaps) - min(gaps) <= 1


def test_the_longest_slider_is_thinned_first():
    axes = axes_of({"num_bits": Slider("bits", 2, 8, 4), "clip": Slider("clip", 0.05, 1.0, 1.0, 0.01)})
    assert [len(axis.values) for axis in thinned(axes, 70).values()] == [7, 10]
    assert [len(axis.values) for axis in thinned(axes, 35).values()] == [5, 6]


@pytest.mark.parametrize("explore", [lambda: explore_bits(np.float32([1, -2, 3])), lambda: explore_digit(7)])
def test_values_and_their_texts_are_the_widgets(explore):
    explorer = explore()
    for name, axis in axes_of(explorer.sliders()).items():
        control = explorer.controls[name]
        assert (axis.values[0], axis.values[-1], axis.values[axis.start]) == (control.min, control.max, control.value)
        for value, text in zip(axis.values, axis.texts):
            control.value = value
            assert control.value == value
            assert text == format(value, control.readout_format)
