"""A copy of this machine in namespaces of its own. What is done there, accounts included, is gone when it is left.

>>> with Machine(tmp_path) as machine:
...     machine.run("useradd --create-home alice")
...     machine.run("whoami; pwd", user="alice")
'alice\n/home/alice\n'
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# An overlay on this machine's files: what is changed lies in memory. Nothing else can be reached from there, since the
# old root is taken away before the first command. `cat` ends when this process does, however it ends: then the kernel
# kills all that runs there, and what was mounted goes with the last of it.
COPY = """set -e
mount -t tmpfs -o mode=755 machine "$1"
cd "$1"
mkdir changes work root
mount -t overlay -o lowerdir=/,upperdir=changes,workdir=work overlay root
cd root
mount -t proc proc proc
mount --rbind /dev dev
pivot_root . mnt
umount --lazy /mnt
echo copied
exec cat
"""
# A loopback network of its own, on which every port is free.
ALONE = [sys.executable, ROOT / "tools" / "offline.py", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
NAMESPACES = ("mount", "pid", "net")
CLEAN = ["env", "--ignore-environment", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]


def copying(place):
    """The command that makes a copy; `place` is an empty folder."""
    return [*ALONE, "sh", "-c", COPY, "copy", place]


def whats_missing(place):
    """Why no such machine can be made here, or None."""
    if sys.platform != "linux" or os.getuid():
        return "other accounts need root, on Linux"
    tried = subprocess.run(copying(place), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return tried.stderr if tried.returncode else None


class Machine:
    """The copy, while it is entered as a context; `place` is an empty folder."""

    def __init__(self, place):
        self.place = place

    def __enter__(self):
        self.process = subprocess.Popen(copying(self.place), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "copied\n"
        self.first = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().strip()
        return self

    def __exit__(self, *exception):
        self.process.communicate()  # closes what `cat` reads

    def entering(self, *namespaces):
        """What stands before a command that is to run there."""
        return ["nsenter", f"--target={self.first}", *(f"--{namespace}" for namespace in namespaces)]

    def command(self, script, user="root"):
        """The command that gives `script` to a login shell of `user`."""
        return [*self.entering(*NAMESPACES), *CLEAN, "runuser", "--login", user, "--command", script]

    def run(self, script, user="root", succeeds=True):
        """Give `script` to a login shell of `user`, and return what it prints once it has ended."""
        done = subprocess.run(self.command(script, user), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert (done.returncode == 0) == succeeds, f"{user}: {script}\nended with {done.returncode}:\n{said}"
        return said
