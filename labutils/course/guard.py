"""Call a learner's function so that nothing it does can harm the kernel.

It may raise, print without end, never return, ask for more memory than there is, or replace functions of NumPy: the
caller gets an `Outcome` in every case, and `world` restores what the call has changed. Not covered: code that ends the
process at once, and compiled code that neither returns nor lets other threads run.
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
from types import CodeType, FrameType
from typing import Any

import numpy as np

from labutils.course import world

PRINT_LIMIT = 2_000  # characters kept of what a call prints
GRACE = 1.0  # seconds in which a call has to end, once TimeUp is raised in it
IMPORT_LIMITS = 12  # more time limits for a call that is importing: a half-imported torch cannot be imported again
MEMORY_GROWTH = 2 * 2**30  # bytes by which a call may make the process grow (on Linux)


class TimeUp(BaseException):
    """Raised inside a call that takes too long. Not an `Exception`, so that `except Exception` does not catch it."""


@dataclass(frozen=True)
class Outcome:
    """The result of a call: a value, or the exception that ended it, and what it printed."""

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
    """Call `function(*args, **kwargs)` for at most `time_limit` seconds, and return its outcome.

    >>> call(lambda x: 1 / x, 0).error
    ZeroDivisionError('division by zero')

    The call runs in a thread, in which TimeUp is raised when its time is up. This works on every system and in every
    front end, and ends any loop written in Python. A single call into compiled code cannot be ended: it continues in
    the background while the caller goes on. Imports get more time. KeyboardInterrupt (the stop button) ends the call
    and is raised again.
    """
    result: list[Outcome] = []
    running = threading.Lock()
    running.acquire()
    printed = _CappedOutput()

    def run() -> None:
        world.forbid_nesting()
        try:
            with np.errstate(all="ignore"):  # errstate is per thread
                result.append(Outcome(function(*args, **kwargs)))
        except BaseException as error:  # including the SystemExit of exit()
            result.append(Outcome(error=error))
        running.release()

    worker = threading.Thread(target=run, daemon=True, name=f"call of {getattr(function, '__name__', function)!s:.40}")
    with world.restored(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), _no_display():
        _isolate()
        try:
            worker.start()
            _wait(worker, running, time_limit)
        except KeyboardInterrupt:
            _stop(worker, running, run.__code__)
            raise
        if running.locked():
            _stop(worker, running, run.__code__)
            stuck = ", and it could not be stopped: restart the kernel if it has become slow" * running.locked()
            return Outcome(error=TimeUp(f"no answer within {time_limit:g} seconds{stuck}"), printed=printed.getvalue())
    outcome = result[0]
    return Outcome(outcome.value, outcome.error, printed.getvalue())


def call_trusted(function: Callable, *args: Any, **kwargs: Any) -> Outcome:
    """Call the course's own code, such as a misconception: as `call`, without a thread, time limit or isolation."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Outcome(function(*args, **kwargs))
        except Exception as error:
            return Outcome(error=error)


def _wait(worker: threading.Thread, running: threading.Lock, time_limit: float) -> None:
    """Wait for a call for one time limit, and for a call that is importing up to IMPORT_LIMITS more."""
    _ends(running, time_limit)
    for _ in range(IMPORT_LIMITS):
        if not _is_importing(worker):
            return
        _ends(running, time_limit)


def _ends(running: threading.Lock, seconds: float) -> bool:
    """Wait until a call releases its lock, but no longer than `seconds`.

    Not by `Thread.join`: where the stop button interrupts it, CPython 3.8 to 3.12 take the thread for ended
    (https://github.com/python/cpython/issues/90882), and a loop would run on.
    """
    ended = running.acquire(timeout=seconds)
    if ended:
        running.release()
    return ended


def _stop(worker: threading.Thread, running: threading.Lock, run: CodeType) -> None:
    """Raise TimeUp in a thread every millisecond for GRACE seconds, until its call ends.

    Once is not enough: a loop with a bare `except:` catches it, unless it arrives between two rounds of the `try`. It
    must not arrive after the code `run` has been left, when the thread is releasing locks that all threads need.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # seconds, so that a busy thread gives way at once
    try:
        for _ in range(int(GRACE / 0.001)):
            if any(frame.f_back and frame.f_back.f_code is run for frame in _frames(worker)):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(TimeUp))
            if _ends(running, 0.001):
                return
    finally:
        sys.setswitchinterval(before)


def _is_importing(thread: threading.Thread) -> bool:
    return any(frame.f_globals.get("__name__") == "importlib._bootstrap" for frame in _frames(thread))


def _frames(thread: threading.Thread) -> Iterator[FrameType]:
    """The stack of a running thread, innermost frame first."""
    frame = sys._current_frames().get(thread.ident)
    while frame:
        yield frame
        frame = frame.f_back


def _isolate() -> None:
    """Refuse input, silence warnings and limit memory. `world.restored` undoes all of it."""
    builtins.input, sys.stdin = _refuse_input, io.StringIO()
    warnings.simplefilter("ignore")
    world.limit_memory(MEMORY_GROWTH)


def _refuse_input(*prompt: Any) -> str:
    raise RuntimeError("input() asks a person, and here nobody is asked: use the arguments of the function")


@contextlib.contextmanager
def _no_display() -> Iterator[None]:
    """In a notebook, discard what a call displays, since a check makes dozens of calls, and disarm its exit()."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        yield
        return
    from IPython.utils.capture import capture_output

    # A slider moved meanwhile is another thread's: ipykernel tells the publisher whose message that thread handles, and
    # the one that captures would refuse. The slider's move would be lost.
    set_parent = getattr(shell.display_pub, "set_parent", None)
    shell.ask_exit = sys.exit
    try:
        with capture_output(stdout=False, stderr=False):
            shell.display_pub.set_parent = set_parent
            yield
    finally:
        del shell.ask_exit


class _CappedOutput(io.StringIO):
    """Keeps the first PRINT_LIMIT characters, so that a loop that prints for seconds does not fill the memory."""

    def write(self, text: str) -> int:
        room = PRINT_LIMIT - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)

    def close(self) -> None:
        """Do nothing: the text is read after the call, which may have closed its stdout."""
