"""A grid says which values exist: each code stands for one, each value goes to the nearest, and affine asks no more."""

import dataclasses

import array_api_compat.numpy as xnp  # NumPy 1.26 has no astype of its own
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays.affine import choose_qparams, dequantize, fake_quantize, quantize
from labutils.arrays.grids import E2M1, E3M2, E4M3, E5M2, NF4, Codebook, Integers
from labutils.arrays.scheme import PerGroup, Scheme

GRIDS = [Integers(num_bits, symmetric) for num_bits in range(2, 17) for symmetric in (True, False)]
grids = st.sampled_from(GRIDS)
small_grids = st.sampled_from([grid for grid in GRIDS if grid.num_bits <= 8])


def floats(most, dtype=np.float64):
    """Steps of up to `most` either way, many of them ties."""
    halves = st.integers(-int(2 * most), int(2 * most)).map(lambda n: n / 2)
    width = np.dtype(dtype).itemsize * 8
    return hnp.arrays(dtype, st.integers(1, 20), elements=st.one_of(halves, st.floats(-most, most, width=width)))


@pytest.fixture(params=[grid for grid in GRIDS if grid.num_bits in (2, 3, 8, 9, 16)], ids=repr)
def grid(request):
    return request.param


def all_codes(grid):
    return np.arange(grid.quant_min, grid.quant_max + 1).astype(grid.code_dtype)


# --- the integers ---


def test_a_code_of_b_bits_has_2_to_the_b_levels_one_of_which_is_zero(grid):
    assert grid.levels.shape == (2**grid.num_bits,)
    assert np.all(np.diff(grid.levels) == 1)
    assert np.count_nonzero(grid.levels == 0) == 1


def test_levels_are_what_the_codes_stand_for_and_go_back_to_them(grid):
    codes = all_codes(grid)
    steps = grid.to_steps(xnp, codes, np.float32)
    assert steps.dtype == np.float32 and np.array_equal(steps, grid.levels)
    back = grid.to_codes(xnp, steps)
    assert back.dtype == codes.dtype and np.array_equal(back, codes)


def test_span_and_peak_are_those_of_the_levels(grid):
    assert grid.span == grid.levels[-1]
    assert grid.peak == np.abs(grid.levels).max()
    if not grid.symmetric:  # a zero point at either end leaves the other that far from zero
        assert grid.peak == grid.levels[-1] - grid.levels[0]


