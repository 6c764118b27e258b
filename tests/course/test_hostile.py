"""Whatever a submission does or returns: a short, clear sentence, no traceback, and a world as it was."""

import asyncio
import builtins
import functools
import gc
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from labutils import CheckFailed, check, explore_bits
from labutils.course import engine, guard, reading
from labutils.course.report import panel, text
from labutils.course.world import STATM, memory_limit
from labutils.labs import answers
from labutils.labs.catalogue import EXERCISES

torch = pytest.importorskip("torch")
plt = pytest.importorskip("matplotlib.pyplot")

EXERCISE = EXERCISES["quantize_symmetric"]
LIMIT = 0.2  # seconds
ON_LINUX = os.path.exists(STATM)  # where the memory of a call has a limit
released = threading.Event()  # what cannot be stopped ends with the module


@pytest.fixture(scope="module", autouse=True)
def _module():
    engine.examine(right, EXERCISE)  # what is imported and built once
    yield
    released.set()


def right(x, num_bits=8):
    return EXERCISE.reference(x, num_bits)


# --- what a submission may do -----------------------------------------------------------------------------------------
#
# What a submission does, and the sentence that the learner reads. One that only leaves a mess passes: the mess is gone.

PASSES = None
DEEDS = {}


def deed(sentence):
    def add(submission):
        DEEDS[submission.__name__] = submission, sentence
        return submission

    return add


@deed("it gave no answer within 0.2 seconds. Is there a loop that never ends?")
def loops(x, num_bits=8):
    while True:
        pass


@deed("it gave no answer within 0.2 seconds.")
def loops_and_eats_exceptions(x, num_bits=8):
    while True:
        try:  # noqa: SIM105
            np.round(x)
        except:  # noqa: E722
            pass


@deed("it gave no answer within 0.2 seconds.")
def eats_its_own_exit(x, num_bits=8):
    while True:
        try:
            sys.exit(1)
        except SystemExit:
            continue


@deed("and it could not be stopped: restart the kernel if it has become slow")
def waits_in_compiled_code(x, num_bits=8):
    released.wait()


@deed("it gave no answer within 0.2 seconds.")
def sleeps(x, num_bits=8):
    for _ in range(1000):
        time.sleep(0.01)


@deed("it gave no answer within 0.2 seconds.")
def prints_without_end(x, num_bits=8):
    while True:
        print("x" * 1000)


@deed("it gave no answer within 0.2 seconds.")
def counts_without_end(x, num_bits=8):
    return [i for i in itertools.count() if i < 0]


@deed("it raised RecursionError")
def calls_itself(x, num_bits=8):
    return calls_itself(x, num_bits)


@deed("it raised RecursionError")
def calls_one_that_calls_it(x, num_bits=8):
    return (lambda: calls_one_that_calls_it(x, num_bits))()


@deed("it raised RecursionError")
def calls_itself_in_except(x, num_bits=8):
    try:
        return calls_itself_in_except(x, num_bits)
    except ValueError:
        return None


@deed("it raised SystemExit: 1 (line 3 of your function)")
def exits(x, num_bits=8):
    sys.exit(1)


@deed("it raised SystemExit")
def quits(x, num_bits=8):
    builtins.exit()


@deed("it raised KeyboardInterrupt")
def interrupts(x, num_bits=8):
    raise KeyboardInterrupt


@deed("it raised GeneratorExit")
def raises_generator_exit(x, num_bits=8):
    raise GeneratorExit


@deed("it raised StopIteration")
def raises_stop_iteration(x, num_bits=8):
    raise StopIteration


@deed("it raised BaseException: no (line 3 of your function)")
def raises_base_exception(x, num_bits=8):
    raise BaseException("no")


@deed("it raised ValueError: xxx")
def raises_a_megabyte(x, num_bits=8):
    raise ValueError("x" * 1_000_000)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Endless(Exception):
    def __str__(self):
        while True:
            pass


@deed("it raised Mute")
def raises_what_cannot_be_told(x, num_bits=8):
    raise Mute


