"""Which exercises a learner has passed, kept as a folder with an empty file for each, such as best_clip.passed.

With a file for each, several notebooks can record at the same time, and none overwrites what another has recorded.
Where the folder cannot be read or written, a warning says so and the labs go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from pathlib import Path

import platformdirs

VARIABLE = "LABUTILS_PROGRESS"  # the environment variable that names another folder
ENDING = ".passed"


def path() -> Path:
    """The folder that LABUTILS_PROGRESS names, or else one in the user's data folder."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_data_path("quantization-labs") / "progress"


def passed() -> set[str]:
    """Return the names of the exercises passed so far."""
    try:
        return {file.name.removesuffix(ENDING) for file in _records()} | _passed_earlier()
    except FileNotFoundError:
        return _passed_earlier()
    except OSError as error:
        _warn("read from", error)
        return _passed_earlier()


def record(name: str) -> None:
    """Record that the exercise `name` is passed."""
    folder = path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}{ENDING}").touch()
    except OSError as error:
        _warn("saved to", error)


def forget() -> None:
    """Remove all records, and no other file, since LABUTILS_PROGRESS may name a folder with other contents."""
    try:
        with contextlib.suppress(FileNotFoundError):
            for file in _records():
                file.unlink(missing_ok=True)
        _earlier_file().unlink(missing_ok=True)
    except OSError as error:
        _warn("removed from", error)


def _records() -> list[Path]:
    return [file for file in path().iterdir() if file.name.endswith(ENDING)]


def _earlier_file() -> Path:
    """progress.json beside the folder, in which earlier versions of the course kept the names."""
    return path().with_name("progress.json")


def _passed_earlier() -> set[str]:
    try:
        return set(map(str, json.loads(_earlier_file().read_text(encoding="utf-8"))["passed"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _warn(failed: str, error: OSError) -> None:
    warnings.warn(
        f"progress could not be {failed} {path()} ({error.strerror}). The labs work without it. To keep it elsewhere, "
        f"let the environment variable {VARIABLE} name a folder that can be written.",
        stacklevel=3,
    )
