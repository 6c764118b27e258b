"""mse_range: no other range has a smaller error, however it was found."""

import numpy as np
import pytest

from labutils import Scheme, fake_quantize, qparams_of_range
from labutils.course import engine
from labutils.labs.answers import mse_range
from labutils.labs.catalogue import EXERCISES
from labutils.labs.lab07.mse_range import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import passes

X = np.append(np.random.default_rng(0).laplace(size=2000), [40.0]).astype(np.float32)


def lost(x, low, high, num_bits, symmetric):
    scheme = Scheme(num_bits, symmetric=symmetric)
    return float(np.mean((x - fake_quantize(x, scheme, qparams_of_range(low, high, scheme, like=x))) ** 2))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("num_bits", [4, 6, 8])
def test_no_narrower_and_no_wider_range_loses_less(num_bits, symmetric):
    low, high = mse_range(X, num_bits, symmetric)
    least = lost(X, low, high, num_bits, symmetric)
    assert least <= lost(X, -40.0 if symmetric else float(X.min()), 40.0, num_bits, symmetric)
    for factor in (0.5, 0.8, 0.9, 1.1, 1.25, 2):
        assert least <= 1.02 * lost(X, low * factor, high * factor, num_bits, symmetric)


def test_numpy_and_torch_agree():
    torch = pytest.importorskip("torch")
    assert mse_range(torch.tensor(X), 3, False) == pytest.approx(mse_range(X, 3, False))


BAD = {
    "a list": (([0.5, 1.0],), TypeError, ("must be a NumPy array or a torch tensor, got list",)),
    "NaN": ((np.array([0.5, np.nan]),), ValueError, ("must be finite", "(2,)")),
    "1 bit": ((X, 1), ValueError, ("num_bits must be between 2 and 16, got 1",)),
    "4.0 bits": ((X, 4.0), TypeError, ("num_bits must be a whole number, got 4.0",)),
    "symmetric=1": ((X, 4, 1), TypeError, ("symmetric must be True or False, got 1",)),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_bad_input_is_refused(args, kind, words):
    refuses(kind, words, mse_range, *args)


def one_end_after_the_other(x, num_bits=8, symmetric=True):
    largest = np.abs(x).max()
    if symmetric:
        clips = np.linspace(0.02, 1, 50) * largest
        best = clips[np.argmin([lost(x, -c, c, num_bits, True) for c in clips])]
        return -best, best
    low, high = min(x.min(), 0), max(x.max(), 0)
    first, last = low, high
    for _ in range(2):
        highs = [f * last for f in np.linspace(0.02, 1, 50)]
        high = highs[int(np.argmin([lost(x, low, h, num_bits, False) for h in highs]))]
        lows = [f * first for f in np.linspace(0.02, 1, 50)]
        low = lows[int(np.argmin([lost(x, bottom, high, num_bits, False) for bottom in lows]))]
    return low, high


def every_pair(x, num_bits=8, symmetric=True):
    fractions = np.geomspace(0.06, 1, 25)
    if symmetric:
        best = min(
            np.geomspace(0.03, 1, 100), key=lambda f: lost(x, -f * np.abs(x).max(), f * np.abs(x).max(), num_bits, True)
        )
        return -best * np.abs(x).max(), best * np.abs(x).max()
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    pairs = [(f * low, g * high) for f in fractions for g in fractions]
    return min(pairs, key=lambda pair: lost(x, *pair, num_bits, False))


def coarse_then_fine(x, num_bits=8, symmetric=True):
    def search(ends, low, high):
        return min(((f * low, g * high) for f, g in ends), key=lambda r: lost(x, *r, num_bits, symmetric))

    if symmetric:
        low, high = -float(np.abs(x).max()), float(np.abs(x).max())
        coarse = search([(f, f) for f in np.linspace(0.04, 1, 25)], low, high)
        return search([(f, f) for f in np.linspace(0.94, 1.06, 13)], *coarse)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    grid = np.linspace(0.06, 1, 16)
    coarse = search([(f, g) for f in grid for g in grid], low, high)
    near = np.linspace(0.84, 1.16, 9)
    return search([(f, g) for f in near for g in near], *coarse)


def on_the_codes(x, num_bits=8, symmetric=True):
    """Spelled out, in float64, with levels as many above zero as below."""
    x = x.astype(np.float64).ravel()

    def error(low, high):
        if symmetric:
            step, least, most = high / (2 ** (num_bits - 1) - 1), -(2 ** (num_bits - 1)) + 1, 2 ** (num_bits - 1) - 1
            zero = 0
        else:
            step, least, most = (high - low) / (2**num_bits - 1), 0, 2**num_bits - 1
            zero = round(-low / step)
        back = (np.clip(np.rint(x / step) + zero, least, most) - zero) * step
        return np.sum((x - back) ** 2)

    peak = np.abs(x).max()
    if peak == 0:
        return 0.0, 0.0
    if symmetric:
        return min(((-c, c) for c in np.linspace(0.01, 1, 100) * peak), key=lambda r: error(*r))
    bottom, top = min(x.min(), 0), max(x.max(), 0)
    low, high = min(((max(bottom, -c), min(top, c)) for c in np.linspace(0.01, 1, 100) * peak), key=lambda r: error(*r))
    for _ in range(2):
        high = min([f * top for f in np.linspace(0.02, 1, 99) if f * top > low] or [top], key=lambda h: error(low, h))
        low = min([f * bottom for f in np.linspace(0, 1, 100) if f * bottom < high], key=lambda b: error(b, high))
    return low, high


def with_torch_tensors(x, num_bits=8, symmetric=True):
    import torch

    t = torch.tensor(x)
    scheme = Scheme(num_bits, symmetric=symmetric)

    def error(ends):
        return float(((t - fake_quantize(t, scheme, qparams_of_range(*ends, scheme, like=t))) ** 2).mean())

    fractions = [i / 50 for i in range(1, 51)]
    if symmetric:
        c = float(t.abs().max())
        return min([(-f * c, f * c) for f in fractions], key=error)
    low, high = min(float(t.min()), 0.0), max(float(t.max()), 0.0)
    best = low, high
    for _ in range(2):
        best = min([(best[0], f * high) for f in fractions], key=error)
        best = min([(f * low, best[1]) for f in fractions], key=error)
    return best


def the_recipe(x, num_bits=8, symmetric=True):
    return right(x, num_bits, symmetric)


RIGHT = [one_end_after_the_other, every_pair, coarse_then_fine, on_the_codes, with_torch_tensors, the_recipe]


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes(answer):
    passes("mse_range", answer)


def against_the_clipped(x, num_bits=8, symmetric=True):
    """Each clip judged by how well the clipped tensor comes back."""
    clips = np.linspace(0.02, 1, 50) * np.abs(x).max()
    errors = []
    for c in clips:
        clipped = x.clip(-c, c)
        step = c / (2 ** (num_bits - 1) - 1)
        errors.append(((clipped - np.round(clipped / step) * step) ** 2).mean())
    best = clips[int(np.argmin(errors))]
    return -best, best


def test_the_clipped_tensor_in_other_words():
    report = engine.examine(against_the_clipped, EXERCISES["mse_range"])
    assert not report.passed
    assert report.diagnosis == "measures against the clipped tensor"
