"""Each measure is its formula, whatever the size, dtype or library of the arrays."""

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays import metrics
from labutils.arrays.metrics import quantization_error, sqnr_db

# Sums of n float64 terms in any order agree within n * 2^-53; n is at most 10^5 here.
CLOSE = 1e-10


def by_hand(x, q, y):
    """The six formulas, in float64."""
    x, y = x.astype(float), y.astype(float)
    e = x - y
    return {
        "mse": np.mean(e**2),
        "mae": np.mean(np.abs(e)),
        "max_error": np.max(np.abs(e)),
        "relative_error": np.mean(e**2) / np.var(x),
        "sqnr_db": 10 * np.log10(np.mean(x**2) / np.mean(e**2)),
        "codes_used": len(set(q.reshape(-1).tolist())),
    }


def rounded(rng, shape, step=0.25, dtype=np.float64):
    x = rng.normal(0.5, 1, size=shape).astype(dtype)
    q = np.rint(x / step).astype(np.int8)
    return x, q, (q * step).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1000,), (10, 100), (5, 10, 20), (100_003,)], ids=repr)
def test_every_measure_is_its_formula(shape, dtype):
    x, q, y = rounded(np.random.default_rng(0), shape, dtype=dtype)
    assert quantization_error(x, q, y) == pytest.approx(by_hand(x, q, y), rel=CLOSE)


@given(hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-100, 100)), st.floats(0.01, 10))
def test_every_measure_is_its_formula_for_any_numbers(x, step):
    q = np.rint(x / step).astype(np.int16)
    found, y = quantization_error(x, q, q * step), q * step
    assert found["mse"] == pytest.approx(np.mean((x - y) ** 2), rel=CLOSE)
    assert found["mae"] == pytest.approx(np.mean(np.abs(x - y)), rel=CLOSE)
    assert found["max_error"] == pytest.approx(np.max(np.abs(x - y)), rel=CLOSE)
    assert found["codes_used"] == len(set(q.tolist()))


def test_by_hand():
    x, y = np.array([3.0, -1.0, 0.0, 2.0]), np.array([2.0, -1.0, 0.0, 4.0])
    found = quantization_error(x, np.array([2, -1, 0, 4]), y)
    assert found == pytest.approx(
        {
            "mse": (1 + 4) / 4,
            "mae": (1 + 2) / 4,
            "max_error": 2,
            "relative_error": (5 / 4) / (14 / 4 - 1),  # the mean is 1
            "sqnr_db": 10 * math.log10(14 / 5),
            "codes_used": 4,
        },
        rel=1e-14,
    )


def test_all_measures_are_plain_numbers():
    x = np.linspace(-1, 1, 9, dtype=np.float32)
    found = quantization_error(x, np.arange(9), np.zeros_like(x))
    assert {name: type(value) for name, value in found.items()} == {
        **dict.fromkeys(["mse", "mae", "max_error", "relative_error", "sqnr_db"], float),
        "codes_used": int,
    }


def test_the_original_comes_first():
    x, y = np.array([1.0, -3.0]), np.array([2.0, -2.0])
    assert sqnr_db(x, y) == pytest.approx(10 * math.log10(10 / 2), rel=1e-14)
    assert sqnr_db(y, x) == pytest.approx(10 * math.log10(8 / 2), rel=1e-14)
    q = np.zeros(2, np.int8)
    assert quantization_error(x, q, y)["relative_error"] == pytest.approx(1 / 4, rel=1e-14)
    assert quantization_error(y, q, x)["relative_error"] == pytest.approx(1 / 4, rel=1e-14)
    assert quantization_error(y, q, x)["sqnr_db"] == sqnr_db(y, x)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_side=4), elements=st.floats(-10, 10, width=32)))
def test_sqnr_db_is_the_one_of_the_six(x):
    y = np.round(x)
    assert sqnr_db(x, y) == quantization_error(x, y.astype(np.int8), y)["sqnr_db"]


@pytest.mark.parametrize(
    "x", [np.array([1.0, -2.0]), np.zeros(3), np.full(4, 0.1)], ids=["values", "zeros", "a constant"]
)
def test_where_nothing_was_lost_the_ratio_is_infinite_and_the_errors_zero(x):
    found = quantization_error(x, np.zeros(x.size, int), x.copy())
    assert found == {
        "mse": 0, "mae": 0, "max_error": 0, "relative_error": 0, "sqnr_db": math.inf, "codes_used": 1
    }  # fmt: skip
    assert sqnr_db(x, x.copy()) == math.inf


@pytest.mark.parametrize("count", [1, 3, 7, 1000, 100_003])
@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e-200, 1e200])
def test_a_constant_has_no_variance_to_compare_an_error_with(value, count):
    # 0.1 + 0.1 + 0.1 is not 3 * 0.1 in floats: the variance must be 0 for all that.
    found = quantization_error(np.full(count, value), np.zeros(count, int), np.zeros(count))
    assert found["relative_error"] == math.inf
    assert found["sqnr_db"] == pytest.approx(0, abs=CLOSE)


