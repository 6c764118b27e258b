"""Which exercises and explorers there are, found by their files.

labs/labNN/ holds one file per exercise and one per explorer, named after the function or class that it defines:
labs/lab04/quantize_group.py, labs/lab04/explore_groups.py. Files whose names begin with "_" are shared by the exercises
of their lab. A file is imported when it is first asked for, and a broken one fails only then.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labutils.course.exercise import Exercise


class Catalogue(Mapping):
    """The exercises of a package of labs: name -> Exercise.

    A lookup imports the exercise's file. Iteration goes in the order of the course, for which it imports all of them.
    `names` and `explorers` import nothing.

    ImportError names a file that cannot be imported, or that lacks what its name promises.
    """

    def __init__(self, package: str, folder: Path):
        self._package = package
        self.files = {  # name -> module, relative to the package
            module.name: f"{lab.name}.{module.name}"
            for lab in pkgutil.iter_modules([str(folder)])
            if lab.ispkg
            for module in pkgutil.iter_modules([str(folder / lab.name)])
            if not module.name.startswith("_")
        }
        self.explorers = {name: file for name, file in self.files.items() if name.startswith("explore_")}
        self.names = [name for name in self.files if name not in self.explorers]  # of exercises: by lab, then by name

    def load(self, name: str) -> Any:
        """Return the function or class `name` that a file defines: an exercise's reference, or an explorer."""
        return self._attribute(name, name)

    def __getitem__(self, name: str) -> Exercise:
        if name not in self:
            raise KeyError(name)
        return self._attribute(name, "EXERCISE")

    def __contains__(self, name: object) -> bool:
        return name in self.files and name not in self.explorers

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names, key=lambda name: (self[name].lab, self[name].place)))

    def _attribute(self, name: str, attribute: str) -> Any:
        module = f"{self._package}.{self.files[name]}"
        path = f"{module.replace('.', '/')}.py"
        try:
            loaded = importlib.import_module(module)
        except Exception as error:
            raise ImportError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        try:
            return getattr(loaded, attribute)
        except AttributeError:
            raise ImportError(f"{path} defines no {attribute}") from None


EXERCISES = Catalogue(__package__, Path(__file__).parent)
EXPLORERS = EXERCISES.explorers
