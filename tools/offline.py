"""Run a command without a network, except for this machine's loopback: python tools/offline.py COMMAND ...

    python tools/offline.py make test

Linux only. The command and everything it starts run in a new network namespace; users other than root need a new user
namespace for that, which the system may not allow. Without a COMMAND: exit 0 if it is possible here, 1 if not.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

# linux/sched.h, linux/sockios.h, linux/if.h
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def leave_the_network() -> None:
    """Move this process to a network namespace with nothing but loopback; OSError where that is not allowed."""
    user, group = os.getuid(), os.getgid()
    if user == 0:
        unshare(CLONE_NEWNET)
    else:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def unshare(flags: int) -> None:
    """As os.unshare, which is new in Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    try:
        leave_the_network()
    except (OSError, AttributeError) as error:  # AttributeError: only Linux has the call
        sys.exit(f"No namespace without a network can be made here: {error}")
    if sys.argv[1:]:
        os.execvp(sys.argv[1], sys.argv[1:])
