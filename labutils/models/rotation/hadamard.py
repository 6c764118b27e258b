"""Hadamard matrices: entries +1 and -1, rows orthogonal to each other.

They exist for orders 1 and 2 and otherwise only for multiples of 4. Two constructions are combined here by Kronecker
products. Sylvester's (1867) doubles an order: H(2n) = H(2) x H(n). Paley's (R. E. A. C. Paley, 1933, "On orthogonal
matrices", J. Math. Phys. 12) start from the quadratic residues of a prime q:

    I    q = 3 mod 4:  order q + 1      12, 20, 24, 44, 48, 60, ...
    II   q = 1 mod 4:  order 2(q + 1)   12, 28, 36, 60, 76, ...

The smallest multiples of 4 for which this finds nothing are 52, 92, 100 and 116, though matrices of these orders exist.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from scipy import linalg

from labutils.arrays.inputs import true_or_false, whole_number

Tensor = torch.Tensor

RADIX = 16  # the powers of two are multiplied four at a time: fewer passes over memory than one at a time


def hadamard(n: int, blocks: bool = False) -> Tensor:
    """The orthonormal Hadamard matrix of order `n`: (n, n) float32, each entry +1/sqrt(n) or -1/sqrt(n).

    >>> hadamard(4)
    tensor([[ 0.5000,  0.5000,  0.5000,  0.5000],
            [ 0.5000, -0.5000,  0.5000, -0.5000],
            [ 0.5000,  0.5000, -0.5000, -0.5000],
            [ 0.5000, -0.5000, -0.5000,  0.5000]])
    >>> hadamard(10)
    Traceback (most recent call last):
    ValueError: there is no Hadamard matrix of order 10, only of orders 1, 2 and multiples of 4: the nearest are 8
    and 12; or pass blocks=True, for a block-diagonal matrix of 5 blocks of order 2

    n = 2^k m: m is the order of a Paley matrix (1 where n is a power of two), such as 36 for 576 and 12 for 1536.
    With `blocks`, sizes without a matrix get copies of the largest one that divides them, along the diagonal; an odd
    size has none. `Rotation(n)` shows which matrix it is.
    """
    order = block_order(n, blocks)
    matrix = np.ones((1, 1), np.int8)
    for factor in signs_of_factors(order):
        matrix = np.kron(matrix, factor)
    matrix = np.kron(np.eye(n // order, dtype=np.int8), matrix)
    return torch.from_numpy(matrix).to(torch.float32) * order**-0.5


def block_order(n: int, blocks: bool) -> int:
    """The order of the Hadamard matrices used for size `n`: `n` itself, or the largest that divides it, in blocks.

    >>> block_order(576, blocks=False), block_order(10, blocks=True)
    (576, 2)
    """
    n, blocks = whole_number(n, "n", least=1), true_or_false(blocks, "blocks")
    if _paley_part(n):
        return n
    largest = max(order for order in _divisors(n) if _paley_part(order))
    if not blocks or largest == 1:
        raise ValueError(_why_not(n, largest))
    return largest


def factor_orders(n: int) -> tuple[int, ...]:
    """The orders whose Kronecker product is the matrix of order `n`: Paley's first, then powers of two.

    >>> factor_orders(576), factor_orders(1536), factor_orders(128)
    ((36, 16), (12, 16, 8), (16, 8))
    """
    paley = _paley_part(n)
    power = n // paley
    orders = [paley] if paley > 1 else []
    while power > 1:
        orders.append(min(RADIX, power))
        power //= orders[-1]
    return tuple(orders)


def signs_of_factors(n: int) -> list[np.ndarray]:
    """The matrices of `factor_orders(n)`, int8, entries +1 and -1."""
    return [_sylvester(order) if _is_power_of_two(order) else _paley(order) for order in factor_orders(n)]


def _paley_part(n: int) -> int | None:
    """The smallest m with n = 2^k m for which Paley gives a matrix; 1 for a power of two; None where there is none."""
    if _is_power_of_two(n):
        return 1
    odd = n // (n & -n)
    candidates = (odd * 2**k for k in range(2, n.bit_length()) if n % (odd * 2**k) == 0)
    return next((m for m in candidates if _is_prime(m - 1) or (m % 8 == 4 and _is_prime(m // 2 - 1))), None)


def _sylvester(order: int) -> np.ndarray:
    return linalg.hadamard(order, dtype=np.int8)


def _paley(order: int) -> np.ndarray:
    """Paley's matrix: the first construction where order - 1 is a prime, else the second."""
    if _is_prime(order - 1):
        return np.eye(order, dtype=np.int8) + _conference(order - 1)
    one = np.eye(order // 2, dtype=np.int8)
    zero_entries = np.array([[1, -1], [-1, -1]], np.int8)
    return np.kron(_conference(order // 2 - 1), _sylvester(2)) + np.kron(one, zero_entries)


def _conference(q: int) -> np.ndarray:
    """(q + 1, q + 1): 0 on the diagonal, +1 and -1 elsewhere, orthogonal rows; symmetric for q = 1 mod 4, else skew."""
    matrix = np.zeros((q + 1, q + 1), np.int8)
    matrix[0, 1:] = 1
    matrix[1:, 0] = 1 if q % 4 == 1 else -1
    matrix[1:, 1:] = linalg.circulant(_legendre(q))
    return matrix


def _legendre(q: int) -> np.ndarray:
    """The Legendre symbols of 0 to q - 1: 1 for squares mod q, -1 for the others, 0 for 0."""
    symbols = np.full(q, -1, np.int8)
    symbols[np.arange(q) ** 2 % q] = 1
    symbols[0] = 0
    return symbols


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0


def _is_prime(q: int) -> bool:
    return q > 1 and all(q % p for p in range(2, math.isqrt(q) + 1))


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _why_not(n: int, largest: int) -> str:
    below = next(m for m in range(n - 1, 0, -1) if _paley_part(m))
    above = next(m for m in itertools.count(n + 1) if _paley_part(m))
    if n % 4:
        reason = f"there is no Hadamard matrix of order {n}, only of orders 1, 2 and multiples of 4"
    else:
        reason = f"no Hadamard matrix of order {n} is known to Sylvester's and Paley's constructions"
    way_out = f"pass blocks=True, for a block-diagonal matrix of {n // largest} blocks of order {largest}"
    return f"{reason}: the nearest are {below} and {above}" + (f"; or {way_out}" if largest > 1 else "")
