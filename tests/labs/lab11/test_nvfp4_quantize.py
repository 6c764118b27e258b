"""nvfp4_quantize: two levels of scales on their grids, and values on theirs, for tensors of any unit."""

import numpy as np
import pytest

from labutils.arrays.affine import fake_quantize
from labutils.arrays.block_formats import NVFP4
from labutils.labs.answers import nvfp4_quantize
from labutils.labs.lab11.nvfp4_quantize import right
from tests.labs.right_answers import passes

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.filterwarnings("error")
X = np.random.default_rng(0).standard_t(5, size=(8, 64)).astype(np.float32)


def restored(q, scales, tensor_scale):
    return q * np.repeat(scales, 16, axis=-1) * tensor_scale


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_every_part_is_on_its_grid(unit):
    q, scales, tensor_scale = nvfp4_quantize(X * np.float32(unit))
    assert np.array_equal(q, q.astype(ml_dtypes.float4_e2m1fn).astype(np.float32))
    assert np.array_equal(scales, scales.astype(ml_dtypes.float8_e4m3fn).astype(np.float32))
    assert scales.max() == 448
    assert np.isclose(tensor_scale, np.abs(X * np.float32(unit)).max() / (6 * 448), rtol=1e-6)


def test_it_is_the_format_of_the_library():
    assert np.allclose(restored(*nvfp4_quantize(X)), fake_quantize(X, NVFP4), rtol=1e-6)


def test_a_value_is_off_by_at_most_half_of_the_widest_gap_and_what_a_scale_was_rounded_down():
    q, scales, tensor_scale = nvfp4_quantize(X)
    step = np.repeat(scales, 16, axis=-1) * tensor_scale
    assert np.all(np.abs(X - q * step) <= step * 1.0 * (1 + 1e-5))  # half of 4 to 6; 6 / 16 beyond 6 is less


def test_zeros_come_back_as_zeros():
    q, scales, tensor_scale = nvfp4_quantize(np.zeros((2, 32), np.float32))
    assert not q.any()
    assert np.all(scales > 0) and tensor_scale > 0


@pytest.mark.parametrize(
    "x, error, words",
    [
        (np.ones((2, 24), np.float32), ValueError, "multiples of 16"),
        (np.ones((2, 32), np.int32), TypeError, "floats"),
        (np.full((1, 32), np.inf, np.float32), ValueError, "Inf"),
    ],
    ids=["rows of 24", "integers", "infinity"],
)
def test_what_has_no_such_blocks_is_refused(x, error, words):
    with pytest.raises(error, match=words):
        nvfp4_quantize(x)


# Right answers, however they are written.

FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def with_ml_dtypes(x):
    tensor_scale = np.abs(x).max() / 2688
    if tensor_scale == 0:
        tensor_scale = np.float32(1)
    blocks = x.reshape(*x.shape[:-1], -1, 16)
    scales = np.minimum(np.abs(blocks).max(-1) / 6 / tensor_scale, 448).astype(ml_dtypes.float8_e4m3fn)
    scales = np.maximum(scales.astype(np.float32), np.float32(2**-9))
    steps = np.clip(blocks / (scales[..., None] * tensor_scale), -6, 6)
    return steps.astype(ml_dtypes.float4_e2m1fn).astype(np.float32).reshape(x.shape), scales, tensor_scale


def e4m3(value):
    """One positive number on E4M3, by its exponent."""
    exponent = max(int(np.frexp(value)[1]) - 1, -6)
    step = 2.0 ** (exponent - 3)
    return min(max(round(value / step) * step, 2.0**-9), 448.0)


def block_by_block(x):
    rows = x.reshape(-1, 16).astype(np.float64)
    tensor_scale = float(np.abs(rows).max()) / 6 / 448 or 1.0
    q, scales = np.zeros(rows.shape), np.zeros(len(rows))
    for k, block in enumerate(rows):
        scales[k] = e4m3(np.abs(block).max() / (6 * tensor_scale))
        for i, value in enumerate(block):
            size = abs(value) / (scales[k] * tensor_scale)
            q[k, i] = np.copysign(FP4[np.abs(FP4 - size).argmin()], value)  # ties go down
    return q.reshape(x.shape), scales.reshape(*x.shape[:-1], -1), tensor_scale


def divided_step_by_step(x):
    blocks = x.astype(np.float64).reshape(*x.shape[:-1], -1, 16)
    peaks = np.abs(blocks).max(-1)
    tensor_scale = peaks.max() / 6 / 448
    if tensor_scale == 0:
        return np.zeros_like(x), np.ones(peaks.shape, np.float32), 1.0
    scales = np.vectorize(e4m3)(peaks / tensor_scale / 6)
    steps = blocks / tensor_scale / scales[..., None]
    q = FP4[np.searchsorted((FP4[1:] + FP4[:-1]) / 2, np.abs(steps))] * np.sign(steps)
    return [q.reshape(x.shape).astype(np.float16), scales, np.array([tensor_scale])]


def in_torch(x):
    import torch

    t = torch.tensor(np.ascontiguousarray(x))
    tensor_scale = t.abs().max() / 2688
    tensor_scale = torch.where(tensor_scale == 0, torch.ones(()), tensor_scale)
    blocks = t.unflatten(-1, (-1, 16))
    scales = (blocks.abs().amax(-1) / 6 / tensor_scale).clamp(2**-9, 448).to(torch.float8_e4m3fn).float()
    steps = blocks / (scales.unsqueeze(-1) * tensor_scale)
    levels = torch.tensor(FP4, dtype=torch.float32)
    q = levels[torch.bucketize(steps.abs(), (levels[1:] + levels[:-1]) / 2)] * steps.sign()
    return q.flatten(-2), scales, tensor_scale


RIGHT = [right, with_ml_dtypes, block_by_block, divided_step_by_step, in_torch]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("nvfp4_quantize", answer)
