"""A scheme is right from the moment it exists."""

import dataclasses

import numpy as np
import pytest

from labutils.arrays.scheme import PerAxis, PerGroup, PerTensor, Scheme


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
