"""layer_hessian: what an error in the weights costs the outputs, summed over all rows."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from labutils.labs.answers import layer_hessian
from labutils.labs.lab09.layer_hessian import right
from labutils.models import layer_hessians, output_loss
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes
from tests.models.problems import correlated


@given(st.integers(0, 1000), st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_it_is_what_the_library_gathers_from_a_running_layer(seed, lengths):
    batches = [correlated(length, 6, seed + i, dtype=torch.float32) for i, length in enumerate(lengths)]
    (expected,) = layer_hessians(torch.nn.Linear(6, 3), batches).values()
    torch.testing.assert_close(layer_hessian(batches), expected)


@given(st.integers(0, 1000))
def test_half_its_quadratic_form_is_what_the_outputs_lose(seed):
    x, error = correlated(30, 5, seed), torch.randn(4, 5, generator=torch.Generator().manual_seed(seed)).double()
    lost = float(((x @ error.T) ** 2).sum())
    found = output_loss(error, torch.zeros_like(error), layer_hessian([x.float()]).double())
    assert found == pytest.approx(lost, rel=1e-4)


ROWS = torch.ones(3, 4)
BAD = {
    "no batches": (([],), ValueError, ("at least one tensor",)),
    "other channels": (([ROWS, torch.ones(3, 5)],), ValueError, ("batch 1 must have shape (..., 4)", "(3, 5)")),
    "NaN": (([ROWS, ROWS * float("nan")],), ValueError, ("batch 1 must be finite",)),
    "integers": (([torch.ones(3, 4, dtype=torch.int64)],), TypeError, ("batch 0 must hold floats",)),
    "no axis": (([torch.tensor(1.0)],), ValueError, ("batch 0 must have shape",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_has_no_hessian_is_refused(args, kind, words):
    refuses(kind, words, layer_hessian, *args)


def row_by_row(batches):
    total = torch.zeros(batches[0].shape[-1], batches[0].shape[-1])
    for x in batches:
        for row in x.reshape(-1, x.shape[-1]).float():
            total += 2 * torch.outer(row, row)
    return total


def concatenated(batches):
    x = torch.cat([x.flatten(0, -2) if x.ndim > 1 else x[None] for x in batches]).float()
    return 2 * x.T @ x


def einsum_in_float64(batches):
    return sum(2 * torch.einsum("...i,...j->ij", *2 * [torch.atleast_2d(x).double()]) for x in batches)


def in_numpy(batches):
    total = 0
    for x in batches:
        rows = x.numpy().astype(np.float32).reshape(-1, x.shape[-1])
        total = total + 2 * rows.T @ rows
    return total


def root_of_two_first(batches):
    rows = [2**0.5 * x.reshape(-1, x.shape[-1]).float() for x in batches]
    return torch.stack([r.T @ r for r in rows]).sum(0)


def the_recipe(batches):
    return right(batches)


RIGHT = [row_by_row, concatenated, einsum_in_float64, in_numpy, root_of_two_first, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("layer_hessian", answer)
