"""Whatever a submission does or returns, the learner gets a short, clear sentence, and nothing else has changed."""

import builtins
import functools
import gc
import os
import random
import re
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from labutils import CheckFailed, check, explore_bits
from labutils.course import engine, guard
from labutils.course.report import panel, text
from labutils.course.world import STATM, memory_limit
from labutils.labs import answers
from labutils.labs.catalogue import EXERCISES

torch = pytest.importorskip("torch")
plt = pytest.importorskip("matplotlib.pyplot")

from tests.course.hostile_answers import ANSWERS
from tests.course.hostile_functions import (
    CALLABLES,
    EXERCISE,
    FUNCTIONS,
    PASSES,
    Model,
    asks_a_person,
    asks_for_20_gigabytes,
    calls_itself,
    changes_builtins,
    changes_numpy,
    changes_settings,
    changes_the_course,
    changes_torch,
    exits,
    forgets_numpy,
    leaves_figures_open,
    loops,
    prints_a_million_characters,
    released,
    right,
    seeds,
)

LIMIT = 0.2  # seconds
ON_LINUX = os.path.exists(STATM)  # where the memory of a call has a limit


@pytest.fixture(scope="module", autouse=True)
def _module():
    engine.examine(right, EXERCISE)  # imports and builds what is made once
    yield
    released.set()


def returning(value):
    return lambda *args, **kwargs: value


def shared_state():
    """Everything that other cells of a notebook share with a submission."""
    state = np.random.get_state()  # noqa: NPY002
    functions = {
        f"{owner.__name__}.{name}": id(value)
        for owner in (
            builtins,
            np,
            np.linalg,
            torch,
            torch.Tensor,
            torch.nn.Linear,
            torch.nn.Module,
            answers,
            engine,
            guard,
        )
        for name, value in vars(owner).items()
        if callable(value) or isinstance(owner, type)
    }
    imported = {name: id(sys.modules.get(name)) for name in ("numpy", "numpy.linalg", "labutils", "json", "torch")}
    return functions | imported | {
        "streams": (sys.stdout, sys.stderr, sys.stdin),
        "cwd": os.getcwd(),
        "environment": dict(os.environ),
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": sys.getswitchinterval(),
        "garbage": gc.isenabled(),
        "warnings": list(warnings.filters),
        "tracing": (threading.gettrace(), sys.gettrace()),
        "signals": signal.getsignal(signal.SIGINT),
        "print options": np.get_printoptions(),
        "error state": np.geterr(),
        "random": (random.getstate(), state[1].tobytes(), state[2], torch.get_rng_state().numpy().tobytes()),
        "torch": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()),
        "figures": plt.get_fignums(),
        "memory limit": memory_limit(),
    }  # fmt: skip


def differences(before, after):
    return {
        name: (before.get(name), after.get(name))
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }


CALLS = {
    **FUNCTIONS,
    **CALLABLES,
    **{f"returns {name}": (returning(value), sentence) for name, (value, sentence) in ANSWERS.items()},
}


def limit_for(sentence):
    """A short one only where it is to be reached: a loaded machine may be slow."""
    return LIMIT if re.search("no answer|could not be stopped|Endless", sentence or "") else 30.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(guard, "GRACE", 0.3)


def test_there_are_enough_of_them():
    assert len(CALLS) >= 100


@pytest.mark.parametrize("name", CALLS)
def test_it_gets_a_sentence_and_changes_nothing(name, capfd):
    submission, sentence = CALLS[name]
    if "MemoryError" in (sentence or "") and not ON_LINUX:
        pytest.skip("only Linux lets a process limit its memory")
    before = shared_state()
    found = engine.examine(submission, EXERCISE, limit_for(sentence))
    assert differences(before, shared_state()) == {}
    assert capfd.readouterr() == ("", "")
    if sentence is PASSES:
        assert found.passed, found.first_failure
    else:
        assert not found.passed
        assert sentence in found.first_failure.detail
        assert len(found.first_failure.detail) < 600
        (line,) = CheckFailed(found)._render_traceback_()
        assert len(line) < 600 and len(text(found)) < 20_000 and len(panel(found).html) < 60_000
    assert engine.examine(right, EXERCISE).passed


@pytest.fixture(scope="module")
def slider():
    """An explorer of a function that can be exchanged."""
    now = [right]

    def quantize(x, num_bits):
        return now[0](x, num_bits)

    explorer = explore_bits(np.arange(-9.0, 10.0), quantize=quantize)
    return explorer, now, explorer.picture.value


