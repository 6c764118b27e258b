"""gptq_in_blocks: the same codes with fewer large updates."""

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from labutils.course import engine
from labutils.labs.answers import gptq_in_blocks, gptq_quantize
from labutils.labs.catalogue import EXERCISES
from labutils.labs.lab09.gptq_in_blocks import right
from tests.labs.lab09.test_gptq_quantize import codes_of, group_scale, lower_factor_and_its_columns_numpy, prepared
from tests.labs.right_answers import passes
from tests.models.problems import problem


@given(st.integers(0, 1000), st.sampled_from([(2, 4), (4, 2), (5, 5), (64, 4), (3, 20)]))
def test_blocks_change_no_code(seed, sizes):
    weight, hessian = problem(seed=seed)
    block_size, group_size = sizes
    plain = gptq_quantize(weight, hessian, 3, group_size)
    for one, other in zip(plain, gptq_in_blocks(weight, hessian, 3, group_size, block_size=block_size)):
        assert torch.equal(one, other)


def test_who_updates_everything_at_every_column_is_told_so():
    def gptq_in_blocks(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
        w = weight.double().clone()
        u = torch.linalg.cholesky(torch.linalg.inv(prepared(hessian, damping)), upper=True)
        q, scales = torch.zeros_like(w), []
        for j in range(w.shape[1]):
            if j % group_size == 0:
                scales.append(group_scale(w[:, j : j + group_size], num_bits)[:, 0])
            q[:, j] = codes_of(w[:, j], scales[-1], num_bits)
            w[:, j:] -= torch.outer((w[:, j] - q[:, j] * scales[-1]) / u[j, j], u[j, j:])
        return q.to(torch.int8), torch.stack(scales, 1)

    report = engine.examine(gptq_in_blocks, EXERCISES["gptq_in_blocks"])
    assert report.diagnosis == "the columns behind the block are updated at every column"
    assert "codes and scales are right" in report.first_failure.detail


def blocks(weight, hessian, num_bits, group_size, damping, block_size, behind):
    w = weight.double().clone()
    u = torch.linalg.cholesky(torch.linalg.inv(prepared(hessian, damping)), upper=True)
    q, scales = torch.zeros(w.shape, dtype=torch.int8), []
    for start in range(0, w.shape[1], block_size):
        stop, errors = min(start + block_size, w.shape[1]), []
        for j in range(start, stop):
            if j % group_size == 0:
                scales.append(group_scale(w[:, j : j + group_size], num_bits)[:, 0])
            codes = codes_of(w[:, j], scales[-1], num_bits)
            q[:, j] = codes.to(torch.int8)
            errors.append((w[:, j] - codes * scales[-1]) / u[j, j])
            w[:, j + 1 : stop] -= torch.outer(errors[-1], u[j, j + 1 : stop])
        behind(w, torch.stack(errors, 1), u, start, stop)
    return q, torch.stack(scales, 1)


def one_product(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    def behind(w, errors, u, start, stop):
        w[:, stop:] -= errors @ u[start:stop, stop:]

    return blocks(weight, hessian, num_bits, group_size, damping, block_size, behind)


def added_in_place(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    def behind(w, errors, u, start, stop):
        if stop < w.shape[1]:
            w[:, stop:].addmm_(errors, u[start:stop, stop:], alpha=-1)

    return blocks(weight, hessian, num_bits, group_size, damping, block_size, behind)


def einsum(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    def behind(w, errors, u, start, stop):
        w[:, stop:] = w[:, stop:] - torch.einsum("nb,bk->nk", errors, u[start:stop, stop:])

    return blocks(weight, hessian, num_bits, group_size, damping, block_size, behind)


def from_the_whole_loss_anew(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    """All that came before reaches a block when it begins ("lazy" the other way round)."""
    w = weight.double().clone()
    u = torch.linalg.cholesky(torch.linalg.inv(prepared(hessian, damping)), upper=True)
    errors, q, scales = torch.zeros_like(w), torch.zeros_like(w), []
    for start in range(0, w.shape[1], block_size):
        stop = min(start + block_size, w.shape[1])
        reach = stop if start % group_size else max(stop, start + group_size)
        now = weight.double()[:, start:reach] - errors[:, :start] @ u[:start, start:reach]
        for j in range(start, stop):
            if j % group_size == 0:
                scales.append(group_scale(now[:, j - start : j - start + group_size], num_bits)[:, 0])
            q[:, j] = codes_of(now[:, j - start], scales[-1], num_bits)
            errors[:, j] = (now[:, j - start] - q[:, j] * scales[-1]) / u[j, j]
            inside = slice(j - start, stop - start)
            now[:, inside] -= torch.outer(errors[:, j], u[j, j:stop])
    return q.to(torch.int8), torch.stack(scales, 1)


def without_torch_numpy(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    """NumPy's work is not counted."""
    return lower_factor_and_its_columns_numpy(weight, hessian, num_bits, group_size, damping)


def the_recipe(weight, hessian, num_bits=4, group_size=128, damping=0.01, block_size=128):
    return right(weight, hessian, num_bits, group_size, damping, block_size)


RIGHT = [one_product, added_in_place, einsum, from_the_whole_loss_anew, without_torch_numpy, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("gptq_in_blocks", answer)