@deed("it raised Endless")
def raises_what_is_told_without_end(x, num_bits=8):
    raise Endless


@deed("it raised MemoryError: more memory than there is for it. Unable to allocate 18.6 GiB")
def asks_for_20_gigabytes(x, num_bits=8):
    return np.ones((50_000, 50_000)), 1.0


@deed("it raised MemoryError: more memory than there is for it")
def asks_torch_for_20_gigabytes(x, num_bits=8):
    return torch.ones((50_000, 100_000)), 1.0


@deed("it raised MemoryError: more memory than there is for it")
def asks_for_a_list_of_80_gigabytes(x, num_bits=8):
    return [0] * 10**10, 1.0


@deed("it raised MemoryError: more memory than there is for it")
def hoards(x, num_bits=8):
    hoard = []
    while True:
        hoard.append(np.zeros(10**8))


@deed("it raised RuntimeError: input() asks a person, and here nobody is asked")
def asks_a_person(x, num_bits=8):
    return int(input("bits? "))


@deed("it raised ValueError: invalid literal")
def reads_standard_input(x, num_bits=8):
    return int(sys.stdin.readline())


@deed("it raised RuntimeError: a function that is being checked cannot itself ask for a check")
def checks_itself(x, num_bits=8):
    q, scale = right(x, num_bits)
    engine.examine(checks_itself, EXERCISE)
    return q, scale


@deed("it changed the array it was given: work on a copy")
def writes_into_x(x, num_bits=8):
    q, scale = right(x, num_bits)
    x *= 2
    return q, scale


@deed("it changed the array it was given: work on a copy")
def reshapes_x(x, num_bits=8):
    q, scale = right(x, num_bits)
    x.shape = (-1, 1)
    return q, scale


@deed("it raised ValueError: signal only works in main thread")
def sets_a_signal_handler(x, num_bits=8):
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@deed(PASSES)
def prints_a_million_characters(x, num_bits=8):
    for _ in range(1000):
        print("x" * 1000)
    sys.stderr.write("y" * 1_000_000)
    return right(x, num_bits)


@deed(PASSES)
def warns(x, num_bits=8):
    warnings.simplefilter("error")
    warnings.warn("careful", stacklevel=1)  # raises, where the learner wants it so


DEEDS["warns"] = warns, "it raised UserWarning: careful"


@deed(PASSES)
def replaces_output(x, num_bits=8):
    sys.stdout.close()
    sys.stdout = sys.stderr = sys.stdin = None
    return right(x, num_bits)


@deed(PASSES)
def changes_numpy(x, num_bits=8):
    result = right(x, num_bits)
    np.round = np.abs = np.max = np.clip = np.asarray = lambda *args, **kwargs: 0
    del np.sum
    np.linalg.norm = None
    return result


@deed(PASSES)
def changes_builtins(x, num_bits=8):
    result = right(x, num_bits)
    builtins.round = builtins.len = builtins.isinstance = lambda *args: True
    return result


@deed(PASSES)
def changes_torch(x, num_bits=8):
    torch.round = torch.Tensor.round = torch.nn.Linear.forward = torch.nn.Module.__call__ = None
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    torch.set_num_threads(3)
    return right(x, num_bits)


@deed(PASSES)
def changes_the_course(x, num_bits=8):
    result = right(x, num_bits)
    answers.quantize_symmetric = reading.as_array = engine.examine = guard.call = lambda *args, **kwargs: None
    return result


@deed(PASSES)
def changes_settings(x, num_bits=8):
    np.seterr(all="raise")
    np.set_printoptions(precision=2, threshold=3)
    sys.setrecursionlimit(20_000)
    sys.setswitchinterval(0.1)
    gc.disable()
    warnings.filterwarnings("error")
    threading.settrace(lambda *args: None)
    sys.settrace(lambda *args: None)
    return right(x, num_bits)


