"""What the labs hold, found in their folders.

labs/labNN/ has one file for each exercise and one for each explorer, named after the function or class that it is
about: labs/lab04/quantize_group.py, labs/lab04/explore_groups.py. Files whose names begin with "_" hold what several
exercises of a lab share. Nothing is loaded before it is asked for, and then only that file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labutils.course.exercise import Exercise

HERE = Path(__file__).parent
LABS = sorted(module.name for module in pkgutil.iter_modules([str(HERE)]) if module.ispkg)
FILES = {
    module.name: f"{lab}.{module.name}"
    for lab in LABS
    for module in pkgutil.iter_modules([str(HERE / lab)])
    if not module.name.startswith("_")
}
EXPLORERS = {name: file for name, file in FILES.items() if name.startswith("explore_")}


def load(name: str) -> Any:
    """The function or class `name` of an exercise's or explorer's file: the reference, or the explorer."""
    return getattr(_file(name), name)


def _file(name: str) -> Any:
    return importlib.import_module(f"{__package__}.{FILES[name]}")


class _Exercises(Mapping):
    """Name -> Exercise. To look one up loads its file; to go through them, in the order of the course, loads all."""

    _names = FILES.keys() - EXPLORERS.keys()

    def __getitem__(self, name: str) -> Exercise:
        if name not in self._names:
            raise KeyError(name)
        return _file(name).EXERCISE

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names, key=lambda name: (self[name].lab, self[name].place)))


EXERCISES: Mapping[str, Exercise] = _Exercises()
