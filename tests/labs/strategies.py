"""What property tests of quantizers draw, and what float32 may lose beside half a step."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

numbers = st.floats(-100, 100, width=32)
arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, max_side=6), elements=numbers)
any_width = st.integers(2, 16)


def slack(peak):
    """Scale, quotient and product round to 2^-24 of the range each; the least float is the finest step there is."""
    return 6 * 2.0**-24 * peak + np.finfo(np.float32).smallest_subnormal


arrays_with_axes = hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5), elements=numbers)


@st.composite
def arrays_and_axes(draw):
    """An array, and one of its axes, counted from either end."""
    x = draw(arrays_with_axes)
    return x, draw(st.integers(-x.ndim, x.ndim - 1))