@deed(PASSES)
def changes_the_environment(x, num_bits=8):
    os.environ["HOME"] = "elsewhere"
    os.environ.pop("PATH", None)
    os.chdir("/")
    return right(x, num_bits)


@deed(PASSES)
def seeds(x, num_bits=8):
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    torch.manual_seed(0)
    return right(x, num_bits)


@deed(PASSES)
def forgets_numpy(x, num_bits=8):
    result = right(x, num_bits)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("numpy", "labutils", "json")]:
        del sys.modules[name]
    return result


@deed(PASSES)
def leaves_figures_open(x, num_bits=8):
    plt.figure()
    plt.plot([1, 2])
    return right(x, num_bits)


@deed(PASSES)
def starts_a_thread(x, num_bits=8):
    threading.Thread(target=released.wait, daemon=True).start()
    return right(x, num_bits)


@deed(PASSES)
def starts_a_process(x, num_bits=8):
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    return right(x, num_bits)


@deed(PASSES)
def runs_an_event_loop(x, num_bits=8):
    return asyncio.run(asyncio.to_thread(right, x, num_bits))


# --- what it may be ---------------------------------------------------------------------------------------------------


@deed("it returned a generator: end with `return`, without `yield`")
def yields(x, num_bits=8):
    yield right(x, num_bits)


@deed("it returned a coroutine: begin with `def`, without `async`")
async def awaits(x, num_bits=8):
    return right(x, num_bits)


@deed("it returned an async generator: begin with `def`, without `async`, and end with `return`")
async def yields_and_awaits(x, num_bits=8):
    yield right(x, num_bits)


@deed("it is called as `quantize_symmetric(x, num_bits=8)`")
def too_few(x):
    return right(x)


@deed("it is called as `quantize_symmetric(x, num_bits=8)`")
def too_many(x, num_bits, axis, group_size):
    return right(x, num_bits)


@deed("it is called as `quantize_symmetric(x, num_bits=8)`")
def keywords_only(*, x, num_bits=8):
    return right(x, num_bits)


@deed("it is called as `quantize_symmetric(x, num_bits=8)`")
def only_any_keywords(**kwargs):
    return right(**kwargs)


@deed(
    "it raised TypeError: positional_only() got some positional-only arguments passed as keyword arguments: 'num_bits'"
)
def positional_only(x, num_bits=8, /):
    return right(x, num_bits)


@deed(PASSES)
def takes_anything(*args, **kwargs):
    return right(*args, **kwargs)


class Model:
    def method(self, x, num_bits=8):
        return right(x, num_bits)

    def __call__(self, x, num_bits=8):
        return right(x, num_bits)


class Taker:
    def __init__(self, x, num_bits=8):
        self.x = x


OTHERS = {
    "a lambda": (lambda x, num_bits=8: right(x, num_bits), PASSES),
    "a partial": (functools.partial(right, num_bits=8), PASSES),
    "a bound method": (Model().method, PASSES),
    "a callable object": (Model(), PASSES),
    "a cached function": (functools.lru_cache(right), "it raised TypeError: unhashable type: 'numpy.ndarray'"),
    "a C function": (len, "it raised TypeError: len() takes no keyword arguments; it is called as"),
    "a function of NumPy": (np.sum, "it raised "),
    "a ufunc": (np.add, "it raised TypeError: add() takes from 2 to 3 positional arguments but 1 was given"),
    "a class": (Taker, "it returned a Taker; expected 2 values"),
    "a type": (dict, "it raised TypeError: cannot convert dictionary update sequence"),
    "a module": (np, "it raised TypeError: 'module' object is not callable"),
    "a string": ("quantize_symmetric", "it raised TypeError: 'str' object is not callable"),
    "None": (None, "it raised TypeError: 'NoneType' object is not callable"),
}  # fmt: skip


# --- what it may return -----------------------------------------------------------------------------------------------


class Unreadable:
    def __array__(self, *args, **kwargs):
        raise ValueError("no array here")


class Unread:
    """Hangs when it is looked at."""

    def __array__(self, *args, **kwargs):
        while True:
            pass


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no words")

    __str__ = __repr__


