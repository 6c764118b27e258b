"""Every granularity is one shape (R, G, K): nothing lost, nothing shared with a neighbour, nothing done twice."""

from unittest import mock

import array_api_compat
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from labutils.arrays import layout
from labutils.arrays.layout import Layout
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor

xp = array_api_compat.array_namespace(np.zeros(1))


@st.composite
def layouts(draw):
    """A shape and a granularity that fits it; groups may be longer than a row."""
    shape = draw(array_shapes(min_dims=0, max_dims=4, max_side=6))
    choices = [st.just(PerTensor())]
    if shape:
        choices += [st.integers(-len(shape), len(shape) - 1).map(PerAxis), st.integers(1, 8).map(PerGroup)]
    return shape, draw(st.one_of(choices))


def scale_index(index, granularity):
    """Which scale the element at `index` uses, straight from the definitions of the granularities."""
    if isinstance(granularity, PerTensor):
        return ()
    if isinstance(granularity, PerAxis):
        return (index[granularity.axis],)
    return (*index[:-1], index[-1] // granularity.group_size)


def numbered(shape):
    return np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape)


@pytest.mark.parametrize(
    "shape, granularity, rgk, scale_shape, pad",
    [
        ((), PerTensor(), (1, 1, 1), (), 0),
        ((2, 3, 5), PerTensor(), (1, 1, 30), (), 0),
        ((7,), PerAxis(0), (1, 7, 1), (7,), 0),
        ((2, 3, 5), PerAxis(0), (1, 2, 15), (2,), 0),
        ((2, 3, 5), PerAxis(1), (2, 3, 5), (3,), 0),
        ((2, 3, 5), PerAxis(-1), (6, 5, 1), (5,), 0),
        ((2, 8), PerGroup(4), (2, 2, 4), (2, 2), 0),
        ((2, 5), PerGroup(4), (2, 2, 4), (2, 2), 3),
        ((2, 5), PerGroup(1), (2, 5, 1), (2, 5), 0),
        ((2, 3, 5), PerGroup(1000), (6, 1, 5), (2, 3, 1), 0),
    ],
    ids=lambda value: repr(value).replace(" ", ""),
)
def test_the_view_that_the_definitions_say(shape, granularity, rgk, scale_shape, pad):
    found = Layout.of(shape, granularity)
    assert (found.rgk, found.scale_shape, found.pad) == (rgk, scale_shape, pad)


@given(layouts())
def test_going_to_the_view_and_back_loses_nothing(case):
    shape, granularity = case
    found, x = Layout.of(shape, granularity), numbered(shape)
    view = found.view(xp, x)
    assert view.shape == found.rgk
    assert np.array_equal(found.unview(xp, view), x)


@given(layouts())
def test_padding_is_zeros_and_no_more_than_completes_the_last_group(case):
    shape, granularity = case
    found = Layout.of(shape, granularity)
    view = found.view(xp, numbered(shape))
    assert 0 <= found.pad < found.rgk[2]
    assert np.count_nonzero(view) == np.prod(shape, dtype=int)


@given(layouts())
def test_an_element_of_the_view_meets_its_own_scale(case):
    shape, granularity = case
    found = Layout.of(shape, granularity)
    scales = numbered(found.scale_shape)
    met = found.unview(xp, np.broadcast_to(found.column(xp, scales, "scale"), found.rgk))
    for index in np.ndindex(shape):
        assert met[index] == scales[scale_index(index, granularity)]


@pytest.mark.parametrize("shape", [(), (3,), (4, 1), (2, 4)], ids=repr)
def test_scales_of_another_shape_are_refused(shape):
    found = Layout.of((4, 3), PerAxis(0))
    with pytest.raises(ValueError, match=r"scale must have shape \(4,\), got \(") as told:
        found.column(xp, np.ones(shape), "scale")
    assert str(told.value).endswith(str(shape))


@given(layouts(), st.integers(1, 9))
def test_tiles_cover_every_element_once_and_hold_no_more_than_the_cache(case, tile_size):
    shape, granularity = case
    found = Layout.of(shape, granularity)
    times = np.zeros(found.rgk, dtype=int)
    with mock.patch.object(layout, "TILE", tile_size):
        for tile, _ in found.tiles():
            assert 0 < times[tile].size <= tile_size
            times[tile] += 1
    assert np.all(times == 1)


@given(layouts(), st.integers(1, 9))
def test_a_tile_comes_with_the_scales_of_its_elements(case, tile_size):
    shape, granularity = case
    found = Layout.of(shape, granularity)
    scales = found.column(xp, numbered(found.scale_shape), "scale")
    met = np.zeros(found.rgk, dtype=int)
    with mock.patch.object(layout, "TILE", tile_size):
        for tile, shared in found.tiles():
            met[tile] = scales[shared]
    assert np.array_equal(met, np.broadcast_to(scales, found.rgk))


@given(layouts())
def test_an_accelerator_gets_one_tile(case):
    shape, granularity = case
    found = Layout.of(shape, granularity)
    with mock.patch.object(layout, "TILE", 1):
        [(tile, _)] = found.tiles(on_cpu=False)
    assert np.zeros(found.rgk)[tile].shape == found.rgk


@pytest.mark.parametrize("axis", [3, -4, 100], ids=repr)
def test_an_axis_that_is_not_there_is_named_with_those_that_are(axis):
    with pytest.raises(ValueError, match=rf"axis {axis} is not there: .*\(2, 3, 5\) has axes 0 to 2"):
        Layout.of((2, 3, 5), PerAxis(axis))


@pytest.mark.parametrize("granularity", [PerAxis(0), PerAxis(-1), PerGroup(4)], ids=repr)
def test_a_single_number_has_no_axes_to_share_scales_along(granularity):
    with pytest.raises(ValueError, match=r"needs at least one axis, got an array of shape \(\)"):
        Layout.of((), granularity)
