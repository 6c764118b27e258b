"""quantized_matmul is exact for every sign and zero point, however written; what is no product of codes is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labutils.arrays.metrics import sqnr_db
from labutils.labs.answers import (
    dequantize_asymmetric,
    dequantize_symmetric,
    quantize_asymmetric,
    quantize_symmetric,
    quantized_matmul,
)
from labutils.labs.catalogue import EXERCISES
from labutils.labs.check import examine
from tests.labs.right_answers import passes

torch = pytest.importorskip("torch")

NARROW = [np.int8, np.uint8]
WIDE = [*NARROW, np.int16, np.uint16, np.int32]
ONE = np.float64(1)  # a scale that keeps whole numbers whole, up to 2^53


@st.composite
def codes(draw, shape, kinds):
    kind = draw(st.sampled_from(kinds))
    info = np.iinfo(kind)
    extremes = st.sampled_from([int(info.min), int(info.max)])
    elements = st.one_of(extremes, st.integers(int(info.min), int(info.max)))
    zero_point = draw(st.one_of(st.just(0), st.integers(int(info.min), int(info.max))))
    return draw(hnp.arrays(kind, shape, elements=elements)), zero_point


@st.composite
def products(draw, kinds=NARROW):
    m, k, n = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 4))
    return *draw(codes((m, k), kinds)), *draw(codes((k, n), kinds))


def whole(a_q, a_zp, b_q, b_zp):
    """The sums, in Python's integers."""
    return (a_q.astype(object) - a_zp) @ (b_q.astype(object) - b_zp)


@given(products())
def test_the_sums_are_exact_for_every_sign_and_zero_point(given_):
    a_q, a_zp, b_q, b_zp = given_
    expected = (a_q.astype(np.int64) - a_zp) @ (b_q.astype(np.int64) - b_zp)
    assert np.array_equal(quantized_matmul(a_q, ONE, b_q, ONE, a_zp, b_zp), expected)


@given(products())
def test_tensors_get_the_same_sums(given_):
    a_q, a_zp, b_q, b_zp = given_
    ones = torch.ones((), dtype=torch.float64)
    found = quantized_matmul(torch.from_numpy(a_q), ones, torch.from_numpy(b_q), ones, a_zp, b_zp)
    assert np.array_equal(found.numpy(), quantized_matmul(a_q, ONE, b_q, ONE, a_zp, b_zp))


@given(products(WIDE))
def test_wider_codes_are_exact_too_or_refused(given_):
    a_q, a_zp, b_q, b_zp = given_
    expected = whole(a_q, a_zp, b_q, b_zp)
    try:
        found = quantized_matmul(a_q, ONE, b_q, ONE, a_zp, b_zp)
    except ValueError as error:
        assert "int64" in str(error)
        assert {a_q.dtype, b_q.dtype} == {np.dtype(np.int32)}
    else:
        assert np.array_equal(found, expected.astype(np.float64))


