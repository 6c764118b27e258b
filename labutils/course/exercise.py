"""An exercise is data: inputs, a specification, and a table of misconceptions.

A misconception is a small wrong implementation with a hint. When a submission fails, every misconception is run on the
same inputs, and the one that gives the submission's answers names the mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from labutils.course.comparison import same_answer


class Wrong(Exception):
    """Raised by `read` and `judge`: the message tells the learner in one sentence what is wrong with an answer."""


@dataclass(frozen=True)
class Case:
    """One input of a check: a name that says what it tests, and the arguments of the call."""

    name: str
    args: tuple
    kwargs: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Misconception:
    """A common mistake: its name, an implementation that makes it, and a hint that does not give the code away.

    >>> Misconception("floor instead of round", np.floor, "return np.round(x / scale)")
    Traceback (most recent call last):
    ValueError: the hint of 'floor instead of round' must be sentences on one line, got 'return np.round(x / scale)'

    ValueError for a name that ends in punctuation, and for a hint that is not sentences on one line or that holds a
    return statement. Only a hint about the order of the returned values may quote one, to state the contract.
    """

    name: str
    wrong: Callable
    hint: str

    def __post_init__(self):
        if not self.name or self.name[-1] in ".:;":
            raise ValueError(f"a misconception's name is a few words without a full stop, got {self.name!r}")
        if not self.hint.endswith(".") or "\n" in self.hint:
            raise ValueError(f"the hint of {self.name!r} must be sentences on one line, got {self.hint!r}")
        if "return " in self.hint and not self.name.startswith("returns scale"):
            raise ValueError(f"the hint of {self.name!r} must not give the code, got {self.hint!r}")


def _call(submission: Callable, *args: Any, **kwargs: Any) -> Any:
    return submission(*args, **kwargs)


def _all_entries(answer: dict) -> dict:
    return answer


@dataclass(frozen=True)
class Exercise:
    """A function or class to write.

    name            of the function or class; `check` finds the exercise by it
    lab             file name of the lesson without its ending, such as "01_fundamentals"
    place           position in the lesson: 10, 20, 30, ... leaves room to insert another
    points          in nbgrader
    reference       an implementation that passes
    cases           makes the inputs; called once per check, and seeded, so that they are the same each time
    read            converts the returned value to a dict of arrays and numbers, or raises Wrong
    judge           compares such a dict with the specification for one case, and raises Wrong where they differ
    misconceptions  in order of precedence: of two that explain a submission equally well, the first is named
    alike           whether two read answers are the same, up to rounding; the diagnosis compares with it. Of random
                    answers it compares the distributions
    shown           the entries of a read answer that a learner knows, by names that a message may use; the relations
                    are found in these
    stretch         it stands in the lesson's stretch section; the board says so where it is still open
    run             makes the call, run(submission, *args, **kwargs), where a plain call is not enough: to take a
                    gradient as well, say, or to convert a case's arrays to torch tensors
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
    shown: Callable[[dict], dict] = _all_entries
    alike: Callable[[dict, dict], bool] = same_answer
    stretch: bool = False
    run: Callable = _call
