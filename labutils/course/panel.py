"""Panels: the framed boxes that show checks, predictions, the doctor's findings and the progress board.

A panel is HTML for notebooks and the same as plain text for terminals, screen readers and nbval. Text inherits the
page's colour and backgrounds are a transparent tint, so that a panel can be read in light and dark themes.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

from labutils.course import palette

TONES = {"good": palette.GOOD, "bad": palette.QUANTIZED, "warn": palette.WARN, "plain": palette.ORIGINAL}


@dataclass(frozen=True)
class Panel:
    """The same content as HTML, which a notebook shows, and as text, for everything else."""

    html: str
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def escape(text: object) -> str:
    """Escape text for HTML, since a learner's error message may contain anything."""
    return html.escape(str(text))


def prose(text: str) -> str:
    """Escape a sentence for HTML, and turn `code` between backquotes into a code element."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def frame(title: str, body: str = "", tone: str = "plain") -> str:
    """HTML of a panel with a coloured edge, one of TONES. `title` and `body` are HTML."""
    colour = TONES[tone]
    return (
        f'<div role="status" style="border-left:4px solid {colour};background:{colour}1A;color:inherit;'
        "padding:8px 14px;margin:4px 0;border-radius:0 6px 6px 0;max-width:820px;line-height:1.5;"
        'overflow-wrap:break-word">'
        f'<div style="font-weight:600">{title}</div>{body}</div>'
    )


def table(rows: list[tuple[str, ...]]) -> str:
    """HTML of a small table. Cells are HTML."""
    cell = '<td style="text-align:left;vertical-align:top;padding:1px 14px 1px 0;white-space:normal">'
    body = "".join(f'<tr style="background:none">{"".join(f"{cell}{text}</td>" for text in row)}</tr>' for row in rows)
    return f'<table style="border:none;margin:4px 0">{body}</table>'


def show(panel: Panel) -> None:
    """Display a panel in a notebook, or print its text anywhere else."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None and getattr(shell, "kernel", None) is not None:
        from IPython.display import display

        display(panel)
    else:
        print(panel.text)
