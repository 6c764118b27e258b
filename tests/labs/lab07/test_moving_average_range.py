"""moving_average_range: each end by its recurrence, and by the weights that follow from it."""

import math

import numpy as np
import pytest

from labutils.labs.answers import moving_average_range
from labutils.labs.lab07.moving_average_range import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

BATCHES = [np.random.default_rng(i).normal(size=(4, 5)).astype(np.float32) for i in range(6)]


def in_a_loop(batches, momentum=0.9):
    low, high = batches[0].min(), batches[0].max()
    for batch in batches[1:]:
        low = momentum * low + (1 - momentum) * batch.min()
        high = momentum * high + (1 - momentum) * batch.max()
    return low, high


def as_torch_does(batches, momentum=0.9):
    low = high = None
    for batch in batches:
        smallest, largest = float(np.min(batch)), float(np.max(batch))
        low = smallest if low is None else low + (1 - momentum) * (smallest - low)
        high = largest if high is None else high + (1 - momentum) * (largest - high)
    return low, high


def with_reduce(batches, momentum=0.9):
    from functools import reduce

    ends = [np.array([np.min(b), np.max(b)], dtype=np.float64) for b in batches]
    return tuple(reduce(lambda old, new: momentum * old + (1 - momentum) * new, ends))


def with_weights(batches, momentum=0.9):
    n = len(batches)
    weights = [momentum ** (n - 1)] + [(1 - momentum) * momentum ** (n - 1 - i) for i in range(1, n)]
    return np.dot(weights, [b.min() for b in batches]), np.dot(weights, [b.max() for b in batches])


def recursively(batches, momentum=0.9):
    *before, last = batches
    if not before:
        return float(last.min()), float(last.max())
    low, high = recursively(before, momentum)
    return [momentum * low + (1 - momentum) * float(last.min()), momentum * high + (1 - momentum) * float(last.max())]


def sorted_by_torch(batches, momentum=0.9):
    import torch

    state = None
    for batch in batches:
        ends = torch.stack(torch.aminmax(torch.tensor(batch)))
        state = ends if state is None else torch.lerp(ends, state, momentum)
    return state[0], state[1]


def the_recipe(batches, momentum=0.9):
    return right(batches, momentum)


@pytest.mark.parametrize("momentum", [0, 0.5, 0.99])
def test_the_recurrence_is_a_weighted_sum_of_the_ends(momentum):
    assert moving_average_range(BATCHES, momentum) == pytest.approx(with_weights(BATCHES, momentum))


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    assert moving_average_range([torch.tensor(batch) for batch in BATCHES]) == moving_average_range(BATCHES)


BAD = {
    "no batches": (([],), ValueError, ("has seen no batch",)),
    "a batch of integers": (([BATCHES[0], np.ones(3, int)],), TypeError, ("batch 1 must hold floats",)),
    "NaN in a batch": (([BATCHES[0], BATCHES[1] * np.nan],), ValueError, ("batch 1 must be finite",)),
    "momentum 1": ((BATCHES, 1), ValueError, ("momentum must be at least 0 and below 1, got 1",)),
    "momentum NaN": ((BATCHES, math.nan), ValueError, ("momentum must be finite, got nan",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_bad_input_is_refused(args, kind, words):
    refuses(kind, words, moving_average_range, *args)


RIGHT = [in_a_loop, as_torch_does, with_reduce, with_weights, recursively, sorted_by_torch, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("moving_average_range", answer)
