"""An answer beside the right one, and the claims that may be made about the two."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NOUNS = {"q": "code", "scales": "scale", "falls": "fall", "bits": "number of bits", "packed": "byte"}  # of an entry


@dataclass(frozen=True)
class Claim:
    """One true statement about a pair.

    key       equal in all cases in which the same statement holds, with other numbers perhaps
    sentence  the statement with this case's numbers, without a full stop
    needs     the number of cases in which it must hold, because one could be chance
    rank      of two that hold in as many cases, the one with the lower rank is said
    """

    key: Hashable
    sentence: str
    needs: int = 1
    rank: int = 0


@dataclass(frozen=True)
class Pair:
    """An entry of an answer and of the right one, and what they may have to do with: factors by name, and arguments."""

    name: str
    answer: np.ndarray
    right: np.ndarray
    factors: dict[str, tuple[float, str]] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    alone: bool = False  # the answer has no other entry

    @property
    def noun(self) -> str:
        return NOUNS.get(self.name, "value" if self.alone else f"value of `{self.name}`")

    @property
    def nouns(self) -> str:
        singular, of, name = self.noun.partition(" of ")
        return f"{singular}s{of}{name}"

    @property
    def every(self) -> str:
        return f"every {self.noun}" if self.right.ndim else self.it

    @property
    def it(self) -> str:
        return "the result" if self.alone else f"`{self.name}`"

    @property
    def same_shape(self) -> bool:
        return self.answer.shape == self.right.shape

    @property
    def single(self) -> int:
        """How many cases a parameter that was read off must hold in: one number alone has some factor to any other."""
        return 1 if np.unique(self.right[np.isfinite(self.right)]).size >= 3 else 3

    def __post_init__(self):
        object.__setattr__(self, "a", self.answer.astype(np.float64))
        object.__setattr__(self, "r", self.right.astype(np.float64))


Claims = Iterator[Claim]


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-5) -> bool:
    """All equal up to rounding; NaN where NaN is."""
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=0, equal_nan=True))


def count_of(wrong: np.ndarray, pair: Pair) -> str:
    """'1 of 12 codes is', '3 of 12 codes are'."""
    count = np.count_nonzero(wrong)
    return f"{count} of {wrong.size} {pair.nouns} {'is' if count == 1 else 'are'}"
