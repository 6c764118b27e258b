"""Rotations: a Hadamard matrix before a linear layer spreads outlier channels over all channels.

| | |
|---|---|
| `hadamard` | the orthonormal matrix, for the sizes that have one |
| `rotate`, `Rotation` | x @ hadamard(n) along the last axis, without the n x n product; signs of a seed if asked for |
| `rotate_linear` | a layer that computes the same, with rotated inputs and a rotated weight |
| `rotate_model` | a copy of a model, each linear layer rotated |

Ashkboos et al., 2024, "QuaRot" (arXiv:2404.00456). Sylvester, 1867, and Paley, 1933, for the matrices.
"""

from labutils.models.rotation.hadamard import hadamard
from labutils.models.rotation.linear import rotate_linear, rotate_model
from labutils.models.rotation.transform import Rotation, rotate

__all__ = ["Rotation", "hadamard", "rotate", "rotate_linear", "rotate_model"]
