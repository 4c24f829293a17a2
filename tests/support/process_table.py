"""Reading /proc: children, marks and memory of processes that the tests started; and stopping them for a while."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tests.support.waiting import wait_until

_PROC: Final = Path("/proc")
_ENDED: Final = ("Z", "X", "")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def children_of(pid: int) -> list[int]:
    """The direct, living children of a process, whichever of its threads started them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                found += [int(word) for word in (task / "children").read_text().split()]
    return sorted(child for child in found if is_alive(child))


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    return _state_and_parent(pid)[0] not in _ENDED


@contextlib.contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """The processes sleep inside the block, all of their threads."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            wait_until(partial(_has_stopped, pid), message=f"{pid} does not stop")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def command_of(pid: int) -> str:
    """The command line, for messages."""
    with contextlib.suppress(OSError):
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()
    return "(gone)"


def resident_bytes(pid: int) -> int:
    """The process's resident memory in bytes; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def open_descriptors(pid: int) -> int:
    """How many file descriptors the process holds; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return len(list((_PROC / str(pid) / "fd").iterdir()))
    return 0


def marked_processes(mark: str) -> dict[int, int]:
    """pid → parent's pid of every living process whose environment holds ``mark``."""
    wanted = mark.encode()
    found: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes():
                state, parent = _state_and_parent(int(entry.name))
                if state not in _ENDED:
                    found[int(entry.name)] = parent
    return found


def _has_stopped(pid: int) -> bool:
    return _state_and_parent(pid)[0] == "T"


def _state_and_parent(pid: int) -> tuple[str, int]:
    """The kernel's letter for it (``T`` is stopped), and its parent's pid; "" and 0 if it is gone."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return "", 0
    # The command's name stands in brackets and may hold anything; the state follows the last one.
    state, parent, *_ = stat.rpartition(")")[2].split()
    return state, int(parent)
