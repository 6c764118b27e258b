"""mxfp4_scales: powers of two, by which the largest magnitude of a block lies from 4 to 8 steps away."""

import numpy as np
import pytest

from labutils.arrays import affine
from labutils.arrays.block_formats import MXFP4
from labutils.labs.answers import mxfp4_scales
from labutils.labs.lab11.mxfp4_scales import right
from tests.labs.right_answers import passes

pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(6, 128)) * 10.0 ** RNG.uniform(-8, 8, (6, 1))).astype(np.float32)


@pytest.mark.parametrize("size", [1, 16, 32, 128])
def test_the_largest_magnitude_lies_from_4_to_8_steps_away(size):
    scales = mxfp4_scales(X, size)
    assert scales.shape == (6, 128 // size)
    steps = np.abs(X.reshape(6, -1, size)).max(axis=-1) / scales
    assert np.all((steps >= 4) & (steps < 8))
    assert np.array_equal(np.frexp(scales)[0], np.full(scales.shape, 0.5))  # powers of two


def test_they_are_the_scales_of_the_library():
    assert np.array_equal(mxfp4_scales(X), affine.quantize(X, MXFP4).scale)


def test_they_are_the_scales_of_torchao():
    torch = pytest.importorskip("torch")
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    scales, _ = mx.to_mx(torch.from_numpy(X), torch.float4_e2m1fn_x2, 32)
    assert np.array_equal(mxfp4_scales(X), scales.float().numpy().reshape(6, -1))


def test_zeros_and_what_lies_below_the_scales():
    assert mxfp4_scales(np.zeros((1, 32), np.float32)) == 1
    assert mxfp4_scales(np.full((1, 32), 1e-40, np.float32)) == 2.0**-127


@pytest.mark.parametrize(
    "x, size, error, words",
    [
        (np.ones((2, 40), np.float32), 32, ValueError, "must divide"),
        (np.ones((2, 32), np.int32), 32, TypeError, "floats"),
        (np.full((1, 32), np.nan, np.float32), 32, ValueError, "NaN"),
        (np.float32(1), 32, ValueError, "axis"),
    ],
    ids=["a block that does not divide", "integers", "NaN", "a number"],
)
def test_what_has_no_such_blocks_is_refused(x, size, error, words):
    with pytest.raises(error, match=words):
        mxfp4_scales(x, size)


# Right answers, however they are written.


def by_logarithm(x, block_size=32):
    peaks = np.abs(x.astype(np.float64)).reshape(*x.shape[:-1], -1, block_size).max(-1)
    exponent = np.floor(np.log2(np.where(peaks == 0, 1, peaks))) - 2
    return np.where(peaks == 0, 1, 2.0 ** np.maximum(exponent, -127))


def block_by_block(x, block_size=32):
    rows = x.reshape(-1, x.shape[-1])
    scales = []
    for row in rows:
        for start in range(0, len(row), block_size):
            largest = max(abs(float(value)) for value in row[start : start + block_size])
            scale = 1.0
            if largest:
                scale = 2.0**-127
                while scale * 8 <= largest:
                    scale *= 2
            scales.append(scale)
    return np.array(scales).reshape(*x.shape[:-1], -1)


def by_the_bits(x, block_size=32):
    peaks = np.ascontiguousarray(np.abs(x).reshape(*x.shape[:-1], -1, block_size).max(-1)).astype(np.float64)
    exponent = (peaks.view(np.int64) >> 52) - 1023
    scales = np.ldexp(1.0, np.maximum(exponent - 2, -127))
    scales[peaks == 0] = 1
    return scales.astype(np.float32)


def with_reduceat(x, block_size=32):
    peaks = np.maximum.reduceat(np.abs(x), np.arange(0, x.shape[-1], block_size), axis=-1)
    _, exponent = np.frexp(peaks)
    return np.where(peaks > 0, np.exp2(np.maximum(exponent - 3.0, -127)), 1.0)


def in_torch(x, block_size=32):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    peaks = t.unflatten(-1, (-1, block_size)).abs().amax(-1)
    _, exponent = torch.frexp(peaks)
    return torch.where(peaks == 0, 1.0, torch.exp2((exponent - 3).clamp(min=-127).double()))


RIGHT = [right, by_logarithm, block_by_block, by_the_bits, with_reduceat, in_torch]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("mxfp4_scales", answer)
