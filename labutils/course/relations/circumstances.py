"""In which cases a submission is right: those with num_bits = 8, say, and in no other.

>>> wrong = [Case("a", (np.zeros(3), 4)), Case("b", (np.ones(3), 2))]
>>> right = [Case("c", (np.ones(3), 8)), Case("d", (np.zeros(5), 8))]
>>> where_it_is_right(wrong, right, lambda x, num_bits: None)
'it is right in all cases in which num_bits is 8, and wrong in all others'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.course.exercise import Case
from labutils.course.relations.constants import arguments_of

# Special arrays, in which alone a mistake may show: (what one is, what the others are).
SPECIAL: dict[tuple[str, str], Callable[[np.ndarray], bool]] = {
    ("is all zero", "is not all zero"): lambda x: x.size > 0 and not x.any(),
    ("has a row of zeros", "has no row of zeros"): lambda x: (
        x.ndim > 1 and x.size > 0 and bool((~x.any(axis=-1)).any())
    ),
    ("has one element", "has more elements than one"): lambda x: x.size == 1,
    ("is empty", "is not empty"): lambda x: x.size == 0,
    ("is not contiguous", "is contiguous"): lambda x: not x.flags.c_contiguous,
    ("is float64", "is not float64"): lambda x: x.dtype == np.float64,
    ("has no positive values", "has positive values"): lambda x: x.any() and not (x > 0).any(),
    ("has no negative values", "has negative values"): lambda x: x.any() and not (x < 0).any(),
    ("is constant", "is not constant"): lambda x: x.size > 1 and x.any() and bool((x == x.flat[0]).all()),
    ("has only values below 1e-5", "has values above 1e-5"): lambda x: x.any() and bool(np.abs(x).max() < 1e-5),
}
# Kinds of arrays, of which there must be enough on both sides.
KINDS: dict[tuple[str, str], Callable[[np.ndarray], bool]] = {
    ("is square", "is not square"): lambda x: x.ndim == 2 and x.shape[0] == x.shape[1],
    ("has one axis", "has more axes than one"): lambda x: x.ndim == 1,
    ("has two axes", "has one axis, or more than two"): lambda x: x.ndim == 2,
    ("has an even last axis", "has an odd last axis"): lambda x: x.ndim > 0 and x.shape[-1] % 2 == 0,
    ("has its largest magnitude below 0", "has it above 0"): lambda x: x.any() and bool(-x.min() > x.max()),
    ("has negative values", "has none"): lambda x: bool((x < 0).any()),
    ("holds int8", "holds something else"): lambda x: x.dtype == np.int8,
}  # fmt: skip


def where_it_is_right(wrong: list[Case], right: list[Case], function: Callable) -> str:
    """A sentence that parts the cases with wrong answers from those with right ones, or "" where none does.

    It is about the cases of the check, of which there must be several on both sides: most properties part one from one.
    """
    if not wrong or len(right) < 2 or len(wrong) + len(right) < 4:
        return ""
    of_wrong, of_right = ([arguments_of(case, function) for case in cases] for cases in (wrong, right))
    if not all(of_wrong) or not all(of_right):
        return ""
    for name in of_wrong[0]:
        found = _parted([a.get(name) for a in of_wrong], [a.get(name) for a in of_right], name)
        if found:
            return found
    return _short_group(of_wrong, of_right)


def _parted(wrong: list[Any], right: list[Any], name: str) -> str:
    values = (*wrong, *right)
    if all(isinstance(value, np.ndarray) and value.dtype.kind in "iuf" for value in values):
        return _parted_by_array(wrong, right, name)
    if all(value is None for value in wrong) and all(value is not None for value in right):
        return f"it is wrong in all cases in which `{name}` is None, and right in all others"
    if all(isinstance(value, (int, float, np.number)) for value in values):
        return _parted_by_number(wrong, right, name)
    return ""


def _parted_by_array(wrong: list[np.ndarray], right: list[np.ndarray], name: str) -> str:
    for (special, _), holds in SPECIAL.items():
        if len(right) >= 3 and all(map(holds, wrong)) and not any(map(holds, right)):
            return f"it is wrong only where `{name}` {special}, and right in all other cases"
    if min(len(wrong), len(right)) < 3:
        return ""
    for (kind, others), holds in KINDS.items():
        for here, there in ((kind, others), (others, kind)):
            in_wrong = [holds(x) == (here == kind) for x in wrong]
            in_right = [holds(x) == (here == kind) for x in right]
            if all(in_wrong) and not any(in_right):
                return f"it is wrong in all cases in which `{name}` {here}, and right in those in which it {there}"
    return ""


def _parted_by_number(wrong: list, right: list, name: str) -> str:
    if len(wrong) < 2:
        return ""
    if len(set(right)) == 1 and right[0] not in wrong:
        return f"it is right in all cases in which {name} is {right[0]:g}, and wrong in all others"
    if len(set(wrong)) == 1 and wrong[0] not in right:
        return f"it is wrong in all cases in which {name} is {wrong[0]:g}, and right in all others"
    if len(set(right)) > 1 and len(set(wrong)) > 1 and min(wrong) > max(right):
        return f"it is right up to {name} = {max(right):g}, and wrong from {min(wrong):g} on"
    if len(set(right)) > 1 and len(set(wrong)) > 1 and max(wrong) < min(right):
        return f"it is wrong up to {name} = {max(wrong):g}, and right from {min(right):g} on"
    return ""


def _short_group(wrong: list[dict], right: list[dict]) -> str:
    def is_short(arguments: dict) -> bool | None:
        size = arguments.get("group_size", arguments.get("size"))
        x = next((v for v in arguments.values() if isinstance(v, np.ndarray) and v.ndim), None)
        return None if x is None or not isinstance(size, int) or size < 1 else x.shape[-1] % size != 0

    if {is_short(a) for a in wrong} == {True} and {is_short(a) for a in right} == {False}:
        return "it is wrong in all cases in which the last group is short, and right where all groups are full"
    return ""
