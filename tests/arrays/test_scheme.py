"""A scheme says what the grid is, and is right from the moment it exists."""

import dataclasses

import numpy as np
import pytest

from labutils.arrays.inputs import bit_width, positive_number, real_number, whole_number
from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme

EVERY_WIDTH = range(2, 17)


@pytest.mark.parametrize("num_bits", EVERY_WIDTH)
def test_signed_codes_are_those_of_twos_complement(num_bits):
    scheme = Scheme(num_bits)
    assert (scheme.quant_min, scheme.quant_max) == (-(2**num_bits) // 2, 2**num_bits // 2 - 1)


@pytest.mark.parametrize("num_bits", EVERY_WIDTH)
def test_unsigned_codes_start_at_zero(num_bits):
    scheme = Scheme(num_bits, symmetric=False)
    assert (scheme.quant_min, scheme.quant_max) == (0, 2**num_bits - 1)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("num_bits", EVERY_WIDTH)
def test_codes_have_the_smallest_dtype_that_holds_them(num_bits, symmetric):
    scheme = Scheme(num_bits, symmetric)
    fitting = [
        name
        for name in (("int8", "int16") if symmetric else ("uint8", "uint16"))
        if np.iinfo(name).min <= scheme.quant_min and scheme.quant_max <= np.iinfo(name).max
    ]
    assert scheme.code_dtype == fitting[0]


def test_by_default_eight_bits_symmetric_one_scale_and_the_whole_range():
    assert Scheme() == Scheme(8, True, PerTensor(), 1.0)


@pytest.mark.parametrize("same", [8, np.int8(8), np.int64(8), np.uint8(8), np.array(8)], ids=lambda value: repr(value))
def test_every_integer_type_is_a_bit_width(same):
    assert Scheme(same) == Scheme(8)
    assert type(Scheme(same).num_bits) is int


@pytest.mark.parametrize("same", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5)], ids=lambda value: repr(value))
def test_every_real_type_is_a_clip(same):
    assert Scheme(clip=same) == Scheme(clip=0.5)
    assert type(Scheme(clip=same).clip) is float


def test_schemes_compare_by_value_and_serve_as_keys():
    assert len({Scheme(4), Scheme(4), Scheme(4, granularity=PerGroup(32)), Scheme(4, granularity=PerAxis(0))}) == 3


@pytest.mark.parametrize(
    "frozen, name",
    [(Scheme(), "num_bits"), (PerAxis(0), "axis"), (PerGroup(8), "group_size")],
    ids=["Scheme", "PerAxis", "PerGroup"],
)
def test_what_was_checked_cannot_be_changed(frozen, name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(frozen, name, 3)


def test_the_checks_return_plain_python_numbers():
    assert type(whole_number(np.uint16(7), "n")) is int
    assert type(bit_width(np.int32(7))) is int
    assert type(real_number(7, "n")) is type(real_number(np.float16(7), "n")) is float
    assert type(positive_number(np.float32(7), "n")) is float
