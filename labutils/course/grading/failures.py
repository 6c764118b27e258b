"""Why a submission could not be graded, and what an instructor does then."""

from __future__ import annotations

from labutils.course.grading.submissions import Outcome

# The name of an exception, of nbgrader's, nbformat's, nbclient's or ours: what happened, and what to do.
FAILURES = {
    "OutOfTime": ("it took longer than {detail}", "take out the cell that never ends, or raise --timeout"),
    "OutOfMemory": ("it needed more than {detail} of memory", "take out the cell that fills it, or raise --memory"),
    "DeadKernelError": ("its code ended Python, or Python crashed", "take out the cell, such as os._exit(0)"),
    "CellTimeoutError": ("a cell could not be interrupted", "take out the cell that never ends"),
    "UnresponsiveKernelError": ("a cell could not be interrupted", "take out the cell that never ends"),
    "NotJSONError": ("a file is damaged: it is no notebook", "ask for it again"),
    "SchemaTooOldError": (
        "cells are copied, or made with an older nbgrader",
        "add the line about copied_cells to nbgrader_config.py, or run `nbgrader update submitted/{student}`",
    ),
    "SchemaTooNewError": ("its cells are of a newer nbgrader", "pip install -U nbgrader"),
    "NbGraderException": (
        "no notebook has the name of the assignment's",
        "rename it in submitted/{student}, or ask for it again",
    ),
    "NoTime": ("{detail}", "write the time into it, or delete it"),
    "NotRecorded": ("the gradebook could not be written", "close what else has it open"),
}  # fmt: skip
OTHER = ("{failed}: {detail}", "read the log")


def explained(outcome: Outcome) -> str:
    """One sentence: the reason, and the remedy.

    >>> explained(Outcome("ada", "OutOfTime", "900 seconds"))
    'it took longer than 900 seconds – take out the cell that never ends, or raise --timeout'
    """
    told = {"student": outcome.student, "failed": outcome.failed, "detail": outcome.detail.partition("\n")[0]}
    return " – ".join(part.format(**told) for part in FAILURES.get(outcome.failed, OTHER))
