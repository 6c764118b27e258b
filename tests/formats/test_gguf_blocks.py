"""Blocks of GGUF: byte for byte those of the package gguf, and within half a step of what they stand for."""

import numpy as np
import pytest

from labutils import NF4, PerAxis, PerGroup, Scheme, quantize
from labutils.data.gguf import TYPES
from labutils.formats.gguf_blocks import BLOCKS as KINDS
from labutils.formats.gguf_blocks import q4_0_blocks, q4_1_blocks, q8_0_blocks, stored_blocks, type_of

BLOCKS = {"Q8_0": q8_0_blocks, "Q4_0": q4_0_blocks, "Q4_1": q4_1_blocks}
READ = {kind.name: kind for kind in TYPES.values()}
GROUPS = PerGroup(32)


def weight(rows=16, columns=128, scale=1.0, seed=0):
    return (np.random.default_rng(seed).standard_normal((rows, columns)) * scale).astype(np.float32)


def read(kind, blocks):
    """The values of blocks, by our reader."""
    values = READ[kind].dequantize(np.ascontiguousarray(blocks).reshape(-1).view(READ[kind].block))
    return values.reshape(blocks.shape[0], -1)


def examples():
    x = weight()
    x[0, :32] = 0
    x[1, :32] = 0.5
    x[2, :32] = -np.arange(32)
    x[3, :32] = np.repeat([1.0, -1.0], 16)  # two largest magnitudes: the first one counts
    x[4, :32] = np.arange(32) / 2 - 4  # halves
    return {"usual": x, "small": weight(scale=1e-4), "underflow": weight(scale=1e-9), "large": weight(scale=1e4)}


@pytest.mark.parametrize("case", examples())
@pytest.mark.parametrize("kind", BLOCKS)
def test_bytes_are_those_of_the_package_gguf(kind, case):
    gguf = pytest.importorskip("gguf")
    x = examples()[case]
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(BLOCKS[kind](x).reshape(len(x), -1), theirs)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_value_is_off_by_half_a_step_and_the_rounding_of_scales(kind):
    x = weight()
    y = read(kind, BLOCKS[kind](x))
    low, high = x.reshape(16, 4, 32).min(-1), x.reshape(16, 4, 32).max(-1)
    largest = np.maximum(-low, high)
    step = {"Q8_0": largest / 127, "Q4_0": largest / 8, "Q4_1": (high - low) / 15}[kind]
    # Q4_0 has codes -8 to 7: on the other side of zero a value may lie up to a whole step beyond them.
    bound = step * (1 if kind == "Q4_0" else 0.5) + 2 * largest * 2.0**-11
    assert (np.abs(x - y).reshape(16, 4, 32).max(-1) <= bound).all()


@pytest.mark.parametrize("kind", BLOCKS)
def test_axes_before_the_last_and_other_libraries_make_no_difference(kind):
    torch = pytest.importorskip("torch")
    x = weight()
    blocks = BLOCKS[kind](x)
    assert blocks.shape == (16, 4, READ[kind].block.itemsize)
    assert np.array_equal(BLOCKS[kind](x.reshape(2, 8, 128)).reshape(blocks.shape), blocks)
    assert np.array_equal(BLOCKS[kind](torch.from_numpy(x)), blocks)
    assert np.array_equal(BLOCKS[kind](x.astype(np.float64)), blocks)
    narrow = torch.from_numpy(x).bfloat16()
    assert np.array_equal(BLOCKS[kind](narrow), BLOCKS[kind](narrow.float()))


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (np.zeros(33, np.float32), ValueError, r"whole blocks of 32 values, got shape \(33,\)"),
        (np.float32(1).reshape(()), ValueError, "whole blocks"),
        (np.full(32, np.nan, np.float32), ValueError, "NaN"),
        (np.full(32, 1e9, np.float32), ValueError, "beyond float16"),
        (np.zeros(32, np.int8), TypeError, "int8"),
        ([0.0] * 32, TypeError, "list"),
    ],
)
@pytest.mark.parametrize("kind", BLOCKS)
def test_what_has_no_blocks_is_refused(kind, x, error, sentence):
    with pytest.raises(error, match=sentence):
        BLOCKS[kind](x)


# --- codes that were chosen before ---


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [
        (Scheme(8, granularity=GROUPS), "Q8_0"),
        (Scheme(4, granularity=GROUPS), "Q4_0"),
        (Scheme(4, False, GROUPS), "Q4_1"),
        (Scheme(4, True, GROUPS, clip=0.9), "Q4_0"),
    ],
    ids=repr,
)
def test_codes_of_ours_stay_what_they_are(scheme, kind):
    quantized = quantize(weight(), scheme)
    assert type_of(scheme) == kind
    blocks = stored_blocks(quantized)
    fields = np.ascontiguousarray(blocks).reshape(-1).view(READ[kind].block)
    scale = fields["scale"].astype(np.float32)
    assert np.allclose(scale, quantized.scale.ravel(), rtol=2.0**-11)
    offset = fields["minimum"].astype(np.float32)[:, None] if kind == "Q4_1" else 0
    steps = read(kind, blocks).reshape(-1, 32) - offset
    codes = np.rint(steps / scale[:, None]).astype(int)
    assert np.array_equal(codes, quantized.codes.reshape(-1, 32))


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(8, False, GROUPS),
        Scheme(3, granularity=GROUPS),
        Scheme(4, granularity=PerGroup(64)),
        Scheme(8, granularity=PerAxis(0)),
        Scheme(grid=NF4, granularity=GROUPS),
    ],
    ids=repr,
)
def test_schemes_without_a_type_are_refused(scheme):
    with pytest.raises(ValueError, match="GGUF has no type for"):
        type_of(scheme)


@pytest.mark.parametrize(("factor", "sentence"), [(1e-9, "is 0 in float16"), (1e8, "beyond float16")])
def test_scales_that_float16_cannot_hold_are_refused(factor, sentence):
    with pytest.raises(ValueError, match=sentence):
        stored_blocks(quantize(weight(scale=factor), Scheme(8, granularity=GROUPS)))


def test_a_short_last_block_is_refused():
    with pytest.raises(ValueError, match="whole blocks"):
        stored_blocks(quantize(weight(columns=40), Scheme(8, granularity=GROUPS)))


def test_a_float64_beyond_float32_is_refused():
    with pytest.raises(ValueError, match="beyond float32"):
        KINDS["F32"](np.full(32, 1e300))
