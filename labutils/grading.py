"""`python -m labutils.grading LAB` grades a class with nbgrader, several submissions at a time, in a course folder."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade, and print each student's points; 1 where some could not be graded."""
    try:
        from labutils.course.grading.marks import table
        from labutils.course.grading.run import grade_class
    except ModuleNotFoundError as missing:
        print(f'{missing.name} is missing: pip install "quantization-labs[author]"', file=sys.stderr)
        return 1
    warnings.filterwarnings("ignore", module="nbgrader")  # its own, about SQLAlchemy
    marks = grade_class(sys.argv[1:] if arguments is None else list(arguments))
    print(table(marks))
    return int(any(mark.failed for mark in marks))


if __name__ == "__main__":
    sys.exit(main())
