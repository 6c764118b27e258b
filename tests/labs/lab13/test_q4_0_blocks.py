"""q4_0_blocks: what the package gguf makes and reads, and right answers however they are written."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labutils.labs.answers import q4_0_blocks
from labutils.labs.lab13.q4_0_blocks import right
from tests.arrays.bad_inputs import refuses, table
from tests.labs.right_answers import half_away, half_up, passes


def weights(rows=7, blocks=3, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, 32 * blocks)).astype(np.float32)
    return x * np.geomspace(1e-3, 10, rows, dtype=np.float32)[:, None]


@given(st.integers(0, 2**32 - 1))
def test_the_package_gguf_reads_the_weights_to_half_a_step(seed):
    gguf = pytest.importorskip("gguf")
    x = weights(seed=seed)
    read = gguf.quants.dequantize(q4_0_blocks(x).reshape(len(x), -1), gguf.GGMLQuantizationType.Q4_0)
    blocks = x.reshape(-1, 32)
    step = np.abs(blocks).max(axis=1, keepdims=True) / 8
    # Half a step, and d's rounding to float16; a whole step at most on the side where +8 is missing.
    assert (np.abs(read.reshape(-1, 32) - blocks) <= 1.01 * step).all()
    assert (np.abs(read.reshape(-1, 32) - blocks) > 0.51 * step).mean() < 0.05


def test_the_package_gguf_makes_the_same_bytes_but_for_ties():
    gguf = pytest.importorskip("gguf")
    x = weights(40)
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q4_0).reshape(len(x), -1, 18)
    assert (q4_0_blocks(x) != theirs).mean() < 1e-3  # theirs computes in float64


BAD = {
    "rows of 33": ((np.ones((2, 33), np.float32),), ValueError, ("33",)),
    "NaN": ((np.full((1, 32), np.nan, np.float32),), ValueError, ("NaN",)),
    "codes": ((np.ones((1, 32), np.int8),), TypeError, ("int8",)),
    "no array": (("x",), TypeError, ()),
}


@pytest.mark.parametrize("args, kind, words", **table(BAD))
def test_what_are_no_rows_of_blocks_is_refused(args, kind, words):
    refuses(kind, words, q4_0_blocks, *args)


def as_ggml_does(x):
    blocks = x.reshape(len(x), -1, 32)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    d = (peak / np.float32(-8)).astype(np.float32)
    with np.errstate(divide="ignore"):
        inverse = np.where(d == 0, 0, np.float32(1) / d)
    codes = np.trunc(blocks * inverse + np.float32(8.5)).clip(0, 15).astype(np.uint8)
    low, high = codes[..., :16], codes[..., 16:]
    return np.concatenate([d.astype(np.float16).view(np.uint8), low | (high << 4)], axis=-1)


def byte_by_byte(x):
    import struct

    out = np.zeros((x.shape[0], x.shape[1] // 32, 18), dtype=np.uint8)
    for r in range(out.shape[0]):
        for b in range(out.shape[1]):
            block = [float(v) for v in x[r, 32 * b : 32 * b + 32]]
            d = max(block, key=abs) / -8
            codes = [8 if d == 0 else min(15, max(0, round(v / d) + 8)) for v in block]
            packed = [codes[j] + 16 * codes[j + 16] for j in range(16)]
            out[r, b] = list(struct.pack("<e", d)) + packed
    return out


def with_the_stored_scale(x):
    """Divides by d as the file has it, after rounding to float16."""
    blocks = x.reshape(*x.shape[:-1], -1, 2, 16).astype(np.float64)
    flat = blocks.reshape(*blocks.shape[:-2], 32)
    low, high = flat.min(-1), flat.max(-1)
    d = (np.where(-low >= high, low, high) / -8).astype(np.float16)
    step = np.where(d == 0, 1, d.astype(np.float64))
    codes = np.clip(np.rint(blocks / step[..., None, None]) + 8, 0, 15).astype(np.uint8)
    made = np.empty((*d.shape, 18), np.uint8)
    made[..., :2] = d[..., None].view(np.uint8)
    made[..., 2:] = codes[..., 0, :] + codes[..., 1, :] * 16
    return made


def signs_apart(x):
    b = x.reshape(len(x), -1, 32)
    top = np.abs(b).max(axis=2, keepdims=True)
    sign = np.where((b == top).any(axis=2, keepdims=True), -1.0, 1.0).astype(np.float32)
    d = sign * top / 8
    d = np.where(top == 0, 0, d).astype(np.float32)
    q = (np.floor(np.divide(b, d, out=np.zeros_like(b), where=d != 0) + 0.5) + 8).clip(0, 15).astype("B")
    return np.dstack([d.astype("<f2").view("B"), q[:, :, :16] + (q[:, :, 16:] << 4)])


def in_torch(x):
    import torch

    t = torch.tensor(np.ascontiguousarray(x)).reshape(len(x), -1, 32)
    m = t.gather(-1, t.abs().argmax(-1, keepdim=True))
    d = m / -8
    q = ((t / torch.where(d == 0, 1, d)).round() + 8).clamp(0, 15).to(torch.uint8)
    return torch.cat([d.half().view(torch.uint8), q[..., :16] | q[..., 16:] << 4], dim=-1)


RIGHT = [
    as_ggml_does,
    byte_by_byte,
    with_the_stored_scale,
    signs_apart,
    in_torch,
    pytest.param(right, id="the recipe"),
    pytest.param(right.but(round=half_up), id="half up"),
    pytest.param(right.but(round=half_away), id="half away from zero"),
]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("q4_0_blocks", answer)
