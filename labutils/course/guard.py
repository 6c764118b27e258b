"""Calling a learner's function so that nothing it does can hurt the kernel.

It may raise, print without end, never return, ask for more memory than there is, or turn Python's settings upside down:
the caller gets an `Outcome` in every case, and its own world back (`world`). Out of reach are what ends the process at
once, and compiled code that neither returns nor lets other threads run.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from labutils.course import world

PRINT_LIMIT = 2_000  # characters kept of what a call prints
GRACE = 1.0  # seconds given to a function to end, once it has been told to
IMPORTS = 12  # time limits more for a call that imports: half of torch, which takes seconds, would stay for good
ROOM = 2 * 2**30  # bytes by which a call may make the process grow (on Linux)


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
    on in the background while the caller continues. An import is waited for. KeyboardInterrupt (the stop button) ends
    the call and is passed on.
    """
    result: list[Outcome] = []
    printed = _Printed()

    def run() -> None:
        world.borrow()
        try:
            with np.errstate(all="ignore"):  # errstate belongs to the thread
                result.append(Outcome(function(*args, **kwargs)))
        except BaseException as error:  # SystemExit from a learner's exit() too
            result.append(Outcome(error=error))

    worker = threading.Thread(target=run, daemon=True, name=f"call of {getattr(function, '__name__', function)!s:.40}")
    with world.kept(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _quiet_notebook():
        _isolate()
        try:
            worker.start()
            worker.join(time_limit)
            for _ in range(IMPORTS):
                if not _imports(worker):
                    break
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


def _imports(thread: threading.Thread) -> bool:
    return any(frame.f_globals.get("__name__") == "importlib._bootstrap" for frame in _frames(thread))


def _frames(thread: threading.Thread) -> Iterator:
    frame = sys._current_frames().get(thread.ident)
    while frame:
        yield frame
        frame = frame.f_back


def _isolate() -> None:
    """Nobody to ask, no warnings, memory within reason. `world.kept` ends it."""
    builtins.input, sys.stdin = _nobody_to_ask, io.StringIO()
    warnings.simplefilter("ignore")
    world.limit_memory(ROOM)


def _nobody_to_ask(*prompt: Any) -> str:
    raise RuntimeError("input() asks a person, and here nobody is asked: use the arguments of the function")


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