def test_an_error_without_a_signal_is_minus_infinity():
    assert sqnr_db(np.zeros(2), np.ones(2)) == -math.inf


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-30, 1e30, 1e200, 1e307])
def test_the_size_of_the_values_does_not_matter_to_the_ratios(size):
    x, q, y = rounded(np.random.default_rng(1), 1000)
    one, other = quantization_error(x, q, y), quantization_error(x * size, q, y * size)
    # A product rounds to 2^-53 of x, which is up to 2^-53 * max|x| / |e| of an error: a few more digits are lost.
    for name in ("relative_error", "sqnr_db"):
        assert other[name] == pytest.approx(one[name], rel=1e-9)
    for name in ("mae", "max_error"):
        assert other[name] == pytest.approx(one[name] * size, rel=1e-9, abs=0)
    assert other["mse"] == pytest.approx(one["mse"] * size * size, rel=1e-9, abs=0)  # 0 and inf where float64 ends


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_ends_of_a_float_format_are_measured(dtype):
    largest = np.finfo(dtype).max
    assert sqnr_db(np.array([largest, 0]), np.array([largest / 2, 0])) == pytest.approx(20 * math.log10(2), rel=1e-6)
    least = np.finfo(dtype).smallest_subnormal
    assert sqnr_db(np.array([4 * least, 0]), np.array([2 * least, 0])) == pytest.approx(20 * math.log10(2), rel=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64"])
def test_codes_are_counted_in_every_integer_dtype(dtype):
    limits = np.iinfo(dtype)
    codes = np.random.default_rng(2).integers(limits.min, limits.max, size=500, dtype=dtype, endpoint=True)
    codes[:2] = limits.min, limits.max
    x = np.ones(500)
    assert quantization_error(x, codes, x)["codes_used"] == len(set(codes.tolist()))


@given(hnp.arrays(np.int16, st.integers(1, 50), elements=st.integers(-8, 7)))
def test_codes_used_is_the_number_of_distinct_codes(codes):
    x = np.ones(codes.size)
    assert quantization_error(x, codes, x)["codes_used"] == len(set(codes.tolist()))


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    x, q, y = rounded(np.random.default_rng(3), (30, 40), dtype=np.float32)
    theirs = quantization_error(*map(torch.from_numpy, (x, q, y)))
    assert theirs == pytest.approx(quantization_error(x, q, y), rel=CLOSE)
    assert sqnr_db(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(sqnr_db(x, y), rel=CLOSE)


@pytest.mark.parametrize("tile", [1, 7, 1000])
def test_the_size_of_the_pieces_does_not_matter(tile):
    x, q, y = rounded(np.random.default_rng(4), 999)
    whole, ratio = quantization_error(x, q, y), sqnr_db(x, y)
    with mock.patch.object(metrics, "TILE", tile):
        assert quantization_error(x, q, y) == pytest.approx(whole, rel=CLOSE)
        assert sqnr_db(x, y) == pytest.approx(ratio, rel=CLOSE)


def test_the_order_in_memory_does_not_matter():
    x, q, y = rounded(np.random.default_rng(5), (20, 30))
    found = quantization_error(np.asfortranarray(x), q, np.ascontiguousarray(y[::-1])[::-1])
    assert found == pytest.approx(quantization_error(x, q, y), rel=CLOSE)


def test_nothing_is_changed():
    arrays = rounded(np.random.default_rng(6), 50)
    copies = [array.copy() for array in arrays]
    quantization_error(*arrays)
    assert all(map(np.array_equal, arrays, copies))


@pytest.mark.parametrize(
    "original, quantized, dequantized, kind, words",
    [
        (np.ones(3), np.ones(3, int), np.ones(4), ValueError, r"shape of original, \(3,\), got \(4,\)"),
        (np.ones((2, 3)), np.ones(6, int), np.ones((3, 2)), ValueError, r"shape of original, \(2, 3\), got \(3, 2\)"),
        (np.ones(3), np.ones(4, int), np.ones(3), ValueError, r"as many elements as original, 3, got \(4,\)"),
        (np.ones(3), np.ones(3), np.ones(3), TypeError, "quantized must hold integer codes, got dtype float64"),
        (np.ones(3), np.ones(3, bool), np.ones(3), TypeError, "quantized must hold integer codes, got dtype bool"),
        (np.ones(3), [1, 1, 1], np.ones(3), TypeError, "quantized must be a NumPy array or a torch tensor, got list"),
        (np.ones(3), None, np.ones(3), TypeError, "quantized must be a NumPy array or a torch tensor, got NoneType"),
        (np.ones(3, int), np.ones(3, int), np.ones(3), TypeError, "original must hold floats .* got dtype int64"),
        (np.ones(3), np.ones(3, int), np.ones(3, int), TypeError, "dequantized must hold floats .* got dtype int64"),
        (np.array([np.nan, 1]), np.ones(2, int), np.ones(2), ValueError, "original must be finite"),
        (np.ones(2), np.ones(2, int), np.array([1, np.nan]), ValueError, "dequantized must be finite"),
        (np.ones(2), np.ones(2, int), np.array([1, -np.inf]), ValueError, "dequantized must be finite"),
    ],
    ids=[
        "a longer reconstruction", "a transposed reconstruction", "more codes than values", "float codes", "bool codes",
        "a list of codes", "no codes", "an integer original", "an integer reconstruction", "NaN in the original",
        "NaN in the reconstruction", "-Inf in the reconstruction",
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(original, quantized, dequantized, kind, words):
    with pytest.raises(kind, match=words):
        quantization_error(original, quantized, dequantized)


def test_two_libraries_are_not_compared():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="original and dequantized must come from one library"):
        sqnr_db(np.ones(3), torch.ones(3))
