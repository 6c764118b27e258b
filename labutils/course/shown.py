"""`Shown`: what an explorer shows for one state, as a picture, as HTML and in words."""

from __future__ import annotations

from dataclasses import dataclass

from labutils.course.exercise import Wrong
from labutils.course.panel import escape, frame, prose


class Undone(Wrong):
    """The learner's function is still the stub, which is shown as a remark and not as an error."""


@dataclass(frozen=True)
class Shown:
    """A PNG, the numbers below it as (name, value), and a remark; or what the learner's function did.

    >>> Shown(b"", (("bits", "4"), ("SQNR", "20.1 dB"))).text("Values on the grid")
    'Values on the grid: bits 4, SQNR 20.1 dB'
    """

    png: bytes
    cells: tuple[tuple[str, str], ...] = ()
    note: str = ""
    wrong: Wrong | None = None

    def text(self, title: str) -> str:
        """The same in words: the picture's alt text."""
        said = ", ".join(f"{name} {value}" for name, value in self.cells)
        return f"{title}: {self.wrong or said}"

    def html(self, busy: bool = False) -> str:
        """The readout; `busy` says that a more complete one is being computed."""
        if self.wrong:
            return frame(f"{prose(str(self.wrong))}.", "", "plain" if isinstance(self.wrong, Undone) else "bad")
        note = f'<div style="opacity:.85">{prose(self.note)}</div>' if self.note else ""
        return self._cells_html(busy) + note

    def _cells_html(self, busy: bool) -> str:
        """HTML of the numbers side by side, each name above its value."""
        inner = "".join(
            f'<div><div style="font-size:85%;opacity:.75">{escape(name)}</div>'
            f'<div style="font-weight:600;font-variant-numeric:tabular-nums">{escape(value)}</div></div>'
            for name, value in self.cells
        )
        return (
            f'<div role="status" aria-live="polite" aria-busy="{str(busy).lower()}" style="display:flex;flex-wrap:wrap;'
            f'gap:4px 28px;line-height:1.35;margin:2px 0 6px 4px">{inner}</div>'
        )
