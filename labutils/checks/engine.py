"""Run a submission over many inputs, say what is wrong, and name the mistake that makes it answer so.

An `Exercise` is data: inputs, a specification (`read` the answer, `judge` it), and a table of misconceptions - small
wrong implementations, each with a hint. When a submission fails, every misconception answers the same inputs, and the
one that answers as the submission did names the mistake.
"""

from __future__ import annotations

import copy
import inspect
import time
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import array_api_compat
import numpy as np

from labutils import guard, world

TIME_LIMIT = 5.0  # seconds a case
ALL_CASES = 6  # time limits that all cases may take together
LENGTH = 400  # characters that a complaint may take: what it quotes may be of any size


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


@world.kept()  # cases, judges and misconceptions draw random numbers too
def examine(submission: Callable, exercise: Exercise, time_limit: float = TIME_LIMIT) -> Report:
    """Judge `submission` by `exercise`. Pure: shows nothing, records nothing, and raises for no submission."""
    cases = list(exercise.cases())
    answers: list[_Answer] = []
    results: list[CaseResult] = []
    untried = ""
    end = time.monotonic() + ALL_CASES * time_limit
    for case in cases:
        if not untried and time.monotonic() > end:
            untried = f"not tried: the cases before it took {ALL_CASES * time_limit:g} seconds, look for slow loops"
        if untried:
            results.append(CaseResult(case.name, False, untried))
            continue
        answer = _answer(submission, case, exercise, lambda f, *a, **k: guard.call(f, *a, time_limit=time_limit, **k))
        answers.append(answer)
        complaint = answer.complaint or _complaint(answer.value, case, exercise)
        results.append(CaseResult(case.name, not complaint, complaint))
        if answer.kind in LAST:
            untried = "not tried, after the case above"
    if answers[0].kind == UNDONE:
        return Report(exercise.name, False, tuple(results), undone=True)
    failing = [i for i, answer in enumerate(answers) if not results[i].passed]
    named = _diagnose(answers, failing, cases, exercise) if failing and answers[failing[0]].kind not in LAST else None
    return Report(
        exercise=exercise.name,
        passed=all(result.passed for result in results),
        cases=tuple(results),
        diagnosis=named.name if named else None,
        hint=named.hint if named else None,
        printed=answers[failing[0]].printed if failing else "",
    )


# Kinds of failure after which no other case is tried. No misconception fails so.
HANGS, UNDONE, NO_TORCH = LAST = ("hangs", "undone", "no torch")


def _diagnose(
    answers: list[_Answer], failing: list[int], cases: list[Case], exercise: Exercise
) -> Misconception | None:
    """The misconception that explains the first failing case and the most of the others.

    Explaining is answering alike. A submission may make two mistakes at once: then one is named that accounts for what
    is shown first, and the next check names the other.
    """

    def alike(misconception: Misconception, i: int) -> bool:
        return _alike(_answer(misconception.wrong, cases[i], exercise, _plainly), answers[i])

    passing = [i for i in range(len(answers)) if i not in failing]
    best, best_score = None, (0, 0)
    for misconception in exercise.misconceptions:
        score = len(failing), len(answers)  # alike in failing cases, in all cases: counted down, to stop early
        for i in (*failing, *passing):
            if score <= best_score:
                break
            if not alike(misconception, i):
                score = (0, 0) if i == failing[0] else (score[0] - (i in failing), score[1] - 1)
        if score > best_score:
            best, best_score = misconception, score
    return best


def _answer(function: Callable, case: Case, exercise: Exercise, call: Callable) -> _Answer:
    """Call a function on its own copy of a case's input, and read what it returns."""
    args, kwargs = tuple(map(_own, case.args)), {name: _own(value) for name, value in case.kwargs.items()}
    outcome = call(exercise.run, function, *args, **kwargs)
    error = outcome.error
    if outcome.undone:
        return _Answer(None, UNDONE, "not done yet", outcome.printed)
    if outcome.timed_out:
        return _Answer(None, HANGS, f"it gave {error}. Is there a loop that never ends?", outcome.printed)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        told = "this exercise needs torch, which is not installed: `pip install torch`, then restart the kernel"
        return _Answer(None, NO_TORCH, told, outcome.printed)
    if error is not None:
        told = call(_told, function, error, exercise).value or f"it raised {type(error).__name__}"
        return _Answer(None, type(error).__name__, brief(told), outcome.printed)
    changed = _changed((args, kwargs), (case.args, case.kwargs))
    if changed:
        return _Answer(None, "changes its input", "it changed the array it was given: work on a copy", outcome.printed)
    try:
        return _Answer(read_answer(exercise.read, outcome.value, call), "", "", outcome.printed)
    except _Endless as endless:
        return _Answer(None, HANGS, str(endless), outcome.printed)
    except Wrong as wrong:
        return _Answer(None, str(wrong), str(wrong), outcome.printed)


