"""Write Sphinx's source and run Sphinx on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx

from tools.build_course import ROOT
from tools.site import mathematics, pages

HERE = Path(__file__).parent


def build(out: Path, stems: list[str]) -> Path:
    """Write the site with the labs `stems` to out/html, from nothing, and return its front page.

    RuntimeError where Sphinx has warned: of a link that leads nowhere, for example.
    """
    source, html = out / "source", out / "html"
    for folder in (source, html, out / "doctrees"):
        shutil.rmtree(folder, ignore_errors=True)
    pages.write(source, {stem: pages.stored("solutions", stem) for stem in stems})
    sphinx = Sphinx(
        srcdir=source,
        confdir=HERE,
        outdir=html,
        doctreedir=out / "doctrees",
        buildername="html",
        status=None,
        warningiserror=True,
    )
    sphinx.build()
    if sphinx.statuscode:
        raise RuntimeError("Sphinx has warned: see above")
    mathematics.write_font(html)
    for debugging in html.rglob("*.map"):
        debugging.unlink()
    for stem in stems:
        shutil.copy(ROOT / "notebooks" / f"{stem}.ipynb", html / "notebooks")  # to download
    return html / "index.html"
