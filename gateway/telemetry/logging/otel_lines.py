"""What OpenTelemetry logs: at most one line a minute, over all workers of the instance.

With its collector away an exporter complains at every batch, and a full queue at every span. One line says it; how many
were left out is in the next one. The minute is kept in a file without a name that the workers inherit from the master:
a lock that the kernel gives back, whoever dies.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import tempfile
import threading
import time
from typing import Final

_SECONDS: Final = 60.0
_LAST: Final = struct.Struct("d")
_log = logging.getLogger(__name__)


class Pace:
    """Lets one through every ``seconds``, over all processes forked from the one that made it."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # as long as this lives
        self._lock = threading.Lock()

    def passes(self) -> bool:
        """Whether it is this one's turn. Never waits."""
        with self._lock:  # the file's lock keeps processes apart, not threads
            descriptor = self._file.fileno()
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False  # another process is being let through right now
            try:
                return self._step(descriptor)
            finally:
                fcntl.lockf(descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back; nobody is let through any more."""
        self._file.close()

    def _step(self, descriptor: int) -> bool:
        # The monotonic clock is the same for all processes of a machine.
        now, written = time.monotonic(), os.pread(descriptor, _LAST.size, 0)
        if len(written) == _LAST.size and now - _LAST.unpack(written)[0] < self._seconds:
            return False
        os.pwrite(descriptor, _LAST.pack(now), 0)
        return True


class Seldom(logging.Handler):
    """Passes a line on at the given pace, and how many were left out in this process since its last one."""

    def __init__(self, pace: Pace) -> None:
        super().__init__(logging.WARNING)
        self._pace = pace
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`. Called under the handler's lock."""
        if not self._pace.passes():
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        since = f" (and {left_out} lines before it that were left out)" if left_out else ""
        _log.warning("traces: %s%s", record.getMessage(), since)

    def close(self) -> None:
        """See `logging.Handler`."""
        self._pace.close()
        super().close()


_pace: Pace | None = None


def share() -> None:
    """Keep one pace for all workers. Called before the fork; without it each process keeps its own."""
    global _pace
    _pace = Pace()


def install() -> None:
    """Take over what OpenTelemetry logs in this process. Called after logging is configured."""
    logger = logging.getLogger("opentelemetry")
    logger.handlers = [Seldom(_pace or Pace())]
    logger.propagate = False