@pytest.mark.parametrize("num_bits", range(2, 17))
def test_codes_are_those_of_twos_complement_or_start_at_zero(num_bits):
    signed, unsigned = Integers(num_bits), Integers(num_bits, symmetric=False)
    assert (signed.quant_min, signed.quant_max) == (-(2**num_bits) // 2, 2**num_bits // 2 - 1)
    assert (unsigned.quant_min, unsigned.quant_max) == (0, 2**num_bits - 1)


@pytest.mark.parametrize("grid", GRIDS, ids=repr)
def test_codes_have_the_smallest_dtype_that_holds_them(grid):
    kinds = ("int8", "int16") if grid.symmetric else ("uint8", "uint16")
    fitting = [k for k in kinds if np.iinfo(k).min <= grid.quant_min and grid.quant_max <= np.iinfo(k).max]
    assert grid.code_dtype == fitting[0]


@given(small_grids, floats(300))
def test_every_value_goes_to_a_nearest_level(grid, steps):
    chosen = grid.to_steps(xnp, grid.to_codes(xnp, steps.copy()), np.float64)
    nearest = np.abs(steps[:, None] - grid.levels).min(axis=1)
    assert np.array_equal(np.abs(steps - chosen), nearest)


@given(grids, st.integers(-(2**15), 2**16).map(lambda n: n + 0.5))
def test_a_tie_goes_to_the_even_level(grid, tie):
    if grid.quant_min < tie < grid.quant_max:
        assert grid.to_codes(xnp, np.array([tie]))[0] % 2 == 0


@given(grids, floats(70_000, np.float32), st.data())
def test_a_zero_point_shifts_codes_and_nothing_else(grid, steps, data):
    zero_point = data.draw(st.integers(grid.quant_min, grid.quant_max))
    zeros = np.full(steps.shape, zero_point, np.float32)
    codes = grid.to_codes(xnp, steps.copy(), zeros)
    assert np.array_equal(codes, np.clip(np.rint(steps) + zero_point, grid.quant_min, grid.quant_max))
    before = codes.copy()
    assert np.array_equal(grid.to_steps(xnp, codes, np.float32, zeros), codes.astype(int) - zero_point)
    assert np.array_equal(codes, before)


@given(grids, floats(70_000, np.float32))
def test_what_lies_beyond_goes_to_the_ends_even_from_infinity(grid, steps):
    codes = grid.to_codes(xnp, np.concatenate([steps, [-np.inf, np.inf]]))
    assert (codes[-2], codes[-1]) == (grid.quant_min, grid.quant_max)
    assert np.all(codes[:-2][steps >= grid.quant_max] == grid.quant_max)
    assert np.all(codes[:-2][steps <= grid.quant_min] == grid.quant_min)


@given(grids, floats(70_000, np.float32))
def test_torch_gives_the_same_codes_and_steps(grid, steps):
    torch = pytest.importorskip("torch")
    import array_api_compat.torch as xp

    codes = grid.to_codes(xp, torch.from_numpy(steps.copy()))
    assert np.array_equal(codes.numpy(), grid.to_codes(xnp, steps.copy()))
    assert np.array_equal(
        grid.to_steps(xp, codes, torch.float32).numpy(), grid.to_steps(xnp, codes.numpy(), np.float32)
    )


def test_grids_compare_by_value_serve_as_keys_and_cannot_be_changed():
    assert len({Integers(4), Integers(np.int64(4)), Integers(4, symmetric=False), Integers(5)}) == 3
    assert type(Integers(np.int64(4)).num_bits) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        Integers(4).num_bits = 3


# --- in a scheme ---


def test_two_numbers_name_a_grid_of_integers(grid):
    scheme = Scheme(grid.num_bits, grid.symmetric)
    assert scheme.grid == grid
    assert scheme == Scheme(grid=grid) and hash(scheme) == hash(Scheme(grid=grid))
    for name in ("num_bits", "symmetric", "quant_min", "quant_max", "code_dtype"):
        assert getattr(scheme, name) == getattr(grid, name)


def test_replacing_one_choice_keeps_the_others():
    scheme = Scheme(6, False, PerGroup(32), 0.9)
    assert dataclasses.replace(scheme, num_bits=4) == Scheme(4, False, PerGroup(32), 0.9)
    assert dataclasses.replace(scheme, symmetric=True) == Scheme(6, True, PerGroup(32), 0.9)
    assert dataclasses.replace(scheme, granularity=PerGroup(8)) == Scheme(6, False, PerGroup(8), 0.9)
    assert dataclasses.replace(scheme, grid=Integers(3)) == Scheme(3, True, PerGroup(32), 0.9)
    assert dataclasses.replace(scheme) == scheme


def test_a_scheme_shows_its_choices_and_can_be_read_back():
    scheme = Scheme(6, False, PerGroup(32), 0.9)
    assert repr(scheme) == "Scheme(num_bits=6, symmetric=False, granularity=PerGroup(group_size=32), clip=0.9)"
    assert eval(repr(scheme)) == scheme


@pytest.mark.parametrize(
    "given", [None, 4, "E2M1", Integers, np.arange(4.0)], ids=["None", "4", "str", "type", "array"]
)
def test_what_is_no_grid_is_refused(given):
    with pytest.raises(TypeError, match=r"grid must be a grid, such as Integers\(4\), got"):
        Scheme(grid=given)


# --- another grid needs no other code ---


def test_a_table_of_values_is_a_grid_like_any_other():
    x = np.array([-6, -1.2, 0, 0.24, 0.26, 4.9, 5.1, 12], np.float32)
    scheme = Scheme(grid=E2M1, granularity=PerGroup(4))
    assert (scheme.num_bits, scheme.code_dtype) == (4, "uint8")
    quantized = quantize(x, scheme)
    assert quantized.scale.tolist() == [1, 2]
    assert quantized.codes.dtype == np.uint8
    assert dequantize(quantized).tolist() == [-6, -1, 0, 0, 0, 4, 6, 12]


@given(
    hnp.arrays(np.float32, (3, 10), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from([E2M1, E3M2, E4M3, E5M2, NF4, Codebook((-2, -1.5, 0, 0.7))]),
)
def test_every_value_goes_to_a_nearest_one_of_a_table_times_its_scale(x, grid):
    scheme = Scheme(grid=grid, granularity=PerGroup(5))
    scale, _ = choose_qparams(x, scheme)
    finite = grid.levels[np.isfinite(grid.levels)]
    levels = finite * np.repeat(scale, 5, axis=1)[..., None].astype(float)
    nearest = np.abs(x[..., None] - levels).min(axis=-1)
    error = np.abs(x.astype(float) - fake_quantize(x, scheme))
    assert np.all(error <= nearest + grid.peak * 2.0**-23 * np.repeat(scale, 5, axis=1))


@pytest.mark.parametrize("grid", [E2M1, E5M2, NF4], ids=repr)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_largest_floats_stay_finite_on_a_table(dtype, grid):
    x = np.array([np.finfo(dtype).max, -np.finfo(dtype).max, 0], dtype)
    assert np.allclose(fake_quantize(x, Scheme(grid=grid)), x)


@pytest.mark.parametrize("given", [{"num_bits": 4}, {"symmetric": False}], ids=str)
def test_bits_and_symmetry_are_a_grid_of_integers(given):
    with pytest.raises(TypeError, match="belong to a grid of integers, and grid is E2M1"):
        Scheme(grid=E2M1, **given)
