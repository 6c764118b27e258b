"""Can this environment run the labs? `doctor.diagnose()` in a notebook, `python -m labutils` in a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util

from labutils.course import progress
from labutils.course.panel import Panel, escape, frame, table

DISTRIBUTION = "quantization-labs"
MARKS = {"ok": "✓", "note": "○", "bad": "✗"}


@dataclass(frozen=True)
class Finding:
    """The result of one look: `state` is "ok", "note" (the labs run all the same) or "bad" (they do not)."""

    name: str
    state: str
    detail: str


def diagnose() -> Panel:
    """Look at everything the labs need, from Python to the progress folder, and return the findings as a panel.

    It never raises: a look that fails is reported as bad.
    """
    findings = [_finding(name, look) for name, look in LOOKS.items()]
    worst = "bad" if any(f.state == "bad" for f in findings) else "good"
    title = "Everything the labs need is here" if worst == "good" else "Something is missing: see the lines with ✗"
    rows = [(f"{MARKS[f.state]}&nbsp;{escape(f.name).replace(' ', '&nbsp;')}", escape(f.detail)) for f in findings]
    lines = [f"[{f.state:^4}] {f.name}: {f.detail}" for f in findings]
    return Panel(frame(title, table(rows), worst), "\n".join([title, *lines]))


def _finding(name: str, look: Callable[[], tuple[str, str]]) -> Finding:
    try:
        return Finding(name, *look())
    except Exception as error:
        return Finding(name, "bad", f"{type(error).__name__}: {error}")


def _python() -> tuple[str, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 10):
        return "bad", f"{version}; the labs need Python 3.10 or newer"
    return "ok", version


def _packages() -> tuple[str, str]:
    try:
        needed = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return "note", f"{DISTRIBUTION} is not installed but found on the path, so versions cannot be looked up"
    names = [re.match(r"[\w.-]+", line).group() for line in needed if "extra ==" not in line]
    missing = [name for name in names if not _version(name)]
    if missing:
        return "bad", f"missing: {', '.join(missing)}; run `pip install {' '.join(missing)}` in this environment"
    return "ok", ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _widgets() -> tuple[str, str]:
    version, jupyterlab = _version("ipywidgets"), _version("jupyterlab")
    if version is None or (jupyterlab and int(version.split(".")[0]) < 8):  # Colab has 7, without JupyterLab
        return "bad", f"ipywidgets {version or 'is missing'}; sliders need 8 or newer: `pip install -U ipywidgets`"
    if jupyterlab and not _version("jupyterlab-widgets"):
        return "bad", "jupyterlab-widgets is missing: `pip install jupyterlab-widgets`, then restart JupyterLab"
    return "ok", f"ipywidgets {version}"


def _torch() -> tuple[str, str]:
    if util.find_spec("torch") is None:
        return "note", "not installed: labs 00 to 04 run without it, later ones need `pip install torch`"
    return "ok", f"{_version('torch')}"


def _transformers() -> tuple[str, str]:
    if util.find_spec("transformers") is None:
        return "note", "not installed: MiniLM as a whole, from lab 06 on, needs `pip install transformers`"
    return "ok", f"{_version('transformers')}"


def _network() -> tuple[str, str]:
    from labutils import data

    accuracy = data.digits_network().accuracy()
    state = "ok" if accuracy >= 0.98 else "bad"
    return state, f"reads {accuracy:.1%} of 540 test images (98% or more expected)"


def _progress() -> tuple[str, str]:
    folder = progress.path()
    while not folder.exists():
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        cure = f"let the environment variable {progress.VARIABLE} name a folder that can be"
        return "note", f"{progress.path()} cannot be written, so passed checks are not remembered: {cure}"
    return "ok", f"kept in {progress.path()}"


# What is looked at -> the function that looks, and returns state and detail.
LOOKS: dict[str, Callable[[], tuple[str, str]]] = {
    "Python": _python,
    "packages": _packages,
    "sliders": _widgets,
    "torch": _torch,
    "transformers": _transformers,
    "digits network": _network,
    "progress": _progress,
}


def main() -> int:
    """Print the findings; return the exit status, 1 if any of them is bad."""
    text = diagnose().text
    print(text)
    return int("[bad " in text)


if __name__ == "__main__":
    sys.exit(main())
