"""The world that a learner's function is lent: what it changes of it is put back.

Settings of Python, NumPy, torch and the process, functions that were replaced, random numbers, open figures: `KEPT` is
the table of it.
"""

from __future__ import annotations

import contextlib
import gc
import operator
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None

STATM = "/proc/self/statm"

# One world, one borrower: JupyterLab moves sliders in a thread beside the one in which cells run.
_one_at_a_time = threading.RLock()
_here = threading.local()  # .borrowed is true in a thread that runs a learner's function


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What is changed within of KEPT and of the filters for warnings, is put back.

    Others wait until it is. A borrower cannot lend: RuntimeError, where one would wait for oneself.
    """
    if getattr(_here, "borrowed", False):
        raise RuntimeError("a function that is being checked cannot itself ask for a check or move a slider")
    with _one_at_a_time, warnings.catch_warnings():
        before = [(restore, read()) for read, restore in KEPT.values()]
        try:
            yield
        finally:
            for restore, value in before:
                with contextlib.suppress(Exception):  # a folder that was removed, say: the rest is put back
                    restore(value)


def borrow() -> None:
    """Say that this thread runs a learner's function."""
    _here.borrowed = True


def memory_limit() -> tuple[int, int] | None:
    """(soft, hard) in bytes, or None where a process has none that could be set."""
    return resource.getrlimit(resource.RLIMIT_DATA) if resource and os.path.exists(STATM) else None


def limit_memory(room: int) -> None:
    """Let what would make the process grow by more than `room` bytes raise MemoryError, before the system ends it."""
    if (limit := memory_limit()) is not None:
        with open(STATM) as statm:
            now = int(statm.read().split()[5]) * resource.getpagesize()
        most = [bound for bound in (now + room, *limit) if bound != resource.RLIM_INFINITY]
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


# name -> (read, restore). What is new stays: a library that is imported first in a call adds names, modules and
# variables. Left to the learner are their own variables, and the files, threads and processes that they make.
KEPT: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "imported modules": (sys.modules.copy, _put_modules_back),
    "functions": (_functions, _put_functions_back),
    "memory limit": (memory_limit, lambda limit: limit and resource.setrlimit(resource.RLIMIT_DATA, limit)),
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
