"""gptq_in_order: the loudest channel first, codes and scales in their own places."""

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from labutils.arrays.scheme import PerGroup, Scheme
from labutils.labs.answers import gptq_in_order, gptq_quantize
from labutils.labs.lab09.gptq_in_order import right
from tests.labs.lab09.test_gptq_quantize import codes_of, group_scale, prepared
from tests.labs.right_answers import passes
from tests.models.problems import problem
from tests.models.test_gptq import slow_gptq


@given(st.integers(0, 1000), st.sampled_from([2, 3, 4]), st.sampled_from([3, 7, 20]))
def test_codes_are_those_of_optimal_brain_surgeon(seed, num_bits, group_size):
    weight, hessian = problem(seed=seed)
    q, scales = gptq_in_order(weight, hessian, num_bits, group_size)
    codes, scale, _ = slow_gptq(weight, hessian, Scheme(num_bits, granularity=PerGroup(group_size)), 0.01, True)
    assert torch.equal(q.long(), codes)
    torch.testing.assert_close(scales, scale.float())


def test_with_one_group_it_is_gptq_on_sorted_columns():
    weight, hessian = problem(seed=3)
    order = hessian.diagonal().argsort(descending=True)
    q, scales = gptq_quantize(weight[:, order], hessian[order][:, order], 3, 20)
    found = gptq_in_order(weight, hessian, 3, 20)
    assert torch.equal(found[0][:, order], q)
    assert torch.equal(found[1], scales)


def scales_first(weight, num_bits, group_size):
    return torch.cat([group_scale(part, num_bits) for part in weight.double().split(group_size, dim=1)], 1)


def scales_a_column(scales, weight, group_size):
    return scales.repeat_interleave(group_size, 1)[:, : weight.shape[1]]


def sorted_and_assigned_back(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    order = torch.argsort(hessian.diagonal(), descending=True)
    scales = scales_first(weight, num_bits, group_size)
    s = scales_a_column(scales, weight, group_size)[:, order]
    w = weight.double()[:, order]
    u = torch.linalg.cholesky(torch.linalg.inv(prepared(hessian, damping)[order][:, order]), upper=True)
    codes = torch.zeros_like(w)
    for j in range(w.shape[1]):
        codes[:, j] = codes_of(w[:, j], s[:, j], num_bits)
        w[:, j:] -= torch.outer((w[:, j] - codes[:, j] * s[:, j]) / u[j, j], u[j, j:])
    q = torch.zeros_like(codes)
    q[:, order] = codes
    return q.to(torch.int8), scales


def inverse_permutation(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    h = prepared(hessian, damping)
    order = torch.argsort(-h.diagonal(), stable=True)
    back = torch.argsort(order)
    scales = scales_first(weight, num_bits, group_size)
    w, u = weight.double()[:, order], torch.linalg.cholesky(torch.linalg.inv(h)[order][:, order], upper=True)
    q = []
    for place, j in enumerate(order.tolist()):
        scale = scales[:, j // group_size]
        q.append(codes_of(w[:, place], scale, num_bits))
        w[:, place:] -= torch.outer((w[:, place] - q[-1] * scale) / u[place, place], u[place, place:])
    return torch.stack(q, 1)[:, back].char(), scales


def without_moving_columns(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    """The inverse of what is still free, anew for each column; columns stay where they are."""
    w, h = weight.double().clone(), prepared(hessian, damping)
    scales = scales_first(weight, num_bits, group_size)
    free = sorted(range(len(h)), key=lambda j: -float(h[j, j]))
    q = torch.zeros(w.shape, dtype=torch.int8)
    while free:
        j, scale = free[0], scales[:, free[0] // group_size]
        codes = codes_of(w[:, j], scale, num_bits)
        q[:, j] = codes.to(torch.int8)
        inverse = torch.linalg.inv(h[free][:, free])
        w[:, free] -= torch.outer((w[:, j] - codes * scale) / inverse[0, 0], inverse[0])
        free = free[1:]
    return q, scales


def sorted_by_numpy(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    import numpy as np

    order = np.argsort(-np.diag(hessian.numpy()), kind="stable")
    return with_order(weight, hessian, torch.from_numpy(order), num_bits, group_size, damping)


def with_order(weight, hessian, order, num_bits, group_size, damping):
    scales = scales_first(weight, num_bits, group_size)
    w, q = weight.double()[:, order].clone(), torch.zeros(weight.shape, dtype=torch.int8)
    u = torch.linalg.cholesky(torch.linalg.inv(prepared(hessian[order][:, order], damping)), upper=True)
    for place in range(len(order)):
        j = int(order[place])
        scale = scales[:, j // group_size]
        codes = codes_of(w[:, place], scale, num_bits)
        q[:, j] = codes.to(torch.int8)
        w[:, place + 1 :] -= torch.outer((w[:, place] - codes * scale) / u[place, place], u[place, place + 1 :])
    return q, scales.float()


def python_order(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    diagonal = hessian.diagonal().tolist()
    order = torch.tensor(sorted(range(len(diagonal)), key=diagonal.__getitem__, reverse=True))
    return with_order(weight, hessian, order, num_bits, group_size, damping)


def the_recipe(weight, hessian, num_bits=4, group_size=128, damping=0.01):
    return right(weight, hessian, num_bits, group_size, damping)


RIGHT = [
    sorted_and_assigned_back, inverse_permutation, without_moving_columns, sorted_by_numpy, python_order, the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("gptq_in_order", answer)