class _Endless(Wrong):
    """Reading an answer came to no end."""


def read_answer(read: Callable[[Any], dict], value: Any, call: Callable = guard.call) -> dict:
    """What `read` makes of a returned value, or Wrong. Guarded as well: an object may do anything when looked at."""
    outcome = call(_read_finished, read, value)
    if isinstance(outcome.error, Wrong):
        raise Wrong(brief(str(outcome.error)))
    if outcome.error is None:
        return outcome.value
    if outcome.timed_out:
        raise _Endless(f"what it returned cannot be read: {outcome.error}")
    raise Wrong(f"what it returned cannot be read: {call(error_text, outcome.error).value}")


def _parameters(function: Callable) -> list[str]:
    bare = (p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values())
    return [str(parameter) for parameter in bare]


UNFINISHED: dict[type, str] = {
    types.CoroutineType: "a coroutine: begin with `def`, without `async`",
    types.AsyncGeneratorType: "an async generator: begin with `def`, without `async`, and end with `return`",
    types.GeneratorType: "a generator: end with `return`, without `yield`",
}


def _read_finished(read: Callable[[Any], dict], value: Any) -> dict:
    if type(value) in UNFINISHED:
        if isinstance(value, types.CoroutineType):
            value.close()  # else Python warns that nobody waited for it
        raise Wrong(f"it returned {UNFINISHED[type(value)]}")
    return read(value)


def brief(text: str) -> str:
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 3]}..."


def error_text(error: BaseException) -> str:
    """An exception in a line or so: 'ValueError: no'."""
    text = str(error)[:LENGTH]
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # torch raises a RuntimeError
        return f"MemoryError: more memory than there is for it. {text}".rstrip(". ")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _told(function: Callable, error: BaseException, exercise: Exercise) -> str:
    where = _line_in(function, error)
    if isinstance(error, TypeError) and not where and exercise.name.islower():
        where = f"; it is called as `{exercise.name}({', '.join(_parameters(exercise.reference))})`"
    return f"it raised {error_text(error)}{where}"


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
        return brief(str(wrong))
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
    if type(after) is not type(before):
        return True
    if isinstance(before, np.ndarray):
        return after.shape != before.shape or after.dtype != before.dtype or after.tobytes() != before.tobytes()
    if isinstance(before, (tuple, list)):
        return len(after) != len(before) or any(_changed(a, b) for a, b in zip(after, before))
    if isinstance(before, dict):
        return after.keys() != before.keys() or any(_changed(after[key], value) for key, value in before.items())
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
    if value is None or isinstance(value, (str, bytes, dict, set, list, tuple)) or callable(value):
        raise Wrong(f"{name} should be an array, but it is {describe(value)}")
    try:
        array = np.asarray(value.detach().cpu().numpy() if array_api_compat.is_torch_array(value) else value)
    except Exception as error:
        raise Wrong(f"{name} is {describe(value)}, of which NumPy cannot make an array: {error_text(error)}") from None
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
    """A value in a few words: 'an array of shape (3,)', 'the str 'a'', 'None'."""
    if value is None:
        return "None"
    if array_api_compat.is_array_api_obj(value):
        return f"an array of shape {tuple(value.shape)!s:.60}"
    if type(value) is int and value.bit_length() > 200:  # of thousands of digits Python makes no text
        return f"an int of {value.bit_length()} bits"
    if type(value) in (bool, int, float, str):
        return f"the {type(value).__name__} {value!r:.60}"
    if isinstance(value, type):
        return f"the class {value.__name__:.60}"
    return f"a {type(value).__name__:.60}"


def place(where: tuple) -> str:
    """An index as one writes it: '2, 0'."""
    return ", ".join(str(int(i)) for i in where)
