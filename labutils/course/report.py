"""What a learner sees of a check: a panel in a notebook, text in a terminal, an error that nbgrader can grade."""

from __future__ import annotations

from labutils.course.engine import Report
from labutils.course.panel import Panel, escape, frame, prose


class Told:
    """An exception that a notebook shows as its message alone, without the traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this before it formats a traceback
        return [f"{type(self).__name__}: {self}"]


class NotCheckable(Told, TypeError):
    """What was handed to a check is not what the exercise asks for."""


class NoSuchExercise(Told, LookupError):
    """No exercise has this name."""


class CheckFailed(Told, AssertionError):
    """A failed check. Its text is the count, the first failing case and the hint.

    In a notebook it shows as one line, since the panel above it has said the rest.
    """

    def __init__(self, report: Report):
        self.report = report
        super().__init__(summary(report))

    def _render_traceback_(self) -> list[str]:
        mistake = f" It looks like this: {self.report.diagnosis}." if self.report.diagnosis else ""
        return [f"CheckFailed: {summary(self.report).splitlines()[0]}{mistake}"]


def panel(report: Report) -> Panel:
    """The report as a panel."""
    return Panel(_html(report), text(report))


def summary(report: Report) -> str:
    """The outcome in one to three lines: the count, the first failing case, the hint."""
    if report.undone:
        return f"{report.exercise}: not done yet."
    right = sum(case.passed for case in report.cases)
    if report.passed:
        return f"{report.exercise}: all {right} cases pass."
    first = report.first_failure
    lines = [
        f"{report.exercise}: {right} of {len(report.cases)} cases pass.",
        f"{first.name}: {sentence(first.detail)}",
    ]
    if report.hint:
        lines.append(f"It looks like this: {report.diagnosis}. {report.hint}")
    return "\n".join(lines)


def sentence(detail: str) -> str:
    return detail if detail.endswith(("?", "...")) else f"{detail}."


def text(report: Report) -> str:
    """The whole report as plain text: the summary and a line a case."""
    if report.undone:
        return summary(report)
    rows = [f"  [{'ok' if case.passed else '--'}] {case.name}" for case in report.cases]
    printed = [f"Your function printed: {report.printed}"] if report.printed else []
    return "\n".join([summary(report), *rows, *printed])


def _html(report: Report) -> str:
    name = f"<code>{report.exercise}</code>"
    if report.undone:
        return frame(f"○ {name}: not done yet", "Write it in the cell above, run that cell, then run this one again.")
    right, total = sum(case.passed for case in report.cases), len(report.cases)
    if report.passed:
        return frame(f"✓ {name}: all {total} cases pass", _fold("What was checked", _case_list(report)), "good")
    first = report.first_failure
    body = f'<div style="margin-top:4px"><b>{prose(first.name)}:</b> {prose(sentence(first.detail))}</div>'
    if report.hint:
        body += (
            '<div style="margin-top:6px;padding:6px 10px;border-radius:6px;border:1px solid #8888">'
            f"<b>It looks like this: {prose(report.diagnosis)}.</b> {prose(report.hint)}</div>"
        )
    if report.printed:
        body += _fold("What your function printed", f'<pre style="margin:4px 0">{escape(report.printed)}</pre>')
    body += _fold("All cases", _case_list(report))
    return frame(f"✗ {name}: {right} of {total} cases pass", body, "bad")


def _case_list(report: Report) -> str:
    return "".join(
        f"<div>{'✓' if case.passed else '✗'} {prose(case.name)}"
        + (f' <span style="opacity:.75">- {prose(case.detail)}</span>' if case.detail else "")
        + "</div>"
        for case in report.cases
    )


def _fold(title: str, body: str) -> str:
    return (
        '<details style="margin-top:6px"><summary style="cursor:pointer;font-weight:400">'
        f"{title}</summary>{body}</details>"
    )
