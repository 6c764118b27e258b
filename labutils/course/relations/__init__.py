"""How a wrong answer stands to the right one, where no misconception explains it.

The right answer is what the exercise's reference gives. `differences` lists the relations between two arrays,
`supposed` the questions to which an answer may be the right one, `circumstances` what parts right cases from wrong
ones. This module asks all of them in every failing case, and says what holds in most of them.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labutils.course import guard
from labutils.course.attempt import Attempt, attempt
from labutils.course.comparison import same_answer, same_value
from labutils.course.exercise import Case, Exercise, Wrong
from labutils.course.reading import brief
from labutils.course.relations.circumstances import where_it_is_right
from labutils.course.relations.constants import arguments_of, named_factors
from labutils.course.relations.differences import claims
from labutils.course.relations.pair import Claim, Pair
from labutils.course.relations.supposed import questions

TIME = 1.0  # seconds for asking other questions; the reference of some exercises trains or searches
MOST_CASES = 12  # in which an answer is compared
LARGEST = 100_000  # elements of an array that is compared
VAGUE = ("few", "one off", "side", "one", "nan")  # the first part of a claim's key: said where nothing else is


@dataclass
class Found:
    """A claim, and the failing cases in which it holds: index of the case -> its sentence there."""

    claim: Claim
    sentences: dict[int, str] = field(default_factory=dict)

    @property
    def vague(self) -> bool:
        key = self.claim.key
        return (key[0] if isinstance(key, tuple) else key) in VAGUE


def relate(attempts: list[Attempt], failing: list[int], cases: list[Case], exercise: Exercise) -> str | None:
    """How the failing cases' answers stand to the right ones, in one or two sentences; None if nothing is found."""
    with np.errstate(all="ignore"):
        said = [_difference(attempts, failing, cases, exercise), _circumstances(attempts, failing, cases, exercise)]
    sentences = [
        f"{sentence[0].upper()}{sentence[1:]}." if sentence[0] != "`" else f"{sentence}."
        for sentence in said
        if sentence
    ]
    return brief(" ".join(sentences)) or None


def _circumstances(attempts: list[Attempt], failing: list[int], cases: list[Case], exercise: Exercise) -> str:
    passing = [i for i in range(len(attempts)) if i not in failing]
    wrong, right = ([cases[i] for i in indices] for indices in (failing, passing))
    return where_it_is_right(wrong, right, exercise.reference)


def _difference(attempts: list[Attempt], failing: list[int], cases: list[Case], exercise: Exercise) -> str:
    if exercise.alike is not same_answer:  # answers drawn by chance, which stand in no relation value by value
        return ""
    answered = [i for i in failing if attempts[i].answer is not None][:MOST_CASES]
    end = time.monotonic() + TIME
    rights: dict[int, dict] = {}
    for i in answered:
        if rights and time.monotonic() > end:
            break
        right = attempt(exercise.reference, cases[i], exercise, guard.call_trusted).answer
        if right is not None:
            rights[i] = right
    if not rights:
        return ""
    found: dict[Hashable, Found] = {}
    for i, right in rights.items():
        for name, claim in _claims(attempts[i].answer, right, cases[i], exercise):
            found.setdefault((name, claim.key), Found(claim)).sentences.setdefault(i, claim.sentence)
    _suppose(found, attempts, rights, cases, exercise, end)
    first = next(iter(rights))
    holding = [f for f in found.values() if len(f.sentences) >= f.claim.needs and first in f.sentences]
    if not holding or attempts[failing[0]].answer is None:
        holding = [f for f in found.values() if len(f.sentences) >= max(2, f.claim.needs) and not f.vague]
    if not holding:
        return ""
    best = max(holding, key=lambda f: (not f.vague, len(f.sentences), -f.claim.rank))
    return _sentence(best, list(rights), failing, cases)


