"""What an encoder still finds: directions count, lengths do not, and ties are no success."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils import mean_cosine, retrieval_at_1

rng = np.random.default_rng(0)
A, B = rng.normal(size=(2, 40, 8))


def test_the_mean_cosine_is_that_of_its_definition():
    expected = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(A, B)])
    assert mean_cosine(A, B) == pytest.approx(expected, abs=1e-12)


@given(st.integers(-300, 300), st.integers(-300, 300))
def test_lengths_do_not_matter_however_small_or_large(m, n):
    a, b = A * 10.0**m, B * 10.0**n
    assert mean_cosine(a, b) == pytest.approx(mean_cosine(A, B), abs=1e-12)
    assert retrieval_at_1(a, b) == retrieval_at_1(A, B)


def test_what_did_not_turn_has_cosine_1_and_what_turned_round_minus_1():
    assert mean_cosine(A, 3 * A) == pytest.approx(1)
    assert mean_cosine(A, -A) == pytest.approx(-1)


@given(st.integers(0, 40))
def test_retrieval_counts_the_rows_that_find_their_own(right):
    answers = A.copy()
    answers[right:] = -answers[right:]  # the farthest there is, from its own question
    assert retrieval_at_1(A, answers) == pytest.approx(right / 40)


def test_retrieval_is_that_of_an_argmax_where_nothing_ties():
    unit = B / np.linalg.norm(B, axis=1, keepdims=True)
    assert retrieval_at_1(A, B) == pytest.approx(np.mean((A @ unit.T).argmax(axis=1) == np.arange(40)))


@pytest.mark.parametrize("n", [1, 2, 40])
def test_an_encoder_that_says_the_same_of_everything_finds_one_in_n(n):
    same = np.ones((n, 8)) + 1e-9 * rng.normal(size=(n, 8))
    assert retrieval_at_1(A[:n], same) == pytest.approx(1 / n)


def test_an_answer_that_is_there_twice_counts_half():
    answers = A.copy()
    answers[1] = answers[0]
    assert retrieval_at_1(A, answers) == pytest.approx((38 + 0.5) / 40)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_give_what_arrays_give(dtype):
    torch = pytest.importorskip("torch")
    a, b = (torch.from_numpy(x).to(getattr(torch, dtype)) for x in (A, B))
    a64, b64 = (x.double().numpy() for x in (a, b))
    assert mean_cosine(a, b) == pytest.approx(mean_cosine(a64, b64), abs=1e-12)
    assert retrieval_at_1(a, b) == pytest.approx(retrieval_at_1(a64, b64))


@pytest.mark.parametrize("measure", [mean_cosine, retrieval_at_1])
@pytest.mark.parametrize(
    "a, b, error, says",
    [
        (A, B[:39], ValueError, r"one shape \(n, d\), got \(40, 8\) and \(39, 8\)"),
        (A, B[:, :7], ValueError, "one shape"),
        (A[0], B[0], ValueError, r"got \(8,\) and \(8,\)"),
        (A[None], B[None], ValueError, r"got \(1, 40, 8\)"),
        (A[:0], B[:0], ValueError, "must not be empty"),
        (A, B * np.where(np.arange(8) == 3, np.nan, 1), ValueError, "must be finite, but holds NaN or Inf"),
        (A * np.inf, B, ValueError, "must be finite"),
        (A, B * 0, ValueError, "a row of zeros, which has no direction"),
        (A.tolist(), B, TypeError, "NumPy array or a torch tensor, got list"),
        (A, None, TypeError, "got NoneType"),
        (A.astype(int), B, TypeError, "must hold floats"),
    ],
)
def test_what_is_no_pair_of_embeddings(measure, a, b, error, says):
    with pytest.raises(error, match=says):
        measure(a, b)


def test_an_array_and_a_tensor_are_not_compared():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="must come from one library"):
        mean_cosine(A, torch.from_numpy(B))
