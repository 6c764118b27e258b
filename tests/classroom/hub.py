"""A JupyterHub, set up on a machine as docs/teaching.md says."""

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.classroom.machine import ROOT

PLACE, ADDRESS = "/srv/quantization-labs", "http://127.0.0.1:8000"
READY, SECONDS = "JupyterHub is now running", 120


def recipe():
    """The commands of docs/teaching.md: to install, for accounts, to start the hub, to begin a course."""
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    section = page.split("\n## A class on a hub\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def install(machine):
    """Put this checkout and this environment where the recipe installs them, for all accounts to read."""
    homes = (ROOT, Path(sys.prefix), Path(sys.base_prefix))
    machine.run("chmod o+x " + " ".join({str(parent) for home in homes for parent in home.parents}))
    machine.run(f"mkdir {PLACE} && ln -s {ROOT}/* {PLACE} && ln -s {sys.prefix} {PLACE}/.venv")


@contextlib.contextmanager
def hub(machine, passwords, log):
    """The address of a hub with an account for each of `passwords`. What it says goes to the file `log`."""
    _, accounts, start, course = ("set -e\n" + commands for commands in recipe())
    install(machine)
    lines = "\n".join(f"{name}:{password}" for name, password in passwords.items())
    machine.run(f"cat > ~/class.txt <<'END'\n{lines}\nEND\n")
    machine.run(accounts)
    machine.run(course, user="instructor")
    with open(log, "w") as file:
        process = subprocess.Popen(machine.command(start), stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_for(process, log)
        yield ADDRESS
    finally:
        process.terminate()
        process.wait(20)


def wait_for(process, log):
    end = time.monotonic() + SECONDS
    while READY not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, f"the hub did not start:\n{log.read_text()}"
        time.sleep(0.1)
