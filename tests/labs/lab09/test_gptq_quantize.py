"""gptq_quantize: codes that keep the outputs; its check accepts every way to reach them, and ties either way."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.course.exercise import Case, Wrong
from labutils.labs.answers import gptq_quantize
from labutils.labs.lab09.gptq_quantize import judge, right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes
from tests.models.problems import problem
from tests.models.test_gptq import slow_gptq


@given(st.integers(0, 1000), st.sampled_from([2, 3, 4, 8]), st.sampled_from([3, 7, 20]))
def test_codes_are_those_of_optimal_brain_surgeon(seed, num_bits, group_size):
    weight, hessian = problem(seed=seed)
    q, scales = gptq_quantize(weight, hessian, num_bits, group_size)
    codes, scale, _ = slow_gptq(weight, hessian, Scheme(num_bits, granularity=PerGroup(group_size)), 0.01, False)
    assert torch.equal(q.long(), codes)
    torch.testing.assert_close(scales, scale.float())


def test_a_tie_may_be_rounded_either_way_and_what_follows_from_it_is_right_too():
    weight = np.array([[3.0, 0.5, 1.2]], np.float32)  # the scale is 1, and 0.5 a tie
    hessian = np.array([[1, 0, 0], [0, 1, 0.8], [0, 0.8, 1]], np.float32)
    case = Case("a tie", (weight, hessian), {"num_bits": 3, "group_size": 3, "damping": 0.0})
    for codes in ([3, 0, 2], [3, 1, 1]):  # the third weight is 1.6 or 0.8 by then
        judge({"q": np.array([codes], np.int8), "scales": np.array([[1.0]])}, case)
    for codes in ([3, 0, 1], [3, 1, 2], [2, 0, 2]):
        with pytest.raises(Wrong, match="should be"):
            judge({"q": np.array([codes], np.int8), "scales": np.array([[1.0]])}, case)


W, H = problem(dtype=torch.float32)
BAD = {
    "a group of nothing": ((W, H, 4, 0), ValueError, ("group_size must be at least 1",)),
    "1 bit": ((W, H, 1), ValueError, ("num_bits",)),
    "another Hessian": ((W, H[:3, :3]), ValueError, ("hessian must have shape (20, 20)",)),
    "negative damping": ((W, H, 4, 8, -1.0), ValueError, ("damping must be at least 0",)),
    "no weight": ((None, H), TypeError, ("weight must be a torch tensor",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_cannot_be_quantized_is_refused(args, kind, words):
    refuses(kind, words, gptq_quantize, *args)


def prepared(hessian, damping):
    h = hessian.double().clone()
    h += damping * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)
    return h + torch.diag((h.diagonal() == 0).double())


def group_scale(columns, num_bits):
    scale = columns.abs().amax(1, keepdim=True) / (2 ** (num_bits - 1) - 1)
    return scale.masked_fill(scale == 0, 1.0)


def codes_of(column, scale, num_bits):
    return torch.clamp(torch.round(column / scale), -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1)


def inverse_anew_for_each_column(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    w, h = weight.double().clone(), prepared(hessian, damping)
    q, scales = [], []
    for j in range(w.shape[1]):
        if j % group_size == 0:
            scales.append(group_scale(w[:, j : j + group_size], num_bits))
        q.append(codes_of(w[:, j : j + 1], scales[-1], num_bits))
        inverse = torch.linalg.inv(h[j:, j:])
        error = w[:, j : j + 1] - q[-1] * scales[-1]
        w[:, j:] = w[:, j:] - error / inverse[0, 0] * inverse[0]
    return torch.cat(q, 1).to(torch.int8), torch.cat(scales, 1)


def inverse_updated(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """The inverse of the smaller Hessian by one step of Gauss elimination."""
    w, inverse = weight.double().clone(), torch.linalg.inv(prepared(hessian, damping))
    q, scales = torch.zeros_like(w), []
    for j in range(w.shape[1]):
        if j % group_size == 0:
            scales.append(group_scale(w[:, j : j + group_size], num_bits)[:, 0])
        q[:, j] = codes_of(w[:, j], scales[-1], num_bits)
        error = (w[:, j] - q[:, j] * scales[-1]) / inverse[j, j]
        w -= torch.outer(error, inverse[j]) * (torch.arange(w.shape[1]) > j)
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[j, j] = 1.0
    return q.char(), torch.stack(scales, -1).float()


def cholesky_three_times(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """As published: factor, inverse from the factor, factor of that."""
    w = weight.clone().double()
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(prepared(hessian, damping))), upper=True)
    q, scales = torch.zeros(w.shape, dtype=torch.int8), torch.zeros(len(w), -(-w.shape[1] // group_size))
    for j in range(w.shape[1]):
        g = j // group_size
        if j == g * group_size:
            scales[:, g] = group_scale(w[:, j : j + group_size], num_bits)[:, 0]
        codes = codes_of(w[:, j], scales[:, g], num_bits)
        q[:, j] = codes
        w[:, j + 1 :] -= ((w[:, j] - codes * scales[:, g]) / u[j, j])[:, None] * u[j, j + 1 :]
    return q, scales


def lower_factor_and_its_columns_numpy(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    w, h = weight.numpy().astype(float), hessian.numpy().astype(float)
    h[np.diag_indices(len(h))] += damping * np.mean(np.diag(h))
    for i in range(len(h)):
        h[i, i] = h[i, i] or 1.0
    lower = np.linalg.cholesky(np.linalg.inv(h))
    q, scales, top = np.zeros(w.shape, np.int8), [], 2 ** (num_bits - 1) - 1
    for j in range(w.shape[1]):
        if j % group_size == 0:
            scale = np.max(np.abs(w[:, j : j + group_size]), axis=1) / top
            scale[scale == 0] = 1
            scales.append(scale)
        q[:, j] = np.clip(np.rint(w[:, j] / scale), -top - 1, top)
        w[:, j:] -= np.outer(w[:, j] - q[:, j] * scale, lower[j:, j] / lower[j, j])
    return q, np.array(scales).T


def row_by_row(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    u = torch.linalg.cholesky(torch.linalg.inv(prepared(hessian, damping)), upper=True)
    q, scales = torch.zeros(weight.shape, dtype=torch.int8), []
    for i, row in enumerate(weight.double()):
        row, of_row = row.clone(), []
        for j in range(len(row)):
            if j % group_size == 0:
                of_row.append(float(row[j : j + group_size].abs().max()) / (2 ** (num_bits - 1) - 1) or 1.0)
            q[i, j] = int(codes_of(row[j], of_row[-1], num_bits))
            row[j:] -= (row[j] - q[i, j] * of_row[-1]) / u[j, j] * u[j, j:]
        scales.append(of_row)
    return q, torch.tensor(scales)


def in_float32(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """Not as the contract says, and near enough where it works."""
    w = weight.clone()
    u = torch.linalg.cholesky(torch.linalg.inv(prepared(hessian, damping).float()), upper=True)
    q, scales = torch.zeros_like(w), []
    for j in range(w.shape[1]):
        if j % group_size == 0:
            scales.append(group_scale(w[:, j : j + group_size], num_bits)[:, 0])
        q[:, j] = codes_of(w[:, j], scales[-1], num_bits)
        w[:, j:] -= torch.outer((w[:, j] - q[:, j] * scales[-1]) / u[j, j], u[j, j:])
    return q.to(torch.int8), torch.stack(scales, 1)


def the_recipe(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    return right(weight, hessian, num_bits, group_size, damping)


RIGHT = [
    inverse_anew_for_each_column, inverse_updated, cholesky_three_times, lower_factor_and_its_columns_numpy, row_by_row,
    in_float32, the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("gptq_quantize", answer)
