"""Which exercises a learner has passed: a folder of their own, with an empty file for each, such as best_clip.passed.

So several notebooks may record at the same moment, and nothing is lost, torn or misread. The folder is a convenience
and never a trap: where it is gone or cannot be written, the labs go on, and say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from pathlib import Path

import platformdirs

VARIABLE = "LABUTILS_PROGRESS"  # an environment variable that names another folder
ENDING = ".passed"


def path() -> Path:
    """Where progress is kept: a folder among the user's data, or the one that LABUTILS_PROGRESS names."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_data_path("quantization-labs") / "progress"


def passed() -> set[str]:
    """The names of the exercises passed so far."""
    try:
        return {file.name.removesuffix(ENDING) for file in _marks()} | _earlier()
    except FileNotFoundError:
        return _earlier()
    except OSError as error:
        _warn("read from", error)
        return _earlier()


def record(name: str) -> None:
    """Add the exercise `name` to those passed."""
    folder = path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}{ENDING}").touch()
    except OSError as error:
        _warn("saved to", error)


def forget() -> None:
    """Start again: remove what was recorded, and nothing else, whatever folder was named."""
    try:
        with contextlib.suppress(FileNotFoundError):
            for file in _marks():
                file.unlink(missing_ok=True)
        _file().unlink(missing_ok=True)
    except OSError as error:
        _warn("removed from", error)


def _marks() -> list[Path]:
    return [file for file in path().iterdir() if file.name.endswith(ENDING)]


def _file() -> Path:
    """The one file, progress.json, in which earlier versions of the course kept it, beside where the folder is now."""
    return path().with_name("progress.json")


def _earlier() -> set[str]:
    try:
        return set(map(str, json.loads(_file().read_text(encoding="utf-8"))["passed"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _warn(done: str, error: OSError) -> None:
    warnings.warn(
        f"progress could not be {done} {path()} ({error.strerror}). The labs work without it. To keep it elsewhere, "
        f"let the environment variable {VARIABLE} name a folder that can be written.",
        stacklevel=3,
    )
