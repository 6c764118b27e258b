"""Predicted quantization errors: closed forms for rounding noise, and for Gaussian and Laplace sources."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from labutils.arrays.inputs import bit_width, positive_number
from labutils.arrays.scheme import Scheme


def rounding_noise(scale: float) -> float:
    """The mean squared error of rounding to a grid with step `scale`: scale^2 / 12.

    >>> rounding_noise(0.6)
    0.03

    The variance of an error spread evenly over [-scale/2, scale/2]; Bennett, "Spectra of quantized signals" (1948).
    """
    step = positive_number(scale, "scale")
    return step * step / 12


def predicted_sqnr_db(mean_square: float, scale: float) -> float:
    """The SQNR in decibels of a signal of power `mean_square` under rounding noise alone.

    >>> round(predicted_sqnr_db(1 / 3, 1 / 127), 2)
    48.1
    """
    power, step = positive_number(mean_square, "mean_square"), positive_number(scale, "scale")
    return 10 * math.log10(12 * power) - 20 * math.log10(step)  # step^2 / 12 may be too small for a float


def uniform_sqnr_db(num_bits: int) -> float:
    """The SQNR in decibels of a source uniform over the full symmetric range: 20 log10(2^b - 2).

    >>> [round(uniform_sqnr_db(b), 2) for b in (2, 4, 8)]
    [6.02, 22.92, 48.1]

    Exact: power A^2/3 over noise (A / quant_max)^2 / 12. A bit doubles 2^b, which is 20 log10(2) = 6.02 dB, up to the
    code -2^(b-1) that the symmetric grid leaves unused.
    """
    return 20 * math.log10(2 * Scheme(num_bits).quant_max)


def gaussian_noise(num_bits: int, clip: float) -> tuple[float, float]:
    """The (rounding, clipping) parts of the mean squared error of N(0, 1) on the symmetric grid of [-clip, clip].

    >>> [round(part, 6) for part in gaussian_noise(4, 4.0)]
    [0.02721, 5e-06]

    `clip` is in standard deviations. Both parts are integrals over the Gaussian in closed form: over the cell of every
    level for values within the grid, over the tails for values beyond its last level by more than half a step.
    """
    from scipy.special import ndtr

    quant_max = Scheme(num_bits).quant_max
    step = positive_number(clip, "clip") / quant_max
    levels = step * np.arange(-quant_max, quant_max + 1)
    edges = step * (np.arange(-quant_max, quant_max + 2) - 0.5)
    rounding = _squared_distance(ndtr, levels, edges[:-1], edges[1:]).sum()
    clipping = 2 * _squared_distance(ndtr, levels[-1:], edges[-1:], np.array([np.inf])).sum()
    return float(rounding), float(clipping)


def gaussian_sqnr_db(num_bits: int, clip: float) -> float:
    """The SQNR in decibels of N(0, 1) on the symmetric grid of [-clip, clip], rounding and clipping counted.

    >>> round(gaussian_sqnr_db(8, 4.0), 2)
    40.51
    """
    return -10 * math.log10(sum(gaussian_noise(num_bits, clip)))


def gaussian_best_clip(num_bits: int) -> float:
    """The clip, in standard deviations, at which N(0, 1) loses least.

    >>> round(gaussian_best_clip(4), 2)
    2.47
    """
    return _best_clip(gaussian_noise, num_bits, widest=8)


def laplace_noise(num_bits: int, clip: float) -> tuple[float, float]:
    """The (rounding, clipping) parts of the mean squared error of a Laplace source on the grid of [-clip, clip].

    >>> [round(part, 6) for part in laplace_noise(4, 8.0)]
    [0.104814, 0.000657]

    The source has density exp(-|x|) / 2, which is variance 2; `clip` is in units of its mean magnitude, 1. With step s
    and half a step h, a cell around level k s holds exp(-k s) times the integral of u^2 cosh(u) over [0, h]: the levels
    sum up to a geometric series.
    """
    half = min(positive_number(clip, "clip") / Scheme(num_bits).quant_max / 2, 700.0)  # beyond, exp(-half) is 0
    beyond = math.exp(-half) * (half * half + 2 * half + 2)  # the integral of u^2 exp(-u) from half a step on
    # Twice the integral of u^2 cosh(u) over [0, h], times exp(-s): exp(h) alone would overflow.
    cell = math.exp(-half) * ((half * half + 2) * -math.expm1(-2 * half) - 2 * half * (1 + math.exp(-2 * half)))
    rounding = (2 - beyond) + cell * math.expm1(-clip) / math.expm1(-2 * half)
    return rounding, math.exp(-clip) * beyond


def laplace_best_clip(num_bits: int) -> float:
    """The clip, in units of the mean magnitude, at which a Laplace source loses least.

    >>> round(laplace_best_clip(4), 2)
    4.82

    Banner et al. 2019 (arXiv:1810.05723) give 5.03: they take 2^b steps of noise s^2 / 12 each, clipped values too.
    """
    return _best_clip(laplace_noise, num_bits, widest=40)


def _best_clip(noise: Callable, num_bits: int, widest: float) -> float:
    from scipy.optimize import minimize_scalar

    bits = bit_width(num_bits)
    return float(minimize_scalar(lambda clip: sum(noise(bits, clip)), bounds=(0.5, widest), method="bounded").x)


def _squared_distance(ndtr, centre: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The integral of (x - centre)^2 against the standard normal density over [low, high], elementwise."""

    def density(x):
        return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def moment(x):  # x * density(x), whose limit at infinity is 0
        return np.where(np.isinf(x), 0.0, np.where(np.isinf(x), 0.0, x) * density(x))

    # Mass taken on the side where the tail is small, so that it is not lost in 1 - tiny.
    mass = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    first = density(low) - density(high)
    second = mass + moment(low) - moment(high)
    return second - 2 * centre * first + centre * centre * mass
