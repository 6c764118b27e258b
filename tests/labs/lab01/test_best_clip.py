"""best_clip: the best of a scan, near what theory says, in the unit of the values."""

import numpy as np
import pytest

from labutils.arrays import theory
from labutils.labs.answers import best_clip
from tests.labs.right_answers import passes


def quant_max(num_bits):
    return 2 ** (num_bits - 1) - 1


def loss(x, clip, num_bits):
    scale = np.float32(clip) / np.float32(quant_max(num_bits))
    return np.mean((x - scale * np.clip(np.rint(x / scale), -quant_max(num_bits) - 1, quant_max(num_bits))) ** 2)


@pytest.mark.parametrize("num_bits", [2, 3, 4, 8], ids=lambda b: f"{b} bits")
@pytest.mark.parametrize("source", ["normal", "laplace", "uniform"])
def test_best_clip_is_the_best_of_a_scan(source, num_bits):
    x = getattr(np.random.default_rng(0), source)(size=20_000).astype(np.float32)
    best, largest = best_clip(x, num_bits), float(np.max(np.abs(x)))
    scan = [largest * part / 200 for part in range(1, 201)]
    assert loss(x, best, num_bits) <= min(loss(x, clip, num_bits) for clip in scan) * (1 + 1e-6)
    assert min(abs(best - clip) for clip in scan) < 1e-6 * largest


def test_the_best_clip_of_a_gaussian_is_a_little_below_that_of_theory():
    # Theory's grid ends at -c. The quantizer has one more code beyond it, with which a smaller c will do.
    x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    for num_bits in (3, 4, 6):
        assert 0.85 < best_clip(x, num_bits) / theory.gaussian_best_clip(num_bits) < 1.02


def test_a_uniform_source_is_best_left_unclipped_at_8_bits():
    x = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32)
    assert best_clip(x, 8) > 0.98


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e30], ids=lambda factor: f"times {factor:g}")
def test_the_best_clip_grows_with_the_values(factor):
    x = np.random.default_rng(1).normal(size=5_000)
    assert best_clip(x * factor, 4) == pytest.approx(best_clip(x, 4) * factor, rel=1e-9, abs=0)


def test_zeros_have_nothing_to_clip():
    assert best_clip(np.zeros((2, 3), np.float32), 4) == 0.0


def test_tensors_get_the_same_threshold():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(6).normal(size=(20, 30)).astype(np.float32)
    assert best_clip(torch.from_numpy(x), 4) == pytest.approx(best_clip(x, 4))


# Right answers, however they are written.


def losses(x, clips, num_bits):
    for clip in clips:
        scale = clip / quant_max(num_bits)
        back = np.clip(np.round(x / scale), -quant_max(num_bits) - 1, quant_max(num_bits)) * scale
        yield float(np.mean((x - back) ** 2))


def grid_of_50(x, num_bits):
    clips = np.linspace(0.02, 1, 50) * np.abs(x).max()
    return clips[np.argmin(list(losses(x, clips, num_bits)))]


def grid_in_sigmas(x, num_bits):
    clips = [k / 20 * float(x.std()) for k in range(5, 200)]
    clips = [c for c in clips if c <= np.abs(x).max()]
    return min(zip(losses(x, clips, num_bits), clips))[1]


def log_grid(x, num_bits):
    clips = np.geomspace(0.05, 1, 80) * np.max(np.abs(x))
    return float(clips[int(np.argmin(list(losses(x, clips, num_bits))))])


def ternary_then_fine(x, num_bits):
    largest = float(np.abs(x).max())
    coarse = np.linspace(0.05, 1, 40) * largest
    near = coarse[np.argmin(list(losses(x, coarse, num_bits)))]
    fine = np.linspace(0.9, 1.1, 21) * near
    return fine[np.argmin(list(losses(x, fine, num_bits)))]


def by_scipy(x, num_bits):
    from scipy.optimize import brute

    largest = float(np.abs(x).max())
    return brute(lambda c: next(losses(x, [float(c[0])], num_bits)), [(largest / 60, largest)], Ns=60, finish=None)


RIGHT = [grid_of_50, grid_in_sigmas, log_grid, ternary_then_fine, by_scipy]


@pytest.mark.parametrize("answer", RIGHT)
def test_a_right_answer_passes(answer):
    passes("best_clip", answer)
