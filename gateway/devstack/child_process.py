"""Child processes that never outlive us: started tethered, ended within a bound.

`spawn` returns an ordinary `subprocess.Popen`. The child leads a session of its own, so that Ctrl-C at
the terminal reaches only us and we end the children in order; and the kernel ends it when this process
dies, however it dies (`gateway.devstack.tether`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final

_TETHER: Final = Path(__file__).with_name("tether.py")
_KILL_SECONDS: Final = 10.0

Child = subprocess.Popen[bytes]
Output = int | IO[bytes]


class _SpawnerThread:
    """One thread that starts every child and lives until the process ends.

    The kernel's parent-death signal follows the *thread* that forked, not the process: a child started
    by a short-lived thread (a test that restarts its server under load) would be killed when that thread
    returns.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]] = (
            queue.SimpleQueue()
        )
        self._owner = os.getpid()
        threading.Thread(target=self._work, name="devstack-spawner", daemon=True).start()

    def usable(self) -> bool:
        """False in a forked copy of the process, where the thread does not exist."""
        return self._owner == os.getpid()

    def run(self, start: Callable[[], Child]) -> Child:
        done: Future[Child] = Future()
        self._jobs.put((start, done))
        return done.result()

    def _work(self) -> None:
        while True:
            start, done = self._jobs.get()
            try:
                done.set_result(start())
            except BaseException as error:
                done.set_exception(error)


_spawner: _SpawnerThread | None = None
_spawner_lock = threading.Lock()


def spawn(
    command: Sequence[str],
    *,
    stdout: Output,
    stderr: Output = subprocess.STDOUT,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> Child:
    """Start ``command`` (its first word an absolute path) without a standard input.

    ``death_signal`` is what the kernel sends it when this process dies; a frozen child needs SIGKILL.
    """
    global _spawner
    with _spawner_lock:
        if _spawner is None or not _spawner.usable():
            _spawner = _SpawnerThread()
        spawner = _spawner
    tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(int(death_signal))]
    return spawner.run(
        lambda: subprocess.Popen(
            [*tether, *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    )


def terminate(child: Child, timeout: float) -> bool:
    """SIGTERM (a frozen child is thawed for it), wait, and SIGKILL its whole session after ``timeout`` s.

    True if the child ended by itself in time; False if it had to be killed.
    """
    for number in (signal.SIGCONT, signal.SIGTERM):
        send(child, number)
    try:
        child.wait(timeout)
    except subprocess.TimeoutExpired:
        kill(child)
        return False
    return True


def kill(child: Child) -> None:
    """SIGKILL the child and whatever it started in its session, and wait until the child is gone."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        send(child, signal.SIGKILL)  # also before it has become the leader of its session
    child.wait(_KILL_SECONDS)


def freeze(child: Child) -> None:
    """SIGSTOP, and wait until every thread of the child has stopped: the signal alone is not at once."""
    send(child, signal.SIGSTOP)
    if sys.platform == "linux":
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def send(child: Child, number: signal.Signals) -> None:
    """Send a signal unless the child is gone."""
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)
