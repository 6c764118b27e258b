"""The command line: that of `nbgrader autograde`, with its configuration, and a few options more."""

from __future__ import annotations

import logging
import math
import os
from glob import escape
from typing import Any

from nbgrader.apps.autogradeapp import AutogradeApp, aliases
from nbgrader.coursedir import CourseDirectory
from traitlets import Float, Integer, TraitError, Unicode, default, validate
from traitlets.config.loader import ArgumentError, KVArgParseConfigLoader

from labutils.course.grading.isolated import Limits


class KnownOptions(KVArgParseConfigLoader):
    """Refuses an option that there is not, which traitlets would leave out with a warning."""

    def _handle_unrecognized_alias(self, arg: str) -> None:
        raise ArgumentError(f"there is no option --{arg}; --help lists them")


class GradingApp(AutogradeApp):
    """Reads the options of a command; `c.GradingApp.workers = 4` in nbgrader_config.py sets one for good."""

    name = "python -m labutils.grading"
    description = "Grade all that was handed in for an assignment, as `nbgrader autograde` does, several at a time."
    examples = """\
python -m labutils.grading 01_fundamentals
python -m labutils.grading 01_fundamentals --workers 8 --memory 2
python -m labutils.grading 01_fundamentals --student ada --force
python -m labutils.grading 01_fundamentals --scheduler tcp://10.0.0.1:8786
"""
    aliases = aliases | {name: f"GradingApp.{name}" for name in ("workers", "timeout", "memory", "scheduler")}

    workers = Integer(os.cpu_count(), min=1, help="submissions at a time").tag(config=True)
    timeout = Float(900.0, min=1.0, help="seconds that one submission may take").tag(config=True)
    memory = Float(4.0, min=0.1, help="GB of memory that one submission may need").tag(config=True)
    scheduler = Unicode("", help="address of a dask scheduler, whose workers see the course folder").tag(config=True)

    @default("log_level")
    def _log_level_default(self) -> int:
        return logging.ERROR

    @validate("timeout", "memory")
    def _finite(self, proposal: Any) -> float:
        if not math.isfinite(proposal.value):  # NaN is not below a smallest value either
            raise TraitError(f"{proposal.trait.name} must be a finite number, got {proposal.value}")
        return proposal.value

    def _create_loader(self, argv: list[str] | None, aliases: Any, flags: Any, classes: Any) -> KnownOptions:
        return KnownOptions(argv, aliases, flags, classes=classes, log=self.log, subcommands=self.subcommands)

    @property
    def limits(self) -> Limits:
        return Limits(self.timeout, self.memory)

    def initialize(self, argv: list[str] | None = None, root: str = "") -> None:
        """As every application of nbgrader; ends with 1, and says why, where no assignment is named, or an option of
        ours is misspelt."""
        super().initialize(argv, root)
        unknown = self.config.GradingApp.keys() - self.trait_names(config=True)
        if unknown:
            self.fail("GradingApp has no option %s; --help lists them", ", ".join(sorted(unknown)))
        named = [name for name in (*self.extra_args, self.coursedir.assignment_id) if name]
        if len(named) != 1:
            self.fail("Name one assignment: %s 01_fundamentals; %s", self.name, f"it was given {named}")
        if self.coursedir.notebook_id != "*":
            self.fail("Submissions are graded as a whole: for one notebook of several, use `nbgrader autograde`")
        self.coursedir.assignment_id = named[0]

    def course_of(self, student: str, **changes: Any) -> CourseDirectory:
        """The course folder with only this student in it, and other names of folders."""
        here = self.coursedir
        settings = {"root": here.root, "assignment_id": here.assignment_id, "student_id": escape(student)}
        return CourseDirectory(parent=self, **settings | changes)
