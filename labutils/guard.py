"""Calling a learner's function so that nothing it does can hurt the kernel.

It may raise, print without end, never return, ask for more memory than there is, or turn Python's settings upside down:
the caller gets an `Outcome` in every case, and its own world back (`KEPT` says of what that consists). Out of reach are
what ends the process at once, and compiled code that neither returns nor lets other threads run.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import gc
import io
import operator
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None

PRINT_LIMIT = 2_000  # characters kept of what a call prints
GRACE = 1.0  # seconds given to a function to end, once it has been told to
ROOM = 2 * 2**30  # bytes by which a call may make the process grow (on Linux)
STATM = "/proc/self/statm"


class TimeUp(BaseException):
    """Raised inside a call that takes too long. Not an `Exception`: `except Exception` must not swallow it."""


@dataclass(frozen=True)
class Outcome:
    """What a call came to: a value, or the exception that ended it."""

    value: Any = None
    error: BaseException | None = None
    printed: str = ""

    @property
    def timed_out(self) -> bool:
        return isinstance(self.error, TimeUp)

    @property
    def undone(self) -> bool:
        return isinstance(self.error, NotImplementedError)


def call(function: Callable, *args: Any, time_limit: float = 5.0, **kwargs: Any) -> Outcome:
    """Call `function(*args, **kwargs)` for at most `time_limit` seconds and return what came of it.

    >>> call(lambda x: 1 / x, 0).error
    ZeroDivisionError('division by zero')

    The call runs in a thread, into which TimeUp is raised when time is up: that works on every system and in every
    front end, and ends any loop written in Python. A single endless call into compiled code cannot be ended; it goes
    on in the background while the caller continues. KeyboardInterrupt (the stop button) ends the call and is passed on.
    """
    if getattr(_here, "guarded", False):
        raise RuntimeError("a function that is being checked cannot itself ask for a check or move a slider")
    result: list[Outcome] = []
    printed = _Printed()

    def run() -> None:
        _here.guarded = True
        try:
            with np.errstate(all="ignore"):  # errstate belongs to the thread
                result.append(Outcome(function(*args, **kwargs)))
        except BaseException as error:  # SystemExit from a learner's exit() too
            result.append(Outcome(error=error))

    worker = threading.Thread(target=run, daemon=True, name=f"call of {getattr(function, '__name__', function)!s:.40}")
    with world_kept(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _quiet_notebook():
        _isolate()
        try:
            worker.start()
            worker.join(time_limit)
        except KeyboardInterrupt:
            _end(worker, run)
            raise
        if worker.is_alive():
            _end(worker, run)
            stuck = ", and it could not be stopped: restart the kernel if it has become slow" * worker.is_alive()
            return Outcome(error=TimeUp(f"no answer within {time_limit:g} seconds{stuck}"), printed=printed.getvalue())
    outcome = result[0]
    return Outcome(outcome.value, outcome.error, printed.getvalue())


_here = threading.local()  # .guarded is true in the thread of a call


def _end(worker: threading.Thread, run: Callable) -> None:
    """Raise TimeUp in the thread, again and again: a bare `except:` in a loop catches most of them.

    Only one that arrives between two rounds of such a loop ends it, so they come often. None may arrive once `run` is
    left: the thread then puts away locks that all threads need.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds: a busy thread gives way at once
    try:
        for _ in range(int(GRACE / 0.001)):
            if not worker.is_alive():
                return
            if any(frame.f_back and frame.f_back.f_code is run.__code__ for frame in _frames(worker)):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(TimeUp))
            worker.join(0.001)
    finally:
        sys.setswitchinterval(before)


def _frames(thread: threading.Thread) -> Iterator:
    frame = sys._current_frames().get(thread.ident)
    while frame:
        yield frame
        frame = frame.f_back


# --- the caller's world -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def world_kept() -> Iterator[None]:
    """What is changed within of KEPT and of the filters for warnings, is put back."""
    kept = [(restore, read()) for read, restore in KEPT.values()]
    with warnings.catch_warnings():
        try:
            yield
        finally:
            for restore, value in kept:
                with contextlib.suppress(Exception):  # a folder that was removed, say: the rest is put back
                    restore(value)


def _isolate() -> None:
    """Nobody to ask, no warnings, memory within reason. `world_kept` ends it."""
    builtins.input, sys.stdin = _nobody_to_ask, io.StringIO()
    warnings.simplefilter("ignore")
    _limit_memory()


def _nobody_to_ask(*prompt: Any) -> str:
    raise RuntimeError("input() asks a person, and here nobody is asked: use the arguments of the function")


def _memory_limit() -> tuple[int, int] | None:
    return resource.getrlimit(resource.RLIMIT_DATA) if resource and os.path.exists(STATM) else None


