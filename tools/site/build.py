"""Write Sphinx's source and run Sphinx on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from nbformat import NotebookNode
from sphinx.application import Sphinx

from tools.build_course import ROOT
from tools.site import mathematics, pages

HERE = Path(__file__).parent


def build(out: Path, solutions: dict[str, NotebookNode], states: Path | None = None) -> Path:
    """Write the site to out/html and return its front page. The folder is one that `folder.emptied` has made.

    solutions  executed solutions of the labs that the site has, by names such as 01_fundamentals
    states     a folder with the states of their explorers

    RuntimeError where Sphinx has warned: of a link that leads nowhere, for example.
    """
    source, html, read = out / "source", out / "html", out / "doctrees"
    pages.write(source, solutions)
    # Not in parallel: Sphinx 9.0 then ends in success although a page could not be written.
    sphinx = Sphinx(source, HERE, html, read, buildername="html", status=None, warningiserror=True)
    sphinx.build()
    shutil.rmtree(out / "jupyter_execute", ignore_errors=True)  # where myst-nb would write what it executes
    if sphinx.statuscode:
        raise RuntimeError("Sphinx has warned: see above")
    mathematics.write_font(html)
    for debugging in html.rglob("*.map"):
        debugging.unlink()
    for stem in solutions:
        shutil.copy(ROOT / "notebooks" / f"{stem}.ipynb", html / "notebooks")  # to download
    for script in states.glob("*_states.js") if states else ():
        shutil.copy(script, html / "_static")  # beside explorer.js, which loads it
    return html / "index.html"
