"""Run a submission over many inputs, say what is wrong, and name the mistake that makes it answer so.

An `Exercise` is data: inputs, a specification (`read` the answer, `judge` it), and a table of misconceptions - small
wrong implementations, each with a hint. When a submission fails, every misconception answers the same inputs, and the
one that answers as the submission did names the mistake.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import array_api_compat
import numpy as np

from labutils import guard

TIME_LIMIT = 5.0  # seconds a case


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


def _called(submission: Callable, *args: Any, **kwargs: Any) -> Any:
    return submission(*args, **kwargs)


@dataclass(frozen=True)
class Exercise:
    """A function to write.

    name            of the function; `check` finds the exercise by it
    lab             the lesson's file name without ending, such as "01_fundamentals"
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
    points: int
    reference: Callable
    cases: Callable[[], Sequence[Case]]
    read: Callable[[Any], dict]
    judge: Callable[[dict, Case], None]
    misconceptions: tuple[Misconception, ...]
    stretch: bool = False
    run: Callable = _called


@dataclass(frozen=True)
class CaseResult:
    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """What a check found. `diagnosis` is a misconception's name, or None where none answers as the submission does."""

    exercise: str
    passed: bool
    cases: tuple[CaseResult, ...]
    diagnosis: str | None = None
    hint: str | None = None
    undone: bool = False
    printed: str = ""

    @property
    def first_failure(self) -> CaseResult | None:
        return next((case for case in self.cases if not case.passed), None)


@dataclass(frozen=True)
class _Answer:
    """What one implementation made of one case: a readable value, or the reason why there is none."""

    value: dict | None
    kind: str  # "" for a value, else the kind of failure: two failures of one kind count as alike
    complaint: str = ""
    printed: str = ""


def examine(submission: Callable, exercise: Exercise, time_limit: float = TIME_LIMIT) -> Report:
    """Judge `submission` by `exercise`. Pure: shows nothing, records nothing, and raises for no submission."""
    cases = list(exercise.cases())
    answers: list[_Answer] = []
    results: list[CaseResult] = []
    for case in cases:
        if answers and answers[-1].kind in ("hangs", "undone"):
            results.append(CaseResult(case.name, False, "not tried, after the case above"))
            continue
        answer = _answer(submission, case, exercise, lambda f, *a, **k: guard.call(f, *a, time_limit=time_limit, **k))
        answers.append(answer)
        complaint = answer.complaint or _complaint(answer.value, case, exercise)
        results.append(CaseResult(case.name, not complaint, complaint))
    if answers[0].kind == "undone":
        return Report(exercise.name, False, tuple(results), undone=True)
    failing = [i for i, answer in enumerate(answers) if not results[i].passed]
    named = _diagnose(answers, failing, cases, exercise) if failing else None
    return Report(
        exercise=exercise.name,
        passed=not failing,
        cases=tuple(results),
        diagnosis=named.name if named else None,
        hint=named.hint if named else None,
        printed=answers[failing[0]].printed if failing else "",
    )


def _diagnose(
    answers: list[_Answer], failing: list[int], cases: list[Case], exercise: Exercise
) -> Misconception | None:
    """The misconception that explains the first failing case and the most of the others.

    Explaining is answering alike. A submission may make two mistakes at once: then one is named that accounts for what
    is shown first, and the next check names the other.
    """
    best, best_score = None, (0, 0)
    for misconception in exercise.misconceptions:
        made = [_answer(misconception.wrong, case, exercise, _plainly) for case in cases[: len(answers)]]
        alike = [_alike(mine, theirs) for mine, theirs in zip(made, answers, strict=True)]
        if not alike[failing[0]]:
            continue
        score = (sum(alike[i] for i in failing), sum(alike))
        if score > best_score:
            best, best_score = misconception, score
    return best


def _answer(function: Callable, case: Case, exercise: Exercise, call: Callable) -> _Answer:
    """Call a function on its own copy of a case's input, and read what it returns."""
    args, kwargs = tuple(map(_own, case.args)), {name: _own(value) for name, value in case.kwargs.items()}
    outcome = call(exercise.run, function, *args, **kwargs)
    error = outcome.error
    if outcome.undone:
        return _Answer(None, "undone", "not done yet", outcome.printed)
    if outcome.timed_out:
        return _Answer(None, "hangs", f"it gave {error}: is there a loop that never ends?", outcome.printed)
    if error is not None:
        where = _line_in(function, error)
        told = f"it raised {type(error).__name__}: {error}" if str(error) else f"it raised {type(error).__name__}"
        return _Answer(None, type(error).__name__, f"{told}{where}", outcome.printed)
    changed = _changed((args, kwargs), (case.args, case.kwargs))
    if changed:
        return _Answer(None, "changes its input", "it changed the array it was given: work on a copy", outcome.printed)
    try:
        return _Answer(exercise.read(outcome.value), "", "", outcome.printed)
    except Wrong as wrong:
        return _Answer(None, str(wrong), str(wrong), outcome.printed)


