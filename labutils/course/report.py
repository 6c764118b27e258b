"""How a report is shown: a panel in a notebook, text in a terminal, an exception that nbgrader can grade."""

from __future__ import annotations

from labutils.course.engine import Report
from labutils.course.panel import Panel, escape, frame, prose


class WithoutTraceback:
    """Mixin for exceptions that a notebook shows as one line."""

    def _render_traceback_(self) -> list[str]:  # IPython calls this in place of its own formatting
        return [f"{type(self).__name__}: {self}"]


class NotCheckable(WithoutTraceback, TypeError):
    """A check was given something other than the function or class of an exercise."""


class NoSuchExercise(WithoutTraceback, LookupError):
    """A check was given a function whose name no exercise has."""


class CheckFailed(WithoutTraceback, AssertionError):
    """A failed check. The message holds the count, the first failing case and the hint.

    A notebook shows only one line of it, because the panel above holds the rest.
    """

    def __init__(self, report: Report):
        self.report = report
        super().__init__(summary(report))

    def _render_traceback_(self) -> list[str]:
        mistake = f" It looks like this: {self.report.diagnosis}." if self.report.diagnosis else ""
        return [f"CheckFailed: {summary(self.report).splitlines()[0]}{mistake}"]


def panel(report: Report) -> Panel:
    """Return the report as a panel."""
    return Panel(_html(report), text(report))


def summary(report: Report) -> str:
    """Return the result in one to three lines: the count, the first failing case, the hint or the relation."""
    if report.undone:
        return f"{report.exercise}: not done yet."
    passed = sum(case.passed for case in report.cases)
    if report.passed:
        return f"{report.exercise}: all {passed} cases pass."
    first = report.first_failure
    lines = [
        f"{report.exercise}: {passed} of {len(report.cases)} cases pass.",
        f"{first.name}: {sentence(first.detail)}",
    ]
    if report.hint:
        lines.append(f"It looks like this: {report.diagnosis}. {report.hint}")
    elif report.relation:
        lines.append(f"How it differs: {report.relation}")
    return "\n".join(lines)


def sentence(detail: str) -> str:
    """End a case's detail with a full stop, if it needs one."""
    return detail if detail.endswith(("?", "...")) else f"{detail}."


def text(report: Report) -> str:
    """Return the whole report as plain text: the summary, and a line for each case."""
    if report.undone:
        return summary(report)
    rows = [f"  [{'ok' if case.passed else '--'}] {case.name}" for case in report.cases]
    printed = [f"Your function printed: {report.printed}"] if report.printed else []
    return "\n".join([summary(report), *rows, *printed])


def _html(report: Report) -> str:
    name = f"<code>{report.exercise}</code>"
    if report.undone:
        return frame(f"○ {name}: not done yet", "Write it in the cell above, run that cell, then run this one again.")
    passed, total = sum(case.passed for case in report.cases), len(report.cases)
    if report.passed:
        return frame(f"✓ {name}: all {total} cases pass", _fold("What was checked", _case_list(report)), "good")
    first = report.first_failure
    body = f'<div style="margin-top:4px"><b>{prose(first.name)}:</b> {prose(sentence(first.detail))}</div>'
    if report.hint:
        body += _box(f"It looks like this: {prose(report.diagnosis)}.", prose(report.hint))
    elif report.relation:
        body += _box("How it differs:", prose(report.relation))
    if report.printed:
        body += _fold("What your function printed", f'<pre style="margin:4px 0">{escape(report.printed)}</pre>')
    body += _fold("All cases", _case_list(report))
    return frame(f"✗ {name}: {passed} of {total} cases pass", body, "bad")


def _box(title: str, body: str) -> str:
    return (
        '<div style="margin-top:6px;padding:6px 10px;border-radius:6px;border:1px solid #8888">'
        f"<b>{title}</b> {body}</div>"
    )


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
