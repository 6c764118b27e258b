"""explore_clipping measures clipping and rounding noise, and predicts their sum."""

import numpy as np
import pytest

from labutils import explore_clipping
from labutils.labs.answers import quantize_clipped

WEIGHTS = np.random.default_rng(0).normal(size=4000).astype(np.float32)


@pytest.mark.parametrize(("num_bits", "clip"), [(2, 0.3), (4, 0.6), (6, 0.8), (8, 1.0)])
def test_clipping_is_measured_with_the_function_and_predicted_by_its_parts(num_bits, clip):
    explorer = explore_clipping(WEIGHTS)
    result = explorer.compute({"num_bits": num_bits, "clip": clip})
    reach = float(np.abs(WEIGHTS).max())
    q, scale = quantize_clipped(WEIGHTS, clip * reach, num_bits)
    noise = np.mean((WEIGHTS - q * scale).astype(np.float64) ** 2)
    assert result.sqnr_db == pytest.approx(10 * np.log10(np.mean(WEIGHTS.astype(np.float64) ** 2) / noise), abs=1e-3)
    assert result.clipped == np.count_nonzero(np.abs(WEIGHTS) > clip * reach)
    if num_bits >= 6:  # below, the one code beyond -clip and the coarse steps make the sum of the parts a rough guide
        # 4000 squared errors: 5 standard errors, in decibels.
        assert result.theory_db == pytest.approx(result.sqnr_db, abs=4.34 * 5 * np.sqrt(0.8 / 4000))


def test_clipping_noise_is_exact_at_every_threshold():
    explorer = explore_clipping(WEIGHTS)
    power = np.mean(WEIGHTS.astype(np.float64) ** 2)
    for fraction, noise in zip(explorer.fractions[::10], explorer._clipping[::10], strict=True):
        clip = fraction * np.abs(WEIGHTS).max()
        beyond = np.clip(np.abs(WEIGHTS).astype(np.float64) - clip, 0, None)
        assert noise == pytest.approx(np.mean(beyond**2) / power, rel=1e-6, abs=1e-12)


def test_fewer_bits_want_a_tighter_clip():
    explorer = explore_clipping(WEIGHTS)
    best = [explorer.compute({"num_bits": bits, "clip": 1.0}).best_clip for bits in range(2, 9)]
    assert best == sorted(best)
