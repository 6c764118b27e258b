"""window_split: whole groups of old tokens, and at least a window of new ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labutils.labs.answers import window_split
from labutils.labs.lab12.window_split import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

X = np.arange(30, dtype=np.float32).reshape(1, 15, 2)


@given(st.integers(1, 60), st.integers(0, 40), st.integers(1, 20))
def test_nothing_is_lost_groups_are_whole_and_the_window_is_kept(tokens, window, group):
    x = np.arange(tokens, dtype=np.float32).reshape(1, tokens, 1)
    old, newest = window_split(x, window, group)
    np.testing.assert_array_equal(np.concatenate([old, newest], axis=1), x)
    assert old.shape[1] % group == 0
    assert newest.shape[1] >= min(window, tokens)
    assert newest.shape[1] - min(window, tokens) < group, "as many groups as there is room for"


@pytest.mark.parametrize("tokens", [1, 31, 64, 65, 100])
def test_the_cache_quantizes_the_same_tokens(tokens):
    pytest.importorskip("transformers")
    from labutils.models.kv_cache.format import CacheFormat
    from labutils.models.kv_cache.states import CachedStates

    x = torch.randn(1, tokens, 4)
    states = CachedStates("keys", CacheFormat(window=10, group_size=16))
    states.append(x[None])
    states.quantize_old()
    old, newest = window_split(x, 10, 16)
    assert states.quantized == old.shape[1]
    assert torch.equal(states.newest[0], newest)


BAD = {
    "two axes": ((X[0],), ValueError, ("(heads, tokens, channels)", "(15, 2)")),
    "NaN": ((X * np.nan,), ValueError, ("finite",)),
    "a negative window": ((X, -1), ValueError, ("window", "-1")),
    "groups of none": ((X, 3, 0), ValueError, ("group_size", "0")),
    "half a token": ((X, 2.5), TypeError, ("window", "2.5")),
    "None": ((None,), TypeError, ("NoneType",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_cannot_be_split_is_refused(args, kind, words):
    refuses(kind, words, window_split, *args)


def count_and_slice(x, window=32, group_size=32):
    n = max(0, x.shape[1] - window) // group_size * group_size
    return x[:, :n], x[:, n:]


def torch_split(x, window=32, group_size=32):
    n = max(x.shape[1] - window, 0)
    n -= n % group_size
    return tuple(torch.split(x, [n, x.shape[1] - n], dim=1))


def group_by_group(x, window=32, group_size=32):
    n = 0
    while n + group_size + window <= x.shape[1]:
        n += group_size
    return x[:, :n, :].clone(), x[:, n:, :].clone()


def by_a_mask(x, window=32, group_size=32):
    tokens = x.shape[1]
    old = [t for t in range(tokens) if t // group_size * group_size + group_size <= tokens - window]
    return x[:, old], x[:, [t for t in range(tokens) if t not in old]]


def from_the_end(x, window=32, group_size=32):
    left = min(x.shape[1], window + (x.shape[1] - window) % group_size)
    return x[:, : x.shape[1] - left], x[:, x.shape[1] - left :]


def in_numpy(x, window=32, group_size=32):
    return np.split(x.numpy(), [max(0, (x.shape[1] - window) // group_size) * group_size], axis=1)


def the_recipe(x, window=32, group_size=32):
    return right(x, window, group_size)


RIGHT = [count_and_slice, torch_split, group_by_group, by_a_mask, from_the_end, in_numpy, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("window_split", answer)
