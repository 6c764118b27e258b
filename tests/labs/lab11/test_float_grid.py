"""float_grid: every finite code of ml_dtypes' small floats, and of NumPy's float16."""

import numpy as np
import pytest

from labutils.labs.answers import float_grid
from labutils.labs.lab11.float_grid import right
from tests.labs.right_answers import passes

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.filterwarnings("error")

ORACLES = {
    "E2M1": ((2, 1, "none"), ml_dtypes.float4_e2m1fn),
    "E2M3": ((2, 3, "none"), ml_dtypes.float6_e2m3fn),
    "E3M2": ((3, 2, "none"), ml_dtypes.float6_e3m2fn),
    "E4M3": ((4, 3, "nan"), ml_dtypes.float8_e4m3fn),
    "E5M2": ((5, 2, "ieee"), ml_dtypes.float8_e5m2),
    "E4M3 of IEEE": ((4, 3, "ieee"), ml_dtypes.float8_e4m3),
    "E3M4": ((3, 4, "ieee"), ml_dtypes.float8_e3m4),
    "float16": ((5, 10, "ieee"), np.float16),
    "bfloat16": ((8, 7, "ieee"), ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("form, oracle", ORACLES.values(), ids=ORACLES)
def test_the_numbers_are_those_of_an_independent_library(form, oracle):
    unsigned = np.uint8 if np.dtype(oracle).itemsize == 1 else np.uint16
    codes = np.arange(2 ** (form[0] + form[1])).astype(unsigned)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = codes.view(oracle).astype(np.float64)
    assert np.array_equal(float_grid(*form), values[np.isfinite(values)])


@pytest.mark.parametrize("form", [(2, 1, "none"), (4, 3, "nan"), (5, 2, "ieee")], ids=str)
def test_the_same_number_of_steps_in_every_octave(form):
    levels = float_grid(*form)
    normal = levels[levels >= 2 ** form[1] * levels[1]]  # the smallest normal number
    exponents = np.frexp(normal)[1]
    counts = np.unique(exponents, return_counts=True)[1]
    assert np.all(counts[:-1] == 2 ** form[1])


def test_the_result_may_be_written_to():
    float_grid(2, 1)[0] = 7
    assert float_grid(2, 1)[0] == 0


@pytest.mark.parametrize(
    "arguments, error",
    [((0, 1), ValueError), ((2, -1), ValueError), (("2", 1), TypeError), ((2, 1, "inf"), ValueError)],
    ids=str,
)
def test_what_is_no_float_format_is_refused(arguments, error):
    with pytest.raises(error):
        float_grid(*arguments)


# Right answers, however they are written.


def code_by_code(exponent_bits, mantissa_bits, specials="none"):
    values = []
    bias = 2 ** (exponent_bits - 1) - 1
    for e in range(2**exponent_bits):
        for m in range(2**mantissa_bits):
            if e == 0:
                values.append(m / 2**mantissa_bits * 2.0 ** (1 - bias))
            else:
                values.append((1 + m / 2**mantissa_bits) * 2.0 ** (e - bias))
    if specials == "nan":
        values.pop()
    elif specials == "ieee":
        values = values[: -(2**mantissa_bits)]
    return np.array(values)


def as_steps_of_the_smallest(exponent_bits, mantissa_bits, specials="none"):
    smallest = 2.0 ** (2 - 2 ** (exponent_bits - 1) - mantissa_bits)
    per_octave = 2**mantissa_bits
    octaves = [np.arange(per_octave)]
    octaves += [(per_octave + np.arange(per_octave)) * 2.0**e for e in range(2**exponent_bits - 1)]
    if specials == "ieee":
        octaves.pop()
    levels = np.concatenate(octaves) * smallest
    return levels[:-1] if specials == "nan" else levels


def with_ldexp_in_float32(exponent_bits, mantissa_bits, specials="none"):
    codes = np.arange(2 ** (exponent_bits + mantissa_bits))
    e, m = np.divmod(codes, 2**mantissa_bits)
    significand = m + np.where(e == 0, 0, 2**mantissa_bits)
    levels = np.ldexp(significand.astype(np.float32), np.maximum(e, 1) - 2 ** (exponent_bits - 1) + 1 - mantissa_bits)
    finite = {"none": codes >= 0, "nan": codes < codes[-1], "ieee": e < 2**exponent_bits - 1}[specials]
    return levels[finite]


def on_a_table(exponent_bits, mantissa_bits, specials="none"):
    e, m = np.meshgrid(np.arange(2**exponent_bits), np.arange(2**mantissa_bits), indexing="ij")
    bias = 2 ** (exponent_bits - 1) - 1
    levels = np.where(e > 0, 2.0 ** (e - bias) * (1 + m / 2**mantissa_bits), 2.0 ** (1 - bias) * m / 2**mantissa_bits)
    if specials != "none":
        levels[-1, -1 if specials == "nan" else slice(None)] = np.inf
    return np.sort(levels[np.isfinite(levels)])


def in_torch(exponent_bits, mantissa_bits, specials="none"):
    import torch

    codes = torch.arange(2 ** (exponent_bits + mantissa_bits))
    e, m = codes >> mantissa_bits, (codes & (2**mantissa_bits - 1)).double() / 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    levels = torch.where(e > 0, (1 + m) * 2.0 ** (e - bias), m * 2.0 ** (1 - bias))
    return levels[: len(levels) - {"none": 0, "nan": 1, "ieee": 2**mantissa_bits}[specials]]


RIGHT = [right, code_by_code, as_steps_of_the_smallest, with_ldexp_in_float32, on_a_table, in_torch]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("float_grid", answer)
