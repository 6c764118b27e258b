"""Hostile and unusual submissions, and the sentence that the learner reads about each."""

import asyncio
import builtins
import functools
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch

from labutils.course import engine, guard, reading
from labutils.labs import answers
from labutils.labs.catalogue import EXERCISES

EXERCISE = EXERCISES["quantize_symmetric"]
PASSES = None  # in place of a sentence: the answer is right, and what the function does besides is undone
FUNCTIONS = {}  # name -> (function, the sentence that the learner reads)
released = threading.Event()  # set by the tests at their end, for functions that cannot be stopped


def expect(sentence):
    """Add a function to FUNCTIONS."""

    def add(function):
        FUNCTIONS[function.__name__] = function, sentence
        return function

    return add


def right(x, num_bits=8):
    return EXERCISE.reference(x, num_bits)


@expect("it gave no answer within 0.2 seconds. Is there a loop that never ends?")
def loops(x, num_bits=8):
    while True:
        pass


@expect("it gave no answer within 0.2 seconds.")
def loops_and_eats_exceptions(x, num_bits=8):
    while True:
        try:  # noqa: SIM105
            np.round(x)
        except:  # noqa: E722
            pass


@expect("it gave no answer within 0.2 seconds.")
def eats_its_own_exit(x, num_bits=8):
    while True:
        try:
            sys.exit(1)
        except SystemExit:
            continue


@expect("and it could not be stopped: restart the kernel if it has become slow")
def waits_in_compiled_code(x, num_bits=8):
    released.wait()


@expect("it gave no answer within 0.2 seconds.")
def sleeps(x, num_bits=8):
    for _ in range(1000):
        time.sleep(0.01)


@expect("it gave no answer within 0.2 seconds.")
def prints_without_end(x, num_bits=8):
    while True:
        print("x" * 1000)


@expect("it gave no answer within 0.2 seconds.")
def counts_without_end(x, num_bits=8):
    return [i for i in itertools.count() if i < 0]


@expect("it raised RecursionError")
def calls_itself(x, num_bits=8):
    return calls_itself(x, num_bits)


@expect("it raised RecursionError")
def calls_one_that_calls_it(x, num_bits=8):
    return (lambda: calls_one_that_calls_it(x, num_bits))()


@expect("it raised RecursionError")
def calls_itself_in_except(x, num_bits=8):
    try:
        return calls_itself_in_except(x, num_bits)
    except ValueError:
        return None


@expect("it raised SystemExit: 1 (line 3 of your function)")
def exits(x, num_bits=8):
    sys.exit(1)


@expect("it raised SystemExit")
def quits(x, num_bits=8):
    builtins.exit()


@expect("it raised KeyboardInterrupt")
def interrupts(x, num_bits=8):
    raise KeyboardInterrupt


@expect("it raised GeneratorExit")
def raises_generator_exit(x, num_bits=8):
    raise GeneratorExit


@expect("it raised StopIteration")
def raises_stop_iteration(x, num_bits=8):
    raise StopIteration


@expect("it raised BaseException: no (line 3 of your function)")
def raises_base_exception(x, num_bits=8):
    raise BaseException("no")


@expect("it raised ValueError: xxx")
def raises_a_megabyte(x, num_bits=8):
    raise ValueError("x" * 1_000_000)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Endless(Exception):
    def __str__(self):
        while True:
            pass


@expect("it raised Mute")
def raises_what_has_no_message(x, num_bits=8):
    raise Mute


@expect("it raised Endless")
def raises_what_has_an_endless_message(x, num_bits=8):
    raise Endless


@expect("it raised MemoryError: more memory than there is for it. Unable to allocate 18.6 GiB")
def asks_for_20_gigabytes(x, num_bits=8):
    return np.ones((50_000, 50_000)), 1.0


@expect("it raised MemoryError: more memory than there is for it")
def asks_torch_for_20_gigabytes(x, num_bits=8):
    return torch.ones((50_000, 100_000)), 1.0


@expect("it raised MemoryError: more memory than there is for it")
def asks_for_a_list_of_80_gigabytes(x, num_bits=8):
    return [0] * 10**10, 1.0


@expect("it raised MemoryError: more memory than there is for it")
def hoards(x, num_bits=8):
    hoard = []
    while True:
        hoard.append(np.zeros(10**8))


@expect("it raised RuntimeError: input() asks a person, and here nobody is asked")
def asks_a_person(x, num_bits=8):
    return int(input("bits? "))


@expect("it raised ValueError: invalid literal")
def reads_standard_input(x, num_bits=8):
    return int(sys.stdin.readline())


