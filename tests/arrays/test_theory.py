"""What theory predicts is what is measured, and what a plain numerical integral gives."""

import itertools
import math

import numpy as np
import pytest

from labutils.arrays import theory
from labutils.arrays.affine import fake_quantize, quantize
from labutils.arrays.metrics import sqnr_db
from labutils.arrays.scheme import Scheme

# The relative standard error of a mean of n squared rounding errors is sqrt(E e^4 / (E e^2)^2 - 1) / sqrt(n) =
# sqrt(144 / 80 - 1) / sqrt(n), which is 0.0009 for a million: 1% is eleven of them, 0.05 dB thirteen.
MILLION = 1_000_000
WIDTHS = {f"{b} bits": b for b in (2, 3, 4, 6, 8)}
widths = pytest.mark.parametrize("num_bits", WIDTHS.values(), ids=WIDTHS.keys())


@pytest.fixture(scope="module")
def uniform():
    return np.random.default_rng(0).uniform(-1, 1, MILLION)


@pytest.fixture(scope="module")
def gaussian():
    return np.random.default_rng(1).normal(size=MILLION)


# --- rounding ---


@pytest.mark.parametrize("scale", [1 / 127, 0.1, 2 / 3])
def test_rounding_costs_a_twelfth_of_the_square_of_the_step(uniform, scale):
    x = uniform * 9 * scale * 2  # 18 whole steps either way
    assert theory.rounding_noise(scale) == scale**2 / 12
    assert np.mean((x - np.rint(x / scale) * scale) ** 2) == pytest.approx(theory.rounding_noise(scale), rel=0.01)


@widths
def test_the_reference_quantizer_rounds_at_that_cost(uniform, num_bits):
    scale = float(quantize(uniform, Scheme(num_bits)).scale)
    noise = np.mean((uniform - fake_quantize(uniform, Scheme(num_bits))) ** 2)
    assert noise == pytest.approx(theory.rounding_noise(scale), rel=0.01)


@pytest.mark.parametrize("num_bits", range(2, 11), ids=lambda b: f"{b} bits")
def test_a_uniform_source_has_the_predicted_sqnr(uniform, num_bits):
    measured = sqnr_db(uniform, fake_quantize(uniform, Scheme(num_bits)))
    assert theory.uniform_sqnr_db(num_bits) == pytest.approx(measured, abs=0.05)


@pytest.mark.parametrize("num_bits", range(2, 17), ids=lambda b: f"{b} bits")
def test_the_uniform_law_is_power_over_rounding_noise(num_bits):
    expected = theory.predicted_sqnr_db(1 / 3, 1 / Scheme(num_bits).quant_max)
    assert theory.uniform_sqnr_db(num_bits) == pytest.approx(expected, abs=1e-9)


def test_a_bit_is_worth_six_decibels():
    # (2^(b+1) - 2) / (2^b - 2) is 2 (1 + 1 / (2^b - 2)): within 1% in decibels once 2^b - 2 > 144, from 8 bits on.
    worth = {b: theory.uniform_sqnr_db(b + 1) - theory.uniform_sqnr_db(b) for b in range(2, 16)}
    six = 20 * math.log10(2)
    for num_bits, gained in worth.items():
        assert gained == pytest.approx(six + 20 * math.log10(1 + 1 / (2**num_bits - 2)), abs=1e-9)
    assert all(gained == pytest.approx(six, rel=0.01) for b, gained in worth.items() if b >= 8)
    assert worth[4] > 1.05 * six  # and at few bits the unused code -2^(b-1) matters


def test_predicted_sqnr_is_power_over_noise_in_decibels():
    assert theory.predicted_sqnr_db(3.0, 0.6) == pytest.approx(10 * math.log10(3.0 / 0.03), abs=1e-12)
    assert theory.predicted_sqnr_db(1.0, 1e-200) == pytest.approx(4000 + 10 * math.log10(12), abs=1e-9)


# --- the Gaussian ---


def density(x):
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def on_the_grid(x, num_bits, clip):
    """x rounded to the levels of the symmetric grid of [-clip, clip]: as many below 0 as above."""
    quant_max = 2 ** (num_bits - 1) - 1
    step = clip / quant_max
    return np.clip(np.rint(x / step), -quant_max, quant_max) * step


def integral(function, low, high, pieces=400_000):
    """The midpoint rule."""
    x = low + (high - low) * (np.arange(pieces) + 0.5) / pieces
    return float(np.sum(function(x)) * (high - low) / pieces)