@given(products(), st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_scales_come_in_once(given_, a_scale, b_scale):
    a_q, a_zp, b_q, b_zp = given_
    found = quantized_matmul(a_q, a_scale, b_q, b_scale, a_zp, b_zp)
    sums = whole(a_q, a_zp, b_q, b_zp).astype(np.float64)
    assert found.dtype == np.float32
    assert np.allclose(found, sums * a_scale * b_scale, rtol=2**-23, atol=0)


@pytest.mark.parametrize("length", [1, 1000, 40_000, 140_000])
def test_long_sums_of_the_largest_codes_are_exact(length):
    a, b = np.full((1, length), 255, np.uint8), np.full((length, 1), 0, np.uint8)
    assert quantized_matmul(a, ONE, b, ONE, 0, 255).item() == -255 * 255 * length
    a, b = torch.full((2, length), -128, dtype=torch.int8), torch.full((length, 1), -128, dtype=torch.int8)
    assert quantized_matmul(a, 1.0, b, torch.ones((), dtype=torch.float64)).tolist() == [[16384.0 * length]] * 2


def test_a_row_and_a_column_may_have_their_own_scale_and_zero_point():
    rng = np.random.default_rng(0)
    a_q, b_q = rng.integers(0, 256, (3, 20), np.uint8), rng.integers(-128, 128, (20, 4), np.int8)
    a_scale, b_scale = rng.uniform(0.1, 1, 3), rng.uniform(0.1, 1, 4)
    a_zp, b_zp = np.array([0, 128, 255]), np.array([-128, 0, 5, 127])
    expected = ((a_q - a_zp[:, None]) * a_scale[:, None]) @ ((b_q - b_zp) * b_scale)
    for row in ((3,), (3, 1)):
        for column in ((4,), (1, 4)):
            found = quantized_matmul(
                a_q, a_scale.reshape(row), b_q, b_scale.reshape(column), a_zp.reshape(row), b_zp.reshape(column)
            )
            assert np.allclose(found, expected, rtol=1e-12)


def test_the_result_is_float32_unless_a_scale_is_a_float64_array():
    q = np.ones((2, 2), np.int8)
    kinds = [0.5, 1, np.float32(0.5), np.full(2, 0.5, np.float16), np.float64(0.5), np.full((2, 1), 0.5)]
    assert [quantized_matmul(q, scale, q, 1.0).dtype.name for scale in kinds] == ["float32"] * 4 + ["float64"] * 2


def test_codes_that_are_not_contiguous_are_read_as_they_lie():
    q = np.random.default_rng(1).integers(-128, 128, (6, 8), np.int8)
    assert np.array_equal(quantized_matmul(q, 1, q.T, 1), quantized_matmul(q, 1, q.T.copy(), 1))
    view = torch.from_numpy(q)[:, ::2]
    expected = quantized_matmul(view.clone(), 1, view.t().clone(), 1)
    assert torch.equal(quantized_matmul(view, 1, view.t(), 1), expected)


def test_the_example_of_seed_001_runs_on_integers():
    """Activations of a ReLU by weights: asymmetric by symmetric, as the lab's functions give them."""
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(256, 256)).astype(np.float32)
    activations = np.abs(rng.normal(size=(32, 256))).astype(np.float32)
    a_q, a_scale, a_zp = quantize_asymmetric(activations, num_bits=8)
    w_q, w_scale = quantize_symmetric(weights, num_bits=8)
    output = quantized_matmul(a_q, a_scale, w_q.T, w_scale, a_zp=int(a_zp))
    floats = dequantize_asymmetric(a_q, a_scale, a_zp) @ dequantize_symmetric(w_q, w_scale).T
    assert np.allclose(output, floats, atol=1e-3)
    assert sqnr_db(activations @ weights.T, output) > 35


# --- what is refused ---

Q = np.ones((2, 3), np.int8)
BAD = {
    "a list": (([[1]], 1, Q.T, 1), TypeError, "a_q must be a NumPy array or a torch tensor, got list"),
    "floats": ((Q * 1.0, 1, Q.T, 1), TypeError, "a_q must hold integer codes, got dtype float64"),
    "booleans": ((Q > 0, 1, Q.T, 1), TypeError, "a_q must hold integer codes, got dtype bool"),
    "one axis": ((Q, 1, Q[0], 1), ValueError, r"b_q must be a matrix, got shape \(3,\)"),
    "empty": ((Q[:0], 1, Q.T, 1), ValueError, "a_q must not be empty"),
    "two libraries": ((torch.from_numpy(Q), 1, Q.T, 1), TypeError, "must come from one library"),
    "shapes": ((Q, 1, Q, 1), ValueError, "a_q has 3 columns, but b_q has 2 rows"),
    "scale 0": ((Q, 0.0, Q.T, 1), ValueError, "a_scale must be positive and finite"),
    "scale NaN": ((Q, 1, Q.T, np.array([1, np.nan])), ValueError, "b_scale must be positive and finite"),
    "scale Inf": ((Q, float("inf"), Q.T, 1), ValueError, "a_scale must be positive and finite"),
    "scale True": ((Q, True, Q.T, 1), TypeError, "a_scale must be a number or an array of floats, got True"),
    "scale a string": ((Q, "1", Q.T, 1), TypeError, "a_scale must be a number or an array of floats, got '1'"),
    "scale along K": ((Q, np.ones(3), Q.T, 1), ValueError, "what varies along the axis that is summed over"),
    "scale of the other": ((Q, 1, Q.T, np.ones((2, 1))), ValueError, r"shape \(2,\) or \(1, 2\), got shape \(2, 1\)"),
    "zero point 1.5": ((Q, 1, Q.T, 1, 1.5), TypeError, "a_zp must be a whole number or an array of them, got 1.5"),
    "zero point of floats": ((Q, 1, Q.T, 1, 0, np.ones(2)), TypeError, "b_zp must hold integer codes"),
    "zero point along K": ((Q, 1, Q.T, 1, np.arange(3)), ValueError, "a_zp must be one number, or one for each row"),
    "zero point too wide": ((Q, 1, Q.T, 1, 2**40), ValueError, "a_zp must be a whole number of at most 32 bits"),
    "zero point None": ((Q, 1, Q.T, 1, None), TypeError, "a_zp must be a whole number"),
}


