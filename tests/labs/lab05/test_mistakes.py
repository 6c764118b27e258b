"""A mistake in lab 05 is named as itself, whether the product comes back in float32 or in float64."""

import numpy as np
import pytest

from labutils.labs.catalogue import EXERCISES
from labutils.labs.check import examine

MISTAKES = {mistake.name: mistake for mistake in EXERCISES["quantized_matmul"].misconceptions}
NAMES = ("accumulates in int8", "the zero points are left out", "the last term is left out", "the scales are left out")


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_the_same_in_either_float(name, dtype):
    def quantized_matmul(*args, **kwargs):
        return MISTAKES[name].wrong(*args, **kwargs).astype(dtype)

    assert examine(quantized_matmul).diagnosis == name