@pytest.mark.parametrize("name", CALLS)
def test_under_a_slider_it_gets_a_sentence_and_the_slider_goes_on(name, slider, monkeypatch, capfd):
    submission, sentence = CALLS[name]
    if "MemoryError" in (sentence or "") and not ON_LINUX:
        pytest.skip("only Linux lets a process limit its memory")
    monkeypatch.setattr("labutils.course.explorer.TIME_LIMIT", limit_for(sentence))
    explorer, now, picture = slider
    before = shared_state()
    now[0] = submission
    explorer.controls["num_bits"].value -= 1
    assert explorer.picture.value != picture
    assert len(explorer.readout.value) < 3000
    now[0] = right
    explorer.controls["num_bits"].value += 1
    assert explorer.picture.value == picture
    assert differences(before, shared_state()) == {}
    assert capfd.readouterr() == ("", "")


# --- other exercises: bytes, a layer, a model -------------------------------------------------------------------------


@functools.cache
def prepare(name):
    """What the check of the exercise `name` imports and builds once is there from now on."""
    assert engine.examine(EXERCISES[name].reference, EXERCISES[name]).passed


def answer_that_calls(function, name):
    """The right answer to the exercise `name`, which also calls a hostile function."""
    if name != "QuantizedLinear":
        return lambda *args, **kwargs: (EXERCISES[name].reference(*args, **kwargs), function(np.ones(4)))[0]

    class QuantizedLinear(torch.nn.Module):
        @staticmethod
        def from_float(linear):
            layer = answers.QuantizedLinear.from_float(linear)
            function(np.ones(4))
            return layer

    return QuantizedLinear


SABOTAGE = (changes_builtins, changes_numpy, changes_torch, forgets_numpy)  # the rest of the call may fail or not


@pytest.mark.parametrize(
    "function",
    [loops, calls_itself, exits, asks_for_20_gigabytes, asks_a_person, prints_a_million_characters, changes_settings,
     changes_the_course, seeds, leaves_figures_open, *SABOTAGE],
    ids=lambda function: function.__name__,
)  # fmt: skip
@pytest.mark.parametrize("name", ["pack_int4", "QuantizedLinear", "quantize_model"])
def test_a_right_answer_with_hostile_side_effects_gets_the_sentence_or_passes(name, function):
    sentence = FUNCTIONS[function.__name__][1]
    if "MemoryError" in (sentence or "") and not ON_LINUX:
        pytest.skip("only Linux lets a process limit its memory")
    prepare(name)
    before = shared_state()
    found = engine.examine(answer_that_calls(function, name), EXERCISES[name], limit_for(sentence))
    assert differences(before, shared_state()) == {}
    if function not in SABOTAGE:
        assert found.passed is (sentence is PASSES)
        assert found.passed or sentence.partition(" (")[0] in found.first_failure.detail
    assert engine.examine(EXERCISES[name].reference, EXERCISES[name]).passed


# --- what cannot be checked at all ------------------------------------------------------------------------------------


def named(it, name):
    it.__name__ = name
    return it


REFUSED = {
    "a name": ("quantize_symmetric", "check takes the function itself, as in .* got the str"),
    "an answer": (answers.quantize_symmetric(np.ones(4)), "got a tuple"),
    "nothing": (None, "got None"),
    "an object": (Model(), "got a Model"),
    "a partial": (functools.partial(answers.quantize_symmetric), "got a partial"),
    "a module": (np, "got a module"),
    "a C function": (len, "no exercise is called 'len'"),
    "a ufunc": (np.add, "no exercise is called 'add'"),
    "a lambda": (lambda x: x, "a lambda has no name by which its exercise could be found: write it with `def`"),
    "a misspelt function": (named(lambda x: x, "quantise_symetric"), "did you mean quantize_symmetric?"),
    "a name without end": (named(lambda x: x, "x" * 10**6), "no exercise is called 'xxx"),
    "a class for a function": (type("pack_int4", (), {}), "pack_int4 should be a function, but it is a class"),
    "a function for a class": (named(lambda x: x, "QuantizedLinear"), "should be a class, but it is a function"),
    "a layer for its class": (answers.QuantizedLinear.from_float(torch.nn.Linear(2, 2)), "got a QuantizedLinear"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_checked_is_refused_in_one_line(what):
    it, sentence = REFUSED[what]
    with pytest.raises((TypeError, LookupError), match=sentence) as caught:
        check(it)
    (line,) = caught.value._render_traceback_()
    assert str(caught.value) in line and len(line) < 3000


def test_slow_cases_come_to_an_end_together(monkeypatch):
    monkeypatch.setattr(engine, "TOTAL_LIMITS", 1)

    def slow(x, num_bits=8):
        time.sleep(0.3)
        return right(x, num_bits)

    found = engine.examine(slow, EXERCISE, time_limit=0.5)
    assert not found.passed and found.cases[0].passed
    assert "not tried: the cases before it took 0.5 seconds" in found.first_failure.detail


def test_without_torch_a_torch_exercise_says_so_and_names_no_mistake(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    found = engine.examine(lambda *args: None, EXERCISES["int8_linear"])
    assert "needs torch, which is not installed: `pip install torch`" in found.first_failure.detail
    assert found.diagnosis is None and found.cases[1].detail == "not tried, after the case above"
