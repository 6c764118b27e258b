"""A codebook fitted to data: the values that minimize the mean squared error, found by k-means.

Lloyd, 1982, "Least squares quantization in PCM": each value moves to the mean of what is nearest to it, until none
moves. On a line the cells are intervals: after one sort, sums over them are differences of running sums, and a round
costs a binary search for each value, however much data there is. scikit-learn's KMeans finds the same codebooks and
looks at all data in each round.
"""

from __future__ import annotations

import array_api_compat
import numpy as np

from labutils.arrays.grids.codebook import Codebook
from labutils.arrays.inputs import Array, bit_width, real_array, require_finite
from labutils.arrays.layout import Layout
from labutils.arrays.scheme import Granularity, PerTensor

MOST_BITS = 8
ROUNDS = 300  # Lloyd's method converges slowly at the end; the error has long stopped to fall
BINS = 1000
# Where to start: the best of these is kept. 1/3 is the best density for many values (Panter and Dite, 1951).
POWERS = (0, 1 / 6, 1 / 3, 1 / 2, 1)


def kmeans_codebook(x: Array, num_bits: int = 4, granularity: Granularity = PerTensor()) -> Codebook:
    """The codebook of 2^num_bits values that keeps most of `x`, in units of the largest magnitude of each slice.

    >>> x = np.array([-8.0, -8.0, -1.0, 1.0, 4.0, 5.0, 8.0])
    >>> kmeans_codebook(x, num_bits=2)  # -8, 0, 4.5 and 8, over 8
    Codebook((-1.0, 0.0, 0.5625, 1.0), range=1.0)

    Quantize with `Scheme(grid=kmeans_codebook(x, 4, granularity), granularity=granularity)`: a slice's scale is then
    its largest magnitude, as with NF4. Slices with large values count more, by the square of their scale: the error of
    `x` itself is what falls. Where `x` has fewer than 2^num_bits different values, the codebook holds just these.

    2 <= num_bits <= 8. ValueError where `x` has not two different values; errors for arrays as in `quantize`.
    """
    num_values = 2 ** bit_width(num_bits, MOST_BITS, "for a fitted codebook")
    xp, x = real_array(x)
    require_finite(xp, x)
    values, weights = _in_units_of_scale(xp, x, granularity)
    distinct = np.unique(values)
    if len(distinct) < 2:
        raise ValueError(f"x must have two different values, in units of its largest magnitude, got {distinct}")
    if len(distinct) <= num_values:
        return Codebook(distinct.tolist(), range=1.0)
    order = np.argsort(values)
    return Codebook(_lloyd(values[order], weights[order], num_values), range=1.0)


def _in_units_of_scale(xp: object, x: Array, granularity: Granularity) -> tuple[np.ndarray, np.ndarray]:
    """x / max|x| of its slice, and the weight of each value, both flat float64; slices of zeros are left out."""
    values = np.asarray(xp.astype(x, xp.float64).cpu() if array_api_compat.is_torch_array(x) else x, np.float64)
    layout = Layout.of(values.shape, granularity)
    view = layout.view(np, values / np.abs(values).max(initial=np.finfo(np.float64).tiny))
    scale = np.abs(view).max(axis=2 if layout.per_row else (0, 2), keepdims=True)
    weights = layout.unview(np, np.broadcast_to(scale**2, view.shape)).ravel()
    with np.errstate(invalid="ignore"):  # 0 / 0
        units = layout.unview(np, view / scale).ravel()
    return units[weights > 0], weights[weights > 0]


def _lloyd(values: np.ndarray, weights: np.ndarray, num_values: int) -> list[float]:
    """The codebook for ascending `values`."""
    mass, sums = (np.concatenate([[0], np.cumsum(part)]) for part in (weights, weights * values))
    starts = (_spread(values, weights, num_values, power) for power in POWERS)
    settled = [_settled(values, mass, sums, start) for start in starts]
    # With the means m of cells of mass M, the error is the sum of squares less the sum of M m^2.
    _, best = max(settled, key=lambda found: found[0])
    return np.unique(best).tolist()


def _settled(values: np.ndarray, mass: np.ndarray, sums: np.ndarray, codebook: np.ndarray) -> tuple[float, np.ndarray]:
    """What the codebook explains of the data, and the codebook, where none of its values moves any more."""
    for _ in range(ROUNDS):
        edges = np.searchsorted(values, (codebook[1:] + codebook[:-1]) / 2)
        edges = np.concatenate([[0], edges, [len(values)]])
        held, total = np.diff(mass[edges]), np.diff(sums[edges])
        moved = np.where(held > 0, total / np.where(held > 0, held, 1), codebook)  # a value without data stays
        if np.array_equal(moved, codebook):
            break
        codebook = moved
    return float(np.sum(held * moved**2)), moved


def _spread(values: np.ndarray, weights: np.ndarray, num_values: int, power: float) -> np.ndarray:
    """Where to start: as dense as this power of the data's density, from even spacing (0) to quantiles (1)."""
    counts, edges = np.histogram(values, BINS, weights=weights)
    share = np.concatenate([[0], np.cumsum(counts**power)])
    return np.interp((np.arange(num_values) + 0.5) / num_values * share[-1], share, edges)
