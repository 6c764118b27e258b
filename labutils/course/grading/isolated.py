"""A function called in a process of its own, which ends with all that it started at a limit on time or memory."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

WATCH = 0.25  # seconds from one look at memory and time to the next
GB = 10**9
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# Each process is a copy of one that has imported nbgrader, which takes two seconds, and has done nothing else.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["labutils.course.grading.alone"])


class Ended(Exception):
    """The process did not come to its result. Its name says why, as the name of any exception does: see `failures`."""


class OutOfTime(Ended):
    """It took longer than the limit."""


class OutOfMemory(Ended):
    """It and what it started needed more memory than the limit."""


@dataclass(frozen=True)
class Limits:
    """Of one call: seconds of wall time, and GB of memory of the process and all that it started."""

    seconds: float
    gigabytes: float


def isolated(function: Callable[[Any], Any], argument: Any, limits: Limits) -> Any:
    """function(argument), computed in a new process; both, and the result, are pickled.

    OutOfTime or OutOfMemory where it passed a limit, Ended where the process ended without a result. In all cases
    nothing that it started is left behind, on Linux not even a daemon. `function` must not raise.
    """
    if multiprocessing.current_process().daemon:
        raise RuntimeError("a daemon may start no process; start dask's with DASK_DISTRIBUTED__WORKER__DAEMON=False")
    receiver, sender = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_serve, args=(function, argument, sender))
    process.start()
    sender.close()
    try:
        _watch(process.pid, receiver, limits)
        return receiver.recv()
    except EOFError:
        process.join()
        raise Ended(f"exit code {process.exitcode}") from None
    finally:
        _end(_family(process.pid))
        process.join()
        receiver.close()


def end_children() -> None:
    """End all that this process has started, and what that has started."""
    _end(_family(os.getpid())[1:])


def _serve(function: Callable[[Any], Any], argument: Any, sender: Connection) -> None:
    os.setsid()  # Ctrl-C in the terminal is for the parent, which then ends this process
    _adopt_orphans()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    result = function(argument)
    end_children()
    sender.send(result)


def _adopt_orphans() -> None:
    """Whoever detaches from its parent becomes a child of this process, where it can be found. Linux only."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    end_children()
    os._exit(1)


def _watch(pid: int, receiver: Connection, limits: Limits) -> None:
    """Return when there is a result, or the process has ended."""
    deadline = time.monotonic() + limits.seconds
    while not receiver.poll(WATCH):
        if time.monotonic() > deadline:
            raise OutOfTime(f"{limits.seconds:g} seconds")
        if memory(pid) > limits.gigabytes * GB:
            raise OutOfMemory(f"{limits.gigabytes:g} GB")


def memory(pid: int) -> int:
    """Bytes in memory of a process and all that it started."""
    total = 0
    for process in _family(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _family(pid: int) -> list[psutil.Process]:
    """The process itself, then all that it started; none if it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
