"""How log lines leave the process: in order, whole, and never at the cost of a request.

The reader at the other end of stderr may be slow, stopped or gone. A thread that writes to a full pipe hangs, and with
it whoever waits for the same lock: requests, and the loop that talks to NATS. So:

* In a worker lines go through a bounded queue to a thread of their own (`QueuedLines`). What does not fit is lost and
  counted, and the log says so as soon as somebody reads again.
* gunicorn's master may have no thread, as it forks (`DirectLines`). It writes where the pipe takes something at once,
  and loses a line otherwise; it has little to say.
* A reader that is gone (EPIPE) costs the lines and nothing else.

The processes of an instance share one pipe, which keeps their writes apart up to 4,096 bytes only: a long traceback
would be torn by another's line. So who writes to a pipe locks it meanwhile; the lock ends with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Final, Protocol

STDERR: Final = 2
_MOST_WAITING: Final = 4_096
"""Lines: a megabyte or two, or a second of a worker at its limit."""
_BATCH: Final = 512
_GATHER_SECONDS: Final = 0.01
"""How long the writer waits for more lines to come. Whoever puts a line while it does need not wake it."""
_DIRECT_SECONDS: Final = 0.05
_POLL_SECONDS: Final = 0.001
_FLUSH_SECONDS: Final = 1.0

Notice = Callable[[int], bytes]
"""Makes the line that says how many were lost."""


class Lines(Protocol):
    """A way out for lines, each with its newline."""

    def put(self, line: bytes) -> None:
        """Take one line. Never raises, and waits at most a moment."""
        ...

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until what was taken is written; False if it is not within the time."""
        ...


class DirectLines:
    """Writes each line at once, or not at all."""

    def __init__(self, descriptor: int, notice: Notice) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._lost = 0
        self._is_torn = False

    def put(self, line: bytes) -> None:
        """See `Lines`."""
        before = b"\n" if self._is_torn else b""
        if self._lost:
            before += self._notice(self._lost)
        if self._write(before + line):
            self._lost = 0
        else:
            self._lost += 1

    def flush(self, timeout_seconds: float) -> bool:
        """See `Lines`."""
        return True

    def _write(self, content: bytes) -> bool:
        end = time.monotonic() + _DIRECT_SECONDS
        try:
            with _alone(self._descriptor, end):
                for start in range(0, len(content), select.PIPE_BUF):
                    # A pipe that can be written to has room for this much; more would make the write wait.
                    _wait_for_room(self._descriptor, end)
                    os.write(self._descriptor, content[start : start + select.PIPE_BUF])
                    self._is_torn = start + select.PIPE_BUF < len(content)
        except OSError:
            return False
        return True


class QueuedLines:
    """Hands lines to a thread that writes them. Made after the fork; the thread starts with the first line."""

    def __init__(
        self,
        descriptor: int,
        notice: Notice,
        count_lost: Callable[[int], None] = lambda lost: None,
        *,
        most: int = _MOST_WAITING,
    ) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._count_lost = count_lost
        self._most = most
        # Its `put` may be interrupted by a signal handler that puts, too: a lock of our own would hang there.
        self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._lost = 0
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> None:
        """See `Lines`. Costs a microsecond or two."""
        if self._queue.qsize() >= self._most:
            self._lose(1)
            return
        self._queue.put(line)
        if self._thread is None:
            self._start()

    def flush(self, timeout_seconds: float) -> bool:
        """See `Lines`."""
        if self._thread is None:
            return self._queue.empty()
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(timeout_seconds)

    def _start(self) -> None:
        # Without waiting: a signal handler may log while its own thread is in here, and whoever is starts it.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:
            pass  # the interpreter is ending
        finally:
            self._starting.release()

    def _run(self) -> None:
        while True:
            items = list(self._waiting())
            if lines := [item for item in items if isinstance(item, bytes)]:
                self._write(lines)
            for item in items:
                if isinstance(item, threading.Event):
                    item.set()

    def _waiting(self) -> Iterator[bytes | threading.Event]:
        """At least one item, and what else is there a moment later."""
        first = self._queue.get()
        yield first
        if isinstance(first, bytes):
            time.sleep(_GATHER_SECONDS)
        for _ in range(_BATCH):
            try:
                yield self._queue.get_nowait()
            except Empty:
                return

    def _write(self, lines: list[bytes]) -> None:
        lost = self._lost
        notice = self._notice(lost) if lost else b""
        try:
            with _alone(self._descriptor):
                _write_all(self._descriptor, b"".join(lines) + notice)
            self._lost -= lost
        except OSError:
            self._lose(len(lines))

    def _lose(self, lines: int) -> None:
        self._lost += lines
        self._count_lost(lines)


class LineHandler(logging.Handler):
    """Formats records and hands them to `Lines`. Whatever goes wrong with a record ends as a line that says so."""

    def __init__(self, count_lost: Callable[[int], None] | None = None) -> None:
        super().__init__()
        # Without a stderr the number belongs to whatever was opened next: to a client's connection, perhaps.
        descriptor = STDERR if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY)
        self._lines: Lines = (
            DirectLines(descriptor, self._notice)
            if count_lost is None
            else QueuedLines(descriptor, self._notice, count_lost)
        )

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock of the base class: formatting needs none, and `Lines` take lines from any thread."""
        passed = bool(self.filter(record))
        if passed:
            self.emit(record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises."""
        try:
            line = self._line(record)
        except Exception as error:
            line = self._line(
                _record(f"a line of {record.name} could not be made: {type(error).__name__}")
            )
        self.put(line)

    def put(self, line: bytes) -> None:
        """Write a line that is rendered already, its newline with it, in its turn. Never raises."""
        self._lines.put(line)

    def flush(self) -> None:
        """Wait a moment for what is still on its way; called at the end of the process."""
        self._lines.flush(_FLUSH_SECONDS)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _notice(self, lost: int) -> bytes:
        return self._line(_record(f"{lost} log lines were lost: nobody read them in time"))


def _record(message: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, None, None)


@contextlib.contextmanager
def _alone(descriptor: int, end: float | None = None) -> Iterator[None]:
    """Keep other processes from writing to the same pipe. Raises OSError if they do until ``end``."""
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        yield
        return
    how = fcntl.LOCK_EX if end is None else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        try:
            fcntl.lockf(descriptor, how)
            break
        except BlockingIOError:
            if end is None or time.monotonic() > end:
                raise
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


def _wait_for_room(descriptor: int, end: float) -> None:
    """Raises TimeoutError, which is an OSError, if nothing can be written without waiting until ``end``."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
        raise TimeoutError


def _write_all(descriptor: int, content: bytes) -> None:
    """Write all of it, however long that takes. Raises OSError when nobody can read it any more."""
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # somebody made the pipe, which others share with us, non-blocking
            select.select((), (descriptor,), ())