@pytest.mark.parametrize("clip", [0.5, 1.7, 2.5, 4.0, 6.0], ids=lambda clip: f"clip at {clip:g}")
@widths
def test_both_parts_are_the_integrals_that_they_claim_to_be(num_bits, clip):
    def lost(x):
        return (x - on_the_grid(x, num_bits, clip)) ** 2 * density(x)

    edge = clip + 0.5 * clip / (2 ** (num_bits - 1) - 1)  # half a step beyond the last level
    rounding, clipping = theory.gaussian_noise(num_bits, clip)
    # A cell holds at least 1500 of the pieces, so the rule is off by less than 1500^-2.
    assert rounding == pytest.approx(integral(lost, -edge, edge), rel=1e-6)
    assert clipping == pytest.approx(2 * integral(lost, edge, edge + 12), rel=1e-6, abs=0)  # e^-72 lies beyond


@pytest.mark.parametrize("clip", [1.0, 2.5, 4.0], ids=lambda clip: f"clip at {clip:g}")
@widths
def test_a_million_gaussian_values_lose_what_is_predicted(gaussian, num_bits, clip):
    squares = (gaussian - on_the_grid(gaussian, num_bits, clip)) ** 2
    standard_error = np.std(squares) / math.sqrt(MILLION)
    assert sum(theory.gaussian_noise(num_bits, clip)) == pytest.approx(np.mean(squares), abs=5 * standard_error)


@pytest.mark.parametrize("clip", [3.0, 4.0], ids=lambda clip: f"clip at {clip:g}")
@pytest.mark.parametrize("num_bits", [6, 8], ids=lambda b: f"{b} bits")
def test_the_reference_quantizer_loses_no_more(gaussian, num_bits, clip):
    # It has one level more, at code -2^(b-1), which takes off half the clipping noise at most.
    scale = np.float64(clip / Scheme(num_bits).quant_max)
    measured = np.mean((gaussian - fake_quantize(gaussian, Scheme(num_bits), (scale, 0))) ** 2)
    rounding, clipping = theory.gaussian_noise(num_bits, clip)
    assert 0.98 * (rounding + clipping / 2) <= measured <= 1.02 * (rounding + clipping)


@pytest.mark.parametrize("num_bits", range(4, 11), ids=lambda b: f"{b} bits")
def test_clipped_at_four_sigma_it_follows_the_law_until_the_tails_take_over(num_bits):
    # 10 log10(12 / 64) = -7.27: 6.02 b - 7.27 dB, with the 2^b - 2 steps that the symmetric grid has for 2^b.
    law = 20 * math.log10(2**num_bits - 2) - 7.27
    # The tails beyond 4 cost at most 2 ((1 + 4^2) Q(4) - 4 density(4)), the same at any width; they hold 0.006% of all.
    tails = 2 * (17 * math.erfc(4 / math.sqrt(2)) / 2 - 4 * density(4.0))
    step = 8 / (2**num_bits - 2)
    overload = 10 * math.log10(1 + tails / (step**2 / 12))
    assert law - overload - 0.005 <= theory.gaussian_sqnr_db(num_bits, 4.0) <= law + 0.005
    if num_bits < 8:
        assert theory.gaussian_sqnr_db(num_bits, 4.0) == pytest.approx(law, abs=0.15)


def test_without_clipping_and_with_many_bits_only_rounding_is_left():
    rounding, clipping = theory.gaussian_noise(16, 8.0)
    assert rounding == pytest.approx(theory.rounding_noise(8 / 32767), rel=1e-4)
    assert clipping < 1e-6 * rounding


@pytest.mark.parametrize("clip", [1e-30, 1e-3, 1e3, 1e38], ids=lambda clip: f"clip at {clip:g}")
def test_a_grid_far_too_small_or_too_wide_loses_the_whole_signal(clip):
    # All values saturate near 0, or all round to 0: the power of N(0, 1) is lost, save 2 E|x| clip.
    assert sum(theory.gaussian_noise(3, clip)) == pytest.approx(1, abs=2e-3)


def test_the_sqnr_is_that_of_both_parts():
    assert theory.gaussian_sqnr_db(4, 2.0) == pytest.approx(-10 * math.log10(sum(theory.gaussian_noise(4, 2.0))))


# --- the best clip ---


@pytest.mark.parametrize("num_bits", range(2, 17), ids=lambda b: f"{b} bits")
def test_no_clip_beats_the_best(num_bits):
    best = theory.gaussian_best_clip(num_bits)
    others = [0.5 * best, 0.9 * best, 0.98 * best, 1.02 * best, 1.1 * best, 2 * best]
    assert all(sum(theory.gaussian_noise(num_bits, best)) < sum(theory.gaussian_noise(num_bits, c)) for c in others)