def _limit_memory() -> None:
    """Let an allocation beyond reason raise MemoryError, before the system ends the process for it."""
    if (limit := _memory_limit()) is not None:
        with open(STATM) as statm:
            now = int(statm.read().split()[5]) * resource.getpagesize()
        most = [bound for bound in (now + ROOM, *limit) if bound != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(most), limit[1]))


# Functions of these modules and classes that were replaced or deleted come back; data stays as it was left.
MODULES = ("builtins", "math", "numpy", "numpy.linalg", "numpy.random", "torch", "torch.nn", "torch.nn.functional")
CLASSES = ("Tensor", "nn.Module", "nn.Linear")  # of torch


def _functions() -> list[tuple[Any, dict]]:
    return [(owner, dict(vars(owner))) for owner in _owners(len(sys.modules))]


@lru_cache(maxsize=1)
def _owners(modules: int) -> list:
    """What MODULES and CLASSES name, as far as imported, and our own modules: looked up as often as one is imported."""
    found = [m for name, m in sys.modules.items() if name in MODULES or f"{name}.".startswith("labutils.")]
    return found + ([operator.attrgetter(name)(torch) for name in CLASSES] if (torch := _torch()) else [])


def _put_functions_back(functions: list[tuple[Any, dict]]) -> None:
    for owner, before in functions:
        if isinstance(owner, type):  # what is new in a class may hide what it inherits
            for name in vars(owner).keys() - before.keys():
                delattr(owner, name)
        for name, value in _lost(before, vars(owner)):
            if callable(value):
                setattr(owner, name, value)


def _lost(before: Mapping, now: Mapping) -> Iterable[tuple[str, Any]]:
    """What is gone or replaced. As a rule nothing is: what is new stands behind, and the rest is compared in one go."""
    if len(now) >= len(before) and all(map(operator.is_, before.values(), now.values())):
        return ()
    return [(name, value) for name, value in before.items() if now.get(name) is not value]


def _put_modules_back(before: dict[str, ModuleType]) -> None:
    sys.modules.update(_lost(before, sys.modules))


def _put_environment_back(before: dict[str, str]) -> None:
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _torch() -> ModuleType | None:
    """torch where it has been imported."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "nn") else None


def _torch_settings() -> tuple | None:
    torch = _torch()
    return torch and (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads())


def _put_torch_settings_back(settings: tuple | None) -> None:
    if settings:
        torch, (state, dtype, threads) = _torch(), settings
        torch.set_rng_state(state)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _figures() -> list[int] | None:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return pyplot.get_fignums() if pyplot else []


def _close_new_figures(before: list[int]) -> None:
    for number in set(_figures()) - set(before):
        sys.modules["matplotlib.pyplot"].close(number)


# What a call may change, and finds changed back: name -> (read, restore). What is new stays: a library that is imported
# first in a call adds names, modules and variables. Left to the learner are their own variables, and the files, threads
# and processes that they make.
KEPT: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "imported modules": (sys.modules.copy, _put_modules_back),
    "functions": (_functions, _put_functions_back),
    "memory limit": (_memory_limit, lambda limit: limit and resource.setrlimit(resource.RLIMIT_DATA, limit)),
    "standard input": (lambda: sys.stdin, lambda stdin: setattr(sys, "stdin", stdin)),
    "working folder": (os.getcwd, os.chdir),
    "environment": (lambda: dict(os.environ), _put_environment_back),
    "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "switch interval": (sys.getswitchinterval, sys.setswitchinterval),
    "tracing of threads": (threading.gettrace, threading.settrace),
    "profiling of threads": (threading.getprofile, threading.setprofile),
    "garbage collection": (gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
    "random numbers": (random.getstate, random.setstate),
    "NumPy's random numbers": (np.random.get_state, np.random.set_state),
    "NumPy's print options": (np.get_printoptions, lambda options: np.set_printoptions(**options)),
    "torch's random numbers and settings": (_torch_settings, _put_torch_settings_back),
    "figures": (_figures, _close_new_figures),
}


@contextlib.contextmanager
def _quiet_notebook() -> Iterator[None]:
    """What a call displays goes nowhere, for it is called dozens of times; and its exit() does not end the kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        yield
        return
    from IPython.utils.capture import capture_output

    shell.ask_exit = sys.exit
    try:
        with capture_output(stdout=False, stderr=False):
            yield
    finally:
        del shell.ask_exit


class _Printed(io.StringIO):
    """Keeps the first PRINT_LIMIT characters: a loop that prints for seconds must not fill the memory."""

    def write(self, text: str) -> int:
        room = PRINT_LIMIT - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)

    def close(self) -> None:
        """Stay open: what was printed is read after the call."""
