"""awq_scales: the candidate of the grid with which the outputs lose least."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given
from hypothesis import strategies as st

from labutils import PerGroup, Scheme, fake_quantize
from labutils.labs.answers import awq_scales
from labutils.labs.lab09.awq_scales import loud, right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes


def lost(weight, hessian, s, scheme):
    error = weight - fake_quantize(weight * s, scheme) / s
    return float(((error @ hessian) * error).sum())


@given(st.integers(0, 1000), st.sampled_from([2, 3, 4]))
def test_no_other_candidate_loses_less(seed, num_bits):
    weight, hessian = (torch.from_numpy(m).double() for m in loud(6, 16, seed))
    scheme, size = Scheme(num_bits, granularity=PerGroup(8)), hessian.diagonal().sqrt()
    found = lost(weight, hessian, awq_scales(weight, hessian, num_bits, 8), scheme)
    others = [size ** (step / 20) for step in range(21)]
    assert found <= min(lost(weight, hessian, s / (s.max() * s.min()).sqrt(), scheme) for s in others) * (1 + 1e-9)


W, H = map(torch.from_numpy, loud(6, 16, 0))
BAD = {
    "another Hessian": ((W, H[:3, :3]), ValueError, ("hessian must have shape (16, 16)",)),
    "a group of nothing": ((W, H, 4, 0), ValueError, ("group_size must be at least 1",)),
    "no weight": ((None, H), TypeError, ("weight must be a torch tensor",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_has_no_scales_is_refused(args, kind, words):
    refuses(kind, words, awq_scales, *args)


def candidates(hessian):
    size = hessian.diagonal().sqrt()
    alive = size > 0
    for step in range(21):
        s = torch.where(alive, size, torch.ones_like(size)) ** (step / 20)
        yield torch.where(alive, s / torch.sqrt(s[alive].max() * s[alive].min()), torch.ones_like(s))


def min_over_a_list(weight, hessian, num_bits=4, group_size=128):
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    return min(candidates(hessian), key=lambda s: lost(weight, hessian, s, scheme))


def round_in_groups(w, num_bits, group_size):
    parts = []
    for part in w.split(group_size, dim=1):
        scale = part.abs().amax(1, keepdim=True) / (2 ** (num_bits - 1) - 1)
        scale[scale == 0] = 1
        parts.append((part / scale).round().clamp(-(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1) * scale)
    return torch.cat(parts, 1)


def own_rounding_and_row_by_row(weight, hessian, num_bits=4, group_size=128):
    best, least = None, None
    for s in candidates(hessian.double()):
        error = weight.double() - round_in_groups(weight.double() * s, num_bits, group_size) / s
        loss = sum(float(e @ hessian.double() @ e) for e in error)
        if least is None or loss < least:
            best, least = s, loss
    return best.float()


def all_losses_then_argmin(weight, hessian, num_bits=4, group_size=128):
    tried = torch.stack(list(candidates(hessian)))
    errors = torch.stack([weight - round_in_groups(weight * s, num_bits, group_size) / s for s in tried])
    return tried[torch.einsum("cnk,kl,cnl->c", errors, hessian, errors).argmin()]


def scales_in_numpy(weight, hessian, num_bits=4, group_size=128):
    w, h = weight.numpy().astype(float), hessian.numpy().astype(float)
    m = np.sqrt(np.diag(h))
    best = (np.inf, None)
    for alpha in np.linspace(0, 1, 21):
        s = np.ones(len(m))
        s[m > 0] = m[m > 0] ** alpha / np.sqrt(m.max() ** alpha * m[m > 0].min() ** alpha)
        e = w - fake_quantize(w * s, Scheme(num_bits, granularity=PerGroup(group_size))) / s
        best = min(best, (np.trace(e @ h @ e.T) / 2, tuple(s)))
    return np.array(best[1])


def with_a_factor_of_the_root(weight, hessian, num_bits=4, group_size=128):
    """The root of the mean square over any number of rows: the factor goes out with the middle."""
    scheme = Scheme(num_bits, granularity=PerGroup(group_size))
    return min(candidates(hessian / 200), key=lambda s: lost(weight, hessian, s, scheme))


def the_recipe(weight, hessian, num_bits=4, group_size=128):
    return right(weight, hessian, num_bits, group_size)


RIGHT = [
    min_over_a_list, own_rounding_and_row_by_row, all_losses_then_argmin, scales_in_numpy, with_a_factor_of_the_root,
    the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("awq_scales", answer)
