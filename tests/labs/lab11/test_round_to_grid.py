"""round_to_grid: as ml_dtypes casts where it does not overflow, nearest, saturating, odd."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.grids import E2M1, E3M2, E4M3, E5M2
from labutils.labs.answers import round_to_grid
from labutils.labs.lab11.round_to_grid import right
from tests.labs.right_answers import passes

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.filterwarnings("error")

ORACLES = {
    "E2M1": (E2M1, ml_dtypes.float4_e2m1fn),
    "E3M2": (E3M2, ml_dtypes.float6_e3m2fn),
    "E4M3": (E4M3, ml_dtypes.float8_e4m3fn),
    "E5M2": (E5M2, ml_dtypes.float8_e5m2),
}


@pytest.mark.parametrize("grid, oracle", ORACLES.values(), ids=ORACLES)
def test_numbers_and_the_middles_between_them_go_where_an_independent_cast_sends_them(grid, oracle):
    levels = grid.ascending
    x = np.concatenate([levels, (levels[1:] + levels[:-1]) / 2, levels * 0.999, np.minimum(levels * 1.001, levels[-1])])
    x = np.concatenate([x, -x]).astype(np.float32)
    assert np.array_equal(round_to_grid(x, levels), x.astype(oracle).astype(np.float64))


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30))
def test_no_level_is_nearer(values):
    x, levels = np.array(values), E4M3.ascending
    both = np.concatenate([-levels[::-1], levels])
    off = np.abs(x - round_to_grid(x, levels))
    assert np.all(off <= np.abs(x[:, None] - both).min(axis=1))


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30))
def test_it_is_odd_and_leaves_its_own_results_alone(values):
    x, levels = np.array(values), E2M1.ascending
    once = round_to_grid(x, levels)
    assert np.array_equal(round_to_grid(-x, levels), -once)
    assert np.array_equal(round_to_grid(once, levels), once)


def test_ties_do_not_push_the_mean():
    levels = E4M3.ascending
    middles = (levels[1:] + levels[:-1]) / 2
    ups = round_to_grid(middles, levels) > middles
    assert abs(ups.sum() - len(middles) / 2) <= 1


# Right answers, however they are written.


def by_distance(x, levels):
    distance = np.abs(np.abs(x)[..., None].astype(np.float64) - levels)
    least = distance.min(axis=-1, keepdims=True)
    tie = (distance == least).sum(axis=-1) == 2
    first = distance.argmin(axis=-1)
    code = np.where(tie & (first % 2 == 1), first + 1, first)
    return np.sign(x) * levels[code]


def value_by_value(x, levels):
    result = np.zeros(x.shape)
    for index, value in np.ndenumerate(x):
        size = min(abs(float(value)), float(levels[-1]))
        below = max(k for k, level in enumerate(levels) if level <= size)
        above = min(below + 1, len(levels) - 1)
        down, up = size - levels[below], levels[above] - size
        code = below if down < up or (down == up and below % 2 == 0) else above
        result[index] = levels[code] if value >= 0 else -levels[code]
    return result


def between_neighbours(x, levels):
    size = np.minimum(np.abs(x), levels[-1]).astype(np.float64)
    upper = np.clip(np.searchsorted(levels, size), 1, len(levels) - 1)
    lower = upper - 1
    to_lower, to_upper = size - levels[lower], levels[upper] - size
    code = np.where(to_lower < to_upper, lower, upper)
    code = np.where(to_lower == to_upper, np.where(lower % 2 == 0, lower, upper), code)
    return np.where(x < 0, -levels[code], levels[code])


def even_borders_are_closed(x, levels):
    """The borders of odd codes lie a hair nearer to them."""
    middles = (levels[1:] + levels[:-1]) / 2
    even = np.arange(len(middles)) % 2 == 0
    middles = np.where(even, np.nextafter(middles, np.inf), middles)
    code = np.searchsorted(middles, np.abs(x).astype(np.float64), side="right")
    return np.copysign(levels[code], x)


def in_torch(x, levels):
    import torch

    t = torch.from_numpy(np.ascontiguousarray(x)).double()
    table = torch.from_numpy(np.asarray(levels, np.float64))
    middles = (table[1:] + table[:-1]) / 2
    code = torch.bucketize(t.abs(), middles)
    tie = torch.isin(t.abs(), middles)
    code = code + (tie & (code % 2 == 1)).long()
    return torch.sign(t) * table[code]


def in_float32(x, levels):
    levels = np.asarray(levels, np.float32)
    x = np.asarray(x, np.float64)
    middles = (levels[1:].astype(np.float64) + levels[:-1]) / 2
    code = np.digitize(np.abs(x), middles, right=True)
    code += np.isin(np.abs(x), middles) & (code % 2 == 1)
    return np.copysign(levels[code], x.astype(np.float32))


RIGHT = [right, by_distance, value_by_value, between_neighbours, even_borders_are_closed, in_torch, in_float32]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("round_to_grid", answer)
