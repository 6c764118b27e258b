"""Tables of values: what is no table, NF4 from its definition, and k-means against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm
from sklearn.cluster import KMeans

from labutils.arrays.affine import dequantize, fake_quantize, quantize
from labutils.arrays.codebooks import kmeans_codebook
from labutils.arrays.grids import NF4, Codebook
from labutils.arrays.packing import pack, unpack
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme

BAD = {
    "empty": ((), ValueError, "from 2 to 65536 values, got 0"),
    "one value": ((1.0,), ValueError, "from 2 to 65536 values, got 1"),
    "too many": (range(2**16 + 1), ValueError, "from 2 to 65536 values, got 65537"),
    "unsorted": ((0, 2, 1), ValueError, "values must ascend, but 2 at place 1 is followed by 1"),
    "descending": ((1, 0), ValueError, "values must ascend"),
    "duplicates": ((0, 1, 1, 2), ValueError, "1 at place 1 occurs twice"),
    "zero twice": ((-0.0, 0.0), ValueError, "occurs twice"),
    "NaN": ((0, float("nan"), 1), ValueError, r"values\[1\] must be finite, got nan"),
    "Inf": ((0, float("inf")), ValueError, r"values\[1\] must be finite, got inf"),
    "huge": ((0, 1e300), ValueError, "must lie within"),
    "a string": ("01", TypeError, "values"),
    "strings": (("0", "1"), TypeError, r"values\[0\] must be a number"),
    "booleans": ((False, True), TypeError, r"values\[0\] must be a number"),
    "None": (None, TypeError, "values must be a sequence of numbers, got None"),
    "a set": ({0.0, 1.0}, TypeError, "values must be a sequence of numbers"),
    "a number": (4, TypeError, "values must be a sequence of numbers, got 4"),
    "rows": (np.zeros((2, 2)), TypeError, r"values\[0\] must be a number"),
}


@pytest.mark.parametrize("values, kind, words", BAD.values(), ids=BAD)
def test_what_is_no_table_is_refused(values, kind, words):
    with pytest.raises(kind, match=words):
        Codebook(values)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), "1", True], ids=repr)
def test_a_range_is_a_positive_number(bad):
    with pytest.raises((ValueError, TypeError), match="range must be"):
        Codebook((0, 1), range=bad)


@pytest.mark.parametrize(
    "count, num_bits, dtype",
    [(2, 1, "uint8"), (3, 2, "uint8"), (16, 4, "uint8"), (17, 5, "uint8"), (256, 8, "uint8"), (257, 9, "uint16")],
)
def test_a_code_has_the_bits_that_the_table_needs(count, num_bits, dtype):
    grid = Codebook(range(count))
    assert (grid.num_bits, grid.code_dtype, grid.quant_min, grid.quant_max) == (num_bits, dtype, 0, count - 1)
    x = np.arange(count, dtype=np.float32)
    assert np.array_equal(grid.to_codes(np, x), x)


def test_tables_compare_by_value():
    assert Codebook((0, 1)) == Codebook(np.array([0.0, 1.0])) == Codebook([0, 1], name="bit")
    assert Codebook((0, 1)) != Codebook((0, 1), range=2)
    assert eval(repr(Codebook((0, 1), range=2))) == Codebook((0, 1), range=2)
    assert repr(NF4) == "NF4"


def test_nf4_is_made_of_quantiles_of_a_normal_distribution():
    """QLoRA's rule: 8 positive and 7 negative quantiles, evenly spaced up to 0.9677083, and 0; the largest is 1."""
    outer = (1 - 1 / 30 + 1 - 1 / 32) / 2
    positive = norm.ppf(np.linspace(outer, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(outer, 0.5, 8)[:-1])
    expected = np.sort([*positive, 0, *negative]) / positive.max()
    assert np.allclose(NF4.levels, expected, atol=1e-6)
    assert NF4.levels[7] == 0


def test_nf4_keeps_zeros_and_the_largest_value_exactly():
    w = np.array([[0.0, 0.5, -0.25, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    y = fake_quantize(w, Scheme(grid=NF4, granularity=PerGroup(4)))
    assert np.array_equal(y[w == 0], w[w == 0]) and y[0, 1] == 0.5


def test_four_bit_codes_pack():
    quantized = quantize(np.random.default_rng(0).normal(size=(3, 21)).astype(np.float32), Scheme(grid=NF4))
    packed = pack(quantized.codes, 4)
    assert packed.nbytes == 3 * 11
    assert np.array_equal(unpack(packed, 4, 21, signed=False), quantized.codes)


# --- k-means ---


def mse(x, scheme):
    return np.mean((x - fake_quantize(x, scheme)) ** 2)


@pytest.mark.parametrize("num_bits", [2, 3, 4])
@pytest.mark.parametrize("degrees, slack", [(1000, 1.01), (4, 1.1)], ids=["normal", "heavy tails"])
def test_as_good_as_scikit_learns_kmeans(num_bits, degrees, slack):
    """With heavy tails both end in local minima, which differ by some percent."""
    x = np.random.default_rng(0).standard_t(degrees, size=4000)
    ours = mse(x, Scheme(grid=kmeans_codebook(x, num_bits)))
    theirs = KMeans(2**num_bits, n_init=5, random_state=0).fit(x[:, None]).inertia_ / x.size
    assert ours <= slack * theirs


@pytest.mark.parametrize("granularity", [PerTensor(), PerAxis(0), PerGroup(25)], ids=str)
def test_every_value_of_the_codebook_is_the_mean_of_what_goes_there(granularity):
    """Lloyd's condition, in which a slice counts by the square of its scale."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 50)) * rng.lognormal(size=(20, 1))
    grid = kmeans_codebook(x, 3, granularity)
    quantized = quantize(x, Scheme(grid=grid, granularity=granularity))
    parts = {PerTensor(): (1, 1), PerAxis(0): (20, 1), PerGroup(25): (20, 2)}[granularity]
    scale = np.broadcast_to(np.repeat(quantized.scale.reshape(parts), 50 // parts[1], axis=1), x.shape)
    for code, value in enumerate(grid.values):
        here = quantized.codes == code
        assert np.sum((x * scale)[here]) / np.sum((scale**2)[here]) == pytest.approx(value, abs=1e-9)


def test_better_than_integers_of_the_same_bits():
    x = np.random.default_rng(2).normal(size=(16, 256)).astype(np.float32)
    assert mse(x, Scheme(grid=kmeans_codebook(x, 3))) < 0.5 * mse(x, Scheme(3))


@given(hnp.arrays(np.float32, st.integers(1, 12), elements=st.floats(-4, 4, width=16)))
def test_few_different_values_are_kept_exactly(x):
    if len(np.unique(x)) < 2:
        return
    y = fake_quantize(x, Scheme(grid=kmeans_codebook(x, 4)))
    assert np.allclose(x, y, rtol=1e-6, atol=0)


@pytest.mark.parametrize("x", [np.zeros(5), np.full(5, 3.0), np.full((2, 2), -1.0)], ids=["zeros", "constant", "-1"])
def test_a_codebook_needs_two_different_values(x):
    with pytest.raises(ValueError, match="x must have two different values"):
        kmeans_codebook(x)


@pytest.mark.parametrize("num_bits", [1, 9, 4.0, None])
def test_two_to_eight_bits(num_bits):
    with pytest.raises((ValueError, TypeError), match="num_bits must be"):
        kmeans_codebook(np.arange(9.0), num_bits)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="x must be finite"):
        kmeans_codebook(np.array([0.0, np.nan]))


def test_tensors_give_the_same_codebook_and_nothing_depends_on_the_unit():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(3).normal(size=(4, 100)).astype(np.float32)
    assert kmeans_codebook(torch.from_numpy(x), 3) == kmeans_codebook(x, 3) == kmeans_codebook(x * 2.0**-100, 3)
    assert torch.isfinite(dequantize(quantize(torch.from_numpy(x), Scheme(grid=kmeans_codebook(x, 3))))).all()
