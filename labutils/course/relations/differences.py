"""How an answer may stand to the right one: a table of relations between two arrays.

Each entry of DIFFERENCES takes a `Pair` and yields a `Claim` for what holds exactly in it: "every scale is 2.008 times
too large: that is 255/127". A relation with a free parameter needs more than one number to show itself, so that two
unrelated arrays stand in none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from labutils.course.relations import arithmetic, layout, places
from labutils.course.relations.pair import Claim, Claims, Pair

DIFFERENCES: dict[str, Callable[[Pair], Claims]] = {
    "another dtype": arithmetic.other_dtype,
    "NaN or infinity": places.not_a_number,
    "a smallest value": arithmetic.a_floor,
    "a known factor, or one factor": arithmetic.a_factor,
    "a constant shift": arithmetic.a_shift,
    "another order": layout.another_order,
    "a function of the right value": arithmetic.a_function,
    "an argument": arithmetic.an_argument,
    "wrapped around": places.wrapped,
    "one value": layout.all_the_same,
    "cut off": places.cut_off,
    "another axis": layout.another_axis,
    "another length": layout.too_long_or_short,
    "off by one": places.off_by_one,
    "wrong in one place only": places.wrong_in_one_place,
    "too large or too small": places.on_one_side,
}


def claims(pair: Pair) -> Iterator[Claim]:
    """Everything that holds in a pair, the most telling first; nothing of two equal arrays."""
    if pair.answer.dtype == pair.right.dtype and np.array_equal(pair.a, pair.r, equal_nan=True):
        return
    for rank, find in enumerate(DIFFERENCES.values()):
        with np.errstate(all="ignore"):
            yield from (replace(claim, rank=rank) for claim in find(pair))