def test_the_best_clip_grows_with_the_bits():
    clips = [theory.gaussian_best_clip(b) for b in range(2, 17)]
    assert all(wider > narrower for narrower, wider in itertools.pairwise(clips))


@pytest.mark.parametrize(
    "num_bits, step, noise",
    # Max, "Quantizing for minimum distortion" (1960), table II, for an odd and two even numbers of levels.
    [(3, 0.586, 0.03744), (4, 0.335, 0.01154), (5, 0.188, 0.003495)],
    ids=["3 bits", "4 bits", "5 bits"],
)
def test_the_best_step_is_about_that_of_max(num_bits, step, noise):
    # His grid has 2^b levels and none at 0; ours 2^b - 1 and one at 0. One level in n shifts step and noise by about
    # 1 / n and 2 / n, and half as much again for n as small as 7.
    n = 2**num_bits - 1
    best = theory.gaussian_best_clip(num_bits)
    assert best / Scheme(num_bits).quant_max == pytest.approx(step, rel=1.5 / n)
    assert step < best / Scheme(num_bits).quant_max  # fewer levels lie further apart
    assert noise < sum(theory.gaussian_noise(num_bits, best)) < noise * (1 + 3 / n)


def test_ternary_weights_are_cut_near_0_61_sigma():
    # Three levels -c, 0, c: the best are those of Max for n = 3, +-1.2240, with the threshold halfway between.
    assert theory.gaussian_best_clip(2) == pytest.approx(1.2240, abs=1e-3)
    assert sum(theory.gaussian_noise(2, 1.2240)) == pytest.approx(0.1902, abs=1e-4)


# --- the Laplace source ---


def test_laplace_parts_are_the_integrals_that_they_claim_to_be():
    for num_bits, clip in ((2, 0.5), (2, 2.0), (3, 9.0), (4, 5.0), (8, 10.0)):

        def lost(x, num_bits=num_bits, clip=clip):
            return (x - on_the_grid(x, num_bits, clip)) ** 2 * np.exp(-np.abs(x)) / 2

        edge = clip + 0.5 * clip / (2 ** (num_bits - 1) - 1)
        rounding, clipping = theory.laplace_noise(num_bits, clip)
        assert rounding == pytest.approx(integral(lost, -edge, edge), rel=1e-6)
        assert clipping == pytest.approx(2 * integral(lost, edge, edge + 60), rel=1e-6, abs=0)  # e^-60 lies beyond


@pytest.mark.parametrize("clip", [1e-30, 1e-3, 1e4, 1e300], ids=lambda clip: f"clip at {clip:g}")
def test_a_laplace_source_loses_its_variance_on_a_grid_far_too_small_or_too_wide(clip):
    assert sum(theory.laplace_noise(3, clip)) == pytest.approx(2, abs=5e-3)


@pytest.mark.parametrize("num_bits", range(2, 17), ids=lambda b: f"{b} bits")
def test_no_clip_beats_the_best_for_laplace(num_bits):
    best = theory.laplace_best_clip(num_bits)
    others = [0.5 * best, 0.9 * best, 0.98 * best, 1.02 * best, 1.1 * best, 2 * best]
    assert all(sum(theory.laplace_noise(num_bits, best)) < sum(theory.laplace_noise(num_bits, c)) for c in others)


def test_ternary_laplace_is_cut_at_twice_its_mean_magnitude():
    # Levels -c, 0, c with thresholds at c / 2. Beyond c / 2 the mean of |x| is c / 2 + 1, by the tail's lack of memory,
    # and the best level is the mean of its cell: c = c / 2 + 1.
    assert theory.laplace_best_clip(2) == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("num_bits", range(2, 9), ids=lambda b: f"{b} bits")
def test_aciq_is_near_from_six_bits_on_and_never_better(num_bits):
    """Banner et al. 2019, equation 8 and its Laplace solution: 2^b steps, and Δ²/12 for clipped values, too."""
    from scipy.optimize import brentq
    from scipy.special import lambertw

    def slope(a):  # of a^2 / (3 * 4^b) + 2 ((1 + a^2) Q(a) - a density(a)), their noise for N(0, 1)
        return 2 * a / (3 * 4**num_bits) + 4 * (a * math.erfc(a / math.sqrt(2)) / 2 - density(a))

    aciq = brentq(slope, 0.5, 10), lambertw(3 * 4**num_bits).real
    ours = theory.gaussian_best_clip(num_bits), theory.laplace_best_clip(num_bits)
    for noise, theirs, best in zip((theory.gaussian_noise, theory.laplace_noise), aciq, ours):
        assert sum(noise(num_bits, best)) < sum(noise(num_bits, theirs))
        assert best < theirs
        assert num_bits < 6 or best == pytest.approx(theirs, rel=0.01)
