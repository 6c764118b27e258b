"""`python -m labutils.grading LAB` grades a class with nbgrader, several submissions at a time, in a course folder."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade, and print each student's points; 1 where some could not be graded, 130 after Ctrl-C."""
    try:
        from labutils.course.grading.marks import table
        from labutils.course.grading.run import grade_class
    except ModuleNotFoundError as missing:
        print(f'{missing.name} is missing: pip install "quantization-labs[author]"', file=sys.stderr)
        return 1
    warnings.filterwarnings("ignore", module="nbgrader")  # its own, about SQLAlchemy
    try:
        marks = grade_class(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.", file=sys.stderr)
        return 130  # as a shell has it
    print(table(marks))
    return int(any(mark.failed for mark in marks))


if __name__ == "__main__":
    sys.exit(main())