def _sentence(found: Found, compared: list[int], failing: list[int], cases: list[Case]) -> str:
    """The sentence of a claim, and the cases of which it speaks, unless it is the same in all failing ones."""
    where = list(found.sentences)
    sentence = found.sentences[where[0]]
    if len(where) == len(failing) and len(set(found.sentences.values())) == 1:
        return sentence
    if len(where) == len(failing):
        return f"{sentence} (in “{cases[where[0]].name}”; with other numbers in the other failing cases)"
    named = [f"“{cases[i].name}”" for i in where[:2]]
    more = f" and in {len(where) - 2} more" if len(where) > 2 else ""
    numbers = ", with other numbers in each" if len(set(found.sentences.values())) > 1 else ""
    return f"{sentence} (in {' and '.join(named) if not more else ', '.join(named)}{more}{numbers})"


def _claims(answer: dict, right: dict, case: Case, exercise: Exercise) -> Iterator[tuple[str, Claim]]:
    """What holds in one case, of each entry that is wrong."""
    names = _wrong_entries(answer, right, case, exercise)
    answer, right = exercise.shown(answer), exercise.shown(right)
    arguments = arguments_of(case, exercise.reference)
    factors = named_factors(arguments)
    for name in names:
        a, r = np.asarray(answer[name]), np.asarray(right[name])
        others = {key: value for key, value in right.items() if key != name and _is_numeric(value)}
        for other, value in others.items():
            if (
                np.shape(value) == a.shape
                and np.any(a)
                and not same_value(value, r)
                and same_value(np.asarray(value), a)
            ):
                yield name, Claim(("exchanged", other), f"`{name}` is what `{other}` should be", 1 if a.size > 1 else 2)
        pair = Pair(name, a, r, factors, arguments, alone=len(right) == 1)
        yield from ((name, claim) for claim in claims(pair))


def _wrong_entries(answer: dict, right: dict, case: Case, exercise: Exercise) -> list[str]:
    """The entries that differ, without those that may: put into the right answer alone, they do no harm."""
    a, r = exercise.shown(answer), exercise.shown(right)
    common = [name for name in r if name in a and _is_numeric(a[name]) and _is_numeric(r[name])]
    differing = [name for name in common if not same_value(a[name], r[name])] or [
        name for name in common if not np.array_equal(a[name], r[name])
    ]
    harmful = [
        name for name in differing if name not in answer or _is_refused(right | {name: answer[name]}, case, exercise)
    ]
    return harmful or differing


def _is_refused(answer: dict, case: Case, exercise: Exercise) -> bool:
    try:
        exercise.judge(answer, case)
    except Wrong:
        return True
    except Exception:  # a judge that relies on what another entry says
        return True
    return False


def _is_numeric(value: Any) -> bool:
    if isinstance(value, (bool, str)) or value is None:
        return False
    array = np.asarray(value)
    return array.dtype.kind in "iuf" and array.size <= LARGEST


def _suppose(
    found: dict[Hashable, Found],
    attempts: list[Attempt],
    rights: dict[int, dict],
    cases: list[Case],
    exercise: Exercise,
    end: float,
) -> None:
    """Add to `found` the questions to which the answers are the right ones. All are asked in the first case only."""
    candidates: set[Hashable] | None = None
    for i, right in rights.items():
        holding: set[Hashable] = set()
        for claim, changed in questions(arguments_of(cases[i], exercise.reference), exercise.reference):
            if candidates is not None and claim.key not in candidates:
                continue
            if time.monotonic() > end:
                return
            other = Case(cases[i].name, tuple(changed.values()))
            answer = attempt(exercise.reference, other, exercise, guard.call_trusted).answer
            if answer is None or exercise.alike(answer, right) or not exercise.alike(answer, attempts[i].answer):
                continue
            holding.add(claim.key)
            found.setdefault(claim.key, Found(claim)).sentences.setdefault(i, claim.sentence)
        candidates = holding if candidates is None else candidates
        if not candidates:
            return
