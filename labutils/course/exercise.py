"""An exercise is data: inputs, a specification, and a table of misconceptions.

A misconception is a small wrong implementation with a hint. When a submission fails, every misconception answers the
same inputs, and the one that answers as the submission did names the mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


class Wrong(Exception):
    """What is wrong with an answer, in one sentence for the learner."""


@dataclass(frozen=True)
class Case:
    """One input: what it shows, and the arguments that show it."""

    name: str
    args: tuple
    kwargs: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Misconception:
    """A mistake that people make: its name, an implementation that makes it, and a hint that does not give the code."""

    name: str
    wrong: Callable
    hint: str

    def __post_init__(self):
        """Refuse what a learner could not read as a name and as sentences."""
        if not self.name or self.name[-1] in ".:;":
            raise ValueError(f"a misconception's name is a few words without a full stop, got {self.name!r}")
        if not self.hint.endswith(".") or "\n" in self.hint:
            raise ValueError(f"the hint of {self.name!r} must be sentences in one line, got {self.hint!r}")


def _called(submission: Callable, *args: Any, **kwargs: Any) -> Any:
    return submission(*args, **kwargs)


@dataclass(frozen=True)
class Exercise:
    """A function to write.

    name            of the function; `check` finds the exercise by it
    lab             the lesson's file name without ending, such as "01_fundamentals"
    place           where it stands in the lesson: 10, 20, 30, ... so that another fits between two
    points          in nbgrader
    reference       an implementation that passes
    cases           makes the inputs (called once a check; seeded, so that they are the same each time)
    read            turns what was returned into a dict of arrays and numbers; raises Wrong for anything else
    judge           compares such a dict with the specification for one case; raises Wrong
    misconceptions  in order: where two explain a submission equally well, the first is named
    run             puts a case to a submission, run(submission, *args, **kwargs), where calling it is not all: to ask
                    for a gradient too, say, or to hand over torch tensors made from a case's arrays
    """

    name: str
    lab: str
    place: int
    points: int
    reference: Callable
    cases: Callable[[], Sequence[Case]]
    read: Callable[[Any], dict]
    judge: Callable[[dict, Case], None]
    misconceptions: tuple[Misconception, ...]
    stretch: bool = False
    run: Callable = _called
