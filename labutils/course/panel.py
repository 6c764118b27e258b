"""Panels: the framed boxes in which checks, predictions, the doctor and the progress board speak.

Each has two faces, HTML for notebooks and plain text for terminals, screen readers and nbval. Text takes the colour of
the page it stands on, and backgrounds are a transparent tint, so that a panel is at home in a light and a dark theme.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from labutils.course import palette

TONES = {"good": palette.GOOD, "bad": palette.QUANTIZED, "warn": palette.WARN, "plain": palette.ORIGINAL}


@dataclass(frozen=True)
class Panel:
    """HTML and text that say the same. A notebook shows the first, everything else the second."""

    html: str
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def escape(text: object) -> str:
    """Text for HTML. A learner's error message may hold anything."""
    return html.escape(str(text))


def prose(text: str) -> str:
    """A sentence for HTML, with `code` between backquotes set as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def frame(title: str, body: str = "", tone: str = "plain") -> str:
    """HTML of a panel with a coloured edge. `title` and `body` are HTML already."""
    colour = TONES[tone]
    return (
        f'<div role="status" style="border-left:4px solid {colour};background:{colour}1A;color:inherit;'
        "padding:8px 14px;margin:4px 0;border-radius:0 6px 6px 0;max-width:820px;line-height:1.5;"
        'overflow-wrap:break-word">'
        f'<div style="font-weight:600">{title}</div>{body}</div>'
    )


def table(rows: list[tuple[str, ...]]) -> str:
    """HTML of a small table of texts; cells are HTML already."""
    cell = '<td style="text-align:left;vertical-align:top;padding:1px 14px 1px 0;white-space:normal">'
    body = "".join(f'<tr style="background:none">{"".join(f"{cell}{text}</td>" for text in row)}</tr>' for row in rows)
    return f'<table style="border:none;margin:4px 0">{body}</table>'


def show(panel: Panel) -> None:
    """Display in a notebook, print anywhere else."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None and getattr(shell, "kernel", None) is not None:
        from IPython.display import display

        display(panel)
    else:
        print(panel.text)
