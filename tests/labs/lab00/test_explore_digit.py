"""explore_digit shows a network that reads worse at fewer bits."""

import numpy as np
import pytest

from labutils import explore_digit


def test_the_network_reads_less_and_less():
    explorer = explore_digit(7)
    eight, two = (explorer.compute({"num_bits": bits}) for bits in (8, 2))
    assert eight.accuracy > 0.95 > two.accuracy
    assert len(np.unique(two.image)) <= two.grey_levels == 4
    assert eight.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("index", [-1, 540, "0", None, 1.0, True])
def test_an_index_outside_the_test_set_is_refused(index):
    with pytest.raises((TypeError, ValueError), match="index"):
        explore_digit(index)