@pytest.mark.parametrize(("args", "kind", "message"), BAD.values(), ids=BAD)
def test_what_is_no_product_of_codes_is_refused(args, kind, message):
    with pytest.raises(kind, match=message):
        quantized_matmul(*args)


def test_sums_that_int64_cannot_hold_are_refused():
    q = np.full((1, 4), -(2**31), np.int32)
    with pytest.raises(ValueError, match="which int64 cannot hold"):
        quantized_matmul(q, 1, q.T, 1)


# --- mistakes and right answers ---

MISTAKES = {mistake.name: mistake for mistake in EXERCISES["quantized_matmul"].misconceptions}
NAMES = ("accumulates in int8", "the zero points are left out", "the last term is left out", "the scales are left out")


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_the_same_in_either_float(name, dtype):
    def quantized_matmul(*args, **kwargs):
        return MISTAKES[name].wrong(*args, **kwargs).astype(dtype)

    assert examine(quantized_matmul).diagnosis == name


def subtract_then_multiply(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    sums = (a_q.astype(np.int32) - a_zp) @ (b_q.astype(np.int32) - b_zp)
    return (sums * (a_scale * b_scale)).astype(np.float32)


def four_terms(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    a, b = a_q.astype(np.int64), b_q.astype(np.int64)
    sums = a @ b - a_zp * b.sum(axis=0) - b_zp * a.sum(axis=1, keepdims=True) + a.shape[1] * a_zp * b_zp
    return sums * a_scale * b_scale


def four_terms_in_int32(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    total = np.matmul(a_q, b_q, dtype=np.int32)
    if a_zp:
        total -= np.int32(a_zp) * b_q.sum(0, dtype=np.int32)
    if b_zp:
        total -= np.int32(b_zp) * a_q.sum(1, dtype=np.int32)[:, None]
    total += np.int32(a_q.shape[1] * a_zp * b_zp)
    return total.astype(np.float32) * np.float32(a_scale) * np.float32(b_scale)


def by_loops(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    rows, columns = (a_q.astype(int) - a_zp).tolist(), (b_q.T.astype(int) - b_zp).tolist()
    sums = [[sum(p * q for p, q in zip(row, column)) for column in columns] for row in rows]
    return np.array(sums, dtype=np.float64) * a_scale * b_scale


def with_einsum(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    a, b = np.subtract(a_q, a_zp, dtype=np.int64), np.subtract(b_q, b_zp, dtype=np.int64)
    return np.einsum("mk,kn->mn", a, b) * (a_scale * b_scale)


def whole_numbers_in_float64(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    """Floats, but of codes: sums of whole numbers are exact in float64 up to 2^53."""
    return (a_q.astype(np.float64) - a_zp) @ (b_q.astype(np.float64) - b_zp) * (a_scale * b_scale)


def with_torch(a_q, a_scale, b_q, b_scale, a_zp=0, b_zp=0):
    a, b = torch.tensor(np.ascontiguousarray(a_q)).int() - a_zp, torch.tensor(np.ascontiguousarray(b_q)).int() - b_zp
    return (a @ b).double() * torch.as_tensor(a_scale) * torch.as_tensor(b_scale)


RIGHT = [
    subtract_then_multiply, four_terms, four_terms_in_int32, by_loops, with_einsum, whole_numbers_in_float64,
    with_torch,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("quantized_matmul", answer)
