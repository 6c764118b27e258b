"""In which cases a submission is right: wherever num_bits is 8, say, and in no other.

>>> wrong = [Case("a", (np.zeros(3), 4)), Case("b", (np.ones(3), 2))]
>>> right = [Case("c", (np.ones(3), 8)), Case("d", (np.zeros(5), 8))]
>>> where_it_is_right(wrong, right, lambda x, num_bits: None)
'it is right wherever num_bits is 8, and wrong wherever it is not'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from labutils.course.constants import arguments_of
from labutils.course.exercise import Case

# What may be so of an array. Each pair says where the property holds, and where it does not.
OF_ARRAYS: dict[tuple[str, str], Callable[[np.ndarray], bool]] = {
    ("is all zero", "is not all zero"): lambda x: x.size > 0 and not x.any(),
    ("has a row of zeros", "has no row of zeros"): lambda x: x.ndim > 1 and bool((~x.any(axis=-1)).any()),
    ("has one element", "has more elements than one"): lambda x: x.size == 1,
    ("is empty", "is not empty"): lambda x: x.size == 0,
    ("is square", "is not square"): lambda x: x.ndim == 2 and x.shape[0] == x.shape[1],
    ("has one axis", "has more axes than one"): lambda x: x.ndim == 1,
    ("has two axes", "has other than two axes"): lambda x: x.ndim == 2,
    ("has an even last axis", "has an odd last axis"): lambda x: x.ndim > 0 and x.shape[-1] % 2 == 0,
    ("is contiguous", "is not contiguous"): lambda x: bool(x.flags.c_contiguous),
    ("is float32", "is not float32"): lambda x: x.dtype == np.float32,
    ("has only positive values", "has values that are not positive"): lambda x: x.size > 0 and bool((x > 0).all()),
    ("has only negative values", "has values that are not negative"): lambda x: x.size > 0 and bool((x < 0).all()),
    ("has negative values", "has no negative values"): lambda x: bool((x < 0).any()),
    ("has positive values", "has no positive values"): lambda x: bool((x > 0).any()),
    ("is constant", "is not constant"): lambda x: x.size > 1 and bool((x == x.flat[0]).all()),
    ("has its largest magnitude above 0", "has its largest magnitude below 0"):
        lambda x: x.size > 0 and bool(x.max() >= np.abs(x).max()),
    ("has values above 1e-5", "has only values below 1e-5"): lambda x: x.size > 0 and bool(np.abs(x).max() > 1e-5),
    ("holds int8", "holds something else than int8"): lambda x: x.dtype == np.int8,
}  # fmt: skip


def where_it_is_right(wrong: list[Case], right: list[Case], function: Callable) -> str:
    """A sentence that parts the cases with wrong answers from those with right ones, or "" where none does.

    It needs two cases of each kind, or one and five: otherwise most properties part them.
    """
    if min(len(wrong), len(right)) < 1 or len(wrong) + len(right) < 4 or (len(wrong), len(right)) == (1, 3):
        return ""
    if min(len(wrong), len(right)) == 1 and len(wrong) + len(right) < 6:
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
    if all(isinstance(value, np.ndarray) and value.dtype.kind in "iuf" for value in (*wrong, *right)):
        return _parted_by_array(wrong, right, name)
    if any(value is None for value in (*wrong, *right)):
        if all(value is None for value in wrong) and all(value is not None for value in right):
            return f"it is wrong wherever `{name}` is None, and right wherever it is not"
        return ""
    if all(isinstance(value, (int, float, np.number)) for value in (*wrong, *right)):
        return _parted_by_number(wrong, right, name)
    return ""


def _parted_by_array(wrong: list[np.ndarray], right: list[np.ndarray], name: str) -> str:
    for (holds, fails), property_ in OF_ARRAYS.items():
        in_wrong, in_right = {property_(x) for x in wrong}, {property_(x) for x in right}
        if in_wrong == {True} and in_right == {False}:
            return f"it is wrong wherever `{name}` {holds}, and right wherever it {fails}"
        if in_wrong == {False} and in_right == {True}:
            return f"it is right wherever `{name}` {holds}, and wrong wherever it {fails}"
    return ""


def _parted_by_number(wrong: list, right: list, name: str) -> str:
    same = set(right)
    if len(same) == 1 and not same & set(wrong):
        return f"it is right wherever {name} is {right[0]:g}, and wrong wherever it is not"
    same = set(wrong)
    if len(same) == 1 and not same & set(right):
        return f"it is wrong wherever {name} is {wrong[0]:g}, and right wherever it is not"
    if min(wrong) > max(right):
        return f"it is right wherever {name} is at most {max(right):g}, and wrong from {min(wrong):g} on"
    if max(wrong) < min(right):
        return f"it is wrong wherever {name} is at most {max(wrong):g}, and right from {min(right):g} on"
    return ""


def _short_group(wrong: list[dict], right: list[dict]) -> str:
    def is_short(arguments: dict) -> bool | None:
        size = arguments.get("group_size", arguments.get("size"))
        x = next((v for v in arguments.values() if isinstance(v, np.ndarray) and v.ndim), None)
        return None if x is None or not isinstance(size, int) or size < 1 else x.shape[-1] % size != 0

    in_wrong, in_right = set(map(is_short, wrong)), set(map(is_short, right))
    if (in_wrong, in_right) == ({True}, {False}):
        return "it is wrong wherever the last group is short, and right wherever all groups are full"
    return ""