@expect("it raised RuntimeError: a function that is being checked cannot itself ask for a check")
def checks_itself(x, num_bits=8):
    q, scale = right(x, num_bits)
    engine.examine(checks_itself, EXERCISE)
    return q, scale


@expect("it changed what it was given: work on a copy")
def writes_into_x(x, num_bits=8):
    q, scale = right(x, num_bits)
    x *= 2
    return q, scale


@expect("it changed what it was given: work on a copy")
def reshapes_x(x, num_bits=8):
    q, scale = right(x, num_bits)
    x.shape = (-1, 1)
    return q, scale


@expect("it raised ValueError: signal only works in main thread")
def sets_a_signal_handler(x, num_bits=8):
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@expect(PASSES)
def prints_a_million_characters(x, num_bits=8):
    for _ in range(1000):
        print("x" * 1000)
    sys.stderr.write("y" * 1_000_000)
    return right(x, num_bits)


@expect("it raised UserWarning: careful")
def warns(x, num_bits=8):
    warnings.simplefilter("error")
    warnings.warn("careful", stacklevel=1)


@expect(PASSES)
def replaces_output(x, num_bits=8):
    sys.stdout.close()
    sys.stdout = sys.stderr = sys.stdin = None
    return right(x, num_bits)


@expect(PASSES)
def changes_numpy(x, num_bits=8):
    result = right(x, num_bits)
    np.round = np.abs = np.max = np.clip = np.asarray = lambda *args, **kwargs: 0
    del np.sum
    np.linalg.norm = None
    return result


@expect(PASSES)
def changes_builtins(x, num_bits=8):
    result = right(x, num_bits)
    builtins.round = builtins.len = builtins.isinstance = lambda *args: True
    return result


@expect(PASSES)
def changes_torch(x, num_bits=8):
    torch.round = torch.Tensor.round = torch.nn.Linear.forward = torch.nn.Module.__call__ = None
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    torch.set_num_threads(3)
    return right(x, num_bits)


@expect(PASSES)
def changes_the_course(x, num_bits=8):
    result = right(x, num_bits)
    answers.quantize_symmetric = reading.as_array = engine.examine = guard.call = lambda *args, **kwargs: None
    return result


@expect(PASSES)
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


@expect(PASSES)
def changes_the_environment(x, num_bits=8):
    os.environ["HOME"] = "elsewhere"
    os.environ.pop("PATH", None)
    os.chdir("/")
    return right(x, num_bits)


@expect(PASSES)
def seeds(x, num_bits=8):
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    torch.manual_seed(0)
    return right(x, num_bits)


@expect(PASSES)
def forgets_numpy(x, num_bits=8):
    result = right(x, num_bits)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("numpy", "labutils", "json")]:
        del sys.modules[name]
    return result


@expect(PASSES)
def leaves_figures_open(x, num_bits=8):
    plt.figure()
    plt.plot([1, 2])
    return right(x, num_bits)


@expect(PASSES)
def starts_a_thread(x, num_bits=8):
    threading.Thread(target=released.wait, daemon=True).start()
    return right(x, num_bits)


@expect(PASSES)
def starts_a_process(x, num_bits=8):
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    return right(x, num_bits)


@expect(PASSES)
def runs_an_event_loop(x, num_bits=8):
    return asyncio.run(asyncio.to_thread(right, x, num_bits))


# --- other kinds of functions, and other callables --------------------------------------------------------------------


@expect("it returned a generator: end with `return`, without `yield`")
def yields(x, num_bits=8):
    yield right(x, num_bits)


@expect("it returned a coroutine: begin with `def`, without `async`")
async def awaits(x, num_bits=8):
    return right(x, num_bits)


@expect("it returned an async generator: begin with `def`, without `async`, and end with `return`")
async def yields_and_awaits(x, num_bits=8):
    yield right(x, num_bits)


@expect("it is called as `quantize_symmetric(x, num_bits=8)`")
def too_few(x):
    return right(x)


@expect("it is called as `quantize_symmetric(x, num_bits=8)`")
def too_many(x, num_bits, axis, group_size):
    return right(x, num_bits)


@expect("it is called as `quantize_symmetric(x, num_bits=8)`")
def keywords_only(*, x, num_bits=8):
    return right(x, num_bits)


@expect("it is called as `quantize_symmetric(x, num_bits=8)`")
def only_any_keywords(**kwargs):
    return right(**kwargs)


@expect(
    "it raised TypeError: positional_only() got some positional-only arguments passed as keyword arguments: 'num_bits'"
)
def positional_only(x, num_bits=8, /):
    return right(x, num_bits)


@expect(PASSES)
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


CALLABLES = {
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
