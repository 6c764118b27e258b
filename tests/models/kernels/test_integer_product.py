"""int_matmul is exact on every kernel, for every view."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labutils.models import kernels
from tests.models.kernels.examples import codes, exactly, only


@pytest.mark.parametrize("kernel", [kernels.INT_MM, kernels.PORTABLE])
@given(st.integers(0, 40), st.integers(1, 70), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_int_matmul_is_exact(kernel, m, k, n, seed):
    a, b = codes(m, k, seed), codes(k, n, seed + 1)
    with only(kernel):
        product = kernels.int_matmul(a, b)
    assert product.dtype == torch.int32
    assert torch.equal(product.long(), exactly(a, b))


@pytest.mark.parametrize("kernel", [kernels.INT_MM, kernels.PORTABLE])
def test_the_longest_sum_of_the_largest_products_fits(kernel):
    a = torch.full((1, kernels.MOST_PRODUCTS), -128, dtype=torch.int8)
    with only(kernel):
        assert int(kernels.int_matmul(a, a.t())) == 2**14 * kernels.MOST_PRODUCTS
        assert int(kernels.int_matmul(a, (-a - 1).t())) == -128 * 127 * kernels.MOST_PRODUCTS


def test_a_sum_that_might_not_fit_is_refused():
    a = torch.zeros(1, kernels.MOST_PRODUCTS + 1, dtype=torch.int8)
    with pytest.raises(ValueError, match="sums of 131072 products may not fit"):
        kernels.int_matmul(a, a.t())


VIEWS = {
    "strided": (codes(64, 96)[::2, ::3], codes(48, 32, 1).t()[:, ::2]),
    "a transposed column as a row": (codes(40, 1).t(), codes(40, 3, 1)),
    "a row that is a column's view": (codes(5, 1), codes(7, 1, 1).t()),
    "one element": (codes(1, 1).t(), codes(1, 1, 1).t()),
    "all rows one row": (codes(1, 32).expand(4, 32), codes(32, 8, 1)),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kernel", [kernels.INT_MM, kernels.PORTABLE])
def test_views_are_multiplied_as_what_they_show(kernel, view):
    a, b = VIEWS[view]
    b = b[: a.shape[1]]
    with only(kernel):
        assert torch.equal(kernels.int_matmul(a, b).long(), exactly(a, b))


@pytest.mark.parametrize(
    ("a", "b", "error", "says"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.int8), TypeError, "a must be an int8 tensor.*float32"),
        (codes(2, 3), codes(3, 2).to(torch.uint8), TypeError, "b must be an int8 tensor.*uint8"),
        (codes(2, 3), np.zeros((3, 2), np.int8), TypeError, "b must be an int8 tensor, got ndarray"),
        (codes(2, 3), None, TypeError, "b must be an int8 tensor, got NoneType"),
        (codes(2, 3)[0], codes(3, 2), ValueError, r"a must have two axes, got shape \(3,\)"),
        (codes(2, 3), codes(2, 3), ValueError, "a has 3 columns, but b has 2 rows"),
    ],
)
def test_what_cannot_be_multiplied_is_refused(a, b, error, says):
    with pytest.raises(error, match=says):
        kernels.int_matmul(a, b)
