"""The progress board: a bar for each lab, filled as its checks pass."""

from __future__ import annotations

from labutils.course import palette, progress
from labutils.course.panel import Panel, escape, frame
from labutils.labs.catalogue import EXERCISES


def board() -> Panel:
    """Show a bar for each lab, filled as its checks pass.

    >>> board()  # doctest: +SKIP
    00_start_here      [##########] 1 of 1
    01_fundamentals    [####......] 2 of 6

    ImportError names an exercise's file that cannot be imported.
    """
    labs: dict[str, dict[str, str]] = {}  # lab -> name of an exercise -> what the board calls it
    for exercise in EXERCISES.values():
        called = f"{exercise.name} (stretch)" if exercise.stretch else exercise.name
        labs.setdefault(exercise.lab, {})[exercise.name] = called
    passed = progress.passed()
    lines, rows, width = [], [], max(map(len, labs))
    for lab, names in labs.items():
        open_names = [called for name, called in names.items() if name not in passed]
        count, total = len(names) - len(open_names), len(names)
        filled = round(10 * count / total)
        lines.append(f"{lab:<{width}} [{'#' * filled}{'.' * (10 - filled)}] {count} of {total}")
        rows.append(_bar(lab, count, total, open_names))
    return Panel(frame("Your progress", "".join(rows)), "\n".join(lines))


def _bar(lab: str, count: int, total: int, open_names: list[str]) -> str:
    """HTML of one lab's row: its name, a bar, the count, and which exercises are open."""
    remark = f"still open: {escape(', '.join(open_names))}" if open_names else "complete"
    return (
        '<div style="display:flex;flex-wrap:wrap;align-items:baseline;gap:0 10px;margin:4px 0;font-weight:400">'
        f'<span style="flex:0 0 12em">{escape(lab)}</span>'
        f'<span role="img" aria-label="{count} of {total}" style="flex:0 0 160px;height:10px;border-radius:5px;'
        f'background:#8884"><span style="display:block;height:10px;border-radius:5px;background:{palette.GOOD};'
        f'width:{100 * count / total:.0f}%"></span></span>'
        f'<span style="flex:0 0 3.5em">{count} of {total}</span>'
        f'<span style="flex:1 1 16em;opacity:.75">{remark}</span></div>'
    )
