"""Which exercises a learner has passed, in a small file of their own.

The file is a convenience and never a trap: deleted, damaged or not writable, the labs go on, and say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import warnings
from pathlib import Path

import platformdirs

VARIABLE = "LABUTILS_PROGRESS"  # an environment variable that names another file


def path() -> Path:
    """Where progress is kept: the user's data folder, or the file that LABUTILS_PROGRESS names."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_data_path("quantization-labs") / "progress.json"


def passed() -> set[str]:
    """The names of the exercises passed so far. A damaged file is set aside as *.damaged, and counts as empty."""
    file = path()
    try:
        names = json.loads(file.read_text(encoding="utf-8"))["passed"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("'passed' must be a list of names")
        return set(names)
    except FileNotFoundError:
        return set()
    except OSError as error:
        warnings.warn(f"progress could not be read from {file}: {error.strerror}", stacklevel=2)
        return set()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        aside = file.with_name(file.name + ".damaged")
        try:
            os.replace(file, aside)
            told = f"it was kept as {aside.name}, and a new one is begun"
        except OSError:
            told = "it is left as it is"
        warnings.warn(f"the progress file {file.name} could not be understood ({error}): {told}", stacklevel=2)
        return set()


def record(name: str) -> None:
    """Add the exercise `name` to those passed. Written beside and moved into place, so that no reader sees half."""
    file, names = path(), passed()
    if name in names:
        return
    beside = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps({"passed": sorted(names | {name})}, indent=2) + "\n", encoding="utf-8")
        os.replace(beside, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        warnings.warn(f"progress could not be saved to {file}: {error.strerror}", stacklevel=2)


def forget() -> None:
    """Start again: remove the file, if there is one."""
    file = path()
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"progress could not be removed from {file}: {error.strerror}", stacklevel=2)
