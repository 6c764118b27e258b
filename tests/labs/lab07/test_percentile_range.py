"""percentile_range: NumPy's percentiles, of magnitudes or of both tails."""

import math

import numpy as np
import pytest

from labutils.course import engine
from labutils.labs.answers import percentile_range
from labutils.labs.catalogue import EXERCISES
from labutils.labs.lab07.percentile_range import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

X = np.random.default_rng(0).standard_t(3, size=(40, 25)).astype(np.float32)


@pytest.mark.parametrize("percentile", [51, 90, 99.9, 100])
def test_the_range_holds_that_share_of_the_values(percentile):
    t = np.percentile(np.abs(X.astype(np.float64)), percentile)
    assert percentile_range(X, percentile) == pytest.approx((-t, t), rel=1e-12)
    low, high = percentile_range(X, percentile, symmetric=False)
    assert np.mean((low <= X) & (X <= high)) == pytest.approx(percentile / 100, abs=2 / X.size)
    assert np.mean(X < low) == pytest.approx(np.mean(X > high), abs=2 / X.size)


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    for x in (X, X.astype(np.float16), X.astype(np.float64)):
        assert percentile_range(torch.tensor(x), 99, symmetric=False) == percentile_range(x, 99, symmetric=False)


BAD = {
    "a list": (([0.5, 1.0],), TypeError, ("x must be a NumPy array or a torch tensor, got list",)),
    "integers": ((np.ones(3, int),), TypeError, ("x must hold floats",)),
    "NaN": ((np.array([0.5, np.nan]),), ValueError, ("x must be finite", "(2,)")),
    "empty": ((X[:0],), ValueError, ("x must not be empty",)),
    "a fraction": ((X, 0.999), ValueError, ("percentile is in percent, such as 99.9", "got 0.999")),
    "above 100": ((X, 100.1), ValueError, ("up to 100, got 100.1",)),
    "NaN percent": ((X, math.nan), ValueError, ("percentile must be finite, got nan",)),
    "symmetric=1": ((X, 99, 1), TypeError, ("symmetric must be True or False, got 1",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_bad_input_is_refused(args, kind, words):
    refuses(kind, words, percentile_range, *args)


def both_with_numpy(x, percentile=99.9, symmetric=True):
    if symmetric:
        t = np.percentile(np.abs(x), percentile)
        return -t, t
    rest = (100 - percentile) / 2
    return np.percentile(x, rest), np.percentile(x, 100 - rest)


def with_quantile(x, percentile=99.9, symmetric=True):
    share = percentile / 100
    if symmetric:
        return [sign * float(np.quantile(np.abs(x).ravel(), share, method="higher")) for sign in (-1, 1)]
    return tuple(np.quantile(x, [(1 - share) / 2, (1 + share) / 2], method="lower"))


def by_sorting(x, percentile=99.9, symmetric=True):
    values = np.sort(np.abs(x) if symmetric else x, axis=None)
    rest = (100 - percentile) / 100 * values.size
    if symmetric:
        t = values[max(0, values.size - 1 - int(rest))]
        return -t, t
    return values[int(rest / 2)], values[values.size - 1 - int(rest / 2)]


def with_partition(x, percentile=99.9, symmetric=True):
    flat = np.ravel(np.abs(x) if symmetric else x)
    last = flat.size - 1

    def at(share):
        k = min(last, max(0, round(share * last)))
        return flat.dtype.type(np.partition(flat, k)[k])

    if symmetric:
        return -at(percentile / 100), at(percentile / 100)
    return at((100 - percentile) / 200), at((100 + percentile) / 200)


def with_torch_quantile(x, percentile=99.9, symmetric=True):
    import torch

    t = torch.tensor(np.ascontiguousarray(x)).flatten().double()
    if symmetric:
        threshold = torch.quantile(t.abs(), percentile / 100)
        return -threshold, threshold
    return torch.quantile(t, (1 - percentile / 100) / 2), torch.quantile(t, (1 + percentile / 100) / 2)


def the_recipe(x, percentile=99.9, symmetric=True):
    return right(x, percentile, symmetric)


RIGHT = [both_with_numpy, with_quantile, by_sorting, with_partition, with_torch_quantile, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("percentile_range", answer)


def signed_percentiles(x, percentile=99.9, symmetric=True):
    high = np.percentile(x, percentile)
    return (
        (-high, high)
        if symmetric
        else (np.percentile(x, (100 - percentile) / 2), np.percentile(x, 50 + percentile / 2))
    )


def test_percentiles_of_x_in_other_words():
    report = engine.examine(signed_percentiles, EXERCISES["percentile_range"])
    assert not report.passed
    assert report.diagnosis == "the percentile of x instead of |x|"