class Talkative:
    def __repr__(self):
        return "x" * 10_000_000


class Long(tuple):
    def __len__(self):
        while True:
            pass


class Sequence:
    def __len__(self):
        return 2**62

    def __getitem__(self, index):
        return 1


class Liar(np.ndarray):
    shape = property(lambda self: (4,))
    dtype = property(lambda self: np.dtype("int8"))
    __eq__ = __ne__ = lambda self, other: True
    __hash__ = None


ENDLESS_LIST = []
ENDLESS_LIST.append(ENDLESS_LIST)
HUGE = np.broadcast_to(np.int8(1), (100_000, 100_000))  # 10 GB to whom it may read, one byte in fact

ANSWERS = {
    "NaN": (float("nan"), "it returned the float nan; expected 2 values"),
    "a bool": (True, "it returned the bool True; expected 2 values"),
    "a complex number": (1j, "it returned a complex; expected 2 values"),
    "a string": ("q, scale", "it returned the str 'q, scale'; expected 2 values"),
    "bytes": (b"q", "it returned a bytes; expected 2 values"),
    "a dict": ({"q": 1, "scale": 2}, "it returned a dict; expected 2 values"),
    "an iterator": (iter([1, 2]), "it returned a list_iterator; expected 2 values"),
    "a lazy map": (map(abs, [1, 2]), "it returned a map; expected 2 values"),
    "a class": (dict, "it returned the class dict; expected 2 values"),
    "a function": (len, "it returned a builtin_function_or_method; expected 2 values"),
    "a module": (np, "it returned a module; expected 2 values"),
    "an int without end": (10**5000, "it returned an int of 16610 bits; expected 2 values"),
    "no repr": (Unprintable(), "it returned a Unprintable; expected 2 values"),
    "a repr of megabytes": (Talkative(), "it returned a Talkative; expected 2 values"),
    "nothing": ((), "it returned 0 values; expected 2 values"),
    "a million values": ((1,) * 1_000_000, "it returned 1000000 values; expected 2 values"),
    "a length without end": (Long((1, 2)), "what it returned cannot be read: no answer within 0.2 seconds"),
    "a list in itself": ((ENDLESS_LIST, 1.0), "q should be an array, but it is a list"),
    "10 GB": ((HUGE, 1.0), "q should have the shape of x, (4,), but has (100000, 100000)"),
    "10 GB of scales": ((np.ones(4, np.int8), HUGE), "scale should be one number, but it is an array of shape (100000"),
    "objects": ((np.array([None] * 4), 1.0), "q should hold numbers, but its dtype is object"),
    "dates": ((np.zeros(4, "M8[D]"), 1.0), "q should hold numbers, but its dtype is datetime64[D]"),
    "complex codes": ((np.zeros(4, complex), 1.0), "q should hold numbers, but its dtype is complex128"),
    "records": ((np.zeros(4, "i1, f4"), 1.0), "q should hold numbers, but its dtype is [('f0'"),
    "a recarray": ((np.zeros(4, "i1, f4").view(np.recarray), 1.0), "q should hold numbers, but its dtype is ("),
    "texts": ((np.array(["1"] * 4), 1.0), "q should hold numbers, but its dtype is <U1"),
    "no axes": ((np.array(3, np.int8), 1.0), "q should have the shape of x, (4,), but has ()"),
    "a matrix": ((np.matrix([1, 2, 3, 4]), 1.0), "q should have the shape of x, (4,), but has (1, 4)"),
    "a masked array": ((np.ma.masked_all(3, np.int8), 1.0), "q should have the shape of x, (4,), but has (3,)"),
    "a lying subclass": ((np.zeros(9).view(Liar), 1.0), "q should have the shape of x, (4,), but has (9,)"),
    "what is no array": ((Unreadable(), 1.0), "q is a Unreadable, of which NumPy cannot make an array: ValueError: no"),
    "what hangs when read": ((Unread(), 1.0), "what it returned cannot be read: no answer within 0.2 seconds"),
    "a sequence without end": ((Sequence(), 1.0), "q "),
    "a set": (({1, 2}, 1.0), "q should be an array, but it is a set"),
    "a scale of None": ((np.ones(4, np.int8), None), "scale should be an array, but it is None"),
    "a tensor on meta": ((torch.zeros(4, device="meta"), 1.0), "q is an array of shape (4,), of which NumPy cannot"),
    "a sparse tensor": ((torch.ones(4).to_sparse(), 1.0), "q is an array of shape (4,), of which NumPy cannot"),
    "a bfloat16 tensor": ((torch.ones(4, dtype=torch.bfloat16), 1.0), "q is an array of shape (4,), of which NumPy"),
    "a tensor with a gradient": ((torch.ones(4, requires_grad=True), 1.0), "its dtype is float32"),
}  # fmt: skip


