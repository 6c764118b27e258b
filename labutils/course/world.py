"""Restore what a learner's function changes outside itself.

That is settings of Python, NumPy, torch and the process, replaced functions, the state of random generators and open
figures; the table STATE lists it.
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

# One call at a time, because the state is the whole process's: JupyterLab moves sliders in another thread than that in
# which cells run.
_lock = threading.RLock()
_thread = threading.local()  # .in_call is true in a thread that runs a learner's function


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore STATE and the warning filters at the end of the block. Other threads wait until then.

    RuntimeError inside a learner's function, which would wait for itself.
    """
    if getattr(_thread, "in_call", False):
        raise RuntimeError("a function that is being checked cannot itself ask for a check or move a slider")
    with _lock, warnings.catch_warnings():
        before = [(restore, read()) for read, restore in STATE.values()]
        try:
            yield
        finally:
            for restore, value in before:
                with contextlib.suppress(Exception):  # a deleted working folder, say, must not prevent the rest
                    restore(value)


def forbid_nesting() -> None:
    """Mark this thread as one that runs a learner's function, in which `restored` raises RuntimeError."""
    _thread.in_call = True


def memory_limit() -> tuple[int, int] | None:
    """(soft, hard) limit in bytes, or None where a process cannot set one."""
    return resource.getrlimit(resource.RLIMIT_DATA) if resource and os.path.exists(STATM) else None


def limit_memory(growth: int) -> None:
    """Make allocations raise MemoryError once the process has grown by `growth` bytes, before the system kills it."""
    if (limit := memory_limit()) is not None:
        with open(STATM) as statm:
            current = int(statm.read().split()[5]) * resource.getpagesize()
        bounds = [bound for bound in (current + growth, *limit) if bound != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), limit[1]))


def _restore_memory_limit(limit: tuple[int, int] | None) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, limit)


# Functions that were replaced in or deleted from these modules and classes are restored; other variables are not.
MODULES = ("builtins", "math", "numpy", "numpy.linalg", "numpy.random", "torch", "torch.nn", "torch.nn.functional")
CLASSES = ("Tensor", "nn.Module", "nn.Linear")  # of torch


def _functions() -> list[tuple[Any, dict]]:
    return [(owner, dict(vars(owner))) for owner in _owners(len(sys.modules))]


@lru_cache(maxsize=1)
def _owners(module_count: int) -> list:
    """MODULES and CLASSES, as far as imported, and all of labutils. Cached until another module is imported."""
    named = (module for name, module in sys.modules.items() if name in MODULES or f"{name}.".startswith("labutils."))
    modules = [module for module in named if module is not None]  # None is an import that somebody has blocked
    return modules + ([operator.attrgetter(name)(torch) for name in CLASSES] if (torch := _torch()) else [])


def _restore_functions(functions: list[tuple[Any, dict]]) -> None:
    for owner, before in functions:
        if isinstance(owner, type):  # an added attribute may hide an inherited one
            for name in vars(owner).keys() - before.keys():
                delattr(owner, name)
        for name, value in _lost(before, vars(owner)):
            if callable(value):
                setattr(owner, name, value)


def _lost(before: Mapping, now: Mapping) -> Iterable[tuple[str, Any]]:
    """The items of `before` that have been deleted or replaced since."""
    # Fast path for the usual case, nothing lost: a dict keeps its order, so that additions come last.
    if len(now) >= len(before) and all(map(operator.is_, before.values(), now.values())):
        return ()
    return [(name, value) for name, value in before.items() if now.get(name) is not value]


def _restore_modules(before: dict[str, ModuleType]) -> None:
    sys.modules.update(_lost(before, sys.modules))


def _restore_environment(before: dict[str, str]) -> None:
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _torch() -> ModuleType | None:
    """torch, if it has been imported completely."""
    torch = sys.modules.get("torch")
    return torch if hasattr(torch, "nn") else None


def _torch_settings() -> tuple | None:
    torch = _torch()
    return torch and (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads())


def _restore_torch_settings(settings: tuple | None) -> None:
    if settings:
        torch, (state, dtype, threads) = _torch(), settings
        torch.set_rng_state(state)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _figures() -> list[int]:
    pyplot = sys.modules.get("matplotlib.pyplot")
    return pyplot.get_fignums() if pyplot else []


def _close_new_figures(before: list[int]) -> None:
    for number in set(_figures()) - set(before):
        sys.modules["matplotlib.pyplot"].close(number)


# name -> (read, restore). Additions stay, because a library that is first imported during a call adds modules, names
# and environment variables. The learner's own variables, and files, threads and processes of the call, are not touched.
STATE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "imported modules": (sys.modules.copy, _restore_modules),
    "functions": (_functions, _restore_functions),
    "memory limit": (memory_limit, _restore_memory_limit),
    "standard input": (lambda: sys.stdin, lambda stdin: setattr(sys, "stdin", stdin)),
    "working folder": (os.getcwd, os.chdir),
    "environment": (lambda: dict(os.environ), _restore_environment),
    "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "switch interval": (sys.getswitchinterval, sys.setswitchinterval),
    "tracing of threads": (threading.gettrace, threading.settrace),
    "profiling of threads": (threading.getprofile, threading.setprofile),
    "garbage collection": (gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
    "random numbers": (random.getstate, random.setstate),
    "NumPy's random numbers": (np.random.get_state, np.random.set_state),
    "NumPy's print options": (np.get_printoptions, lambda options: np.set_printoptions(**options)),
    "torch's random numbers and settings": (_torch_settings, _restore_torch_settings),
    "figures": (_figures, _close_new_figures),
}
