"""The folder that a site is built in: what is in it is deleted, so it must be the builder's own."""

from __future__ import annotations

import shutil
from pathlib import Path

MARKER = ".built-by-tools-site"
BUILT = ("source", "html", "doctrees", "states", "jupyter_execute")


def emptied(out: Path) -> Path:
    """Return the folder without what was built there before.

    FileExistsError, and nothing is deleted, where it holds something and was not made by this function.
    """
    marker = out / MARKER
    if out.exists() and not marker.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} was not made by tools.site, which deletes what it holds: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text("Written by `python -m tools.site`, which deletes and builds anew what lies here.\n")
    for name in BUILT:
        shutil.rmtree(out / name, ignore_errors=True)
    return out
