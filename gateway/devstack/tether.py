"""Become another program that dies with its parent: ``python tether.py <parent pid> <signal> <command…>``.

Asks the kernel (``PR_SET_PDEATHSIG``) to send ``signal`` to this process when the thread that started it
ends, then executes the command in its place: same process id, no supervisor beside it. Where the kernel
has no such call (not Linux) the command runs untethered.

Imports nothing of the package, so that it costs a few milliseconds only.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tether this process and execute the command; returns only by exiting."""
    parent, signal_number, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
            sys.exit(f"tether: prctl: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != parent:
            sys.exit(f"tether: the parent {parent} is gone already")
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"tether: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
