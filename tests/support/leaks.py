"""Every test leaves the house as it found it: no stray process, no thread that keeps Python alive.

Each process that a test starts inherits a mark in its environment. A marked process that does not descend
from this one has lost its parent: somebody was killed and forgot its children.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.process_table import children_of, command_of, marked_processes
from tests.support.waiting import wait_until

MARK_VARIABLE: Final = "BEAMLINE_TEST_RUN"
_SETTLE_SECONDS: Final = 10.0


@pytest.fixture(scope="session", autouse=True)
def process_mark() -> Iterator[str]:
    """The mark that everything started by this run carries; at the end nothing with it may live."""
    mark = f"{MARK_VARIABLE}={uuid.uuid4().hex}"
    os.environ[MARK_VARIABLE] = mark.partition("=")[2]
    yield mark
    del os.environ[MARK_VARIABLE]
    wait_until(
        lambda: not marked_processes(mark),
        _SETTLE_SECONDS,
        lambda: f"the run leaves processes behind: {_named(marked_processes(mark))}",
    )


@pytest.fixture(autouse=True)
def leaves_nothing_behind(process_mark: str) -> Iterator[None]:
    """Fails a test that leaves a child process, an orphan or a non-daemon thread behind."""
    children = set(children_of(os.getpid()))
    threads = set(threading.enumerate())
    orphans_before = _orphans(process_mark)
    yield

    def strays() -> list[str]:
        new_children = set(children_of(os.getpid())) - children
        orphans = _orphans(process_mark) - orphans_before
        new_threads = [
            thread
            for thread in threading.enumerate()
            if thread not in threads and not thread.daemon
        ]
        return _named(new_children | orphans) + [f"thread {thread.name}" for thread in new_threads]

    wait_until(lambda: not strays(), _SETTLE_SECONDS, lambda: f"left behind: {strays()}")


def _orphans(mark: str) -> set[int]:
    marked = marked_processes(mark)
    return {pid for pid, parent in marked.items() if not _ours(parent, marked)}


def _ours(parent: int, marked: dict[int, int]) -> bool:
    me = os.getpid()
    while parent != me:
        if parent not in marked:
            return False
        parent = marked[parent]
    return True


def _named(pids: set[int] | dict[int, int]) -> list[str]:
    return [f"process {pid}: {command_of(pid)}" for pid in sorted(pids)]
