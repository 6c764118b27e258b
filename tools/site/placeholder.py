"""What stands on a page in an explorer's place: its first state, which is all that a browser without scripts shows."""

from __future__ import annotations

import base64

from labutils.course.panel import escape, prose
from labutils.course.shown import Shown
from tools.site.pictures import pixels_of, webp

SOURCE = "Computed beforehand. In the notebook it runs live."


def placeholder(name: str, shown: Shown, title: str) -> str:
    """HTML of an explorer, named as in the lab's file of states, showing one state; static/explorer.js does the rest.

    >>> placeholder("01-2", explorer.shown(explorer.state), explorer.title)[:43]  # doctest: +SKIP
    '<div class="explorer" data-explorer="01-2">'
    """
    pixels = pixels_of(shown.png)
    height, width = pixels.shape[:2]
    picture = base64.b64encode(webp(pixels)).decode()
    return (
        f'<div class="explorer" data-explorer="{escape(name)}">\n'
        f'<div class="explorer-picture"><img src="data:image/webp;base64,{picture}" width="{width}" height="{height}" '
        f'alt="{escape(shown.text(title))}" decoding="async"></div>\n'
        f'<div class="explorer-readout">{readout(shown)}</div>\n'
        f'<p class="explorer-source">{escape(SOURCE)}</p>\n'
        "</div>"
    )


def readout(shown: Shown) -> str:
    """HTML of the numbers and the note, or of what went wrong."""
    if shown.wrong:
        return f'<p class="explorer-wrong">{prose(str(shown.wrong))}.</p>'
    cells = "".join(f"<span><small>{escape(name)}</small> <b>{escape(value)}</b></span>" for name, value in shown.cells)
    note = f'<p class="explorer-note">{prose(shown.note)}</p>' if shown.note else ""
    return f'<div class="explorer-cells">{cells}</div>{note}'
