"""Floats of a few bits, value by value against ml_dtypes and torch: all codes, all ties, saturation, NaN."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.grids import (
    BFLOAT16,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    E8M0,
    FLOAT16,
    NF4,
    Codebook,
    FloatGrid,
    nearest,
)

ORACLES = {
    E2M1: ml_dtypes.float4_e2m1fn,
    E2M3: ml_dtypes.float6_e2m3fn,
    E3M2: ml_dtypes.float6_e3m2fn,
    E4M3: ml_dtypes.float8_e4m3fn,
    E5M2: ml_dtypes.float8_e5m2,
    FLOAT16: np.float16,
    BFLOAT16: ml_dtypes.bfloat16,
}
every_float = pytest.mark.parametrize("grid", ORACLES, ids=repr)
SMALL = [E2M1, E2M3, E3M2, E4M3, E5M2]
small_floats = st.sampled_from(SMALL)


def bits(values, oracle, grid):
    return values.astype(oracle).view(grid.code_dtype)


def around(values, dtype):
    """Each value, and the floats next to it on both sides, with both signs."""
    values = np.asarray(values, dtype)
    near = np.concatenate([values, np.nextafter(values, dtype(np.inf)), np.nextafter(values, dtype(0))])
    return np.concatenate([near, -near])


def middles(grid):
    return (grid.ascending[1:] + grid.ascending[:-1]) / 2


@pytest.mark.parametrize("grid, oracle", [*ORACLES.items(), (E8M0, ml_dtypes.float8_e8m0fnu)], ids=repr)
def test_every_code_stands_for_what_ml_dtypes_says(grid, oracle):
    codes = np.arange(2**grid.num_bits).astype(grid.code_dtype)
    with np.errstate(invalid="ignore"):
        expected = codes.view(oracle).astype(np.float64)
    assert np.array_equal(grid.levels, expected, equal_nan=True)
    assert np.array_equal(np.signbit(grid.levels[expected == 0]), np.signbit(expected[expected == 0]))
    assert grid.peak == np.max(expected[np.isfinite(expected)])


@every_float
def test_codes_at_and_beside_every_number_and_every_tie_are_those_of_ml_dtypes(grid):
    x = around(np.concatenate([grid.ascending, middles(grid)]), np.float32)
    x = x[np.abs(x) <= grid.peak]
    assert np.array_equal(grid.to_codes(np, x), bits(x, ORACLES[grid], grid))


@every_float
def test_in_float64_too_where_ml_dtypes_rounds_twice(grid):
    """ml_dtypes goes through float32, so ties are compared themselves; beside them the nearer number is known."""
    ties = middles(grid)
    assert np.array_equal(grid.to_codes(np, ties), bits(ties, ORACLES[grid], grid))
    assert np.array_equal(grid.to_codes(np, np.nextafter(ties, np.inf)), np.arange(1, len(ties) + 1))
    assert np.array_equal(grid.to_codes(np, np.nextafter(ties, 0)), np.arange(len(ties)))


@every_float
def test_what_lies_beyond_saturates_and_never_becomes_infinity_or_nan(grid):
    x = np.array([grid.peak * 1.0001, 3.4e38, np.inf], np.float32)
    assert np.all(grid.levels[grid.to_codes(np, x)] == grid.peak)
    assert np.all(grid.levels[grid.to_codes(np, -x)] == -grid.peak)


def test_zero_keeps_its_sign_and_so_do_values_that_round_to_it():
    assert E2M1.to_codes(np, np.array([0.0, 0.1, -0.0, -0.1], np.float32)).tolist() == [0, 0, 8, 8]


@pytest.mark.parametrize("name, grid", [("float8_e4m3fn", E4M3), ("float8_e5m2", E5M2)])
def test_codes_are_those_of_torchs_casts(name, grid):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, name)
    x = around(np.concatenate([grid.ascending, middles(grid)]), np.float32)
    inside = x[np.abs(x) <= grid.peak]
    assert np.array_equal(torch.from_numpy(inside).to(dtype).view(torch.uint8).numpy(), grid.to_codes(np, inside))
    # Beyond, E5M2 becomes infinite in torch; hence "clamp before casting".
    if grid is E5M2:
        assert torch.tensor([61441.0]).to(dtype).isinf().all()


@pytest.mark.parametrize("grid", [*SMALL, E8M0, NF4, FLOAT16, BFLOAT16], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_gives_the_same_codes_and_steps(grid, dtype):
    torch = pytest.importorskip("torch")
    import array_api_compat.torch as xp

    rng = np.random.default_rng(0)
    x = (rng.normal(size=5000) * np.exp(rng.normal(size=5000) * 3)).astype(dtype)
    codes = grid.to_codes(xp, torch.from_numpy(x.copy()))
    assert np.array_equal(codes.numpy(), grid.to_codes(np, x.copy()))
    steps = grid.to_steps(xp, codes, getattr(torch, x.dtype.name))
    assert np.array_equal(steps.numpy(), grid.to_steps(np, codes.numpy(), dtype))


# --- one rounding: floats by arithmetic, tables by thresholds ---


@pytest.mark.parametrize("grid", [E2M3, E3M2, E4M3, E5M2, FloatGrid(2, 5), FloatGrid(5, 8)], ids=repr)
def test_arithmetic_rounds_as_the_thresholds_of_the_table_do(grid):
    assert grid._is_narrow
    rng = np.random.default_rng(1)
    x = np.abs(np.concatenate([around(middles(grid), np.float32), grid.peak * rng.normal(size=5000) ** 5]))
    x = x.astype(np.float32)
    assert np.array_equal(grid.to_codes(np, x), nearest.places(np, x, nearest.thresholds(grid.ascending, np.float32)))


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=90, unique=True), st.sampled_from([np.float32, np.float64]))
def test_a_threshold_is_the_first_float_that_goes_up(values, dtype):
    values = np.array(sorted(values))
    edges = nearest.thresholds(values, dtype)
    for place, edge in enumerate(edges):
        low, high = Fraction(values[place]), Fraction(values[place + 1])
        goes_up = [
            Fraction(float(x)) * 2 > low + high or (Fraction(float(x)) * 2 == low + high and place % 2 == 1)
            for x in (edge, np.nextafter(edge, dtype(-np.inf)))
        ]
        assert goes_up == [True, False]


def test_few_thresholds_and_many_give_the_same_places(monkeypatch):
    x = around(middles(E4M3), np.float32)
    edges = nearest.thresholds(E4M3.ascending[:40], np.float32)
    few = nearest.places(np, x, edges)
    monkeypatch.setattr(nearest, "FEW", 1)
    assert np.array_equal(few, nearest.places(np, x, edges))


# --- properties ---


@given(small_floats, st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=30))
def test_errors_are_half_the_gap_order_and_sign_are_kept_and_rounding_twice_changes_nothing(grid, values):
    x = np.clip(np.sort(np.array(values, np.float32)), -grid.peak, grid.peak).astype(np.float32)
    codes = grid.to_codes(np, x)
    y = grid.to_steps(np, codes, np.float32)
    place = np.minimum(np.searchsorted(grid.ascending, np.abs(x), side="right"), len(grid.ascending) - 1)
    gap = grid.ascending[place] - grid.ascending[place - 1]
    assert np.all(np.abs(x.astype(float) - y) <= gap / 2)
    assert np.all(np.diff(y) >= 0)
    assert np.array_equal(grid.to_codes(np, y.copy()), codes)
    assert np.array_equal(grid.to_codes(np, -x), codes ^ np.uint8(2 ** (grid.num_bits - 1)))


# --- scales on a grid ---


def test_e8m0_rounds_down_and_up_between_powers_of_two():
    x = np.array([1.0, 1.5, 1.999, 2.0, 1e-45, 3.4e38], np.float32)
    assert np.array_equal(E8M0.rounded(np, x, "down"), np.float32([1, 1, 1, 2, 2.0**-127, 2.0**127]))
    assert np.array_equal(E8M0.rounded(np, x, "up"), np.float32([1, 2, 2, 2, 2.0**-127, 2.0**127]))


@given(st.sampled_from([E4M3, FLOAT16, E8M0]), st.floats(2.0**-9, 448, width=32))
def test_down_is_never_above_and_up_never_below(grid, scale):
    x = np.array([scale], np.float32)
    low, middle, high = (grid.rounded(np, x, way)[0] for way in ("down", "nearest", "up"))
    assert low <= scale <= high and middle in (low, high)
    assert {low, high} <= set(grid.ascending.tolist())


def test_a_scale_outside_the_grid_becomes_its_smallest_or_its_largest():
    x = np.array([1e-9, 1e9], np.float32)
    assert E4M3.rounded(np, x).tolist() == [2.0**-9, 448]
    assert E4M3.least == 2.0**-9


BAD = {
    "no exponent": ((0, 3), ValueError, "exponent_bits must be at least 1"),
    "nine bits of exponent": ((9, 3), ValueError, "exponent_bits must be at most 8"),
    "a negative mantissa": ((4, -1), ValueError, "mantissa_bits must be at least 0"),
    "a float": ((4.0, 3), TypeError, "exponent_bits must be a whole number"),
    "a string": (("4", 3), TypeError, "exponent_bits must be a whole number"),
    "other specials": ((4, 3, "inf"), ValueError, "specials must be one of none, nan, ieee"),
    "None as specials": ((4, 3, None), ValueError, "specials must be one of"),
    "signed as a number": ((4, 3, "nan", 1), TypeError, "signed must be True or False"),
    "19 bits": ((8, 10), ValueError, "from 2 to 16 bits"),
    "one number": ((1, 0, "nan"), ValueError, "two numbers at least"),
    "beyond float32": ((8, 7), ValueError, "must fit into float32"),
}


@pytest.mark.parametrize("arguments, kind, words", BAD.values(), ids=BAD)
def test_what_is_no_float_format_is_refused(arguments, kind, words):
    with pytest.raises(kind, match=words):
        FloatGrid(*arguments)


def test_a_codebook_of_a_floats_numbers_is_that_float():
    """But for ties: a number's place in the table is even where its code is odd."""
    table = Codebook(sorted({*E2M1.levels.tolist()}))
    x = np.setdiff1d(around(middles(E2M1), np.float32), [*middles(E2M1), *-middles(E2M1)])
    assert np.array_equal(table.levels[table.to_codes(np, x)], E2M1.levels[E2M1.to_codes(np, x)])
