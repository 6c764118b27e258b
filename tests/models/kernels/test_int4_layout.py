"""Groups of any size in the groups that the int4 kernel knows: every weight has its own group's scale."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labutils.models.kernels.int4_layout import GROUP_SIZES, Int4Layout

layouts = st.builds(Int4Layout.of, st.integers(1, 700), st.integers(1, 700))


@given(layouts)
def test_what_is_spread_is_gathered_again_with_zeros_between(layout):
    x = torch.arange(1, 2 * layout.length + 1).reshape(2, -1)
    spread = layout.spread(x)
    assert spread.shape == (2, layout.columns)
    assert torch.equal(layout.gather(spread), x)
    assert int((spread == 0).sum()) == 2 * (layout.columns - layout.length)


@given(layouts)
def test_no_group_of_the_kernel_has_two_scales(layout):
    assert layout.kernel_group in GROUP_SIZES
    groups = torch.arange(layout.length)[None] // layout.size
    in_kernel = layout.group_of.repeat_interleave(layout.kernel_group)[None]
    assert torch.equal(layout.gather(in_kernel), groups)


@pytest.mark.parametrize(("length", "group_size"), [(576, 128), (576, 576), (1536, 1536), (384, 128), (64, 32)])
def test_groups_of_a_multiple_of_32_take_no_more_columns(length, group_size):
    assert Int4Layout.of(length, group_size).is_plain
