"""Calling a learner's function so that nothing it does can hurt the kernel.

It may raise, print without end, never return, warn, or divide by zero: the caller gets an `Outcome` in every case.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

PRINT_LIMIT = 2_000  # characters kept of what a call prints
GRACE = 1.0  # seconds given to a function to end, once it has been told to


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
    result: list[Outcome] = []
    printed = _Printed()

    def run() -> None:
        try:
            with np.errstate(all="ignore"):  # errstate belongs to the thread
                result.append(Outcome(function(*args, **kwargs)))
        except BaseException as error:  # SystemExit from a learner's exit() too
            result.append(Outcome(error=error))

    worker = threading.Thread(target=run, daemon=True, name=f"call of {getattr(function, '__name__', function)!s:.40}")
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            worker.start()
            worker.join(time_limit)
        except KeyboardInterrupt:
            _end(worker)
            raise
        if worker.is_alive():
            _end(worker)
            return Outcome(error=TimeUp(f"no answer within {time_limit:g} seconds"), printed=printed.getvalue())
    outcome = result[0]
    return Outcome(outcome.value, outcome.error, printed.getvalue())


def _end(worker: threading.Thread) -> None:
    """Raise TimeUp in the thread, again and again: a bare `except:` in a loop catches the first ones."""
    for _ in range(int(GRACE / 0.05)):
        if not worker.is_alive():
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(TimeUp))
        worker.join(0.05)


class _Printed(io.StringIO):
    """Keeps the first PRINT_LIMIT characters: a loop that prints for seconds must not fill the memory."""

    def write(self, text: str) -> int:
        room = PRINT_LIMIT - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)

    def close(self) -> None:
        """Stay open: what was printed is read after the call."""