def _own(value: Any) -> Any:
    """A copy of an argument; of a non-contiguous array, a copy that is not contiguous either."""
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        return np.repeat(value, 2, axis=-1)[..., ::2]
    return copy.deepcopy(value)


def _plainly(function: Callable, *args: Any, **kwargs: Any) -> guard.Outcome:
    """As `guard.call`, for our own misconceptions, which end."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return guard.Outcome(function(*args, **kwargs))
        except Exception as error:
            return guard.Outcome(error=error)


def _complaint(value: dict, case: Case, exercise: Exercise) -> str:
    try:
        exercise.judge(value, case)
    except Wrong as wrong:
        return str(wrong)
    return ""


def _line_in(function: Callable, error: BaseException) -> str:
    """Where in the submission an exception came from: ' (line 3 of your function)', or of a class's method."""
    methods = vars(function) if isinstance(function, type) else {"function": function}
    codes = {getattr(inspect.unwrap(getattr(m, "__func__", m)), "__code__", None): name for name, m in methods.items()}
    trace, found = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code in codes:
            found = f" (line {trace.tb_lineno - code.co_firstlineno + 1} of your {codes[code]})"
        trace = trace.tb_next
    return found


def _changed(after: Any, before: Any) -> bool:
    """Whether an array anywhere in the arguments is no longer what it was."""
    if isinstance(before, np.ndarray):
        return after.shape != before.shape or after.dtype != before.dtype or after.tobytes() != before.tobytes()
    if isinstance(before, (tuple, list)):
        return any(_changed(a, b) for a, b in zip(after, before, strict=True))
    if isinstance(before, dict):
        return any(_changed(after.get(key), value) for key, value in before.items())
    return False


def _alike(mine: _Answer, theirs: _Answer) -> bool:
    """Whether two answers come from one mistake: equal up to rounding, and up to ties in one element of a thousand."""
    if mine.kind or theirs.kind:
        return mine.kind == theirs.kind
    if mine.value.keys() != theirs.value.keys():
        return False
    return all(_equal(np.asarray(mine.value[key]), np.asarray(theirs.value[key])) for key in mine.value)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return False
    if a.dtype.kind in "bU":  # yes or no, and words
        return bool(np.array_equal(a, b))
    if a.dtype.kind in "iu":
        return a.dtype == b.dtype and np.sum(a != b) <= 1e-3 * a.size
    if a.dtype.kind == "f" and a.ndim:  # a float64 array where float32 was asked for is another mistake
        return a.dtype == b.dtype and np.allclose(a, b, rtol=1e-4, atol=0, equal_nan=True)
    return bool(np.allclose(a, b, rtol=1e-4, atol=0, equal_nan=True))


def as_array(value: Any, name: str) -> np.ndarray:
    """A returned array as NumPy, whether it was NumPy, torch or a number; Wrong for what is none of these."""
    if array_api_compat.is_torch_array(value):
        value = value.detach().cpu().numpy()
    if value is None or isinstance(value, (str, bytes, dict, set, list, tuple)) or callable(value):
        raise Wrong(f"{name} should be an array, but it is {describe(value)}")
    array = np.asarray(value)
    if array.dtype.kind not in "iufb":
        raise Wrong(f"{name} should hold numbers, but its dtype is {array.dtype}")
    return array


def as_number(value: Any, name: str) -> float:
    """A returned number as a float: a Python or NumPy number, or an array of one element; Wrong for anything else."""
    array = as_array(value, name)
    if array.size != 1:
        raise Wrong(f"{name} should be one number, but it is an array of shape {array.shape}")
    return float(array.reshape(()))


def parts(value: Any, names: tuple[str, ...]) -> tuple:
    """The parts of a returned tuple, or Wrong with what came instead."""
    wanted = f"`return {', '.join(names)}`"
    if value is None:
        raise Wrong(f"it returned None: end with {wanted}")
    if not isinstance(value, (tuple, list)) or len(value) != len(names):
        came = f"{len(value)} values" if isinstance(value, (tuple, list)) else describe(value)
        raise Wrong(f"it returned {came}; expected {len(names)} values: {wanted}")
    return tuple(value)


def describe(value: Any) -> str:
    """A value in a few words: 'an array of shape (3,)', 'the string 'a'', 'None'."""
    if value is None:
        return "None"
    if array_api_compat.is_array_api_obj(value):
        return f"an array of shape {tuple(value.shape)}"
    if isinstance(value, (bool, int, float, str)):
        return f"the {type(value).__name__} {value!r:.60}"
    return f"a {type(value).__name__}"


def place(where: tuple) -> str:
    """An index as one writes it: '2, 0'."""
    return ", ".join(str(int(i)) for i in where)