def returning(value):
    return lambda *args, **kwargs: value


# --- what must hold ---------------------------------------------------------------------------------------------------


def world():
    """What other cells would feel if it changed."""
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
    **DEEDS,
    **OTHERS,
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
def test_it_gets_a_sentence_and_the_world_stays(name, capfd):
    submission, sentence = CALLS[name]
    if "MemoryError" in (sentence or "") and not ON_LINUX:
        pytest.skip("only Linux lets a process limit its memory")
    before = world()
    found = engine.examine(submission, EXERCISE, limit_for(sentence))
    assert differences(before, world()) == {}
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
def test_under_a_slider_it_gets_a_sentence_and_the_slider_lives(name, slider, monkeypatch, capfd):
    submission, sentence = CALLS[name]
    if "MemoryError" in (sentence or "") and not ON_LINUX:
        pytest.skip("only Linux lets a process limit its memory")
    monkeypatch.setattr("labutils.course.explorer.TIME_LIMIT", limit_for(sentence))
    explorer, now, picture = slider
    before = world()
    now[0] = submission
    explorer.controls["num_bits"].value -= 1
    assert explorer.picture.value != picture
    assert len(explorer.readout.value) < 3000
    now[0] = right
    explorer.controls["num_bits"].value += 1
    assert explorer.picture.value == picture
    assert differences(before, world()) == {}
    assert capfd.readouterr() == ("", "")


# --- other exercises: bytes, a layer, a model -------------------------------------------------------------------------


def with_deed(name, deed):
    """A right answer to the exercise `name` that does a deed besides."""
    if name != "QuantizedLinear":
        return lambda *args, **kwargs: (EXERCISES[name].reference(*args, **kwargs), deed(np.ones(4)))[0]

    class QuantizedLinear(torch.nn.Module):
        @staticmethod
        def from_float(linear):
            layer = answers.QuantizedLinear.from_float(linear)
            deed(np.ones(4))
            return layer

    return QuantizedLinear


SABOTAGE = (
    changes_builtins,
    changes_numpy,
    changes_torch,
    forgets_numpy,
)  # the rest of the same call fails, or does not


@pytest.mark.parametrize(
    "deed",
    [loops, calls_itself, exits, asks_for_20_gigabytes, asks_a_person, prints_a_million_characters, changes_settings,
     changes_the_course, seeds, leaves_figures_open, *SABOTAGE],
    ids=lambda deed: deed.__name__,
)  # fmt: skip
@pytest.mark.parametrize("name", ["pack_int4", "QuantizedLinear", "quantize_model"])
def test_a_right_answer_that_does_it_besides_is_told_or_passes(name, deed):
    sentence = DEEDS[deed.__name__][1]
    if "MemoryError" in (sentence or "") and not ON_LINUX:
        pytest.skip("only Linux lets a process limit its memory")
    assert engine.examine(EXERCISES[name].reference, EXERCISES[name]).passed
    before = world()
    found = engine.examine(with_deed(name, deed), EXERCISES[name], limit_for(sentence))
    assert differences(before, world()) == {}
    if deed not in SABOTAGE:
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
