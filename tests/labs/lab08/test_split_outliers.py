"""split_outliers: two parts that add up to x and share no channel."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labutils.labs.answers import split_outliers
from labutils.labs.lab08.split_outliers import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes
from tests.models.outliers.examples import activations


@given(st.integers(0, 1000), st.floats(0.1, 100))
def test_the_two_parts_add_up_and_share_no_channel(seed, threshold):
    x = activations(seed=seed, loud=(0, 6)).reshape(4, 10, 24)
    regular, loud = split_outliers(x, threshold)
    assert torch.equal(regular + loud, x)
    assert not ((regular != 0).any((0, 1)) & (loud != 0).any((0, 1))).any()
    assert regular.abs().max() <= threshold


def test_numpy_and_torch_agree():
    x = activations(loud=(0, 6)).reshape(4, 10, 24)
    for in_numpy, in_torch in zip(split_outliers(x.numpy()), split_outliers(x)):
        np.testing.assert_array_equal(in_numpy, in_torch)


ONES = np.ones(3, np.float32)
BAD_SPLITS = {
    "NaN": ((np.array([[1.0, np.nan]]),), ValueError, ("NaN or Inf",)),
    "no axis": ((np.float32(3),), ValueError, ("at least one axis",)),
    "threshold 0": ((ONES, 0), ValueError, ("threshold must be positive, got 0",)),
    "threshold NaN": ((ONES, math.nan), ValueError, ("threshold must be finite",)),
    "threshold None": ((ONES, None), TypeError, ("threshold must be a number",)),
    "a list": (([1.0],), TypeError, ("got list",)),
    "empty": ((ONES[:0],), ValueError, ("must not be empty",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD_SPLITS))
def test_what_cannot_be_split_is_refused(args, kind, words):
    refuses(kind, words, split_outliers, *args)


def filled_by_mask(x, threshold=6.0):
    loud = x.abs().reshape(-1, x.shape[-1]).amax(0) > threshold
    return x.masked_fill(loud, 0), x.masked_fill(~loud, 0)


def times_mask(x, threshold=6.0):
    loud = (x.abs() > threshold).flatten(0, -2).any(0) if x.ndim > 1 else x.abs() > threshold
    return x * ~loud, x * loud


def torch_where_and_difference(x, threshold=6.0):
    axes = tuple(range(x.ndim - 1))
    peaks = x.abs().amax(dim=axes) if axes else x.abs()
    outliers = torch.where(peaks > threshold, x, torch.zeros(()))
    return x - outliers, outliers


def index_by_index(x, threshold=6.0):
    regular, outliers = x.clone(), x.clone()
    for channel in range(x.shape[-1]):
        loud = float(x[..., channel].abs().max()) > threshold
        (regular if loud else outliers)[..., channel] = 0
    return regular, outliers


def split_in_numpy(x, threshold=6.0):
    x = x.numpy()
    loud = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0) > threshold
    return [np.where(loud, 0, x).astype("f4"), np.where(loud, x, 0).astype("f4")]


def copied_into_zeros(x, threshold=6.0):
    loud = torch.nonzero(x.abs().reshape(-1, x.shape[-1]).max(0).values > threshold).flatten()
    outliers = torch.zeros_like(x)
    outliers[..., loud] = x[..., loud]
    regular = x.clone()
    regular[..., loud] = 0
    return regular, outliers


def the_recipe(x, threshold=6.0):
    return right(x, threshold)


def over_all_axes_but_the_last(x, threshold=6.0):
    mask = x.abs().amax(dim=tuple(range(x.ndim - 1))) > threshold
    return x * ~mask, x * mask


RIGHT = [
    over_all_axes_but_the_last,
    filled_by_mask, times_mask, torch_where_and_difference, index_by_index, split_in_numpy, copied_into_zeros,
    the_recipe,
]  # fmt: skip


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("split_outliers", answer)
